//! The sandboxes by name, and the adapters that make each of them a [`Sandbox`].

mod bubblewrap;
mod client;
mod container;
mod docker;
mod engine;
mod guest_archive;
mod networks;
mod obstacles;
mod oci;
pub(crate) mod podman;
mod process;
mod qemu;
mod qemu_distribution;
mod root_directory;
mod shield;
mod spawn;
mod user_mode_linux;
mod virtual_machine;

pub(crate) use container::NAMED_PORT;
pub use engine::Engine;
pub(crate) use engine::RunningEngine;
pub(crate) use engine::obstacle::terminals;
pub(crate) use networks::Networks;
pub(crate) use spawn::spawn;
pub use virtual_machine::attach;
pub(crate) use virtual_machine::frames;

use crate::doctor;
use crate::experiments::Ground;
use crate::programs::Program;
use crate::testbed::Settings;
use crate::testbed::network::OwnNetworks;
use anyhow::Context;
use isobench_microvm::judge::{Verdict, judge};
use isobench_microvm::linux::{self, BalloonKind, kernel};
use isobench_microvm::sandbox::{Housing, MEMORY};
use isobench_reports::record::SandboxRecord;
use isobench_runtime::{ContainerSandbox, SandboxNetwork};
use isobench_workload::{Family, Sandbox};
use obstacles::Obstacles;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

/// What network a sandbox has, as far as an experiment must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The simulated host's own.
    Host,
    /// That of another container.
    Joined,
    /// None but lo.
    None,
    /// A port of a bridge on the simulated host.
    Bridged,
}

/// One name of the vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The name used in records and on the command line.
    pub name: &'static str,
    /// Which kind of isolation it is.
    pub family: Family,
    /// What network it has.
    pub network: Network,
}

const fn kind(name: &'static str, family: Family, network: Network) -> Kind {
    Kind { name, family, network }
}

/// The container whose server looks for requests before it sleeps.
const POLLING: &str = "container-bridge-polling";

/// The unikernel that sleeps at once when there is no frame.
const SLEEPING: &str = "vm-unikernel-sleeping";

/// The unikernel without a network.
const ALONE: &str = "vm-unikernel-none";

/// The unikernel that is restored from a snapshot.
const RESTORED: &str = "vm-unikernel-restored";

/// Linux that is restored from a snapshot.
const RESTORED_LINUX: &str = "vm-linux-restored";

/// The peer that boots a complete distribution.
const QEMU_DISTRIBUTION: &str = "qemu-distribution";

/// The peer whose guest kernel is a program of the host's.
const USER_MODE_LINUX: &str = "user-mode-linux";

/// Every sandbox that this program knows, in the order of every table and chart.
pub const KINDS: &[Kind] = &[
    kind("process", Family::Process, Network::Host),
    kind("unikernel-process", Family::Process, Network::Bridged),
    kind("container-host", Family::Container, Network::Host),
    kind("container-container", Family::Container, Network::Joined),
    kind("container-none", Family::Container, Network::None),
    kind("container-bridge", Family::Container, Network::Bridged),
    kind(POLLING, Family::Container, Network::Bridged),
    kind("container-custom", Family::Container, Network::Bridged),
    kind("vm-unikernel", Family::Unikernel, Network::Bridged),
    kind(SLEEPING, Family::Unikernel, Network::Bridged),
    kind(ALONE, Family::Unikernel, Network::None),
    kind(RESTORED, Family::Unikernel, Network::Bridged),
    kind("vm-linux", Family::Linux, Network::Bridged),
    kind(RESTORED_LINUX, Family::Linux, Network::Bridged),
    kind("runc", Family::Peer, Network::None),
    kind("crun", Family::Peer, Network::None),
    kind("bubblewrap", Family::Peer, Network::None),
    kind("qemu-microvm", Family::Peer, Network::None),
    kind("qemu-q35", Family::Peer, Network::None),
    kind(QEMU_DISTRIBUTION, Family::Peer, Network::Bridged),
    kind(USER_MODE_LINUX, Family::Peer, Network::None),
    kind("docker-host", Family::Peer, Network::Host),
    kind("docker-container", Family::Peer, Network::Joined),
    kind("docker-none", Family::Peer, Network::None),
    kind("docker-bridge", Family::Peer, Network::Bridged),
    kind("docker-custom", Family::Peer, Network::Bridged),
    kind("podman-host", Family::Peer, Network::Host),
    kind("podman-container", Family::Peer, Network::Joined),
    kind("podman-none", Family::Peer, Network::None),
    kind("podman-bridge", Family::Peer, Network::Bridged),
    kind("podman-custom", Family::Peer, Network::Bridged),
];

impl Kind {
    /// Whether the unikernel's code runs in it, wherever that is.
    pub fn is_unikernel(&self) -> bool {
        self.family == Family::Unikernel || self.name == "unikernel-process"
    }

    /// Whether it is restored from a snapshot.
    pub fn is_restored(&self) -> bool {
        [RESTORED, RESTORED_LINUX].contains(&self.name)
    }

