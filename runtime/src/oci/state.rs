//! What is known of a container that lives on: one file, under /run/isobench or `$XDG_RUNTIME_DIR`.
//!
//! Not a directory for each: where /run lies on a disk, removing one waits for the disk to discard its block, while a small
//! file that is removed soon never has any.

use crate::error::Error;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags, fcntl_lock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A container's record. The process is named by its number and its start time, so that a number that has come to mean
/// another process is not taken for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) pid: i32,
    pub(super) start_time: u64,
    pub(super) bundle: PathBuf,
    pub(super) cgroups: Vec<PathBuf>,
}

/// The states of the runtime specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Created,
    Running,
    Stopped,
}

/// The answer to `state`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer<'a> {
    pub(super) oci_version: &'static str,
    pub(super) id: &'a str,
    pub(super) status: Status,
    pub(super) pid: i32,
    pub(super) bundle: &'a Path,
}

/// A container's place: its name as a path, to which the ends of its files' names are added.
///
/// Whoever makes the container holds a lock on its record, which is empty until there is a process to write down. The kernel
/// gives the lock back when the command ends, so an empty record without a lock is one whose maker was killed. It is a record
/// lock ([fcntl_locking(2)](https://man7.org/linux/man-pages/man2/fcntl_locking.2.html)), which the container's process does not
/// inherit.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    held: Option<OwnedFd>,
}

/// What a record says.
#[derive(Debug)]
pub(super) enum Found {
    /// There is, or was, a process.
    Recorded(Record),
    /// Its maker was killed before there was one to write down.
    Abandoned,
}

impl Place {
    fn top() -> PathBuf {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !rustix::process::geteuid().is_root());
        PathBuf::from(runtime.unwrap_or_else(|| "/run".into())).join("isobench")
    }

    fn of(id: &str) -> Result<Self, Error> {
        let sound = !id.is_empty()
            && id.len() <= 128
            && !id.starts_with('.')
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte));
        if !sound {
            return Err(Error::invalid(
                format!("the container name `{id}`"),
                "has other characters than A-Z a-z 0-9 _ + - .",
            ));
        }
        Ok(Self { path: Self::top().join(id), held: None })
    }

    /// Takes a name that is free.
    pub(super) fn create(id: &str) -> Result<Self, Error> {
        let mut place = Self::of(id)?;
        let path = place.record();
        let take = || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))?;
            fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).map(|()| file)
        };
        let mut made = take();
        if matches!(made, Err(Errno::NOENT)) {
            let top = Self::top();
            match rustix::fs::mkdir(&top, Mode::from_raw_mode(0o700)) {
                // Another command has just made it.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(Error::system("make", top.display().to_string())(errno)),
            }
            made = take();
        }
        match made {
            Ok(file) => {
                place.held = Some(file);
                Ok(place)
            }
            Err(Errno::EXIST) => Err(Error::invalid(format!("the container {id}"), "exists already")),
            Err(errno) => Err(Error::system("make", path.display().to_string())(errno)),
        }
    }

    /// Finds a container.
    pub(super) fn find(id: &str) -> Result<(Self, Record), Error> {
        match Self::look(id)? {
            (place, Found::Recorded(record)) => Ok((place, record)),
            (_, Found::Abandoned) => {
                let why = "has no process: the command that made it was killed; delete it";
                Err(Error::invalid(format!("the container {id}"), why))
            }
        }
    }

    /// Finds a container, or what is left of one that was never made.
    pub(super) fn look(id: &str) -> Result<(Self, Found), Error> {
        let mut place = Self::of(id)?;
        let path = place.record();
        let bytes = match std::fs::read(&path) {
            // The name is taken by a command that has not made the container yet.
            Ok(bytes) if bytes.is_empty() => {
                let named = || path.display().to_string();
                let file = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
                let file = file.map_err(Error::system("open", named()))?;
                return match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => {
                        place.held = Some(file);
                        Ok((place, Found::Abandoned))
                    }
                    Err(Errno::AGAIN | Errno::ACCESS) => {
                        Err(Error::invalid(format!("the container {id}"), "is being made"))
                    }
                    Err(errno) => Err(Error::system("lock", named())(errno)),
                };
            }
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::invalid(format!("the container {id}"), "does not exist"));
            }
            Err(error) => return Err(Error::io("read", path.display().to_string())(error)),
        };
        let record = serde_json::from_slice(&bytes)
            .map_err(|error| Error::invalid(path.display().to_string(), format!("is damaged: {error}")))?;
        Ok((place, Found::Recorded(record)))
    }

    pub(super) fn write(&self, record: &Record) -> Result<(), Error> {
        let path = self.record();
        let bytes = serde_json::to_vec(record).map_err(|error| Error::invalid("the state", error.to_string()))?;
        let failed = |errno| Error::system("write", path.display().to_string())(errno);
        let file = self.held.as_ref().ok_or(Errno::BADF).map_err(failed)?;
        rustix::io::write(file, &bytes).map(drop).map_err(failed)
    }

    /// The fifo on which a created container waits; it is there until the container is started.
    pub(super) fn start_fifo(&self) -> PathBuf {
        self.with(".start")
    }

    fn record(&self) -> PathBuf {
        self.with(".json")
    }

    fn with(&self, end: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(end);
        path.into()
    }

    pub(super) fn remove(&self) -> Result<(), Error> {
        let _ = rustix::fs::unlink(self.start_fifo());
        let path = self.record();
        rustix::fs::unlink(&path).map_err(Error::system("remove", path.display().to_string()))
    }

    pub(super) fn status(&self, record: &Record) -> Status {
        match start_time(record.pid) {
            Some((time, alive)) if time == record.start_time && alive => {
                if self.start_fifo().exists() {
                    Status::Created
                } else {
                    Status::Running
                }
            }
            _ => Status::Stopped,
        }
    }
}

/// When a process started, in clock ticks since boot, and whether it is no zombie
/// ([proc_pid_stat(5)](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html), fields 22 and 3).
pub(super) fn start_time(pid: i32) -> Option<(u64, bool)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let alive = !matches!(fields.next()?, "Z" | "X");
    Some((fields.nth(18)?.parse().ok()?, alive))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_directory() {
        for bad in ["", "..", ".hidden", "a/b", "a b"] {
            assert!(Place::of(bad).is_err(), "{bad}");
        }
        assert!(Place::of("web-1.2_x+y").is_ok());
    }

    #[test]
    fn this_process_started_and_lives() {
        let (time, alive) = start_time(std::process::id() as i32).unwrap();
        assert!(time > 0 && alive);
    }
}
