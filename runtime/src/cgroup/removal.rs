//! Removing control groups, alone and with all below them: one way for every owner of groups.
//!
//! A process that was killed leaves its group some time after the signal, so a removal waits for the kernel's own events
//! instead of trying again by the clock: in version 2 `cgroup.events` tells when a group is no longer populated, in version 1
//! the members' pidfds tell when they have ended ([cgroups(7)]).
//!
//! [cgroups(7)]: https://man7.org/linux/man-pages/man7/cgroups.7.html

use super::write;
use crate::error::Error;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Removes a group with all groups below it, innermost first. Processes in them that are ending are waited for. A group that
/// is gone already is a success.
///
/// # Errors
/// Where a group is still in use at the deadline, or is not ours to remove.
pub fn remove_tree(path: &Path, deadline: Duration) -> Result<(), Error> {
    remove_directory(path, Instant::now() + deadline, Members::Await)
}

/// Kills all that is in a group and below it, and removes it as [`remove_tree`] does.
///
/// # Errors
/// As [`remove_tree`].
pub fn end_tree(path: &Path, deadline: Duration) -> Result<(), Error> {
    remove_directory(path, Instant::now() + deadline, Members::Kill)
}

/// What is done about the processes that are still in a group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Members {
    Await,
    Kill,
}

pub(super) fn remove_directory(path: &Path, end: Instant, processes: Members) -> Result<(), Error> {
    loop {
        // In every round: what was in the group may have forked or made a group before it died.
        if processes == Members::Kill {
            kill(path);
        }
        // Opened before the attempt, so that no change between the two is missed.
        let events = rustix::fs::open(path.join("cgroup.events"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
        if let Some(events) = &events {
            let _ = rustix::io::read(events, &mut [0_u8; 256]);
        }
        match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
            Err(Errno::BUSY) if Instant::now() < end => {}
            Err(errno) => return Err(Error::system("remove cgroup", path.display().to_string())(errno)),
        }
        let below = children(path);
        for child in &below {
            remove_directory(child, end, processes)?;
        }
        if !below.is_empty() {
            continue;
        }
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        if let Some(events) = &events {
            let _ = poll(&mut [PollFd::new(events, PollFlags::PRI)], Some(&timeout));
        } else {
            for member in members(path) {
                let _ = poll(&mut [PollFd::new(&member, PollFlags::IN)], Some(&timeout));
            }
            // A process that has ended is taken from its group a moment later, of which version 1 tells nobody.
            rustix::thread::sched_yield();
        }
    }
}

/// Kills what is in a group: with all below it by one write where the kernel offers that (version 2, Linux 5.14), else one
/// by one, in this group alone.
fn kill(path: &Path) {
    if write(&path.join("cgroup.kill"), "1").is_err() {
        for member in members(path) {
            let _ = pidfd_send_signal(&member, Signal::KILL);
        }
    }
}

/// The processes in a group, each held so that its number cannot come to mean another.
fn members(path: &Path) -> Vec<OwnedFd> {
    let held: Vec<_> =
        numbers(path).into_iter().filter_map(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?))).collect();
    // A number may have been given to another process between the list and the handle: who is listed still, is meant.
    let still = numbers(path);
    held.into_iter().filter(|(pid, _)| still.contains(pid)).map(|(_, handle)| handle).collect()
}

fn numbers(path: &Path) -> Vec<Pid> {
    let listed = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    listed.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()
}

fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{Cgroups, Limits, PARENT};
    use std::process::{Command, Stdio};

    /// A group of our own with one below it, and a process that sleeps in the inner one; `None` where none can be made.
    fn busy_group(name: &str) -> Option<(PathBuf, std::process::Child)> {
        let cgroups = Cgroups::discover().ok()?;
        let cgroup = cgroups.create(&format!("{name}-{}", std::process::id()), &Limits::default()).ok()?;
        let path = cgroup.paths().next()?.to_path_buf();
        // In version 1 only the first hierarchy's directory is wanted here.
        let other: Vec<PathBuf> = cgroup.paths().skip(1).map(Path::to_path_buf).collect();
        std::mem::forget(cgroup);
        other.iter().for_each(|path| std::fs::remove_dir(path).unwrap());
        let inner = path.join("inner");
        std::fs::create_dir(&inner).unwrap();
        let child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        std::fs::write(inner.join("cgroup.procs"), child.id().to_string()).unwrap();
        Some((path, child))
    }

    #[test]
    fn a_group_in_use_is_refused_at_the_deadline_and_ended_on_request() {
        let Some((path, mut child)) = busy_group("removal") else {
            println!("skipped: no control group can be made here");
            return;
        };
        let refused = remove_tree(&path, Duration::from_millis(20)).unwrap_err();
        assert!(refused.to_string().contains("inner"), "{refused}");
        assert!(path.join("inner").exists() && child.try_wait().unwrap().is_none());
        end_tree(&path, Duration::from_secs(10)).unwrap();
        assert!(!path.exists());
        assert!(!child.wait().unwrap().success());
        remove_tree(&path, Duration::ZERO).unwrap();
        let _ = std::fs::remove_dir(path.ancestors().find(|path| path.ends_with(PARENT)).unwrap());
    }

    #[test]
    fn a_directory_that_holds_files_is_no_group_and_is_left() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("precious");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("file"), "x").unwrap();
        assert!(end_tree(&path, Duration::from_millis(20)).is_err());
        assert!(path.join("file").exists());
    }
}
