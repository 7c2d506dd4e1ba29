//! Work that the kernel inside does.

use crate::work::{CALLS, Kind};
use rustix::fs::{CWD, Mode, OFlags, StatFs};
use rustix::io::Errno;
use rustix::path::Arg;

/// Where files may be made: the first of these that lets one. Each lies in the sandbox's own root; the testbed, where a bare
/// process runs, has a file system of its own in memory at the first.
const PLACES: [&str; 3] = ["/run", "/tmp", "/"];

/// Does one kind of the work.
#[derive(Debug)]
pub(super) enum KernelWork {
    Calls,
    Files(Files),
}

impl KernelWork {
    /// Prepares it and tells the type of the file system for files, 0 where there are none.
    pub(super) fn prepare(kind: Kind) -> Result<(Self, u64), Errno> {
        match kind.file() {
            0 => Ok((Self::Calls, 0)),
            size => Files::prepare(size).map(|(files, kind)| (Self::Files(files), kind)),
        }
    }

    /// Does one round and gives what came out of it: the same whatever the process.
    pub(super) fn round(&mut self) -> Result<u64, Errno> {
        match self {
            Self::Calls => Ok(calls()),
            Self::Files(files) => files.round(),
        }
    }
}

/// Asks the kernel for the process number again and again; rustix makes the system call itself each time.
fn calls() -> u64 {
    (0..CALLS).filter(|_| rustix::process::getpid().as_raw_nonzero().get() > 0).count() as u64
}

/// One file after the other under the same name.
#[derive(Debug)]
pub(super) struct Files {
    path: String,
    contents: Vec<u8>,
    read: Vec<u8>,
}

impl Files {
    fn prepare(size: usize) -> Result<(Self, u64), Errno> {
        let mut contents = vec![0; size];
        contents.iter_mut().zip(0_usize..).for_each(|(byte, index)| *byte = (index / 7) as u8);
        let mut last = Errno::NOENT;
        for place in PLACES {
            // No other program has this name, and a second server of the same machine has another number.
            let path = format!("{}/isobench-{}", place.trim_end_matches('/'), rustix::process::getpid());
            let mut files = Self { path, contents: contents.clone(), read: vec![0; size] };
            match files.round() {
                Ok(_) => return Ok((files, file_system(place)?)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Makes a file, writes it, brings it to its disk where it has one, reads it back and removes it.
    fn round(&mut self) -> Result<u64, Errno> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(CWD, &self.path, flags, Mode::RUSR | Mode::WUSR)?;
        let mut used = || -> Result<u64, Errno> {
            write(&file, &self.contents)?;
            rustix::fs::fsync(&file)?;
            rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
            let count = read(&file, &mut self.read)?;
            Ok(u64::from(count == self.contents.len() && self.read == self.contents))
        };
        let used = used();
        // Also where something failed: nothing is left behind.
        rustix::fs::unlink(&self.path)?;
        used
    }
}

fn write(file: &rustix::fd::OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        bytes = &bytes[rustix::io::write(file, bytes)?..];
    }
    Ok(())
}

fn read(file: &rustix::fd::OwnedFd, bytes: &mut [u8]) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::io::read(file, &mut bytes[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

fn file_system(path: impl Arg) -> Result<u64, Errno> {
    rustix::fs::statfs(path).map(|state: StatFs| state.f_type as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_files_are_done_and_nothing_is_left() {
        for kind in [Kind::SystemCalls, Kind::SmallFile, Kind::LargeFile] {
            let (mut work, file_system) = KernelWork::prepare(kind).unwrap();
            let expected = if kind == Kind::SystemCalls { CALLS } else { 1 };
            assert_eq!(work.round(), Ok(expected));
            assert_eq!(file_system != 0, kind.file() > 0);
            if let KernelWork::Files(files) = &work {
                assert!(!std::path::Path::new(&files.path).exists());
            }
        }
    }

    #[test]
    fn a_file_that_is_there_already_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        std::fs::write(&path, "mine").unwrap();
        let mut files = Files { path: path.to_str().unwrap().to_owned(), contents: vec![1; 10], read: vec![0; 10] };
        assert_eq!(files.round(), Err(Errno::EXIST));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }
}
