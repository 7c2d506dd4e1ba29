//! The launcher's side of taking a snapshot.

use super::manifest::{FORMAT, FileIdentity, HostProcessor, Manifest, PRODUCT, VERSION, hexadecimal};
use super::{MANIFEST, MEMORY, STATE, SnapshotError, memory};
use crate::control;
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What the machine does once it is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It goes on.
    Continue,
    /// It stays paused, for whoever ends it.
    Stay,
}

/// Takes a snapshot of the machine with this control socket into a new directory. Where that fails, there is nothing of that name, and
/// the machine goes on.
pub fn take(socket: &Path, directory: &Path, afterwards: Afterwards) -> Result<Manifest, SnapshotError> {
    take_with_note(socket, directory, afterwards, None)
}

/// The same, with a [note](Manifest::note).
pub fn take_with_note(
    socket: &Path,
    directory: &Path,
    afterwards: Afterwards,
    note: Option<serde_json::Value>,
) -> Result<Manifest, SnapshotError> {
    if directory.symlink_metadata().is_ok() {
        return Err(SnapshotError::Exists { path: directory.into() });
    }
    let partial = Partial::make(directory)?;
    let (memory, state) = (partial.file(MEMORY)?, partial.file(STATE)?);
    let guest = control::snapshot(socket, memory.as_fd(), state.as_fd(), afterwards == Afterwards::Stay)?;
    let finished = finish(partial, directory, (guest, note), &memory, &state);
    if finished.is_err() && afterwards == Afterwards::Stay {
        // The error is what went wrong first; a machine that cannot be reached has ended.
        let _ = control::resume(socket);
    }
    finished
}

fn finish(
    partial: Partial,
    directory: &Path,
    (guest, note): (super::Guest, Option<serde_json::Value>),
    memory: &File,
    state: &File,
) -> Result<Manifest, SnapshotError> {
    let taken = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let manifest = Manifest {
        format: FORMAT.into(),
        version: VERSION,
        product: PRODUCT.into(),
        taken,
        processor: HostProcessor::here()?,
        guest,
        note,
        state: partial.told(STATE, "read", identity(state, sha256))?,
        memory: partial.told(MEMORY, "read", identity(memory, memory::digest))?,
    };
    let mut file = partial.file(MANIFEST)?;
    let text = manifest.to_text().map_err(io::Error::from);
    partial.told(MANIFEST, "write", text.and_then(|text| file.write_all(&text)))?;
    for (name, file) in [(MEMORY, memory), (STATE, state), (MANIFEST, &file)] {
        partial.told(name, "bring to the disk", file.sync_all())?;
    }
    partial.keep(directory)?;
    Ok(manifest)
}

/// What a file holds.
fn identity(file: &File, digest: fn(&File, u64) -> io::Result<[u8; 32]>) -> io::Result<FileIdentity> {
    let length = file.metadata()?.len();
    Ok(FileIdentity { length, sha256: hexadecimal(&digest(file, length)?) })
}

/// The digest of a whole file.
pub(crate) fn sha256(file: &File, length: u64) -> io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut offset = 0;
    while offset < length {
        let part = &mut buffer[..(length - offset).min(256 << 10) as usize];
        file.read_exact_at(part, offset)?;
        digest.update(&*part);
        offset += part.len() as u64;
    }
    Ok(digest.finalize().into())
}

/// How the temporary name of a snapshot's directory begins; the number of who makes it follows, and the final name.
const TEMPORARY: &str = "isobench-partial-";

/// The temporary name under which this process makes a snapshot, for whoever keeps a list of what a killed process leaves behind.
///
/// # Errors
/// Where a snapshot cannot have that name.
pub fn temporary(directory: &Path) -> Result<PathBuf, SnapshotError> {
    let name = directory.file_name().ok_or_else(|| SnapshotError::File {
        operation: "make the directory of the snapshot",
        path: directory.into(),
        source: io::ErrorKind::InvalidFilename.into(),
    })?;
    let name = format!("{TEMPORARY}{}-{}", std::process::id(), name.to_string_lossy());
    Ok(beside(directory).join(name))
}

/// The directory in which a snapshot has its name.
fn beside(directory: &Path) -> &Path {
    directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes what was begun in a directory by those who were killed before it was whole: nobody holds the lock on it (flock(2)) any
/// more.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(TEMPORARY)) {
        let own = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let opened = own.then(|| File::open(entry.path()).ok()).flatten();
        if opened.is_some_and(|opened| flock(&opened, FlockOperation::NonBlockingLockExclusive).is_ok()) {
            // What cannot be removed is no matter of who takes another one.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A directory under a temporary name beside the final one. It goes when this is dropped.
struct Partial {
    path: PathBuf,
    /// The directory itself, locked for as long as somebody works on it.
    opened: File,
}

impl Partial {
    fn make(directory: &Path) -> Result<Self, SnapshotError> {
        let failed = |source| SnapshotError::File {
            operation: "make the directory of the snapshot",
            path: directory.into(),
            source,
        };
        let path = temporary(directory)?;
        sweep(beside(directory));
        loop {
            // A guest's memory is for whoever may see the guest alone.
            fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
            let locked = File::open(&path).and_then(|opened| {
                flock(&opened, FlockOperation::LockExclusive)?;
                // Somebody else's sweep may have come before the lock.
                let there = opened.metadata()?.ino() == fs::metadata(&path)?.ino();
                there.then_some(opened).ok_or_else(|| io::ErrorKind::NotFound.into())
            });
            match locked {
                Ok(opened) => return Ok(Self { path, opened }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    let _ = fs::remove_dir(&path);
                    return Err(failed(source));
                }
            }
        }
    }

    fn file(&self, name: &'static str) -> Result<File, SnapshotError> {
        let made = File::options().read(true).write(true).create_new(true).mode(0o600).open(self.path.join(name));
        self.told(name, "make", made)
    }

    /// A result of an operation on a file of this name.
    fn told<T>(&self, name: &str, operation: &'static str, result: io::Result<T>) -> Result<T, SnapshotError> {
        result.map_err(|source| SnapshotError::File { operation, path: self.path.join(name), source })
    }

    /// Gives it its final name, once all in it is on the disk.
    fn keep(self, directory: &Path) -> Result<(), SnapshotError> {
        let parent = beside(directory);
        let named = self.opened.sync_all().and_then(|()| {
            renameat_with(CWD, &self.path, CWD, directory, RenameFlags::NOREPLACE)?;
            // Where this fails the name may not outlive a crash, but what has it is whole.
            let _ = File::open(parent).and_then(|parent| parent.sync_all());
            Ok(())
        });
        named.map_err(|source| SnapshotError::File { operation: "name the snapshot", path: directory.into(), source })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After it was named there is nothing of the temporary name.
        let _ = fs::remove_dir_all(&self.path);
    }
}
