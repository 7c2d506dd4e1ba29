//! The unikernel as a sandbox whose launch is the restoring of a snapshot.

use super::{AttachError, Attachment, UnikernelSandbox, enclosure, start};
use crate::enclosure::Monitor;
use crate::snapshot::open::Snapshot;
use crate::snapshot::take::{Afterwards, take};
use isobench_workload::{Family, Instance, LaunchError, Sandbox, Stage, Stages, Workload, clock};
use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long the guest that is saved may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// The sandbox `vm-unikernel-restored`: each launch is a clone of one unikernel that was ready, at an address of its own.
///
/// The snapshot is taken by the first launch of a workload, before [`Stage::Started`], and verified then, once. Its files have no
/// name afterwards and go with this value. A monitor opens them by this process's descriptors when it starts, so that the value must
/// live until its instances are ready.
#[derive(Debug)]
pub struct RestoredSandbox<F> {
    booted: UnikernelSandbox<F>,
    directory: PathBuf,
    taken: Option<(Workload, Snapshot)>,
    launched: u64,
}

impl<F: FnMut() -> Result<Attachment, AttachError>> RestoredSandbox<F> {
    /// Clones of what `booted` launches, which is a virtual machine. `directory` is there, and has the files while the snapshot is
    /// taken; its path may have 90 bytes, for a socket lies in it (unix(7)).
    pub fn new(booted: UnikernelSandbox<F>, directory: PathBuf) -> Self {
        Self { booted, directory, taken: None, launched: 0 }
    }

    fn failed(&self, step: &str, source: impl Into<AttachError>) -> LaunchError {
        LaunchError::Step { sandbox: self.name().into(), step: step.into(), source: source.into() }
    }

    /// A snapshot of a guest that is ready, made in a directory that is gone afterwards, whatever happened.
    fn take(&mut self, workload: &Workload) -> Result<Snapshot, LaunchError> {
        let place = self.directory.join("taking");
        fs::create_dir(&place).map_err(|source| self.failed("make a directory for the snapshot", source))?;
        let taken = self.take_in(&place, workload);
        let removed = fs::remove_dir_all(&place);
        let taken = taken?;
        removed.map_err(|source| self.failed("remove the snapshot's directory", source))?;
        Ok(taken)
    }

    fn take_in(&mut self, place: &Path, workload: &Workload) -> Result<Snapshot, LaunchError> {
        let (socket, files) = (place.join("control"), place.join("snapshot"));
        let mut guest = self.booted.launch_with(workload, Some(&socket))?;
        guest.await_ready(PATIENCE).map_err(|source| self.failed("wait for the guest that is to be saved", source))?;
        take(&socket, &files, Afterwards::Stay).map_err(|source| self.failed("take the snapshot", source))?;
        let ended = guest.destroy().map_err(|errors| errors.into_iter().next());
        if let Err(Some(source)) = ended {
            return Err(self.failed("end the guest that was saved", source));
        }
        Snapshot::open(&files).map_err(|source| self.failed("open the snapshot", source))
    }
}

impl<F: FnMut() -> Result<Attachment, AttachError>> Sandbox for RestoredSandbox<F> {
    fn name(&self) -> &str {
        "vm-unikernel-restored"
    }

    fn family(&self) -> Family {
        Family::Unikernel
    }

    fn launch(&mut self, workload: &Workload) -> Result<Instance, LaunchError> {
        let snapshot = match self.taken.take() {
            Some((saved, snapshot)) if saved == *workload => snapshot,
            _ => self.take(workload)?,
        };
        let (_, snapshot) = self.taken.insert((workload.clone(), snapshot));
        let mut command = Command::new(&self.booted.program);
        command.arg("restore");
        for (option, file) in [("--memory-file", snapshot.memory()), ("--state-file", snapshot.state())] {
            command.args([option, &format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())]);
        }
        let mut stages = Stages::default();
        stages.stamp(Stage::Started, clock::now());
        let attachment = (self.booted.attach)().map_err(|source| self.failed("attach a tap", source))?;
        self.launched += 1;
        let monitor = Monitor { command, enclosure: enclosure(&self.booted.enclosure) };
        start(self.name(), self.launched, monitor, attachment, workload, stages)
    }
}
