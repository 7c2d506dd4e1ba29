//! What a supervisor does when its container has ended.

use super::streams::drain;
use super::{PATIENCE, Supervisor};
use crate::instances::OWN_FAILURE;
use crate::instances::connection::Connection;
use crate::instances::connection::Role;
use crate::instances::state::{State, Status, now};
use crate::instances::store::{self, CONTROL, STATE};
use crate::json_file;
use anyhow::Context;
use rustix::fs::{FlockOperation, flock};
use std::path::Path;
use std::sync::Arc;

impl Supervisor {
    /// The container has ended: everything is given back, and everybody told.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        let code = self.ended.unwrap_or(OWN_FAILURE);
        for output in 0..self.task.outputs() {
            drain(|| self.carry_first(output));
        }
        let _ = self.log.finish();
        // With the first process of their namespace all others have been killed.
        while !self.further.is_empty() {
            self.end_further(0)?;
        }
        self.attachment.close()?;
        if let Some(cgroup) = self.cgroup.take().and_then(Arc::into_inner) {
            cgroup.remove(PATIENCE)?;
        }
        // Before the socket goes: whoever finds none looks here.
        if self.request.remove {
            store::remove_directory(&std::env::current_dir().context("find the container's directory")?)?;
        } else {
            let ended = State {
                status: Status::Exited,
                process: String::new(),
                finished: Some(now()),
                exit_code: code,
                control_group: None,
                link: None,
                places: Vec::new(),
                ports: Vec::new(),
                ..self.state.clone()
            };
            json_file::write(Path::new(STATE), &ended)?;
            let _ = std::fs::remove_file(CONTROL);
        }
        let released = self.attachment.release_tap();
        // Who connected in the last moment is told too.
        self.accept();
        let concerned = |connection: &&mut Connection| connection.role != Role::Answered;
        self.connections.iter_mut().filter(concerned).for_each(|connection| connection.end(code));
        // From here on the container may be started again or removed.
        flock(&self.lock, FlockOperation::Unlock).context("give the container's lock back")?;
        released.and_then(|()| self.attachment.release())?;
        self.connections.retain(|connection| !connection.is_flushed());
        while !self.connections.is_empty() {
            self.turn()?;
        }
        Ok(())
    }
}
