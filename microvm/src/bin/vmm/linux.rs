//! The subcommand `linux`: its options, read by hand like the others, and its run.

use crate::arguments::{ArgumentError, LINUX_SPIN, NAMESPACES, each, namespace, seconds, size};
use crate::network::NetworkOptions;
use isobench_microvm::devices::virtio::disk::{Disk, DiskError};
use isobench_microvm::jail::{Jail, NetworkNamespace};
use isobench_microvm::linux::{self, BalloonKind, Config, Ending};
use isobench_microvm::memory::Pages;
use isobench_microvm::operation::Operation;
use isobench_microvm::outcome::Outcome;
use isobench_microvm::system::inherited_fd;
use isobench_workload::Stages;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Memory unless told otherwise: a distribution's kernel unpacks itself in half of it.
const MEMORY: u64 = 128 << 20;
/// How the agent begins what goes wrong.
const AGENT: &str = "isobench-agent: ";
/// Largest agent that is read.
const LARGEST_AGENT: u64 = 256 << 20;

/// Runs a Linux guest to its end.
pub(crate) fn run(
    words: impl Iterator<Item = OsString>,
    stages: Stages,
) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let config = parse(words)?;
    let session = config.session;
    let ending = match session {
        true => linux::run(config, stages, std::io::sink())?,
        false => linux::run(config, stages, std::io::stdout())?,
    };
    Ok(told(ending, session))
}

/// Tells how a guest ended, and the guest's last words where it did so badly; the exit code. With a session the standard streams are
/// the program's, and so is the exit status: only how a guest failed is said, in one sentence.
pub(crate) fn told(ending: Ending, session: bool) -> ExitCode {
    let Ending { outcome, log } = ending;
    let said = match panic(&log) {
        _ if !session => log,
        Some(why) => vec![format!("isobench-vmm: the guest's kernel panicked: {why}")],
        // What the agent could say nowhere else.
        None => log.into_iter().filter(|line| line.starts_with(AGENT)).collect(),
    };
    if !matches!(outcome, Outcome::Exited(0)) {
        said.iter().for_each(|line| crate::report(line));
    }
    // A program that has ended has said itself what there is to be said.
    crate::ending(&outcome, session && (matches!(outcome, Outcome::Exited(_)) || !said.is_empty()))
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
        memory: MEMORY,
        operation: Operation {
            control: None,
            deadline: None,
            spin: Duration::from_micros(LINUX_SPIN.into()),
            confined: true,
            jail: None,
        },
    };
    let (mut network_namespace, mut place) = (NetworkNamespace::Own, NetworkOptions::default());
    let (mut disks, mut control, mut exec) = (Vec::new(), None, None);
    let options = [
        "--kernel",
        "--agent",
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
    each(words, &[&NetworkOptions::NAMES, &options], |option, raw| {
        let value = raw.to_string_lossy().into_owned();
        let wrong = |wanted| ArgumentError::Value { option, value: value.clone(), wanted };
        match option {
            "--kernel" => config.kernel = raw.into(),
            "--agent" => {
                config.agent = read_agent(&raw).map_err(|source| ArgumentError::Agent { path: raw.into(), source })?;
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
            "--deadline" => {
                config.operation.deadline = Some(seconds(&value).ok_or_else(|| wrong("a number of seconds"))?)
            }
            "--spin" => {
                config.operation.spin =
                    Duration::from_micros(value.parse().map_err(|_| wrong("a number of microseconds"))?);
            }
            _ => place.set(option, &value).map_err(wrong)?,
        }
        Ok(())
    })?;
    if config.kernel.as_os_str().is_empty() {
        return Err(ArgumentError::Missing("--kernel"));
    }
    if config.agent.is_empty() {
        return Err(ArgumentError::Missing("--agent"));
    }
    config.operation.jail = Some(Jail { network: network_namespace, refused: crate::refused });
    // Last, so that a number that was given is not one of a file that was opened for a path.
    config.operation.control = control.map(|handle| listen("--control", handle)).transpose()?;
    config.exec = exec.map(|handle| listen("--exec", handle)).transpose()?;
    config.disks = disks.into_iter().map(DiskWords::open).collect::<Result<_, _>>()?;
    config.network = place.finish()?;
    Ok(config)
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
pub(crate) struct DiskWords {
    handle: Handle,
    read_only: bool,
}

impl DiskWords {
    /// Takes a file with `:ro` or `:rw` after it; without, the disk is written.
    pub(crate) fn parse(words: OsString) -> Option<Self> {
        let bytes = words.as_bytes();
        let (name, read_only) = match bytes.strip_suffix(b":ro") {
            Some(name) => (name, true),
            None => (bytes.strip_suffix(b":rw").unwrap_or(bytes), false),
        };
        Some(Self { handle: Handle::parse(name)?, read_only })
    }

    pub(crate) fn open(self) -> Result<Disk, DiskError> {
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
