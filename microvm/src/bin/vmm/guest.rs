//! From a configuration to a guest, and from a guest to its end.

use crate::configuration::{Configuration, LINUX_SPIN, Linux, Restore, Unikernel};
use crate::error::ArgumentError;
use crate::open::{Descriptors, read_agent, read_archive, read_files};
use crate::values::{Address, FileName, HostName, Mac, Microseconds, Mtu, Seconds, Value};
use isobench_guest::contract::{self, Task};
use isobench_microvm::control::Control;
use isobench_microvm::jail::{self, Jail, NetworkNamespace};
use isobench_microvm::linux::{self, Ending, Network};
use isobench_microvm::operation::Operation;
use isobench_microvm::outcome::Outcome;
use isobench_microvm::output::StandardOutput;
use isobench_microvm::sandbox::UNIKERNEL_SPIN;
use isobench_microvm::snapshot::{GuestKind, MachineState};
use isobench_microvm::unikernel;
use isobench_workload::Stages;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

/// How the agent begins what goes wrong.
const AGENT: &str = "isobench-agent: ";

/// All that a guest needs, opened.
#[derive(Debug)]
pub(crate) enum Guest {
    Unikernel(Box<unikernel::Config>),
    Linux(Box<linux::Config>),
    RestoredUnikernel(Box<unikernel::Restoration>),
    RestoredLinux(Box<linux::Restoration>),
}

impl Guest {
    /// Opens what a configuration names, first of all tied to the parent where it says so.
    pub(crate) fn open(configuration: &Configuration, descriptors: &mut Descriptors) -> Result<Self, ArgumentError> {
        if configuration.dies_with_parent() {
            jail::die_with_parent().map_err(ArgumentError::Parent)?;
        }
        let mut guest = match configuration {
            Configuration::Unikernel(settings) => open_unikernel(settings, descriptors)?,
            Configuration::Linux(settings) => open_linux(settings, descriptors)?,
            Configuration::Restore(settings) => open_restored(settings, descriptors)?,
        };
        if let Some(name) = configuration.control() {
            let listener = descriptors.listener("control", name)?;
            guest.set_control(Control::new(listener, configuration.json()).map_err(not_waiting("control"))?);
        }
        Ok(guest)
    }

    /// Has it take requests.
    pub(crate) fn set_control(&mut self, control: Control) {
        let operation = match self {
            Self::Unikernel(config) => &mut config.operation,
            Self::Linux(config) => &mut config.operation,
            Self::RestoredUnikernel(restoration) => &mut restoration.operation,
            Self::RestoredLinux(restoration) => &mut restoration.operation,
        };
        operation.control = Some(control);
    }

    /// Runs it to its end.
    pub(crate) fn run(self, stages: Stages) -> Result<ExitCode, Box<dyn std::error::Error>> {
        match self {
            Self::Unikernel(config) => Ok(ending(&unikernel::run(*config, stages, StandardOutput)?, false)),
            Self::RestoredUnikernel(restoration) => {
                Ok(ending(&unikernel::restore(*restoration, stages, StandardOutput)?, false))
            }
            Self::Linux(config) if config.session => Ok(told(linux::run(*config, stages, io::sink())?, true)),
            Self::Linux(config) => Ok(told(linux::run(*config, stages, StandardOutput)?, false)),
            Self::RestoredLinux(restoration) if restoration.state.guest.session => {
                Ok(told(linux::restore(*restoration, stages, io::sink())?, true))
            }
            Self::RestoredLinux(restoration) => Ok(told(linux::restore(*restoration, stages, StandardOutput)?, false)),
        }
    }
}

/// A socket that cannot be set not to wait.
pub(crate) fn not_waiting(option: &'static str) -> impl FnOnce(io::Error) -> ArgumentError {
    move |error| ArgumentError::Value {
        option: option.into(),
        why: format!("the socket is not fit for requests: {error}"),
    }
}

/// How a guest is run; where it takes requests is said later.
fn operation(
    deadline: &Option<Value<Seconds>>,
    Microseconds(spin): Microseconds,
    Value(network): &Value<NetworkNamespace>,
) -> Operation {
    Operation {
        control: None,
        deadline: deadline.as_ref().map(|Value(Seconds(deadline))| *deadline),
        spin: Duration::from_micros(spin.into()),
        confined: true,
        jail: Some(Jail { network: *network, refused: crate::refused }),
    }
}

/// The tap and the addresses of a unikernel, which it must have where it serves.
pub(crate) fn network_of_unikernel(
    settings: &Unikernel,
    descriptors: &mut Descriptors,
) -> Result<(OwnedFd, contract::Network), ArgumentError> {
    let (Some(tap), Some(Value(Mac(mac))), Some(Value(Address(address, prefix)))) =
        (descriptors.tap(&settings.tap_fd)?, &settings.mac, &settings.address)
    else {
        return Err(ArgumentError::NoNetwork);
    };
    let gateway = settings.gateway.as_ref().map_or(Ipv4Addr::UNSPECIFIED, |Value(gateway)| *gateway);
    let network = contract::Network {
        mac: *mac,
        address: address.octets(),
        prefix: *prefix,
        gateway: gateway.octets(),
        port: settings.workload.0.port,
        spin_microseconds: settings.spin.0.0,
        segmentation: settings.segmentation.0.0,
    };
    Ok((tap, network))
}

