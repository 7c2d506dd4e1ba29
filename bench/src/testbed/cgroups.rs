//! The testbed's own branch in each hierarchy of control groups ([cgroups(7)]).
//!
//! All that the testbed launches lies below `isobench/RUN`, peers included: the branch becomes the root of the testbed's
//! cgroup namespace and is what it sees at the mount points. Whoever finds the branch of a dead run can remove it whole.
//! An ordinary user may make none in version 1; the testbed then does without.
//!
//! [cgroups(7)]: https://man7.org/linux/man-pages/man7/cgroups.7.html

use anyhow::Context;
use isobench_runtime::cgroup::{PARENT, end_tree, remove_tree};
use isobench_workload::ENDS_WITHIN;
use rustix::mount::mount_bind;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
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
    let mounts = super::own("mountinfo").context("read /proc/self/mountinfo")?;
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

/// Where a run's branch can be in a hierarchy, best first: at its top, and in version 2 beside the group that this process is in,
/// and below that, where one of these is delegated to an ordinary user.
fn candidates(hierarchy: &Path, run: &str) -> Vec<PathBuf> {
    let mut places = vec![hierarchy.to_owned()];
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    // Outside of what this process's cgroup namespace shows, its own group cannot be named.
    if let Some(own) =
        own.filter(|own| !own.is_empty() && !own.starts_with("..") && hierarchy.join("cgroup.procs").exists())
    {
        let own = hierarchy.join(own);
        places.extend(own.parent().map(Path::to_owned));
        places.push(own);
    }
    places.dedup();
    // What does not lie in this hierarchy is not there.
    places
        .into_iter()
        .filter(|place| place.join("cgroup.procs").exists())
        .map(|place| place.join(PARENT).join(run))
        .collect()
}

/// The branch of a run, or of a host within one, in each hierarchy that allowed it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Branches(Vec<Branch>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Branch {
    /// The mount point.
    hierarchy: PathBuf,
    /// The branch, seen from where it was made.
    path: PathBuf,
}

/// Makes the branch in each hierarchy that allows it and moves this process there, so that a cgroup namespace made now has
/// its root there.
pub(crate) fn enter(run: &str) -> anyhow::Result<Branches> {
    let mut branches = Vec::new();
    for hierarchy in hierarchies()? {
        let made = candidates(&hierarchy, run).into_iter().find(|path| enter_at(path));
        branches.extend(made.map(|path| Branch { hierarchy, path }));
    }
    Ok(Branches(branches))
}

