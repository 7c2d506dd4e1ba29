//! The launcher's side of restoring a snapshot: it is opened and verified once, for all clones.

use super::manifest::{FileIdentity, HostProcessor, Manifest, hexadecimal};
use super::{GuestKind, LARGEST_STATE, MANIFEST, MEMORY, MachineState, STATE, SnapshotError, memory, take};
use crate::{files, unikernel};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// A snapshot whose every byte is as it was written.
#[derive(Debug)]
pub struct Snapshot {
    directory: PathBuf,
    manifest: Manifest,
    state: File,
    memory: File,
}

impl Snapshot {
    /// Opens a snapshot and verifies all of it. It takes as long as to read what of memory is not zeros.
    ///
    /// # Errors
    /// Where a file is missing, damaged, or belongs to something else; the error names it.
    pub fn open(directory: &Path) -> Result<Self, SnapshotError> {
        let manifest = Manifest::read(&directory.join(MANIFEST))?;
        let unusable = |name: &str, why: String| SnapshotError::Unusable { path: directory.join(name), why };
        let here = HostProcessor::here()?;
        if manifest.processor != here {
            let why = format!(
                "it was taken on a processor with other features ({}; this is {}), in which its guest cannot go on",
                manifest.processor.model, here.model
            );
            return Err(unusable(MANIFEST, why));
        }
        if manifest.guest.kind == GuestKind::Unikernel && manifest.guest.program != unikernel_digest() {
            return Err(unusable(MANIFEST, "its unikernel is not this program's: take it anew".into()));
        }
        let open = |name: &'static str, identity: &FileIdentity, digest: fn(&File, u64) -> io::Result<[u8; 32]>| {
            let path = directory.join(name);
            let failed =
                |source| SnapshotError::File { operation: "read the snapshot's file", path: path.clone(), source };
            let (file, length) = regular(&path)?;
            if length != identity.length {
                return Err(unusable(name, format!("it has {length} bytes instead of {}", identity.length)));
            }
            if hexadecimal(&digest(&file, identity.length).map_err(failed)?) != identity.sha256 {
                return Err(unusable(name, "its content was changed after the snapshot was taken".into()));
            }
            Ok(file)
        };
        let state = open(STATE, &manifest.state, take::sha256)?;
        let memory = open(MEMORY, &manifest.memory, memory::digest)?;
        // Bytes that are as they were written, and a seal that anybody can make: they must make sense together as well.
        let saved = MachineState::read(&state).map_err(|why| unusable(STATE, why))?;
        if saved.guest != manifest.guest {
            return Err(unusable(STATE, "it is that of another guest than the manifest's".into()));
        }
        Ok(Self { directory: directory.into(), manifest, state, memory })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What it is.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The file with the state, for `isobench-vmm restore`.
    pub fn state(&self) -> &File {
        &self.state
    }

    /// The file with the memory, for `isobench-vmm restore`.
    pub fn memory(&self) -> &File {
        &self.memory
    }
}

/// Opens a file of a snapshot; its length is told too.
pub(super) fn regular(path: &Path) -> Result<(File, u64), SnapshotError> {
    files::open_regular(path).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory => {
            SnapshotError::Unusable { path: path.into(), why: "it is no regular file".into() }
        }
        _ => SnapshotError::File { operation: "read the snapshot's file", path: path.into(), source },
    })
}

impl MachineState {
    /// Reads a state; what is wrong with it where that cannot be.
    pub fn read(file: &File) -> Result<Self, String> {
        let bytes = files::read_whole(file, LARGEST_STATE).map_err(|error| error.to_string())?;
        Self::from_bytes(&bytes)
    }

    /// The state as it is written.
    ///
    /// # Errors
    /// None that a machine's state can bring about.
    pub fn to_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(self)
    }

    /// Reads what was written; what is wrong with it where that cannot be.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let (state, rest): (Self, _) =
            postcard::take_from_bytes(bytes).map_err(|error| format!("it is no state of a guest: {error}"))?;
        if !rest.is_empty() {
            return Err("it is no state of a guest: more follows it".into());
        }
        let numbers: Vec<u8> = state.processors.iter().map(|processor| processor.number).collect();
        let wanted: Vec<u8> = (0..state.guest.processors).collect();
        if numbers != wanted || numbers.is_empty() || state.guest.checked_memory().is_none() {
            return Err("it is no state of a guest: its processors or its memory make no sense".into());
        }
        Ok(state)
    }
}

/// The digest by which a unikernel's image is known.
pub(crate) fn unikernel_digest() -> String {
    hexadecimal(&Sha256::digest(unikernel::UNIKERNEL))
}
