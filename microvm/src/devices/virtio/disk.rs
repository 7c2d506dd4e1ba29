//! A disk's content: a raw file or a block device. Its format is never guessed at, so that a guest can't turn its disk into
//! something that names other files.

use crate::devices::virtio::chain::{self, advance};
use crate::system;
use rustix::fs::{FileType, FlockOperation, OFlags, SeekFrom};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use vm_memory::VolatileSlice;

/// The unit in which a virtio disk is addressed, in bytes (VIRTIO 1.2, 5.2.6).
pub const SECTOR: u64 = 512;

/// How images begin that hold a disk in a form of their own.
const FORMATS: &[(&[u8], &str)] = &[(b"QFI\xfb", "qcow2"), (b"KDMV", "VMDK"), (b"vhdxfile", "VHDX")];

/// Why a file can't be a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It can't be opened.
    #[error("open the disk {name} to {purpose}")]
    Open {
        /// The file.
        name: String,
        /// Read, or read and write.
        purpose: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A call on it failed.
    #[error("{operation} of the disk {name}")]
    System {
        /// The file.
        name: String,
        /// The operation.
        operation: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a pipe or the like.
    #[error("the disk {name} is neither a regular file nor a block device")]
    Foreign {
        /// The file.
        name: String,
    },
    /// It was handed in as what it is not.
    #[error("the disk {name} was opened for reading alone: hand it in read-only")]
    ReadOnly {
        /// The file.
        name: String,
    },
    /// Somebody has it already.
    #[error("the disk {name} is in use by another virtual machine: share it read-only, or give each a copy")]
    InUse {
        /// The file.
        name: String,
    },
    /// What the guest would see is the image's own administration.
    #[error("the disk {name} is a {format} image: make a raw one of it, such as by `qemu-img convert -O raw`")]
    Formatted {
        /// The file.
        name: String,
        /// Its format.
        format: &'static str,
    },
    /// It is empty.
    #[error("the disk {name} has {size} bytes, less than one sector of {SECTOR}")]
    TooSmall {
        /// The file.
        name: String,
        /// Its size in bytes.
        size: u64,
    },
}

/// An open disk. It is locked (flock(2)) for as long as it is open: for itself where it is written, else shared.
#[derive(Debug)]
pub struct Disk {
    file: File,
    read_only: bool,
    sectors: u64,
    modified: Option<i64>,
}

impl Disk {
    /// Opens a file.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, DiskError> {
        let name = path.display().to_string();
        let purpose = if read_only { "read" } else { "read and write" };
        // Opening a pipe would wait for its other end.
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
        let file = File::options().read(true).write(!read_only).custom_flags(flags).open(path);
        let file = file.map_err(|source| DiskError::Open { name: name.clone(), purpose, source })?;
        Self::new(file.into(), read_only, name)
    }

    /// Takes over an open file; the name is for messages.
    pub fn new(fd: OwnedFd, read_only: bool, name: String) -> Result<Self, DiskError> {
        let failed = |operation| {
            let name = name.clone();
            move |errno: rustix::io::Errno| DiskError::System { name, operation, source: errno.into() }
        };
        let status = rustix::fs::fstat(&fd).map_err(failed("read the kind"))?;
        let kind = FileType::from_raw_mode(status.st_mode);
        if !matches!(kind, FileType::RegularFile | FileType::BlockDevice) {
            return Err(DiskError::Foreign { name });
        }
        let flags = rustix::fs::fcntl_getfl(&fd).map_err(failed("read the flags"))?;
        if !read_only && flags & OFlags::RWMODE != OFlags::RDWR {
            return Err(DiskError::ReadOnly { name });
        }
        let lock = match read_only {
            true => FlockOperation::NonBlockingLockShared,
            false => FlockOperation::NonBlockingLockExclusive,
        };
        match rustix::fs::flock(&fd, lock) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(DiskError::InUse { name }),
            other => other.map_err(failed("take the lock"))?,
        }
        // The size of a block device is where its end is.
        let size = rustix::fs::seek(&fd, SeekFrom::End(0)).map_err(failed("find the size"))?;
        let mut begin = [0; 8];
        let length = rustix::io::pread(&fd, &mut begin, 0).map_err(failed("read the beginning"))?;
        if let Some((_, format)) = FORMATS.iter().find(|(magic, _)| begin[..length].starts_with(magic)) {
            return Err(DiskError::Formatted { name, format });
        }
        match size / SECTOR {
            0 => Err(DiskError::TooSmall { name, size }),
            sectors => {
                // A device's time is not that of what is on it.
                let modified = (kind == FileType::RegularFile)
                    .then(|| status.st_mtime.saturating_mul(1_000_000_000).saturating_add(status.st_mtime_nsec as i64));
                Ok(Self { file: fd.into(), read_only, sectors, modified })
            }
        }
    }

    /// Its size in sectors, which never changes while it is open; what is beyond the last whole one is left alone.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether it is never written.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// When what is in it was last changed, as it was opened, in nanoseconds since 1970; nobody knows that of a block device.
    pub fn modified(&self) -> Option<i64> {
        self.modified
    }

    /// Fills these slices from a byte offset on. What the file has lost since it was opened is an error.
    pub(super) fn read(&self, mut into: Vec<VolatileSlice<'_>>, offset: u64) -> io::Result<()> {
        all(&mut into, offset, |slices, offset| system::preadv(self.file.as_fd(), slices, offset))
    }

    /// Writes these slices from a byte offset on, within the file as it is now: a file that was cut is not made longer again.
    pub(super) fn write(&self, mut from: Vec<VolatileSlice<'_>>, offset: u64) -> io::Result<()> {
        let end = rustix::fs::seek(&self.file, SeekFrom::End(0))?;
        if offset.saturating_add(chain::length(&from) as u64) > end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        all(&mut from, offset, |slices, offset| system::pwritev(self.file.as_fd(), slices, offset))
    }

    /// Has what was written survive a loss of power (fdatasync(2)).
    pub(super) fn flush(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.file)?)
    }
}

