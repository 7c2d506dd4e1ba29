//! The subcommand `linux`: its options, read by hand like the others, and its run.

use crate::arguments::{ArgumentError, NAMESPACES, address, each, mac, namespace, seconds, size};
use isobench_microvm::devices::virtio::disk::{Disk, DiskError};
use isobench_microvm::jail::{Jail, NetworkNamespace};
use isobench_microvm::linux::{self, BalloonKind, Config, Network};
use isobench_microvm::memory::Pages;
use isobench_microvm::outcome::Outcome;
use isobench_microvm::system::inherited_fd;
use isobench_workload::Stages;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

/// Memory unless told otherwise: a distribution's kernel unpacks itself in half of it.
const MEMORY: u64 = 128 << 20;
/// Sizes of packets that a link can have: IPv4's least, and the most of a frame.
const LEAST_MTU: u32 = 68;
/// See [`LEAST_MTU`].
const MOST_MTU: u32 = 65_535;
/// How the agent begins what goes wrong.
const AGENT: &str = "isobench-agent: ";
/// Largest agent that is read.
const LARGEST_AGENT: u64 = 256 << 20;

/// Runs a Linux guest; the outcome, and the guest's last words where it is bad.
pub(crate) fn run(
    words: impl Iterator<Item = OsString>,
    stages: Stages,
) -> Result<(Outcome, Vec<String>), Box<dyn std::error::Error>> {
    let config = parse(words)?;
    if !config.session {
        let ending = linux::run(config, stages, std::io::stdout())?;
        return Ok((ending.outcome, ending.log));
    }
    // The standard streams are the program's, and so is the exit status: only how a guest failed is said, in one sentence.
    let ending = linux::run(config, stages, std::io::sink())?;
    let said = match panic(&ending.log) {
        Some(why) => vec![format!("isobench-vmm: the guest's kernel panicked: {why}")],
        // What the agent could say nowhere else.
        None => ending.log.into_iter().filter(|line| line.starts_with(AGENT)).collect(),
    };
    Ok((ending.outcome, said))
}

/// Why the guest's kernel panicked, where it did.
fn panic(log: &[String]) -> Option<&str> {
    log.iter().rev().find_map(|line| Some(line.split_once("Kernel panic - not syncing: ")?.1))
}

