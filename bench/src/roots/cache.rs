//! The cache of roots, and directories that appear there whole or not at all.

use crate::commands::BadInput;
use anyhow::Context;
use rustix::fs::{FlockOperation, flock};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// How the name of an unfinished directory begins.
const UNFINISHED: &str = ".new-";

/// The directory of the cache; it is there. Unfinished work of dead processes in it is removed.
pub(super) fn directory() -> anyhow::Result<PathBuf> {
    let missing = "there is no place for the cache: set HOME or XDG_CACHE_HOME";
    let cache = place().ok_or_else(|| BadInput(missing.into()))?;
    let remedy = "set XDG_CACHE_HOME to a directory that you may write";
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&cache);
    made.with_context(|| format!("make the cache {}: {remedy}", cache.display()))?;
    sweep(&cache);
    Ok(cache)
}

/// Where the cache is, or would be.
pub(super) fn place() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("isobench"))
}

/// A directory of the cache that is being made. Dropped unfinished, it is removed; where its maker is killed, the next one
/// removes it.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: PathBuf,
    /// Tells others that its maker lives.
    lock: File,
}

impl Unfinished {
    pub(super) fn create(cache: &Path) -> anyhow::Result<Self> {
        let created = || -> std::io::Result<Self> {
            loop {
                let path = cache.join(format!("{UNFINISHED}{:016x}", fastrand::u64(..)));
                DirBuilder::new().mode(0o700).create(&path)?;
                // A sweep between these two may have taken it away.
                let Ok(lock) = File::open(&path) else { continue };
                if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() && path.exists() {
                    return Ok(Self { path, lock });
                }
            }
        };
        created().with_context(|| format!("make a directory in the cache {}", cache.display()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn descriptor(&self) -> &File {
        &self.lock
    }

    /// Gives it its name, or leaves that to the one who was quicker: the same name means the same content.
    pub(super) fn finish(self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.with_file_name(name);
        match fs::rename(&self.path, &path) {
            Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {}
            result => result.with_context(|| format!("name {}", path.display()))?,
        }
        Ok(path)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After it got its name there is nothing of the old one.
        let _ = remove(&self.path);
    }
}

fn sweep(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let dead = entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes())
            && File::open(entry.path())
                .is_ok_and(|directory| flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok());
        if dead {
            let _ = remove(&entry.path());
        }
    }
}

/// Removes a tree that may have directories without the right to write in them. Links are not followed.
pub(super) fn remove(path: &Path) -> std::io::Result<()> {
    if fs::remove_dir_all(path).is_ok() {
        return Ok(());
    }
    open_up(path);
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn open_up(directory: &Path) {
    if !directory.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return;
    }
    let _ = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        open_up(&entry.path());
    }
}

/// Whether a name in the cache is there as a directory.
pub(super) fn has(cache: &Path, name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = cache.join(name.as_ref());
    path.is_dir().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_directory_goes_and_a_finished_one_stays() {
        let cache = tempfile::tempdir().unwrap();
        let unfinished = Unfinished::create(cache.path()).unwrap();
        fs::create_dir(unfinished.path().join("closed")).unwrap();
        fs::write(unfinished.path().join("closed/file"), "").unwrap();
        fs::set_permissions(unfinished.path().join("closed"), fs::Permissions::from_mode(0o500)).unwrap();
        sweep(cache.path());
        assert!(unfinished.path().exists(), "its maker lives");
        drop(unfinished);
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);

        let finished = Unfinished::create(cache.path()).unwrap();
        fs::write(finished.path().join("file"), "").unwrap();
        assert!(finished.finish("whole").unwrap().join("file").exists());
        // The second one of that name gives way.
        let late = Unfinished::create(cache.path()).unwrap();
        fs::write(late.path().join("other"), "").unwrap();
        assert!(late.finish("whole").unwrap().join("file").exists());
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_maker_left_is_swept() {
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir_all(cache.path().join(".new-1/a")).unwrap();
        sweep(cache.path());
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
    }
}