fn open_unikernel(settings: &Unikernel, descriptors: &mut Descriptors) -> Result<Guest, ArgumentError> {
    let workload = settings.workload.0;
    let network = match workload.task {
        Task::Serve => Some(network_of_unikernel(settings, descriptors)?),
        _ => None,
    };
    Ok(Guest::Unikernel(Box::new(unikernel::Config {
        task: workload.task,
        touched: workload.touched,
        network,
        memory: settings.memory.0.0,
        operation: operation(&settings.deadline, settings.spin.0, &settings.network_namespace),
    })))
}

/// A guest's place in a network, as it was given.
struct Place<'s> {
    mac: &'s Option<Value<Mac>>,
    address: &'s Option<Value<Address<Ipv4Addr>>>,
    gateway: &'s Option<Value<Ipv4Addr>>,
    address6: &'s Option<Value<Address<Ipv6Addr>>>,
    gateway6: &'s Option<Value<Ipv6Addr>>,
    mtu: &'s Option<Value<Mtu>>,
}

impl Place<'_> {
    /// The tap with the addresses, where a tap was given.
    fn with(self, tap: Option<OwnedFd>) -> Result<Option<(OwnedFd, Network)>, ArgumentError> {
        match (tap, self.mac, self.address) {
            (Some(tap), Some(Value(Mac(mac))), Some(Value(Address(address, prefix)))) => {
                let gateway = self.gateway.as_ref().map(|Value(gateway)| *gateway);
                let network = Network {
                    mac: *mac,
                    address: *address,
                    prefix: *prefix,
                    gateway: gateway.filter(|gateway| !gateway.is_unspecified()),
                    address6: self.address6.as_ref().map(|Value(Address(address, prefix))| (*address, *prefix)),
                    gateway6: self.gateway6.as_ref().map(|Value(gateway)| *gateway),
                    mtu: self.mtu.as_ref().map(|Value(Mtu(mtu))| *mtu),
                };
                Ok(Some((tap, network)))
            }
            (None, ..) => Ok(None),
            _ => Err(ArgumentError::NoNetwork),
        }
    }
}

fn open_linux(settings: &Linux, descriptors: &mut Descriptors) -> Result<Guest, ArgumentError> {
    let Linux { mac, address, gateway, address6, gateway6, mtu, .. } = settings;
    let kernel = settings.kernel.clone().filter(|kernel| !kernel.as_os_str().is_empty());
    let kernel = kernel.ok_or_else(|| ArgumentError::Missing("kernel".into()))?;
    if !settings.session.0.0 {
        only_for("a guest with a session (--session yes)", &[("exec", settings.exec.is_some())])?;
    }
    let tap = descriptors.tap(&settings.tap_fd)?;
    let mut archive_of = |option: &str, number: &Option<Value<_>>| {
        let file = number.as_ref().map(|Value(number)| descriptors.take(option, *number)).transpose()?;
        file.map(|file| read_archive(option, &file.into())).transpose()
    };
    let (agent, archive) =
        (archive_of("agent-fd", &settings.agent_fd)?, archive_of("archive-fd", &settings.archive_fd)?);
    let agent = match (agent, &settings.agent) {
        (Some(agent), _) if agent.is_empty() => {
            return Err(ArgumentError::Value { option: "agent-fd".into(), why: "the file is empty".into() });
        }
        (Some(agent), _) => agent,
        (None, Some(path)) => read_agent(path)?,
        (None, None) => return Err(ArgumentError::Missing("agent".into())),
    };
    Ok(Guest::Linux(Box::new(linux::Config {
        kernel,
        agent,
        arguments: settings.argument.clone(),
        append: settings.append.clone(),
        network: Place { mac, address, gateway, address6, gateway6, mtu }.with(tap)?,
        frames: settings.vhost.0,
        disks: descriptors.disks(&settings.disk)?,
        archive: archive.unwrap_or_default(),
        session: settings.session.0.0,
        exec: listener(&settings.exec, descriptors)?,
        processors: settings.cpus.0.0,
        entropy: settings.rng.0.0,
        balloon: settings.balloon.0,
        memory: settings.memory.0.0,
        pages: settings.pages.0,
        populated: settings.populate.0.0,
        operation: operation(&settings.deadline, settings.spin.0, &settings.network_namespace),
    })))
}

/// Refuses options that the guest at hand would not heed.
fn only_for(whom: &str, given: &[(&str, bool)]) -> Result<(), ArgumentError> {
    match given.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(ArgumentError::Value { option: (*option).into(), why: format!("it is for {whom}") }),
        None => Ok(()),
    }
}

