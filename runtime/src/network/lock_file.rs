//! A file whose bytes are locked, each for something that only one process may have
//! ([fcntl_locking(2)](https://man7.org/linux/man-pages/man2/fcntl_locking.2.html), open file description locks).
//!
//! The lock of a byte belongs to an open description of the file. The kernel frees it when the last descriptor of that is
//! closed, however its process ends, so that no daemon has to keep the books and nothing is ever to be mended. The bytes
//! need not exist; what the file holds is another matter.

use super::NetworkError;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, pread, pwrite};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The file.
#[derive(Clone, Debug)]
pub struct LockFile {
    path: PathBuf,
}

/// Locks of one file that are held until this is dropped, or its process ends.
#[derive(Debug)]
pub struct Held(OwnedFd);

/// Whether others may have the same lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody else.
    Alone,
    /// Everybody else who asks for it so.
    Shared,
}

impl LockFile {
    /// The file at this path, made if need be.
    pub fn create(path: &Path) -> Result<Self, NetworkError> {
        let file = Self { path: path.into() };
        file.open(OFlags::CREATE)?;
        Ok(file)
    }

    /// The file at this path, which must be there whenever it is used.
    pub fn at(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A description of it, without a lock yet.
    pub fn begin(&self) -> Result<Held, NetworkError> {
        Ok(Held(self.open(OFlags::empty())?))
    }

    /// Whether anybody holds the byte at `offset`, in whatever way. This process's own locks count.
    pub fn is_held(&self, offset: u64) -> Result<bool, NetworkError> {
        Ok(self.count_held(offset..offset + 1)? > 0)
    }

    /// How many of these bytes are held by anybody. Each is asked for: not for a path that is measured.
    pub(crate) fn count_held(&self, offsets: Range<u64>) -> Result<usize, NetworkError> {
        let descriptor = self.open(OFlags::empty())?;
        let mut count = 0;
        for offset in offsets {
            let mut asked = range(libc::F_WRLCK, offset, 1);
            control(&descriptor, FcntlArg::F_OFD_GETLK(&mut asked)).map_err(|source| {
                NetworkError::system("look at the locks of", self.path.display().to_string(), source)
            })?;
            count += usize::from(i32::from(asked.l_type) != libc::F_UNLCK);
        }
        Ok(count)
    }

    fn open(&self, more: OFlags) -> Result<OwnedFd, NetworkError> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | more;
        open(&self.path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|source| NetworkError::system("open", self.path.display().to_string(), source))
    }
}

impl Held {
    /// Takes the byte at `offset` too; false if another description has it. One that is ours already is changed for the other
    /// kind, without being free in between.
    pub fn take(&self, offset: u64, sharing: Sharing) -> Result<bool, NetworkError> {
        self.try_lock(&range(sharing.kind(), offset, 1))
    }

    /// Takes every byte there is or will be; false if another description has one of them [`Sharing::Alone`], or, where it is
    /// to be ours alone, in any way.
    pub fn take_all(&self, sharing: Sharing) -> Result<bool, NetworkError> {
        self.try_lock(&range(sharing.kind(), 0, 0))
    }

    /// Takes the byte at `offset` as soon as nobody else has it.
    pub(crate) fn wait_for(&self, offset: u64) -> Result<(), NetworkError> {
        let wanted = range(libc::F_WRLCK, offset, 1);
        loop {
            match control(&self.0, FcntlArg::F_OFD_SETLKW(&wanted)) {
                Err(Errno::INTR) => {}
                result => return result.map_err(|source| NetworkError::system("wait for", "a lock", source)),
            }
        }
    }

    /// A number that is kept in the file; 0 where there is none. It is a hint: others may change it at the same time.
    pub(crate) fn hint(&self) -> u32 {
        let mut bytes = [0; 4];
        match pread(&self.0, &mut bytes, 0) {
            Ok(4) => u32::from_ne_bytes(bytes),
            _ => 0,
        }
    }

    /// Keeps a number in the file.
    pub(crate) fn set_hint(&self, hint: u32) {
        // Without it the search only takes longer.
        let _ = pwrite(&self.0, &hint.to_ne_bytes(), 0);
    }

