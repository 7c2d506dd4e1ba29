//! Linux in a virtual machine as a sandbox.

use super::kernel::{Kernel, KernelError};
use super::{BalloonKind, Frames};
use crate::enclosure::{Enclosure, Monitor};
use crate::memory::Pages;
use crate::sandbox::{AttachError, Attachment, Savable, enclosure, launch_clone, start};
use isobench_workload::{
    Family, Instance, LaunchError, Released, Resource, Sandbox, Stage, Stages, Unsupported, Workload, clock,
};
use std::cell::OnceCell;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Memory of a Linux guest unless told otherwise, in bytes: a distribution's kernel unpacks itself in half of it.
pub const MEMORY: u64 = 128 << 20;

/// A guest's disk: a raw image or a block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFile {
    /// The file. `isobench-vmm` opens it by this path.
    pub path: PathBuf,
    /// Whether it is never written.
    pub read_only: bool,
}

impl DiskFile {
    /// It as `isobench-vmm` takes it.
    fn words(&self) -> OsString {
        let mut words = self.path.clone().into_os_string();
        words.push(if self.read_only { ":ro" } else { ":rw" });
        words
    }
}

/// The sandbox `vm-linux`.
pub struct LinuxSandbox<F> {
    program: PathBuf,
    kernel: PathBuf,
    agent: PathBuf,
    memory: u64,
    processors: u8,
    disks: Vec<DiskFile>,
    pages: Pages,
    populated: bool,
    entropy: bool,
    balloon: Option<BalloonKind>,
    frames: Frames,
    control: Option<PathBuf>,
    tied: bool,
    attach: F,
    launched: u64,
    enclosure: OnceCell<Option<Enclosure>>,
}

impl<F> fmt::Debug for LinuxSandbox<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = formatter.debug_struct("LinuxSandbox");
        text.field("program", &self.program).field("kernel", &self.kernel).field("agent", &self.agent);
        text.field("memory", &self.memory).field("processors", &self.processors).field("disks", &self.disks);
        text.field("pages", &self.pages).field("populated", &self.populated);
        text.field("entropy", &self.entropy).field("balloon", &self.balloon).field("control", &self.control);
        text.finish_non_exhaustive()
    }
}

impl<F: FnMut() -> Result<Attachment, AttachError>> LinuxSandbox<F> {
    /// A sandbox that runs `program`, which is `isobench-vmm`, with this kernel, this agent as /init, so many bytes of memory, and
    /// taps that `attach` provides, one for each launch. `isobench-vmm` opens the agent by its path, so that one which lies in
    /// memory is named by its owner's number (`/proc/123/fd/7`).
    ///
    /// # Errors
    /// Where the kernel can't be read or is none.
    pub fn new(program: PathBuf, kernel: PathBuf, agent: PathBuf, memory: u64, attach: F) -> Result<Self, KernelError> {
        Kernel::open(&kernel)?;
        Ok(Self {
            program,
            kernel,
            agent,
            memory,
            processors: 1,
            disks: Vec::new(),
            pages: Pages::System,
            populated: false,
            entropy: false,
            balloon: None,
            frames: Frames::Either,
            control: None,
            tied: false,
            attach,
            launched: 0,
            enclosure: OnceCell::new(),
        })
    }

    /// The same, with so many processors. A launch ends with a sentence where the machine or the kernel can't have as many.
    #[must_use]
    pub fn with_processors(self, processors: u8) -> Self {
        Self { processors, ..self }
    }

    /// The same, with memory that is made of these pages.
    #[must_use]
    pub fn with_pages(self, pages: Pages) -> Self {
        Self { pages, ..self }
    }

    /// The same, with memory that is taken before the guest runs, all of it.
    #[must_use]
    pub fn with_populated_memory(self) -> Self {
        Self { populated: true, ..self }
    }

    /// The same, with a device that gives random numbers.
    #[must_use]
    pub fn with_entropy(self) -> Self {
        Self { entropy: true, ..self }
    }

    /// The same, with a balloon, which [`crate::control::set_balloon`] sets on the control socket.
    #[must_use]
    pub fn with_balloon(self, kind: BalloonKind) -> Self {
        Self { balloon: Some(kind), ..self }
    }

    /// The same, with its card's frames moved by somebody in particular.
    #[must_use]
    pub fn with_frames(self, frames: Frames) -> Self {
        Self { frames, ..self }
    }

    /// The same, with a [control](crate::control) socket at this path, which goes with the instance; for one launch at a time. A
    /// path may have 107 bytes (unix(7)).
    #[must_use]
    pub fn with_control(self, socket: PathBuf) -> Self {
        Self { control: Some(socket), ..self }
    }

