//! From names to open files: what a configuration names is opened here, before the monitor shuts itself in.

use crate::error::ArgumentError;
use crate::values::{Descriptor, DiskName, FileName, Value, Word};
use isobench_microvm::devices::virtio::disk::Disk;
use isobench_microvm::files;
use isobench_microvm::system::inherited_fd;
use rustix::fs::Mode;
use rustix::process::umask;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Largest agent that is read.
const LARGEST_AGENT: u64 = 256 << 20;
/// Largest archive that is read: more than any guest has memory.
const LARGEST_ARCHIVE: u64 = 64 << 30;
/// The most that a clone is told of its files; what a line cannot hold is refused later.
const LARGEST_FILES: u64 = 64 << 10;

/// The descriptors that can be named by their number, each of which is there once.
#[derive(Debug)]
pub(crate) struct Descriptors {
    held: BTreeMap<u32, OwnedFd>,
    wanted: &'static str,
}

impl Descriptors {
    /// Those of these numbers that the process was started with. Nothing was opened yet that could be mistaken for one.
    pub(crate) fn inherited(numbers: Vec<u32>) -> Self {
        let mut held = BTreeMap::new();
        for number in numbers {
            if let Entry::Vacant(place) = held.entry(number)
                && let Ok(descriptor) = inherited_fd(number as i32)
            {
                place.insert(descriptor);
            }
        }
        Self { held, wanted: "an open file descriptor other than 1 and 2" }
    }

    /// Those that came with a request, counted from 0.
    pub(crate) fn sent(descriptors: Vec<OwnedFd>) -> Self {
        let wanted = "the place of a file descriptor that came with the request, from 0";
        Self { held: (0..).zip(descriptors).collect(), wanted }
    }

    /// Takes one over, for this option.
    pub(crate) fn take(&mut self, option: &str, Descriptor(number): Descriptor) -> Result<OwnedFd, ArgumentError> {
        self.held.remove(&number).ok_or_else(|| ArgumentError::wrong(option, &number.to_string(), self.wanted))
    }

    /// The same for one that the file's name says; nothing where it says a path.
    fn open(&mut self, option: &str, name: &FileName) -> Result<Option<OwnedFd>, ArgumentError> {
        match name {
            FileName::Open(number) => self.take(option, *number).map(Some).map_err(|error| match error {
                ArgumentError::Value { .. } => {
                    let text = name.json();
                    ArgumentError::wrong(option, text.as_str().unwrap_or_default(), FileName::WANTED)
                }
                other => other,
            }),
            FileName::Path(_) => Ok(None),
        }
    }

    /// A tap.
    pub(crate) fn tap(&mut self, number: &Option<Value<Descriptor>>) -> Result<Option<OwnedFd>, ArgumentError> {
        number.as_ref().map(|Value(number)| self.take("tap-fd", *number)).transpose()
    }

    /// A file of a snapshot.
    pub(crate) fn file(&mut self, option: &str, name: &FileName) -> Result<File, ArgumentError> {
        match (self.open(option, name)?, name) {
            (Some(descriptor), _) => Ok(descriptor.into()),
            (None, FileName::Path(path)) => {
                let opened = files::open_regular(path).map(|(file, _)| file);
                opened.map_err(|source| ArgumentError::Snapshot { path: path.clone(), source })
            }
            (None, FileName::Open(_)) => Err(ArgumentError::Missing(option.into())),
        }
    }

    /// Disks.
    pub(crate) fn disks(&mut self, disks: &[Value<DiskName>]) -> Result<Vec<Disk>, ArgumentError> {
        disks.iter().map(|Value(disk)| self.disk(disk)).collect()
    }

    fn disk(&mut self, disk: &DiskName) -> Result<Disk, ArgumentError> {
        let wrong = |name: &str| ArgumentError::wrong("disk", name, DiskName::WANTED);
        match &disk.file {
            FileName::Path(path) => Ok(Disk::open(path, disk.read_only)?),
            FileName::Open(number) => {
                let name = format!("fd:{}", number.0);
                let descriptor = self.take("disk", *number).map_err(|_| wrong(&name))?;
                Ok(Disk::new(descriptor, disk.read_only, name)?)
            }
        }
    }

    /// A socket on which requests come.
    pub(crate) fn listener(&mut self, option: &str, name: &FileName) -> Result<UnixListener, ArgumentError> {
        match (self.open(option, name)?, name) {
            (Some(descriptor), _) => match rustix::net::sockopt::socket_acceptconn(&descriptor) {
                Ok(true) => Ok(descriptor.into()),
                _ => {
                    let text = name.json();
                    Err(ArgumentError::wrong(option, text.as_str().unwrap_or_default(), "a socket that listens"))
                }
            },
            (None, FileName::Path(path)) => {
                bind(path).map_err(|source| ArgumentError::Control { path: path.clone(), source })
            }
            (None, FileName::Open(_)) => Err(ArgumentError::Missing(option.into())),
        }
    }
}

/// Makes a socket to which nobody can connect but its owner and root (unix(7), "Pathname socket ownership and permissions"). There
/// is one thread.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            io::Error::new(error.kind(), "there is something of that name already: remove it, or give another path")
        }
        _ => error,
    })
}

/// Reads a file from its beginning, wherever it was read last; with zeros up to a multiple of 4 bytes, as an archive has them.
pub(crate) fn read_archive(option: &str, file: &File) -> Result<Vec<u8>, ArgumentError> {
    let mut bytes = files::read_whole(file, LARGEST_ARCHIVE).map_err(|error| ArgumentError::Value {
        option: option.into(),
        why: format!("the file cannot be read: {error}"),
    })?;
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(bytes)
}

/// Reads the agent.
pub(crate) fn read_agent(path: &Path) -> Result<Vec<u8>, ArgumentError> {
    let read = || match files::read_whole(&files::open_regular(path)?.0, LARGEST_AGENT)? {
        bytes if bytes.is_empty() => Err(io::Error::other("it is empty")),
        bytes => Ok(bytes),
    };
    read().map_err(|source| ArgumentError::Agent { path: path.into(), source })
}

/// Reads the files that a clone is to have, which are texts by name.
pub(crate) fn read_files(file: &File) -> Result<BTreeMap<String, String>, ArgumentError> {
    let wrong = || ArgumentError::wrong("files", "what was given", "a JSON object of texts");
    let text = files::read_whole(file, LARGEST_FILES).map_err(|_| wrong())?;
    serde_json::from_slice(&text).map_err(|_| wrong())
}