    /// Whether it differs from another kind in how it starts alone: it is restored, or has no network to wait for.
    pub fn is_another_start(&self) -> bool {
        self.is_restored() || self.name == ALONE
    }

    /// Whether it differs from another kind in how it waits for requests alone.
    pub fn is_another_wait(&self) -> bool {
        [POLLING, SLEEPING].contains(&self.name)
    }

    /// Whether it is one of QEMU's machines, which boot for seconds where they are emulated.
    pub fn is_qemu(&self) -> bool {
        self.name.starts_with("qemu-")
    }

    /// Whether it boots a complete distribution, which takes a minute where it is emulated.
    pub fn is_distribution(&self) -> bool {
        self.name == QEMU_DISTRIBUTION
    }

    /// Whether it is user-mode Linux, whose processes share one address space, so that a sum over them counts its memory anew with
    /// each.
    pub fn is_user_mode(&self) -> bool {
        self.name == USER_MODE_LINUX
    }

    /// Whether it is on the network that its runtime has by default.
    pub fn is_default_bridge(&self) -> bool {
        self.network == Network::Bridged && self.name.ends_with("-bridge")
    }

    /// Whether it is on a network with a subnet of its own.
    pub fn is_custom(&self) -> bool {
        self.network == Network::Bridged && self.name.ends_with("-custom")
    }

    /// The kind with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }
}

/// One sandbox on this testbed: ready to launch, or the reason why not.
pub(crate) struct Candidate {
    pub(crate) kind: &'static Kind,
    version: Option<String>,
    emulation: Option<String>,
    pub(crate) sandbox: Result<Box<dyn Sandbox>, String>,
    /// Experiments that it cannot take part in here, with the reason.
    gaps: BTreeMap<String, String>,
}

impl Candidate {
    /// The candidate as a record has it.
    pub(crate) fn record(&self) -> SandboxRecord {
        SandboxRecord {
            name: self.kind.name.to_owned(),
            family: self.kind.family,
            version: self.version.clone(),
            unavailable: self.sandbox.as_ref().err().cloned(),
            emulation: self.emulation.clone(),
            gaps: self.gaps.clone(),
        }
    }
}

/// One of our own containers in a network of the caller's.
pub(crate) fn own_container(agent: &Program, name: &str, network: SandboxNetwork) -> anyhow::Result<ContainerSandbox> {
    Ok(container::Containers::new(agent)?.with(name, network))
}

/// What is said where no kernel for a Linux guest was given or found.
const NO_GUEST_KERNEL: &str = "there is no guest kernel: get one by `isobench vm kernel fetch`, or give --kernel FILE";

/// The guest kernel that was given, or else the first that is found.
fn guest_kernel(settings: &Settings) -> Option<PathBuf> {
    settings.kernel.clone().or_else(kernel::find)
}

/// The machine of a unikernel, unless it needs more memory.
const MACHINE: Housing = Housing::VirtualMachine { memory: MEMORY };

/// A sandbox with the version of the program behind it, or why there is none, in one sentence with the remedy.
type Found = Result<(Box<dyn Sandbox>, Option<String>), String>;