fn listener(
    exec: &Option<Value<FileName>>,
    descriptors: &mut Descriptors,
) -> Result<Option<std::os::unix::net::UnixListener>, ArgumentError> {
    exec.as_ref().map(|Value(name)| descriptors.listener("exec", name)).transpose()
}

fn open_restored(settings: &Restore, descriptors: &mut Descriptors) -> Result<Guest, ArgumentError> {
    let Restore { mac, address, gateway, address6, gateway6, mtu, .. } = settings;
    let mut file = |option: &str, name: &Option<Value<FileName>>| match name {
        Some(Value(name)) => descriptors.file(option, name),
        None => Err(ArgumentError::Missing(option.into())),
    };
    let (memory, state) = (file("memory-file", &settings.memory_file)?, file("state-file", &settings.state_file)?);
    let state = MachineState::read(&state).map_err(ArgumentError::State)?;
    let tap = descriptors.tap(&settings.tap_fd)?;
    let network = Place { mac, address, gateway, address6, gateway6, mtu }.with(tap)?;
    let usual = match state.guest.kind {
        GuestKind::Unikernel => UNIKERNEL_SPIN,
        GuestKind::Linux => LINUX_SPIN,
    };
    let microseconds = settings.spin.as_ref().map_or(Microseconds(usual), |Value(spin)| *spin);
    let operation = operation(&settings.deadline, microseconds, &settings.network_namespace);
    Ok(match state.guest.kind {
        GuestKind::Unikernel => {
            only_for(
                "a Linux guest, and the saved one is a unikernel",
                &[
                    ("host-name", settings.host_name.is_some()),
                    ("files", settings.files.is_some()),
                    ("disk", !settings.disk.is_empty()),
                    ("session", settings.session.0.0),
                    ("exec", settings.exec.is_some()),
                ],
            )?;
            let network = network.map(|(tap, network)| (tap, of_unikernel(network, microseconds)));
            let restoration = unikernel::Restoration { state, memory, network, operation };
            Guest::RestoredUnikernel(Box::new(restoration))
        }
        GuestKind::Linux => {
            if !state.guest.session {
                let (files, exec) = (settings.files.is_some(), settings.exec.is_some());
                only_for("a guest with a session, which the saved one has not", &[("files", files), ("exec", exec)])?;
            }
            let files = settings.files.as_ref().map(|Value(name)| descriptors.file("files", name)).transpose()?;
            Guest::RestoredLinux(Box::new(linux::Restoration {
                state,
                memory,
                network,
                host_name: settings.host_name.as_ref().map(|Value(HostName(name))| name.clone()),
                files: files.as_ref().map(read_files).transpose()?.unwrap_or_default(),
                disks: descriptors.disks(&settings.disk)?,
                exec: listener(&settings.exec, descriptors)?,
                operation,
            }))
        }
    })
}

/// The unikernel's place; its port, and whether frames are segmented, are those of the guest that was saved.
fn of_unikernel(network: Network, Microseconds(spin): Microseconds) -> contract::Network {
    contract::Network {
        mac: network.mac,
        address: network.address.octets(),
        prefix: network.prefix,
        gateway: network.gateway.unwrap_or(Ipv4Addr::UNSPECIFIED).octets(),
        spin_microseconds: spin,
        ..contract::Network::NONE
    }
}

/// The exit code: the guest's own status; 101 where it panicked or crashed, as a Rust program does; 124 at the deadline, as
/// timeout(1) does; 143 where it was stopped, as by SIGTERM. How it ended is said where it has not been told.
fn ending(outcome: &Outcome, told: bool) -> ExitCode {
    let code = match outcome {
        Outcome::Exited(status) => *status,
        Outcome::Deadline(_) => 124,
        Outcome::Stopped => 143,
        _ => 101,
    };
    if code != 0 && !told {
        crate::report(&format!("isobench-vmm: {outcome}"));
    }
    ExitCode::from(code)
}

/// Tells how a guest ended, and the guest's last words where it did so badly; the exit code. With a session the standard streams are
/// the program's, and so is the exit status: only how a guest failed is said, in one sentence.
fn told(ending: Ending, session: bool) -> ExitCode {
    let Ending { outcome, log } = ending;
    let said = match panic(&log) {
        _ if !session => log,
        Some(why) => vec![format!("isobench-vmm: the guest's kernel panicked: {why}")],
        // What the agent could say nowhere else.
        None => log.into_iter().filter(|line| line.starts_with(AGENT)).collect(),
    };
    if !matches!(outcome, Outcome::Exited(0) | Outcome::Stopped) {
        said.iter().for_each(|line| crate::report(line));
    }
    // A program that has ended has said itself what there is to be said.
    self::ending(&outcome, session && (matches!(outcome, Outcome::Exited(_)) || !said.is_empty()))
}

/// Why the guest's kernel panicked, where it did.
fn panic(log: &[String]) -> Option<&str> {
    log.iter().rev().find_map(|line| Some(line.split_once("Kernel panic - not syncing: ")?.1))
}