    fn try_lock(&self, wanted: &libc::flock) -> Result<bool, NetworkError> {
        match control(&self.0, FcntlArg::F_OFD_SETLK(wanted)) {
            Ok(()) => Ok(true),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
            Err(source) => Err(NetworkError::system("take", "a lock", source)),
        }
    }
}

impl Drop for Held {
    /// Gives the locks back at once: a child of another thread's that has not executed its program yet has this descriptor too, and
    /// would keep them so long.
    fn drop(&mut self) {
        // What is not given back here goes with the last descriptor.
        let _ = self.try_lock(&range(libc::F_UNLCK, 0, 0));
    }
}

impl Sharing {
    const fn kind(self) -> i32 {
        match self {
            Self::Alone => libc::F_WRLCK,
            Self::Shared => libc::F_RDLCK,
        }
    }
}

fn control(descriptor: &OwnedFd, operation: FcntlArg<'_>) -> Result<(), Errno> {
    fcntl(descriptor, operation).map(drop).map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

/// `length` 0 reaches to the end of all bytes.
fn range(kind: i32, begin: u64, length: u64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: begin as libc::off_t,
        l_len: length as libc::off_t,
        // It must be 0 for locks of descriptions.
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_lock_is_seen_by_everybody_and_goes_with_its_descriptor() {
        let directory = tempfile::tempdir().unwrap();
        let file = LockFile::create(&directory.path().join("locks")).unwrap();
        let (first, second) = (file.begin().unwrap(), file.begin().unwrap());
        assert!(first.take(7, Sharing::Alone).unwrap());
        assert!(!second.take(7, Sharing::Alone).unwrap());
        assert!(!second.take(7, Sharing::Shared).unwrap());
        assert!(second.take(8, Sharing::Shared).unwrap() && first.take(8, Sharing::Shared).unwrap());
        assert!(!file.begin().unwrap().take_all(Sharing::Alone).unwrap());
        assert_eq!([6, 7, 8, 9].map(|offset| file.is_held(offset).unwrap()), [false, true, true, false]);
        drop(first);
        assert_eq!([7, 8].map(|offset| file.is_held(offset).unwrap()), [false, true]);
        let inherited = second.0.try_clone().unwrap();
        drop(second);
        assert!(!file.is_held(8).unwrap(), "also while a child that was forked meanwhile has the descriptor");
        drop(inherited);
        let third = file.begin().unwrap();
        assert!(third.take(7, Sharing::Alone).unwrap());
        assert!(!file.begin().unwrap().take_all(Sharing::Shared).unwrap());
        assert!(third.take(7, Sharing::Shared).unwrap(), "one's own lock is changed for the other kind");
        let all = file.begin().unwrap();
        assert!(all.take_all(Sharing::Shared).unwrap() && !file.begin().unwrap().take(9, Sharing::Alone).unwrap());
        assert!(!file.begin().unwrap().take_all(Sharing::Alone).unwrap());
        drop((third, all));
        assert!(file.begin().unwrap().take_all(Sharing::Alone).unwrap());
        assert_eq!(file.count_held(0..100).unwrap(), 0);
    }

    proptest! {
        /// Locks taken and given back in any order are held as the list of holders says.
        #[test]
        fn what_is_held_is_what_was_taken(steps in proptest::collection::vec((0_u64..6, any::<bool>()), 1..60)) {
            let directory = tempfile::tempdir().unwrap();
            let file = LockFile::create(&directory.path().join("locks")).unwrap();
            let mut holders: Vec<(u64, Held)> = Vec::new();
            for (offset, take) in steps {
                let held = holders.iter().position(|(taken, _)| *taken == offset);
                if take {
                    let holder = file.begin().unwrap();
                    prop_assert_eq!(holder.take(offset, Sharing::Alone).unwrap(), held.is_none());
                    if held.is_none() {
                        holders.push((offset, holder));
                    }
                } else if let Some(index) = held {
                    holders.swap_remove(index);
                }
                for offset in 0..6 {
                    prop_assert_eq!(file.is_held(offset).unwrap(), holders.iter().any(|(taken, _)| *taken == offset));
                }
            }
        }
    }
}