/// Finds every sandbox of the vocabulary on this testbed but those of engines.
pub(crate) fn find(
    agent: &Rc<Program>,
    vmm: &Rc<Program>,
    networks: &OwnNetworks,
    settings: &Settings,
) -> anyhow::Result<Vec<Candidate>> {
    let kvm = judge();
    let obstacles = Obstacles::find(networks);
    let containers = container::Containers::new(agent)?;
    let (root, host) = (root_directory::make(agent)?, root_directory::show_host()?);
    let find = |kind: &Kind| -> Found {
        if let Some(obstacle) = obstacles.to(kind) {
            return Err(obstacle);
        }
        match kind.name {
            "process" => found(
                process::BareProcess::new(agent).map(|sandbox| (sandbox, None)).map_err(|error| format!("{error:#}")),
            ),
            "unikernel-process" => unikernel(Housing::Process, vmm, networks),
            "vm-unikernel" if kvm.runs_unikernel() => unikernel(MACHINE, vmm, networks),
            SLEEPING if kvm.runs_unikernel() => {
                Ok((Box::new(virtual_machine::unikernel(MACHINE, vmm, networks).without_spin()), None))
            }
            ALONE if kvm.runs_unikernel() => {
                Ok((Box::new(virtual_machine::unikernel(MACHINE, vmm, networks).without_network()), None))
            }
            RESTORED if kvm.runs_unikernel() => {
                let booted = virtual_machine::unikernel(MACHINE, vmm, networks);
                made(virtual_machine::restored(booted))
            }
            "vm-linux" | RESTORED_LINUX if kvm.runs_linux() => {
                let kernel = guest_kernel(settings).ok_or(NO_GUEST_KERNEL)?;
                let booted = virtual_machine::linux(&kernel, linux::sandbox::MEMORY, vmm, agent, networks);
                match kind.is_restored() {
                    true => made(booted.and_then(virtual_machine::restored)),
                    false => made(booted),
                }
            }
            "vm-unikernel" | SLEEPING | ALONE | RESTORED | "vm-linux" | RESTORED_LINUX => Err(match &kvm {
                Verdict::None(_) => doctor::kvm().with_remedy(),
                Verdict::Software { .. } | Verdict::Full => kvm.to_string(),
            }),
            POLLING => Ok((Box::new(containers.polling(POLLING, networks)), None)),
            name if name.starts_with("container-") => {
                containers.sandbox(name, networks).map(|sandbox| (sandbox, None)).map_err(|error| format!("{error:#}"))
            }
            "runc" => found(oci::OciRuntime::find("runc", &root, &host)),
            "crun" => found(oci::OciRuntime::find("crun", &root, &host)),
            "bubblewrap" => found(bubblewrap::Bubblewrap::find(&root)),
            "qemu-microvm" | "qemu-q35" => {
                let kernel = guest_kernel(settings);
                found(qemu::Qemu::find(kind.name, kernel.as_deref(), agent, kvm.runs_linux()))
            }
            QEMU_DISTRIBUTION => found(qemu_distribution::QemuDistribution::find(agent, networks, kvm.runs_linux())),
            USER_MODE_LINUX => found(user_mode_linux::UserModeLinux::find(agent)),
            other => Err(format!("nothing makes the sandbox `{other}`")),
        }
    };
    // An engine has a testbed of its own.
    let kinds = KINDS.iter().filter(|kind| Engine::of(kind.name).is_none());
    let candidates = kinds.map(|kind| {
        let (sandbox, version) = match find(kind) {
            Ok((sandbox, version)) => (Ok(sandbox), version),
            Err(reason) => (Err(reason), None),
        };
        let emulation = match kind.name {
            _ if kvm.runs_linux() => None,
            "vm-unikernel" | SLEEPING | ALONE | RESTORED => Some("software KVM".to_owned()),
            _ => kind.is_qemu().then(|| qemu::EMULATION.to_owned()),
        };
        Candidate { kind, version, emulation, sandbox, gaps: BTreeMap::new() }
    });
    Ok(candidates.collect())
}

/// The unikernel with packets as large as on a wire both ways.
pub(crate) fn with_wire_packets(kind: &Kind, vmm: &Rc<Program>, networks: &OwnNetworks) -> Box<dyn Sandbox> {
    let housing = match kind.family {
        Family::Unikernel => MACHINE,
        _ => Housing::Process,
    };
    Box::new(virtual_machine::unikernel(housing, vmm, networks).with_wire_packets())
}

/// Linux with a balloon, which is set on a control socket at this path.
pub(crate) fn with_balloon(ground: &Ground, socket: PathBuf) -> anyhow::Result<Box<dyn Sandbox>> {
    let kernel = guest_kernel(&ground.settings).context(NO_GUEST_KERNEL)?;
    let sandbox =
        virtual_machine::linux(&kernel, linux::sandbox::MEMORY, &ground.vmm, &ground.agent, ground.networks.own()?)?;
    Ok(Box::new(sandbox.with_balloon(BalloonKind::Plain).with_control(socket)))
}

/// A machine with so many bytes of memory for work, beside what it takes for itself: a unikernel's connections, a Linux guest's
/// kernel. `None` for what has the host's memory.
pub(crate) fn with_memory_for_work(
    ground: &Ground,
    kind: &Kind,
    bytes: u64,
) -> anyhow::Result<Option<Box<dyn Sandbox>>> {
    let (vmm, agent) = (&ground.vmm, &ground.agent);
    Ok(match kind.name {
        "vm-unikernel" => {
            let memory = (bytes + UNIKERNEL_CONNECTIONS).next_multiple_of(2 << 20);
            let housing = Housing::VirtualMachine { memory };
            Some(Box::new(virtual_machine::unikernel(housing, vmm, ground.networks.own()?)))
        }
        "vm-linux" => {
            let kernel = guest_kernel(&ground.settings).context(NO_GUEST_KERNEL)?;
            // An agent takes at most half of what is free.
            let memory = linux::sandbox::MEMORY + 2 * bytes;
            Some(Box::new(virtual_machine::linux(&kernel, memory, vmm, agent, ground.networks.own()?)?))
        }
        _ => None,
    })
}

/// More than a unikernel with plenty of memory takes for its connections.
const UNIKERNEL_CONNECTIONS: u64 = 80 << 20;

fn unikernel(housing: Housing, vmm: &Rc<Program>, networks: &OwnNetworks) -> Found {
    Ok((Box::new(virtual_machine::unikernel(housing, vmm, networks)), None))
}

fn made<S: Sandbox + 'static>(made: anyhow::Result<S>) -> Found {
    found(made.map(|sandbox| (sandbox, None)).map_err(|error| format!("{error:#}")))
}

fn found<S: Sandbox + 'static>(found: Result<(S, Option<String>), String>) -> Found {
    found.map(|(sandbox, version)| (Box::new(sandbox) as Box<dyn Sandbox>, version))
}