/// Repeats a call until all slices are done.
fn all(
    slices: &mut Vec<VolatileSlice<'_>>,
    mut offset: u64,
    call: impl Fn(&[VolatileSlice<'_>], u64) -> io::Result<usize>,
) -> io::Result<()> {
    while !slices.is_empty() {
        match call(slices, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                advance(slices, count);
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path, read_only: bool) -> String {
        Disk::open(path, read_only).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_disk_is_refused_in_one_sentence() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        assert!(refused(&path("none"), true).starts_with("open the disk /"));
        assert!(refused(directory.path(), true).ends_with("is neither a regular file nor a block device"));
        let pipe = path("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(refused(&pipe, true).ends_with("is neither a regular file nor a block device"));
        std::fs::write(path("small"), [0; 511]).unwrap();
        assert!(refused(&path("small"), true).ends_with("has 511 bytes, less than one sector of 512"));
        for (magic, format) in FORMATS {
            std::fs::write(path("foreign"), [*magic, &[0; 1024]].concat()).unwrap();
            assert!(refused(&path("foreign"), true).contains(&format!("is a {format} image: make a raw one")));
        }
        std::fs::write(path("image"), [0; 1535]).unwrap();
        let for_reading = File::open(path("image")).unwrap();
        let error = Disk::new(for_reading.into(), false, "3".into()).unwrap_err();
        assert_eq!(error.to_string(), "the disk 3 was opened for reading alone: hand it in read-only");
    }

    #[test]
    fn a_disk_has_one_writer_or_many_readers() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1535).unwrap();
        let writer = Disk::open(file.path(), false).unwrap();
        assert_eq!((writer.sectors(), writer.is_read_only()), (2, false));
        assert!(refused(file.path(), false).contains("is in use by another virtual machine"));
        assert!(refused(file.path(), true).contains("is in use by another virtual machine"));
        drop(writer);
        let readers = [Disk::open(file.path(), true).unwrap(), Disk::open(file.path(), true).unwrap()];
        assert!(refused(file.path(), false).contains("share it read-only"));
        drop(readers);
    }
}
