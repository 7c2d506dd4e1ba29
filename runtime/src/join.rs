//! A further process in a container that runs already.
#![forbid(unsafe_code)]

use crate::error::Error;
use crate::launch::{Launched, launch};
use crate::plan::{Plan, c_string};
use crate::specification::{Namespaces, NetworkMode, Specification};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::sync::Arc;

/// The namespaces that the new process joins by itself; the one of process numbers is joined for it by its parent.
const JOINED: [&str; 5] = ["ipc", "uts", "net", "cgroup", "mnt"];

/// Launches a process in the container whose first process has this number, which the caller must know not to be reaped.
///
/// Of the specification count the program, arguments, environment, working directory (looked up inside), user, capabilities,
/// filter, limits, cgroup, streams and terminal; root, mounts, network and namespaces are the container's. It must be called
/// by a thread that alone makes processes: meanwhile they all would be made in the container.
pub fn join(container: i32, mut specification: Specification) -> Result<Launched, Error> {
    let directory = c_string(std::mem::take(&mut specification.working_directory))?;
    specification.namespaces = Namespaces::NONE;
    specification.network = NetworkMode::Host;
    specification.host_name = None;
    let joined = JOINED.iter().map(|kind| namespace(&format!("/proc/{container}/ns/{kind}")).map(Arc::new));
    specification.joined_namespaces = joined.collect::<Result<_, _>>()?;
    let numbers = namespace(&format!("/proc/{container}/ns/pid"))?;
    let own = namespace("/proc/thread-self/ns/pid")?;
    let mut plan = Plan::validate(specification)?;
    plan.joined_directory = Some(directory);
    plan.new_session = true;

    // Only what this thread makes from here on is in the namespace, not the thread itself (setns(2)).
    let entered = Entered::enter(&numbers, own)?;
    let launched = launch(plan);
    entered.leave()?;
    launched
}

fn namespace(path: &str) -> Result<OwnedFd, Error> {
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    opened.map_err(Error::system("open namespace", path))
}

/// While it lives, this thread makes its processes elsewhere.
struct Entered(Option<OwnedFd>);

impl Entered {
    fn enter(numbers: &OwnedFd, own: OwnedFd) -> Result<Self, Error> {
        move_into(numbers)?;
        Ok(Self(Some(own)))
    }

    fn leave(mut self) -> Result<(), Error> {
        self.0.take().map_or(Ok(()), |own| move_into(&own))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(own) = self.0.take() {
            let _ = move_into(&own);
        }
    }
}

fn move_into(namespace: &OwnedFd) -> Result<(), Error> {
    rustix::thread::move_into_link_name_space(namespace.as_fd(), None)
        .map_err(Error::system("enter", "the container's process numbers"))
}