fn enter_at(branch: &Path) -> bool {
    let Some(parent) = branch.parent() else { return false };
    let Some(place) = parent.parent() else { return false };
    if fs::create_dir_all(branch).is_err() {
        return false;
    }
    inherit(parent, place);
    inherit(branch, parent);
    let joined = join(branch).is_ok();
    if !joined {
        // Not ours to use (a hierarchy that was not delegated): leave nothing behind.
        let _ = fs::remove_dir(branch);
        let _ = fs::remove_dir(parent);
    }
    joined
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

/// Moves this process, which has one thread, into a group. In version 1 by `tasks`, in which a thread may move itself without
/// the lock that `cgroup.procs` takes and that waits for a grace period of RCU (`cgroup_procs_write_start` in
/// kernel/cgroup/cgroup.c): milliseconds.
fn join(group: &Path) -> io::Result<()> {
    move_into(group, open_tasks(group)?)
}

/// `None` in version 2.
fn open_tasks(group: &Path) -> io::Result<Option<File>> {
    match File::options().write(true).open(group.join("tasks")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        tasks => tasks.map(Some),
    }
}

fn move_into(group: &Path, tasks: Option<File>) -> io::Result<()> {
    match tasks {
        Some(mut tasks) => tasks.write_all(b"0"),
        None => fs::write(group.join("cgroup.procs"), "0"),
    }
}

impl Branches {
    /// Moves this process into the leaf, out of the way of controllers.
    pub(crate) fn step_aside(&self) -> anyhow::Result<()> {
        for Branch { path, .. } in &self.0 {
            let own = path.join(OWN);
            fs::create_dir(&own).with_context(|| format!("make cgroup {}", own.display()))?;
            inherit_cpus(&own, path);
            join(&own).with_context(|| format!("join cgroup {}", own.display()))?;
            // Not before: a group that holds a process and whose children have the controller cpu or pids is the root of a
            // tree of threads, and its children take no processes (cgroups(7), "Thread mode").
            allow_controllers(path);
        }
        Ok(())
    }

    /// Moves this process beside a testbed's own, or beside those of a host `within` it. As an ordinary user from outside what
    /// is delegated it may not: then it is told that not all could be joined.
    ///
    /// Where version 1 has the controllers, version 2 only names processes, and to join it would take the lock that [`join`]
    /// does without.
    pub(crate) fn join(&self, within: Option<&str>) -> bool {
        let leaf = |path: &Path| within.map_or(path.to_owned(), |host| path.join(PARENT).join(host)).join(OWN);
        let leaves: Vec<PathBuf> = self.0.iter().map(|branch| leaf(&branch.path)).collect();
        let opened: Vec<_> = leaves.iter().map(|leaf| open_tasks(leaf)).collect();
        let hybrid = opened.iter().any(|tasks| !matches!(tasks, Ok(None)));
        // Each is tried, whatever became of those before it.
        let joined = leaves.iter().zip(opened).map(|(leaf, tasks)| match tasks {
            Ok(None) if hybrid => Ok(()),
            tasks => tasks.and_then(|tasks| move_into(leaf, tasks)),
        });
        joined.filter(Result::is_err).count() == 0
    }

    /// The groups.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.0.iter().map(|branch| branch.path.clone()).collect()
    }

    /// Removes them; their processes are gone.
    pub(crate) fn remove(&self) -> anyhow::Result<()> {
        self.0.iter().try_for_each(|branch| remove_branch(&branch.path))
    }

    /// Kills what is left in them, and removes them.
    pub(crate) fn end(&self) -> anyhow::Result<()> {
        self.0.iter().try_for_each(|branch| end_tree(&branch.path, LEAVES_WITHIN))?;
        self.remove()
    }

    /// Shows each branch at its hierarchy's mount point. Called in the testbed's mount namespace.
    pub(crate) fn show(&self) -> anyhow::Result<()> {
        for Branch { hierarchy, path } in &self.0 {
            mount_bind(path, hierarchy).with_context(|| format!("show cgroup {}", path.display()))?;
        }
        Ok(())
    }

    /// As one word for a command line.
    pub(crate) fn word(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// Back from [`Branches::word`].
    pub(crate) fn from_word(word: &str) -> anyhow::Result<Self> {
        serde_json::from_str(word).context("read where the control groups are")
    }
}

/// Whether groups can be made below the mount points: an ordinary user needs a delegated one of version 2 for that.
pub(crate) fn usable() -> bool {
    let trial = |hierarchy: &PathBuf| {
        let group = hierarchy.join("trial");
        fs::create_dir(&group).and_then(|()| fs::remove_dir(&group)).is_ok()
    };
    hierarchies().is_ok_and(|hierarchies| !hierarchies.is_empty() && hierarchies.iter().all(trial))
}

/// Why a program that makes groups of its own cannot run here, with what mends it, if that is so.
pub(crate) fn obstacle_to(program: &str) -> Option<String> {
    let sentence = || format!("{program} makes control groups, which this user may not: run isobench as root");
    (!usable()).then(sentence)
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

/// Ends what is left in a group of this name in each hierarchy, and removes it.
pub(crate) fn remove_named(name: &str) -> anyhow::Result<()> {
    for hierarchy in hierarchies()? {
        end_tree(&hierarchy.join(name), ENDS_WITHIN)?;
    }
    Ok(())
}

/// How long what has ended may take to leave a run's branch.
const LEAVES_WITHIN: Duration = Duration::from_secs(5);

/// Removes a branch, and our parent if nobody else uses it.
fn remove_branch(branch: &Path) -> anyhow::Result<()> {
    remove_tree(branch, LEAVES_WITHIN)?;
    if let Some(parent) = branch.parent() {
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

/// Removes the branch of a run whose processes are gone, with all groups below it, and our parent if nobody else uses it.
///
/// # Errors
/// Where a group is still in use.
pub fn remove(run: &str) -> anyhow::Result<()> {
    for hierarchy in hierarchies()? {
        for branch in candidates(&hierarchy, run) {
            remove_branch(&branch)?;
        }
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
