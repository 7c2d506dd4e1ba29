//! The unikernel as a sandbox: in a virtual machine, or as a plain process.
//!
//! Each instance is one process of `isobench-vmm`, started without a shell or a supervisor between.

mod restored;

pub(crate) use restored::launch_clone;
pub use restored::{RestoredSandbox, Savable};

use crate::enclosure::{Enclosure, Monitor};
use isobench_workload::{
    Family, Instance, LaunchError, Output, Process, Resource, Sandbox, Stage, Stages, Unsupported, Workload, clock,
};
use rustix::fd::OwnedFd;
use std::cell::OnceCell;
use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A tap that is attached to its link already, with the addresses of whoever reads it.
#[derive(Debug)]
pub struct Attachment {
    /// The tap, opened with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`.
    pub tap: OwnedFd,
    /// Its Ethernet address, unicast.
    pub mac: [u8; 6],
    /// Its IPv4 address.
    pub address: Ipv4Addr,
    /// Length of the network prefix in bits.
    pub prefix: u8,
    /// The router for all other addresses, where there is one.
    pub gateway: Option<Ipv4Addr>,
    /// What goes with the instance and outlives its process, such as the address, or the link if it is persistent.
    pub resources: Vec<Box<dyn Resource>>,
}

/// Why no tap could be attached.
pub type AttachError = Box<dyn Error + Send + Sync>;

/// In what the unikernel's code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Housing {
    /// A KVM virtual machine with this much memory in bytes: the sandbox `vm-unikernel`.
    VirtualMachine {
        /// Guest memory in bytes, a multiple of 2 MiB.
        memory: u64,
    },
    /// A plain process: the sandbox `unikernel-process`.
    Process,
}

/// Memory of a unikernel unless told otherwise, in bytes. It is taken only as far as it is used.
pub const MEMORY: u64 = 16 << 20;

/// How long a unikernel and its card look for frames before they sleep unless told otherwise, in microseconds: with 20, one
/// launch in some misses the answers of a round trip on one host.
pub const UNIKERNEL_SPIN: u32 = 50;

/// The sandbox that runs the unikernel.
pub struct UnikernelSandbox<F> {
    housing: Housing,
    program: PathBuf,
    attach: F,
    networked: bool,
    wire: bool,
    spin: bool,
    tied: bool,
    launched: u64,
    enclosure: OnceCell<Option<Enclosure>>,
}

impl<F> fmt::Debug for UnikernelSandbox<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = formatter.debug_struct("UnikernelSandbox");
        text.field("housing", &self.housing).field("program", &self.program).finish_non_exhaustive()
    }
}

impl<F: FnMut() -> Result<Attachment, AttachError>> UnikernelSandbox<F> {
    /// A sandbox that runs `program`, which is `isobench-vmm` (a path such as `/proc/self/fd/7` where it lies in memory), with
    /// taps that `attach` provides, one for each launch.
    pub fn new(housing: Housing, program: PathBuf, attach: F) -> Self {
        Self {
            housing,
            program,
            attach,
            networked: true,
            wire: false,
            spin: true,
            tied: false,
            launched: 0,
            enclosure: OnceCell::new(),
        }
    }

    /// The same, with packets as large as on a wire both ways. What bounds the segments of packets on the host's links
    /// (`gso_max_segs`) does not reach into a guest, so it must be told.
    #[must_use]
    pub fn with_wire_packets(self) -> Self {
        Self { wire: true, ..self }
    }

    /// The same, where both sides sleep at once when there is no frame, and look for none. A virtual machine is then the sandbox
    /// `vm-unikernel-sleeping`.
    #[must_use]
    pub fn without_spin(self) -> Self {
        Self { spin: false, ..self }
    }

    /// Has the kernel kill each virtual machine when the thread that launched it ends, however it does. Without it a monitor outlives
    /// a launcher that is killed, unless something else takes it along, such as the pid namespace of a testbed.
    #[must_use]
    pub fn tied(self) -> Self {
        Self { tied: true, ..self }
    }

    /// The same without a network: no tap is attached, and what serves is refused. A virtual machine is then the sandbox
    /// `vm-unikernel-none`.
    #[must_use]
    pub fn without_network(self) -> Self {
        Self { networked: false, ..self }
    }

    fn failed(&self, step: impl Into<String>, source: impl Into<AttachError>) -> LaunchError {
        LaunchError::Step { sandbox: self.name().into(), step: step.into(), source: source.into() }
    }

    /// Launches an instance, with a [control](crate::control) socket at this path where there is one, for a virtual machine alone.
    fn launch_with(&mut self, workload: &Workload, control: Option<&Path>) -> Result<Instance, LaunchError> {
        let words = words(workload)?;
        if let (false, Workload::Serve { .. }) = (self.networked, workload) {
            let (what, why) = ("a server in a unikernel without a network".into(), "nobody could reach it".into());
            return Err(Unsupported { what, why }.into());
        }
        let mut stages = Stages::default();
        // The network of a container is made within its launch, so the tap is as well.
        stages.stamp(Stage::Started, clock::now());
        let attachment = self.networked.then(&mut self.attach).transpose();
        let attachment = attachment.map_err(|source| self.failed("attach a tap", source))?;
        let mut command = Command::new(&self.program);
        match self.housing {
            Housing::VirtualMachine { memory } => command.args(["unikernel", "--memory", &memory.to_string()]),
            Housing::Process => command.arg("process"),
        };
        command.args(["--workload", &words, "--segmentation", if self.wire { "wire" } else { "offload" }]);
        if !self.spin {
            command.args(["--spin", "0"]);
        }
        if let Some(socket) = control {
            command.arg("--control").arg(socket);
        }
        // The plain process is no monitor, and is not shut in.
        let (enclosure, tied) = match self.housing {
            Housing::VirtualMachine { .. } => (enclosure(&self.enclosure), self.tied),
            Housing::Process => (None, false),
        };
        self.launched += 1;
        start(self.name(), self.launched, Monitor { command, enclosure, tied }, attachment, workload, stages)
    }
}

