//! Removing control groups of dead runs, in both versions of the hierarchy.

use super::CGROUP_PARENT;
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Groups of runs, live or dead: the children of every `isobench` group that we may have made. What another user left is not
/// an ordinary user's to remove.
pub(super) fn of_runs() -> Vec<PathBuf> {
    let user = geteuid();
    let groups = parents().into_iter().flat_map(|parent| children(&parent));
    groups
        .filter(|path| user.is_root() || path.metadata().is_ok_and(|metadata| metadata.uid() == user.as_raw()))
        .collect()
}

/// Removes `isobench` groups that no run uses any more.
pub(super) fn remove_empty_parents() {
    for parent in parents() {
        // A group with children or processes refuses, which is what we want.
        let _ = std::fs::remove_dir(parent);
    }
}

/// Kills what is in a group and below, then removes the groups, innermost first. A group that is gone is a success.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let ours = path.components().any(|component| component.as_os_str() == CGROUP_PARENT);
    if !ours
        || !path.starts_with("/sys/fs/cgroup")
        || path.components().any(|part| part == std::path::Component::ParentDir)
    {
        return Err(io::Error::other("it is not named as a control group of ours is"));
    }
    // The kernel removes a killed process from its group some time after the signal: wait 1, 2, 4... ms, 2 s in all.
    let mut pause = Duration::from_millis(1);
    loop {
        kill(path)?;
        match remove_tree(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && pause < Duration::from_secs(2) => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            result => return result,
        }
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    for child in children(path) {
        remove_tree(&child)?;
    }
    absent_is_well(std::fs::remove_dir(path))
}

/// `cgroup.kill` where the kernel has it (v2, Linux 5.14), else a signal to each process.
fn kill(path: &Path) -> io::Result<()> {
    if path.join("cgroup.kill").exists() {
        return absent_is_well(std::fs::write(path.join("cgroup.kill"), "1"));
    }
    for child in children(path) {
        kill(&child)?;
    }
    let processes = match std::fs::read_to_string(path.join("cgroup.procs")) {
        Ok(processes) => processes,
        Err(error) => return absent_is_well(Err(error)),
    };
    for process in processes.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
        let Ok(handle) = pidfd_open(process, PidfdFlags::empty()) else { continue };
        // The number may have been given to another process since it was read; the handle stays with one.
        let still = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        if still.lines().any(|line| line.parse() == Ok(process.as_raw_pid())) {
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
    }
    Ok(())
}

fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn absent_is_well(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A file of a group that is being removed answers so.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(()),
        result => result,
    }
}

/// Every directory where the `isobench` group of ours may be: below the root of each hierarchy and below our own group.
pub(super) fn parents() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut parents = Vec::new();
    for mount in mounts.lines().filter(|line| line.contains(" - cgroup")) {
        let Some(point) = mount.split(' ').nth(4).map(Path::new) else { continue };
        parents.push(point.join(CGROUP_PARENT));
        for group in own.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
            let group = point.join(group.trim_start_matches('/'));
            parents.extend(
                group.ancestors().take_while(|path| path.starts_with(point)).map(|path| path.join(CGROUP_PARENT)),
            );
        }
    }
    parents.sort();
    parents.dedup();
    parents
}
