//! A virtual machine as a sandbox whose launch is the restoring of a snapshot.

use super::{AttachError, Attachment, start};
use crate::enclosure::Monitor;
use crate::snapshot::open::Snapshot;
use crate::snapshot::take::{Afterwards, take};
use isobench_workload::{Family, Instance, LaunchError, Sandbox, Stage, Stages, Workload, clock};
use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the guest that is saved may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(120);

/// A sandbox whose guests can be saved and restored.
pub trait Savable: Sandbox {
    /// The name of the sandbox whose launches restore them.
    fn restored_name(&self) -> &'static str;

    /// Launches an instance with a [control](crate::control) socket at this path.
    ///
    /// # Errors
    /// As [`Sandbox::launch`].
    fn launch_savable(&mut self, workload: &Workload, control: &Path) -> Result<Instance, LaunchError>;

    /// Launches the clone of this number by these words for `isobench-vmm`, on a tap of its own.
    ///
    /// # Errors
    /// As [`Sandbox::launch`].
    fn launch_clone(&mut self, words: &[String], number: u64, workload: &Workload) -> Result<Instance, LaunchError>;
}

/// The sandboxes `vm-unikernel-restored` and `vm-linux-restored`: each launch is a clone of one guest that was ready, at an address of
/// its own.
///
/// The snapshot is taken by the first launch of a workload, before [`Stage::Started`], and verified then, once. Its files have no
/// name afterwards and go with this value. A monitor opens them by this process's descriptors when it starts, so that the value must
/// live until its instances are ready.
#[derive(Debug)]
pub struct RestoredSandbox<S> {
    booted: S,
    directory: PathBuf,
    taken: Option<(Workload, Snapshot)>,
    launched: u64,
}

impl<S: Savable> RestoredSandbox<S> {
    /// Clones of what `booted` launches, which is a virtual machine. `directory` is there, and has the files while the snapshot is
    /// taken; its path may have 90 bytes, for a socket lies in it (unix(7)).
    pub fn new(booted: S, directory: PathBuf) -> Self {
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
        let mut guest = self.booted.launch_savable(workload, &socket)?;
        guest.await_ready(PATIENCE).map_err(|source| self.failed("wait for the guest that is to be saved", source))?;
        take(&socket, &files, Afterwards::Stay).map_err(|source| self.failed("take the snapshot", source))?;
        let ended = guest.destroy().map_err(|errors| errors.into_iter().next());
        if let Err(Some(source)) = ended {
            return Err(self.failed("end the guest that was saved", source));
        }
        Snapshot::open(&files).map_err(|source| self.failed("open the snapshot", source))
    }
}

impl<S: Savable> Sandbox for RestoredSandbox<S> {
    fn name(&self) -> &str {
        self.booted.restored_name()
    }

    fn family(&self) -> Family {
        self.booted.family()
    }

    fn launch(&mut self, workload: &Workload) -> Result<Instance, LaunchError> {
        let snapshot = match self.taken.take() {
            Some((saved, snapshot)) if saved == *workload => snapshot,
            _ => self.take(workload)?,
        };
        let (_, snapshot) = self.taken.insert((workload.clone(), snapshot));
        let mut words = vec!["restore".to_owned()];
        for (option, file) in [("--memory-file", snapshot.memory()), ("--state-file", snapshot.state())] {
            words.extend([option.into(), format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())]);
        }
        self.launched += 1;
        self.booted.launch_clone(&words, self.launched, workload)
    }
}

/// Launches a clone by the monitor's words; the tap is made within the launch, as that of a guest that boots.
pub(crate) fn launch_clone(
    sandbox: &str,
    number: u64,
    mut monitor: Monitor<'_>,
    attach: &mut impl FnMut() -> Result<Attachment, AttachError>,
    (words, workload): (&[String], &Workload),
) -> Result<Instance, LaunchError> {
    monitor.command.args(words);
    let mut stages = Stages::default();
    stages.stamp(Stage::Started, clock::now());
    let attachment = attach().map_err(|source| LaunchError::Step {
        sandbox: sandbox.into(),
        step: "attach a tap".into(),
        source,
    })?;
    start(sandbox, number, monitor, Some(attachment), workload, stages)
}