impl<F: FnMut() -> Result<Attachment, AttachError>> Sandbox for UnikernelSandbox<F> {
    fn name(&self) -> &str {
        match self.housing {
            Housing::VirtualMachine { .. } if !self.networked => "vm-unikernel-none",
            Housing::VirtualMachine { .. } if !self.spin => "vm-unikernel-sleeping",
            Housing::VirtualMachine { .. } => "vm-unikernel",
            Housing::Process => "unikernel-process",
        }
    }

    fn family(&self) -> Family {
        match self.housing {
            Housing::VirtualMachine { .. } => Family::Unikernel,
            Housing::Process => Family::Process,
        }
    }

    fn launch(&mut self, workload: &Workload) -> Result<Instance, LaunchError> {
        self.launch_with(workload, None)
    }
}

impl<F: FnMut() -> Result<Attachment, AttachError>> Savable for UnikernelSandbox<F> {
    fn restored_name(&self) -> &'static str {
        "vm-unikernel-restored"
    }

    fn launch_savable(&mut self, workload: &Workload, control: &Path) -> Result<Instance, LaunchError> {
        self.launch_with(workload, Some(control))
    }

    fn launch_clone(&mut self, words: &[String], number: u64, workload: &Workload) -> Result<Instance, LaunchError> {
        let (name, command) = (self.restored_name(), Command::new(&self.program));
        let monitor = Monitor { command, enclosure: enclosure(&self.enclosure), tied: self.tied };
        launch_clone(name, number, monitor, &mut self.attach, (words, workload))
    }
}

/// What a launcher encloses its monitors in, made when it is first needed. One who may make no namespaces leaves it to each monitor to
/// make what it can.
pub(crate) fn enclosure(cell: &OnceCell<Option<Enclosure>>) -> Option<&Enclosure> {
    cell.get_or_init(|| Enclosure::new().ok()).as_ref()
}

/// Starts `isobench-vmm`, enclosed or not, on a tap where it is to have one, with the options for the network added to its command.
pub(crate) fn start(
    sandbox: &str,
    number: u64,
    mut monitor: Monitor<'_>,
    attachment: Option<Attachment>,
    workload: &Workload,
    mut stages: Stages,
) -> Result<Instance, LaunchError> {
    let failed =
        |step: &str, source: AttachError| LaunchError::Step { sandbox: sandbox.into(), step: step.into(), source };
    monitor.command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped());
    let address = attachment.as_ref().map(|attachment| attachment.address);
    let resources = attachment.map(|attachment| connect(&mut monitor.command, attachment)).unwrap_or_default();
    let child = monitor.spawn();
    stages.stamp(Stage::Created, clock::now());
    // The child has its copy; this one must not keep the link alive.
    drop(monitor);
    let started = child.map_err(|source| failed("start isobench-vmm", source.into())).and_then(|mut child| {
        // A pipe was asked for, so there is one.
        let output = child.stdout.take().map(|output| Output::new(OwnedFd::from(output)));
        let process = Process::from_child(child.id()).map_err(|source| failed("watch isobench-vmm", source.into()))?;
        output.map(|output| (process, output)).ok_or_else(|| failed("read from isobench-vmm", "no pipe".into()))
    });
    let (process, output) = match started {
        Ok(started) => started,
        Err(error) => {
            // The launch failed already; what can't be released as well is swept by the next run.
            resources.into_iter().rev().for_each(|resource| drop(resource.release()));
            return Err(error);
        }
    };
    let server = match (workload, address) {
        (Workload::Serve { port }, Some(address)) => Some(SocketAddr::new(IpAddr::V4(address), *port)),
        _ => None,
    };
    let mut instance = Instance::new(format!("{sandbox}-{number}"), process, output, server, stages);
    resources.into_iter().for_each(|resource| instance.own(resource));
    Ok(instance)
}

/// Tells the command of its network, which it inherits; what is left goes with the instance.
fn connect(command: &mut Command, attachment: Attachment) -> Vec<Box<dyn Resource>> {
    let Attachment { tap, mac, address, prefix, gateway, resources } = attachment;
    let [a, b, c, d, e, f] = mac;
    command
        .args(["--address", &format!("{address}/{prefix}"), "--tap-fd", "0", "--mac"])
        .arg(format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"))
        .args(["--gateway", &gateway.unwrap_or(Ipv4Addr::UNSPECIFIED).to_string()])
        // As standard input, the tap is inherited by this child alone.
        .stdin(Stdio::from(tap));
    resources
}

/// The workload as `isobench-vmm` takes it.
fn words(workload: &Workload) -> Result<String, Unsupported> {
    let unsupported = |what: &str, why: &str| Err(Unsupported { what: what.into(), why: why.into() });
    match workload {
        Workload::Exit => Ok("exit".into()),
        Workload::Idle => Ok("idle".into()),
        Workload::Serve { port } => Ok(format!("serve:{port}")),
        Workload::Memory { bytes } => Ok(format!("memory:{bytes}")),
        Workload::Freed { .. } => unsupported("giving memory back from the unikernel", "it has no balloon"),
        Workload::Drive(_) => unsupported("driving traffic from the unikernel", "its server only answers"),
        Workload::Probe(_) => unsupported("probing from the unikernel", "it has no operating system to look at"),
        Workload::Program { .. } => {
            unsupported("a program of your own in the unikernel", "it has no processes: its image is its program")
        }
    }
}
