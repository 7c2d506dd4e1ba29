//! The command line, read by hand: the program is started on a measured path, and has a dozen options.

use crate::linux::{Handle, listen};
use isobench_guest::contract::{Network, Task};
use isobench_microvm::devices::virtio::disk::DiskError;
use isobench_microvm::jail::{Jail, NetworkNamespace};
use isobench_microvm::operation::Operation;
use isobench_microvm::system::inherited_fd;
use isobench_microvm::unikernel::Config;
use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

/// How long a unikernel and its card look for frames before they sleep, in microseconds: with 20, one
/// launch in some misses the answers of a round trip on one host.
pub(crate) const UNIKERNEL_SPIN: u32 = 50;
/// The same for the card of a Linux guest, in microseconds.
pub(crate) const LINUX_SPIN: u32 = 50;

/// Why a command line can't be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArgumentError {
    /// No such option.
    #[error("unknown option `{0}` (run without arguments for the list)")]
    Unknown(String),
    /// An option without its value.
    #[error("option {0} needs a value")]
    Missing(&'static str),
    /// A value that is none.
    #[error("option {option}: `{value}` is not {wanted}")]
    Value {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is wanted.
        wanted: &'static str,
    },
    /// The agent's file can't be read.
    #[error("read the agent {} (cargo build -p isobench-workload makes one)", path.display())]
    Agent {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A disk can't be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A socket can't be made.
    #[error("make the socket {}", path.display())]
    Control {
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file of a snapshot can't be used.
    #[error("open the snapshot's file {}", path.display())]
    Snapshot {
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The state of a snapshot can't be used.
    #[error("the snapshot's state: {0}")]
    State(String),
    /// Options that need one another.
    #[error("a guest that serves needs --tap-fd, --mac and --address")]
    NoNetwork,
    /// The plain process serves and does nothing else.
    #[error("the plain process only serves: give --workload serve:PORT")]
    OnlyServes,
}

/// The options as given.
#[derive(Debug)]
pub(crate) struct Arguments {
    task: Task,
    port: u16,
    touched: u64,
    tap: Option<OwnedFd>,
    mac: Option<[u8; 6]>,
    address: Option<(Ipv4Addr, u8)>,
    gateway: Ipv4Addr,
    memory: u64,
    deadline: Option<Duration>,
    spin: u32,
    segmentation: bool,
    namespace: NetworkNamespace,
    control: Option<Handle>,
}

/// Takes in pairs of an option and its value.
pub(crate) fn each(
    mut words: impl Iterator<Item = OsString>,
    options: &[&[&'static str]],
    mut take: impl FnMut(&'static str, OsString) -> Result<(), ArgumentError>,
) -> Result<(), ArgumentError> {
    while let Some(word) = words.next() {
        let option = options.iter().flat_map(|names| names.iter()).find(|option| word == **option).copied();
        let option = option.ok_or_else(|| ArgumentError::Unknown(word.to_string_lossy().into_owned()))?;
        take(option, words.next().ok_or(ArgumentError::Missing(option))?)?;
    }
    Ok(())
}

/// Reads the options after the subcommand.
pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Result<Arguments, ArgumentError> {
    let mut arguments = Arguments {
        task: Task::Serve,
        port: isobench_workload::protocol::PORT,
        touched: 0,
        tap: None,
        mac: None,
        address: None,
        gateway: Ipv4Addr::UNSPECIFIED,
        memory: 16 << 20,
        deadline: None,
        spin: UNIKERNEL_SPIN,
        segmentation: true,
        namespace: NetworkNamespace::Own,
        control: None,
    };
    let options = [
        "--workload",
        "--tap-fd",
        "--mac",
        "--address",
        "--gateway",
        "--memory",
        "--deadline",
        "--spin",
        "--segmentation",
        "--network-namespace",
        "--control",
    ];
    each(words, &[&options], |option, raw| {
        let value = raw.to_string_lossy().into_owned();
        arguments.set(option, &value).map_err(|wanted| ArgumentError::Value { option, value, wanted })
    })?;
    Ok(arguments)
}

impl Arguments {
    /// Takes in one option; what was wanted where its value is wrong.
    fn set(&mut self, option: &str, value: &str) -> Result<(), &'static str> {
        match option {
            "--workload" => (self.task, self.port, self.touched) = task(value).ok_or("a workload")?,
            "--tap-fd" => {
                let number = value.parse().map_err(|_| "a file descriptor")?;
                self.tap = Some(inherited_fd(number).map_err(|_| "an open file descriptor other than 1 and 2")?);
            }
            "--mac" => self.mac = Some(mac(value).ok_or("an Ethernet address")?),
            "--address" => {
                self.address = Some(address(value).ok_or("an IPv4 address with a prefix, such as 172.17.0.5/16")?)
            }
            "--gateway" => self.gateway = value.parse().map_err(|_| "an IPv4 address")?,
            "--memory" => self.memory = size(value).ok_or("a size such as 16M")?,
            "--deadline" => self.deadline = Some(seconds(value).ok_or("a number of seconds")?),
            "--segmentation" => {
                self.segmentation = match value {
                    "offload" => true,
                    "wire" => false,
                    _ => return Err("offload or wire"),
                };
            }
            "--control" => {
                self.control = Some(Handle::parse(value.as_bytes()).ok_or("a path or an open file descriptor")?);
            }
            "--network-namespace" => self.namespace = namespace(value).ok_or(NAMESPACES)?,
            _ => self.spin = value.parse().map_err(|_| "a number of microseconds")?,
        }
        Ok(())
    }

    /// The configuration of a unikernel.
    pub(crate) fn into_unikernel(mut self) -> Result<Config, ArgumentError> {
        let network = match self.task {
            Task::Serve => Some(self.network()?),
            _ => None,
        };
        let spin = Duration::from_micros(self.spin.into());
        let jail = Some(Jail { network: self.namespace, refused: crate::refused });
        let (task, touched, memory, deadline) = (self.task, self.touched, self.memory, self.deadline);
        // Last, so that a number that was given is not one of a file that was opened for a path.
        let control = self.control.map(|handle| listen("--control", handle)).transpose()?;
        let operation = Operation { control, deadline, spin, confined: true, jail };
        Ok(Config { task, touched, network, memory, operation })
    }

    /// The tap and addresses of the plain process.
    pub(crate) fn into_process(mut self) -> Result<(OwnedFd, Network), ArgumentError> {
        if self.task != Task::Serve {
            return Err(ArgumentError::OnlyServes);
        }
        self.network()
    }

    fn network(&mut self) -> Result<(OwnedFd, Network), ArgumentError> {
        let (Some(tap), Some(mac), Some((address, prefix))) = (self.tap.take(), self.mac, self.address) else {
            return Err(ArgumentError::NoNetwork);
        };
        let network = Network {
            mac,
            address: address.octets(),
            prefix,
            gateway: self.gateway.octets(),
            port: self.port,
            spin_microseconds: self.spin,
            segmentation: self.segmentation,
        };
        Ok((tap, network))
    }
}

/// The task, the port on which it serves, and the bytes that it writes to.
fn task(value: &str) -> Option<(Task, u16, u64)> {
    // The words from the third on, but for those with a value, end wrongly, so that it can be tested how that is reported.
    let task = match value {
        "exit" => Task::Exit,
        "idle" => Task::Idle,
        "wild-pointer" => Task::WildPointer,
        "wild-jump" => Task::WildJump,
        "halt" => Task::Halt,
        "panic" => Task::Panic,
        "stack-overflow" => Task::StackOverflow,
        "loop" => Task::Loop,
        _ => {
            if let Some(bytes) = value.strip_prefix("memory:") {
                return Some((Task::Memory, 0, size(bytes)?));
            }
            let port = value.strip_prefix("serve:")?.parse().ok().filter(|port| *port != 0)?;
            return Some((Task::Serve, port, 0));
        }
    };
    Some((task, 0, 0))
}

/// What [`namespace`] takes.
pub(crate) const NAMESPACES: &str = "own or given";

pub(crate) fn namespace(value: &str) -> Option<NetworkNamespace> {
    match value {
        "own" => Some(NetworkNamespace::Own),
        "given" => Some(NetworkNamespace::Given),
        _ => None,
    }
}

/// A unicast Ethernet address.
pub(crate) fn mac(value: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = value.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(bytes)
}

pub(crate) fn address(value: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix) = value.split_once('/')?;
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
    let address: Ipv4Addr = address.parse().ok()?;
    let unicast = !address.is_multicast() && !address.is_broadcast() && !address.is_unspecified();
    unicast.then_some((address, prefix))
}

pub(crate) fn size(value: &str) -> Option<u64> {
    let (digits, shift) = match value.as_bytes().last()? {
        b'K' => (&value[..value.len() - 1], 10),
        b'M' => (&value[..value.len() - 1], 20),
        b'G' => (&value[..value.len() - 1], 30),
        _ => (value, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

pub(crate) fn seconds(value: &str) -> Option<Duration> {
    let seconds: f64 = value.parse().ok()?;
    (seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, ArgumentError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn values_are_read() {
        let arguments = parsed("--workload serve:7001 --mac 02:00:00:00:00:05 --address 172.17.0.5/16 --gateway 172.17.0.1 --memory 32M --deadline 1.5 --spin 0").unwrap();
        assert_eq!((arguments.task, arguments.port), (Task::Serve, 7001));
        assert_eq!(arguments.mac, Some([2, 0, 0, 0, 0, 5]));
        assert_eq!(arguments.address, Some((Ipv4Addr::new(172, 17, 0, 5), 16)));
        assert_eq!(arguments.memory, 32 << 20);
        assert_eq!(arguments.deadline, Some(Duration::from_millis(1500)));
        assert_eq!(arguments.spin, 0);
        let arguments = parsed("--workload memory:12M").unwrap();
        assert_eq!((arguments.task, arguments.touched), (Task::Memory, 12 << 20));
    }

    #[test]
    fn what_is_wrong_is_said_in_one_sentence() {
        for (line, words) in [
            ("--nothing", "unknown option `--nothing` (run without arguments for the list)"),
            ("--memory", "option --memory needs a value"),
            ("--memory much", "option --memory: `much` is not a size such as 16M"),
            ("--memory 99999999999999G", "option --memory: `99999999999999G` is not a size such as 16M"),
            ("--mac 01:00:00:00:00:05", "option --mac: `01:00:00:00:00:05` is not an Ethernet address"),
            (
                "--address 172.17.0.5",
                "option --address: `172.17.0.5` is not an IPv4 address with a prefix, such as 172.17.0.5/16",
            ),
            ("--workload memory:much", "option --workload: `memory:much` is not a workload"),
            ("--workload serve:0", "option --workload: `serve:0` is not a workload"),
            ("--network-namespace host", "option --network-namespace: `host` is not own or given"),
            ("--segmentation none", "option --segmentation: `none` is not offload or wire"),
            ("--deadline -1", "option --deadline: `-1` is not a number of seconds"),
            ("--tap-fd 1", "option --tap-fd: `1` is not an open file descriptor other than 1 and 2"),
        ] {
            assert_eq!(parsed(line).unwrap_err().to_string(), words);
        }
        let error = parsed("--workload serve:7000").unwrap().into_unikernel().unwrap_err();
        assert_eq!(error.to_string(), "a guest that serves needs --tap-fd, --mac and --address");
    }
}