    /// Has the kernel kill each virtual machine, clones too, when the thread that launched it ends, however it does, as with
    /// [`UnikernelSandbox::tied`](crate::sandbox::UnikernelSandbox::tied).
    #[must_use]
    pub fn tied(self) -> Self {
        Self { tied: true, ..self }
    }

    /// The same, with these disks, which the guest calls vda, vdb and so on. A launch ends with a sentence where one can't be
    /// used.
    #[must_use]
    pub fn with_disks(self, disks: Vec<DiskFile>) -> Self {
        Self { disks, ..self }
    }
}

/// The file of a control socket.
#[derive(Debug)]
struct ControlSocket(PathBuf);

impl Resource for ControlSocket {
    fn describe(&self) -> String {
        format!("control socket {}", self.0.display())
    }

    fn release(self: Box<Self>) -> Released {
        match std::fs::remove_file(&self.0) {
            // A machine that never came so far made none.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(None),
        }
    }
}

impl<F: FnMut() -> Result<Attachment, AttachError>> Sandbox for LinuxSandbox<F> {
    fn name(&self) -> &str {
        "vm-linux"
    }

    fn family(&self) -> Family {
        Family::Linux
    }

    fn launch(&mut self, workload: &Workload) -> Result<Instance, LaunchError> {
        let control = self.control.clone();
        self.launch_with(workload, control)
    }
}

impl<F: FnMut() -> Result<Attachment, AttachError>> Savable for LinuxSandbox<F> {
    fn restored_name(&self) -> &'static str {
        "vm-linux-restored"
    }

    fn launch_savable(&mut self, workload: &Workload, control: &Path) -> Result<Instance, LaunchError> {
        self.launch_with(workload, Some(control.into()))
    }

    fn launch_clone(&mut self, words: &[String], number: u64, workload: &Workload) -> Result<Instance, LaunchError> {
        let (name, mut command) = (self.restored_name(), Command::new(&self.program));
        command.args(words);
        self.disks.iter().for_each(|disk| _ = command.arg("--disk").arg(disk.words()));
        let monitor = Monitor { command, enclosure: enclosure(&self.enclosure), tied: self.tied };
        launch_clone(name, number, monitor, &mut self.attach, (&[], workload))
    }
}

impl<F: FnMut() -> Result<Attachment, AttachError>> LinuxSandbox<F> {
    fn launch_with(&mut self, workload: &Workload, control: Option<PathBuf>) -> Result<Instance, LaunchError> {
        if matches!(workload, Workload::Program { .. }) {
            let what = "a program of your own in the Linux guest".into();
            return Err(Unsupported { what, why: "its initramfs holds the agent alone".into() }.into());
        }
        let mut stages = Stages::default();
        stages.stamp(Stage::Started, clock::now());
        let attachment = (self.attach)().map_err(|source| LaunchError::Step {
            sandbox: self.name().into(),
            step: "attach a tap".into(),
            source,
        })?;
        let mut command = Command::new(&self.program);
        command.arg("linux").arg("--kernel").arg(&self.kernel).arg("--agent").arg(&self.agent);
        command.args(["--memory", &self.memory.to_string()]);
        if self.processors != 1 {
            command.args(["--cpus", &self.processors.to_string()]);
        }
        self.disks.iter().for_each(|disk| _ = command.arg("--disk").arg(disk.words()));
        match self.pages {
            Pages::System => {}
            Pages::Small => _ = command.args(["--pages", "small"]),
            Pages::Huge => _ = command.args(["--pages", "huge"]),
        }
        if self.populated {
            command.args(["--populate", "on"]);
        }
        if self.entropy {
            command.args(["--rng", "on"]);
        }
        if let Some(kind) = self.balloon {
            command.args(["--balloon", if kind == BalloonKind::Reporting { "reporting" } else { "plain" }]);
        }
        match self.frames {
            Frames::Either => {}
            Frames::Kernel => _ = command.args(["--vhost", "on"]),
            Frames::Monitor => _ = command.args(["--vhost", "off"]),
        }
        let mut attachment = attachment;
        if let Some(socket) = control {
            command.arg("--control").arg(&socket);
            attachment.resources.push(Box::new(ControlSocket(socket)));
        }
        for argument in workload.arguments() {
            command.args(["--argument", &argument]);
        }
        self.launched += 1;
        let monitor = Monitor { command, enclosure: enclosure(&self.enclosure), tied: self.tied };
        start(self.name(), self.launched, monitor, Some(attachment), workload, stages)
    }
}