/// Reads the options after the subcommand.
fn parse(words: impl Iterator<Item = OsString>) -> Result<Config, ArgumentError> {
    let mut config = Config {
        kernel: Default::default(),
        agent: Vec::new(),
        arguments: Vec::new(),
        append: String::new(),
        network: None,
        disks: Vec::new(),
        archive: Vec::new(),
        session: false,
        exec: None,
        processors: 1,
        entropy: false,
        pages: Pages::System,
        populated: false,
        balloon: None,
        control: None,
        memory: MEMORY,
        deadline: None,
        spin: Duration::from_micros(50),
        confined: true,
        jail: None,
    };
    let mut network_namespace = NetworkNamespace::Own;
    let (mut tap, mut card, mut place, mut gateway) = (None, None, None, None);
    let (mut address6, mut gateway6, mut mtu) = (None, None, None);
    let (mut disks, mut control, mut exec) = (Vec::new(), None, None);
    let options = [
        "--kernel",
        "--agent",
        "--tap-fd",
        "--mac",
        "--address",
        "--gateway",
        "--address6",
        "--gateway6",
        "--mtu",
        "--memory",
        "--deadline",
        "--spin",
        "--append",
        "--argument",
        "--cpus",
        "--disk",
        "--pages",
        "--populate",
        "--rng",
        "--balloon",
        "--control",
        "--network-namespace",
        "--agent-fd",
        "--archive-fd",
        "--session",
        "--exec",
    ];
    each(words, options, |option, raw| {
        let value = raw.to_string_lossy().into_owned();
        let wrong = |wanted| ArgumentError::Value { option, value: value.clone(), wanted };
        match option {
            "--kernel" => config.kernel = raw.into(),
            "--agent" => {
                config.agent = read_agent(&raw).map_err(|source| ArgumentError::Agent { path: raw.into(), source })?;
            }
            "--tap-fd" => {
                let number = value.parse().map_err(|_| wrong("a file descriptor"))?;
                tap = Some(inherited_fd(number).map_err(|_| wrong("an open file descriptor"))?);
            }
            "--mac" => card = Some(mac(&value).ok_or_else(|| wrong("an Ethernet address"))?),
            "--address" => {
                place =
                    Some(address(&value).ok_or_else(|| wrong("an IPv4 address with a prefix, such as 172.17.0.5/16"))?);
            }
            "--gateway" => {
                let router: Ipv4Addr = value.parse().map_err(|_| wrong("an IPv4 address"))?;
                gateway = Some(router).filter(|router| !router.is_unspecified());
            }
            "--address6" => {
                address6 = Some(six(&value).ok_or_else(|| wrong("an IPv6 address with a prefix, such as fd00::5/64"))?);
            }
            "--gateway6" => gateway6 = Some(value.parse().map_err(|_| wrong("an IPv6 address"))?),
            "--mtu" => {
                let bytes = value.parse().ok().filter(|mtu| (LEAST_MTU..=MOST_MTU).contains(mtu));
                mtu = Some(bytes.ok_or_else(|| wrong("a number of bytes from 68 to 65535"))?);
            }
            "--argument" => config.arguments.push(value),
            "--archive-fd" => {
                let number = value.parse().map_err(|_| wrong("a file descriptor"))?;
                let file = File::from(inherited_fd(number).map_err(|_| wrong("an open file descriptor"))?);
                config.archive = read_archive(file).map_err(|_| wrong("a file that can be read"))?;
            }
            "--agent-fd" => {
                let number = value.parse().map_err(|_| wrong("a file descriptor"))?;
                let file = File::from(inherited_fd(number).map_err(|_| wrong("an open file descriptor"))?);
                config.agent = read_archive(file).map_err(|_| wrong("a file that can be read"))?;
            }
            "--session" => {
                config.session = match value.as_str() {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(wrong("yes or no")),
                }
            }
            "--exec" => {
                exec = Some(Handle::parse(raw.as_bytes()).ok_or_else(|| wrong("a path or an open file descriptor"))?);
            }
            "--cpus" => {
                let number = value.parse::<u32>().ok().filter(|number| *number > 0);
                let number = number.ok_or_else(|| wrong("a number of processors, at least 1"))?;
                // More than any guest can have is refused with what it can have.
                config.processors = number.try_into().unwrap_or(u8::MAX);
            }
            "--disk" => disks.push(DiskWords::parse(raw).ok_or_else(|| wrong("a file or an open file descriptor"))?),
            "--pages" => {
                config.pages = match value.as_str() {
                    "system" => Pages::System,
                    "small" => Pages::Small,
                    "huge" => Pages::Huge,
                    _ => return Err(wrong("system, small or huge")),
                };
            }
            "--populate" => config.populated = switch(&value).ok_or_else(|| wrong("on or off"))?,
            "--rng" => config.entropy = switch(&value).ok_or_else(|| wrong("on or off"))?,
            "--balloon" => {
                config.balloon = match value.as_str() {
                    "plain" => Some(BalloonKind::Plain),
                    "reporting" => Some(BalloonKind::Reporting),
                    "off" => None,
                    _ => return Err(wrong("plain, reporting or off")),
                };
            }
            "--control" => {
                control =
                    Some(Handle::parse(raw.as_bytes()).ok_or_else(|| wrong("a path or an open file descriptor"))?);
            }
            "--network-namespace" => network_namespace = namespace(&value).ok_or_else(|| wrong(NAMESPACES))?,
            "--append" => config.append = value,
            "--memory" => config.memory = size(&value).ok_or_else(|| wrong("a size such as 128M"))?,
            "--deadline" => config.deadline = Some(seconds(&value).ok_or_else(|| wrong("a number of seconds"))?),
            _ => config.spin = Duration::from_micros(value.parse().map_err(|_| wrong("a number of microseconds"))?),
        }
        Ok(())
    })?;
    if config.kernel.as_os_str().is_empty() {
        return Err(ArgumentError::Missing("--kernel"));
    }
    if config.agent.is_empty() {
        return Err(ArgumentError::Missing("--agent"));
    }
    config.jail = Some(Jail { network: network_namespace, refused: crate::refused });
    // Last, so that a number that was given is not one of a file that was opened for a path.
    config.control = control.map(|handle| listen("--control", handle)).transpose()?;
    config.exec = exec.map(|handle| listen("--exec", handle)).transpose()?;
    config.disks = disks.into_iter().map(DiskWords::open).collect::<Result<_, _>>()?;
    config.network = match (tap, card, place) {
        (Some(tap), Some(mac), Some((address, prefix))) => {
            Some((tap, Network { mac, address, prefix, gateway, address6, gateway6, mtu }))
        }
        (None, ..) => None,
        _ => return Err(ArgumentError::NoNetwork),
    };
    Ok(config)
}

