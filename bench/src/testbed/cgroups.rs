//! The testbed's own branch in each hierarchy of control groups ([cgroups(7)]).
//!
//! All that the testbed launches lies below `isobench/RUN`, peers included: the branch becomes the root of the testbed's
//! cgroup namespace and is what it sees at the mount points. Whoever finds the branch of a dead run can remove it whole.
//! An ordinary user may make none in version 1; the testbed then does without.
//!
//! [cgroups(7)]: https://man7.org/linux/man-pages/man7/cgroups.7.html

use anyhow::Context;
use isobench_runtime::cgroup::{PARENT, end_tree, remove_tree};
use rustix::mount::mount_bind;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The leaf in which the testbed's own processes are: a group of version 2 cannot have both processes and children with
/// controllers.
const OWN: &str = "testbed";

/// Mount points of every hierarchy, as far as they can be known.
pub(super) fn mounted() -> Vec<PathBuf> {
    hierarchies().unwrap_or_default()
}

/// Mount points of every hierarchy.
fn hierarchies() -> anyhow::Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(mount_points(&mounts))
}

fn mount_points(mountinfo: &str) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (Some(kind), Some(target)) = (right.split(' ').next(), left.split(' ').nth(4)) else { continue };
        // Not those of another root that is shown elsewhere; a branch and what it was bound over have one path.
        let ours = matches!(kind, "cgroup" | "cgroup2") && target.starts_with("/sys/");
        if ours && !points.iter().any(|point| point == Path::new(target)) {
            points.push(target.into());
        }
    }
    points
}

fn branch(hierarchy: &Path, run: &str) -> PathBuf {
    hierarchy.join(PARENT).join(run)
}

/// Makes the branch in each hierarchy that allows it and moves this process there, so that a cgroup namespace made now has
/// its root there.
pub(crate) fn enter(run: &str) -> anyhow::Result<()> {
    for hierarchy in hierarchies()? {
        let branch = branch(&hierarchy, run);
        if fs::create_dir_all(&branch).is_err() {
            continue;
        }
        for (group, parent) in [(hierarchy.join(PARENT), hierarchy.clone()), (branch.clone(), hierarchy.join(PARENT))] {
            inherit(&group, &parent);
        }
        if join(&branch).is_err() {
            // Not ours to use (a hierarchy that was not delegated): leave nothing behind.
            let _ = fs::remove_dir(&branch);
        }
    }
    Ok(())
}

/// What a group needs from its parent before it can hold processes: controllers in version 2, CPUs and memory nodes in a
/// cpuset of version 1. What is not there or not allowed is done without.
fn inherit(group: &Path, parent: &Path) {
    allow_controllers(parent);
    inherit_cpus(group, parent);
}

/// Lets the children of a group of version 2 have controllers.
fn allow_controllers(parent: &Path) {
    for controller in ["+cpuset", "+cpu", "+io", "+memory", "+hugetlb", "+pids"] {
        let _ = fs::write(parent.join("cgroup.subtree_control"), controller);
    }
}

fn inherit_cpus(group: &Path, parent: &Path) {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if group.join("tasks").exists() && fs::read_to_string(group.join(name)).is_ok_and(|own| own.trim().is_empty()) {
            let _ = fs::read(parent.join(name)).and_then(|value| fs::write(group.join(name), value));
        }
    }
}

/// Moves this process into the leaf, out of the way of controllers.
pub(crate) fn step_aside(run: &str) -> anyhow::Result<()> {
    for hierarchy in hierarchies()? {
        let branch = branch(&hierarchy, run);
        let own = branch.join(OWN);
        if branch.exists() {
            fs::create_dir(&own).with_context(|| format!("make cgroup {}", own.display()))?;
            inherit_cpus(&own, &branch);
            join(&own).with_context(|| format!("join cgroup {}", own.display()))?;
            // Not before: a group that holds a process and whose children have the controller cpu or pids is the root of a
            // tree of threads, and its children take no processes (cgroups(7), "Thread mode").
            allow_controllers(&branch);
        }
    }
    Ok(())
}

fn join(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), "0")
}

/// Moves this process beside a testbed's own, or beside those of a host `within` it, as far as it may: as an ordinary user from
/// outside what is delegated it may not.
pub(crate) fn join_branch(run: &str, within: Option<&str>) {
    for hierarchy in hierarchies().unwrap_or_default() {
        let first = branch(&hierarchy, run);
        let _ = join(&within.map_or(first.clone(), |host| branch(&first, host)).join(OWN));
    }
}

/// The branches of a run that are there.
pub(crate) fn branches(run: &str) -> Vec<PathBuf> {
    let branches = hierarchies().unwrap_or_default().into_iter().map(|hierarchy| branch(&hierarchy, run));
    branches.filter(|branch| branch.exists()).collect()
}

/// Shows each branch at its hierarchy's mount point. Called in the testbed's mount namespace.
pub(crate) fn show(run: &str) -> anyhow::Result<()> {
    for hierarchy in hierarchies()? {
        let branch = branch(&hierarchy, run);
        if branch.exists() {
            mount_bind(&branch, &hierarchy).with_context(|| format!("show cgroup {}", branch.display()))?;
        }
    }
    Ok(())
}

/// Whether groups can be made below the mount points: an ordinary user needs a delegated one of version 2 for that.
pub(crate) fn usable() -> bool {
    let trial = |hierarchy: &PathBuf| {
        let group = hierarchy.join("trial");
        fs::create_dir(&group).and_then(|()| fs::remove_dir(&group)).is_ok()
    };
    hierarchies().is_ok_and(|hierarchies| !hierarchies.is_empty() && hierarchies.iter().all(trial))
}

/// Every group below the mount points, as the testbed sees them; where it has no branch, nothing there is its own.
pub(crate) fn list() -> anyhow::Result<Vec<String>> {
    let mut groups = Vec::new();
    for hierarchy in hierarchies()?.into_iter().filter(|hierarchy| hierarchy.join(OWN).exists()) {
        let mut pending = children(&hierarchy);
        while let Some(group) = pending.pop() {
            pending.extend(children(&group));
            groups.push(group.display().to_string());
        }
    }
    groups.sort();
    // A branch and what it was bound over are two mounts with one path.
    groups.dedup();
    Ok(groups)
}

/// How long what was killed may take to leave its group.
const DEADLINE: Duration = Duration::from_secs(5);

/// Ends what is left in a group of this name in each hierarchy, and removes it.
pub(crate) fn remove_named(name: &str) -> anyhow::Result<()> {
    for hierarchy in hierarchies()? {
        end_tree(&hierarchy.join(name), DEADLINE)?;
    }
    Ok(())
}

/// Removes the branch of a run whose processes are gone, with all groups below it, and our parent if nobody else uses it.
///
/// # Errors
/// Where a group is still in use.
pub fn remove(run: &str) -> anyhow::Result<()> {
    for hierarchy in hierarchies()? {
        remove_tree(&branch(&hierarchy, run), DEADLINE)?;
        let _ = fs::remove_dir(hierarchy.join(PARENT));
    }
    Ok(())
}

fn children(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(group) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let mountinfo = "29 22 0:25 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n\
                         30 22 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                         31 22 0:27 / /run rw - tmpfs tmpfs rw\n";
        let expected = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        assert_eq!(mount_points(mountinfo), expected);
    }
}
