//! Which control groups there are and whether we may make some ([cgroups(7)]).
//!
//! [cgroups(7)]: https://man7.org/linux/man-pages/man7/cgroups.7.html

use super::Finding;
use std::fs;
use std::path::{Path, PathBuf};

const SUBJECT: &str = "control groups";

pub(super) fn control_groups() -> Finding {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let layout = Layout::read(&mounts);
    let root = rustix::process::geteuid().is_root();
    match layout {
        Layout::None => Finding::limited(
            SUBJECT,
            "no control groups are mounted, so memory is measured by process alone",
            Some("sudo mount -t cgroup2 none /sys/fs/cgroup".into()),
        ),
        Layout::V1 { memory } => legacy("v1", memory, root),
        Layout::Hybrid { memory, .. } => legacy("hybrid: v1 accounts, v2 only kills and freezes", memory, root),
        Layout::V2 { point } => {
            let group = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").trim_start_matches('/');
            let group = if root { point.clone() } else { point.join(group) };
            unified(&group)
        }
    }
}

fn legacy(layout: &str, memory: Option<PathBuf>, root: bool) -> Finding {
    match memory {
        None => Finding::limited(
            SUBJECT,
            format!("control groups are {layout}, and the memory controller is not mounted"),
            Some("sudo mount -t cgroup -o memory none /sys/fs/cgroup/memory".into()),
        ),
        Some(memory) if can_be_made_in(&memory) => Finding::good(
            SUBJECT,
            format!("control groups are {layout}; groups of ours can be made and their memory read"),
        ),
        Some(_) => Finding::limited(
            SUBJECT,
            format!(
                "control groups are {layout}, and only root may make groups, so memory is measured by process alone"
            ),
            (!root).then(|| "sudo isobench run".into()),
        ),
    }
}

/// Whether a group can be made below another one: by making it.
fn can_be_made_in(group: &Path) -> bool {
    let trial = group.join(format!("isobench-doctor-{}", std::process::id()));
    fs::create_dir(&trial).and_then(|()| fs::remove_dir(&trial)).is_ok()
}

fn unified(group: &Path) -> Finding {
    let controllers = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    let has = |name: &str| controllers.split_ascii_whitespace().any(|controller| controller == name);
    let delegate = "systemd-run --user --scope -p Delegate=yes isobench run";
    if !can_be_made_in(group) {
        let sentence =
            "control groups are v2, and none of yours can be written, so memory is measured by process alone";
        return Finding::limited(SUBJECT, sentence, Some(delegate.into()));
    }
    let absent: Vec<&str> = ["memory", "pids", "cpu"].into_iter().filter(|name| !has(name)).collect();
    if absent.is_empty() {
        return Finding::good(SUBJECT, "control groups are v2; groups of ours can be made and their memory read");
    }
    let sentence = format!("control groups are v2, without the controller {}", absent.join(", "));
    Finding::limited(SUBJECT, sentence, Some(delegate.into()))
}

/// How control groups are mounted.
#[derive(Debug, PartialEq, Eq)]
enum Layout {
    None,
    V1 { memory: Option<PathBuf> },
    Hybrid { memory: Option<PathBuf> },
    V2 { point: PathBuf },
}

impl Layout {
    /// From mountinfo ([proc_pid_mountinfo(5)](https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html)): field 5
    /// is the mount point; behind ` - ` stand the type, the source and the options of the file system.
    fn read(mounts: &str) -> Self {
        let mut unified = None;
        let mut legacy = false;
        let mut memory = None;
        for line in mounts.lines() {
            let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
            let Some(point) = mount.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut words = filesystem.split(' ');
            match (words.next(), words.nth(1)) {
                (Some("cgroup2"), _) => unified = Some(point),
                (Some("cgroup"), options) => {
                    legacy = true;
                    if options.is_some_and(|options| options.split(',').any(|option| option == "memory")) {
                        memory = Some(point);
                    }
                }
                _ => {}
            }
        }
        match (unified, legacy) {
            (None, false) => Self::None,
            (None, true) => Self::V1 { memory },
            (Some(_), true) => Self::Hybrid { memory },
            (Some(point), false) => Self::V2 { point },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: &str = "31 25 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
    const UNIFIED: &str = "40 25 0:36 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn layouts_are_told_apart() {
        assert_eq!(Layout::read("22 1 8:1 / / rw - ext4 /dev/vda rw\n"), Layout::None);
        let memory = Some(PathBuf::from("/sys/fs/cgroup/memory"));
        assert_eq!(Layout::read(MEMORY), Layout::V1 { memory: memory.clone() });
        assert_eq!(Layout::read(&format!("{MEMORY}{UNIFIED}")), Layout::Hybrid { memory });
        assert_eq!(Layout::read(UNIFIED), Layout::V2 { point: "/sys/fs/cgroup/unified".into() });
    }

    #[test]
    fn a_group_without_the_memory_controller_is_limited() {
        let group = tempfile::tempdir().unwrap();
        fs::write(group.path().join("cgroup.controllers"), "cpu pids\n").unwrap();
        let finding = unified(group.path());
        assert_eq!(finding.sentence, "control groups are v2, without the controller memory");
        fs::write(group.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        assert_eq!(unified(group.path()).state, super::super::State::Good);
    }
}
