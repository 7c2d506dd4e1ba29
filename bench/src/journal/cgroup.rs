//! Removing control groups of dead runs, in both versions of the hierarchy.

use super::CGROUP_PARENT;
use rustix::process::geteuid;
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

/// Whether a process is in a group or below it.
pub(super) fn in_use(path: &Path) -> bool {
    let members = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    !members.trim().is_empty() || children(path).iter().any(|child| in_use(child))
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
    isobench_runtime::cgroup::end_tree(path, Duration::from_secs(5)).map_err(io::Error::other)
}

fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Every directory where the `isobench` group of ours may be: below the root of each hierarchy and below our own group.
pub(super) fn parents() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut parents = Vec::new();
    for mount in mounts.lines().filter(|line| line.contains(" - cgroup")) {
        let Some(point) = mount.split(' ').nth(4).map(Path::new) else { continue };
        parents.push(point.join(CGROUP_PARENT));
        // A group outside of what the cgroup namespace shows, `/..`, cannot be named.
        let named = |group: &&str| !group.starts_with("/..");
        for group in own.lines().filter_map(|line| line.splitn(3, ':').nth(2)).filter(named) {
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