/// An IPv6 address of one host, with the length of its network's prefix.
fn six(value: &str) -> Option<(Ipv6Addr, u8)> {
    let (address, prefix) = value.split_once('/')?;
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 128)?;
    let address: Ipv6Addr = address.parse().ok()?;
    (!address.is_multicast() && !address.is_unspecified()).then_some((address, prefix))
}

fn switch(value: &str) -> Option<bool> {
    match value {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// A file as the command line names it: `FILE`, or `fd:NUMBER` where it is open already.
#[derive(Debug)]
pub(crate) enum Handle {
    Inherited(OwnedFd, String),
    File(PathBuf),
}

impl Handle {
    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        let number = name.strip_prefix(b"fd:").map(|number| std::str::from_utf8(number).ok()?.parse().ok());
        match number {
            Some(number) => Some(Self::Inherited(inherited_fd(number?).ok()?, String::from_utf8_lossy(name).into())),
            None if name.is_empty() => None,
            None => Some(Self::File(OsStr::from_bytes(name).into())),
        }
    }
}

/// A disk as the command line names it.
struct DiskWords {
    handle: Handle,
    read_only: bool,
}

impl DiskWords {
    /// Takes a file with `:ro` or `:rw` after it; without, the disk is written.
    fn parse(words: OsString) -> Option<Self> {
        let bytes = words.as_bytes();
        let (name, read_only) = match bytes.strip_suffix(b":ro") {
            Some(name) => (name, true),
            None => (bytes.strip_suffix(b":rw").unwrap_or(bytes), false),
        };
        Some(Self { handle: Handle::parse(name)?, read_only })
    }

    fn open(self) -> Result<Disk, DiskError> {
        match self.handle {
            Handle::Inherited(fd, name) => Disk::new(fd, self.read_only, name),
            Handle::File(path) => Disk::open(&path, self.read_only),
        }
    }
}

/// A socket on which requests come.
pub(crate) fn listen(option: &'static str, handle: Handle) -> Result<UnixListener, ArgumentError> {
    match handle {
        Handle::Inherited(fd, name) => match rustix::net::sockopt::socket_acceptconn(&fd) {
            Ok(true) => Ok(fd.into()),
            _ => Err(ArgumentError::Value { option, value: name, wanted: "a socket that listens" }),
        },
        Handle::File(path) => UnixListener::bind(&path).map_err(|source| ArgumentError::Control { path, source }),
    }
}

/// Reads a file from its beginning, wherever it was read last; with zeros up to a multiple of 4 bytes, as an archive has them.
fn read_archive(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0)?;
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(bytes)
}

fn read_agent(path: &OsString) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST_AGENT).read_to_end(&mut bytes)?;
    if bytes.is_empty() { Err(io::Error::other("it is empty")) } else { Ok(bytes) }
}
