//! Control groups ([cgroups(7)](https://man7.org/linux/man-pages/man7/cgroups.7.html)): version 2, version 1, and the
//! hybrid of both, found from what is mounted.
#![forbid(unsafe_code)]

mod removal;

pub use removal::{end_tree, remove_tree};

use crate::error::Error;
use removal::{Members, remove_directory};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The directory under which all of ours lie, so that what a dead run left can be found.
pub const PARENT: &str = "isobench";

/// The least memory that a container may be limited to. Until exec the new process works in the launching process's memory, and
/// what it touches there is charged to its own group: a limit below what set-up needs could end the launcher. Docker has the
/// same bound.
pub const LEAST_MEMORY: u64 = 6 << 20;

/// Limits of one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Number of processes and threads.
    pub pids: Option<u64>,
    /// Processor time in microseconds per period of 100,000.
    pub cpu: Option<u64>,
}

/// What a cgroup has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Memory now, in bytes.
    pub memory: Option<u64>,
    /// The most memory so far, in bytes.
    pub memory_peak: Option<u64>,
    /// Processes and threads now.
    pub pids: Option<u64>,
    /// Processor time, in nanoseconds.
    pub cpu: Option<u64>,
}

/// How control groups are mounted on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Layout {
    /// Version 2 with its controllers; the directory of our parent.
    Unified(PathBuf),
    /// Version 1: the directory of our parent for each controller that we use.
    Legacy(Vec<(Controller, PathBuf)>),
}

/// The controllers in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Controller {
    Memory,
    Pids,
    Cpu,
}

impl Controller {
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "memory" => Self::Memory,
            "pids" => Self::Pids,
            "cpu" => Self::Cpu,
            _ => return None,
        })
    }
}

/// The place on this machine where cgroups of ours are made.
#[derive(Clone, Debug)]
pub struct Cgroups {
    layout: Layout,
}

impl Cgroups {
    /// Finds what is mounted, and makes our parent directory in it.
    pub fn discover() -> Result<Self, Error> {
        Self::discover_under(PARENT)
    }

    /// The same with another parent directory, such as `a/b`.
    pub(crate) fn discover_under(parent: &str) -> Result<Self, Error> {
        if parent.split('/').any(|part| part == "..") {
            return Err(Error::invalid(format!("the cgroup path `{parent}`"), "leads out of the hierarchy"));
        }
        let mounts =
            std::fs::read_to_string("/proc/self/mountinfo").map_err(Error::io("read", "/proc/self/mountinfo"))?;
        let own = std::fs::read_to_string("/proc/self/cgroup").map_err(Error::io("read", "/proc/self/cgroup"))?;
        let layout = find(&mounts, &own).ok_or_else(|| {
            Error::invalid("this machine", "has no control groups mounted that limit memory and processes")
        })?;
        let layout = match layout {
            Found::Unified { top, own } => Layout::Unified(parent_in_unified(&top, &own, parent)?),
            Found::Legacy(controllers) => {
                let parents = controllers.into_iter().map(|(controller, mount)| {
                    let parent = mount.join(parent);
                    make_directory(&parent).map(|()| (controller, parent))
                });
                Layout::Legacy(parents.collect::<Result<_, _>>()?)
            }
        };
        Ok(Self { layout })
    }

    /// Where a cgroup of this name would be, for a journal that is written before it is made.
    pub fn paths(&self, name: &str) -> Vec<PathBuf> {
        match &self.layout {
            Layout::Unified(parent) => vec![parent.join(name)],
            Layout::Legacy(parents) => parents.iter().map(|(_, parent)| parent.join(name)).collect(),
        }
    }

    /// Makes a cgroup and sets its limits. In version 1 the cpu controller is used only where cpu is limited: each
    /// controller costs a tenth of a millisecond.
    pub fn create(&self, name: &str, limits: &Limits) -> Result<Cgroup, Error> {
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(Error::invalid(format!("the cgroup name `{name}`"), "is no plain name"));
        }
        if let Some(memory) = limits.memory.filter(|memory| *memory < LEAST_MEMORY) {
            let why = format!("is too low to set a container up: give at least {LEAST_MEMORY} (6 MiB)");
            return Err(Error::invalid(format!("the memory limit of {memory} bytes"), why));
        }
        let mut cgroup = Cgroup { name: name.into(), directories: Vec::new(), unified: None, removed: false };
        match &self.layout {
            Layout::Unified(parent) => {
                let path = parent.join(name);
                make_new_directory(&path)?;
                cgroup.directories.push((None, path.clone()));
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let opened = rustix::fs::open(&path, flags, Mode::empty());
                cgroup.unified = Some(opened.map_err(Error::system("open", path.display().to_string()))?);
                write_limit(&path, "memory.max", limits.memory)?;
                write_limit(&path, "pids.max", limits.pids)?;
                if let Some(quota) = limits.cpu {
                    write(&path.join("cpu.max"), &format!("{quota} 100000"))?;
                }
            }
            Layout::Legacy(parents) => {
                for (controller, parent) in parents {
                    if *controller == Controller::Cpu && limits.cpu.is_none() {
                        continue;
                    }
                    let path = parent.join(name);
                    make_new_directory(&path)?;
                    cgroup.directories.push((Some(*controller), path.clone()));
                    match controller {
                        Controller::Memory => write_limit(&path, "memory.limit_in_bytes", limits.memory)?,
                        Controller::Pids => write_limit(&path, "pids.max", limits.pids)?,
                        Controller::Cpu => write_limit(&path, "cpu.cfs_quota_us", limits.cpu)?,
                    }
                }
            }
        }
        Ok(cgroup)
    }
}

/// One cgroup of ours: one directory in version 2, one a controller in version 1. Dropping it removes it quietly.
#[derive(Debug)]
pub struct Cgroup {
    name: String,
    directories: Vec<(Option<Controller>, PathBuf)>,
    unified: Option<OwnedFd>,
    removed: bool,
}

impl Cgroup {
    /// Its name, for messages.
    pub fn describe(&self) -> String {
        format!("{PARENT}/{}", self.name)
    }

    /// The controllers of version 1 that it uses, by name, each with its directory.
    pub fn controllers(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.directories.iter().filter_map(|(controller, path)| Some((controller.as_ref()?.name(), path.as_path())))
    }

    /// Its directories.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.directories.iter().map(|(_, path)| path.as_path())
    }

    /// The directory for clone3's `CLONE_INTO_CGROUP`.
    pub(crate) fn unified_directory(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// For version 1: the files in which the child writes itself down, opened while they can be reached. It is `tasks`, in
    /// which a thread may move itself without the lock that `cgroup.procs` takes.
    pub(crate) fn open_joins(&self) -> Result<Vec<OwnedFd>, Error> {
        let files = self.directories.iter().filter(|(controller, _)| controller.is_some()).map(|(_, path)| {
            let path = path.join("tasks");
            let opened = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            opened.map_err(Error::system("open", path.display().to_string()))
        });
        files.collect()
    }

    /// What it has used so far. A value is absent where its controller is.
    pub fn statistics(&self) -> Statistics {
        let mut statistics = Statistics::default();
        for (controller, path) in &self.directories {
            let number = |name: &str| std::fs::read_to_string(path.join(name)).ok()?.trim().parse().ok();
            match controller {
                None => {
                    statistics.memory = number("memory.current");
                    statistics.memory_peak = number("memory.peak");
                    statistics.pids = number("pids.current");
                    statistics.cpu = std::fs::read_to_string(path.join("cpu.stat")).ok().and_then(|text| {
                        let microseconds = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
                        Some(microseconds.parse::<u64>().ok()? * 1000)
                    });
                }
                Some(Controller::Memory) => {
                    statistics.memory = number("memory.usage_in_bytes");
                    statistics.memory_peak = number("memory.max_usage_in_bytes");
                }
                Some(Controller::Pids) => statistics.pids = number("pids.current"),
                Some(Controller::Cpu) => statistics.cpu = number("cpuacct.usage"),
            }
        }
        statistics
    }

    /// Removes it, and waits until all that was killed inside is gone: no retry by the clock, but the kernel's own events.
    pub fn remove(mut self, deadline: Duration) -> Result<(), Error> {
        self.removed = true;
        let end = Instant::now() + deadline;
        for (_, path) in &self.directories {
            remove_directory(path, end, Members::Await)?;
        }
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.removed {
            for (_, path) in &self.directories {
                let _ = std::fs::remove_dir(path);
            }
        }
    }
}

/// What the two files of /proc say.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Unified { top: PathBuf, own: String },
    Legacy(Vec<(Controller, PathBuf)>),
}

/// Reads the layout from the texts of /proc/self/mountinfo and /proc/self/cgroup. Version 1 mounts of memory and pids
/// win over a version 2 mount beside them, which in a hybrid layout has no such controllers.
fn find(mounts: &str, own: &str) -> Option<Found> {
    let mut unified = None;
    let mut legacy: Vec<(Controller, PathBuf)> = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(target) = left.split(' ').nth(4) else { continue };
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1).unwrap_or_default());
        match kind {
            "cgroup2" => unified = Some(PathBuf::from(target)),
            "cgroup" => {
                for controller in options.split(',').filter_map(Controller::named) {
                    if legacy.iter().all(|(known, _)| *known != controller) {
                        legacy.push((controller, target.into()));
                    }
                }
            }
            _ => {}
        }
    }
    if legacy.iter().any(|(controller, _)| *controller == Controller::Memory) {
        return Some(Found::Legacy(legacy));
    }
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    unified.map(|top| Found::Unified { top, own: own.into() })
}

/// Our parent in version 2: at the top for root, else beside the caller's own cgroup, as far as that is delegated.
fn parent_in_unified(top: &Path, own: &str, parent: &str) -> Result<PathBuf, Error> {
    let own = top.join(own.trim_start_matches('/'));
    let beside = own.parent().filter(|parent| parent.starts_with(top)).unwrap_or(top);
    let mut refused = None;
    for place in [top, beside, &own] {
        let parent = place.join(parent);
        match make_directory(&parent) {
            Ok(()) => {
                for directory in [place, &parent] {
                    for controller in ["+memory", "+pids", "+cpu"] {
                        // Not every one is there or delegated; limits that then fail say so.
                        let _ = write(&directory.join("cgroup.subtree_control"), controller);
                    }
                }
                return Ok(parent);
            }
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| Error::invalid("this machine", "has no cgroup that may be used")))
}

fn make_directory(path: &Path) -> Result<(), Error> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(Errno::NOENT) if path.parent().is_some() => {
            make_directory(path.parent().unwrap_or(path))?;
            make_directory(path)
        }
        Err(errno) => Err(Error::system("make cgroup", path.display().to_string())(errno)),
    }
}

fn make_new_directory(path: &Path) -> Result<(), Error> {
    rustix::fs::mkdir(path, Mode::from_raw_mode(0o755))
        .map_err(Error::system("make cgroup", path.display().to_string()))
}

fn write_limit(directory: &Path, name: &str, limit: Option<u64>) -> Result<(), Error> {
    limit.map_or(Ok(()), |limit| write(&directory.join(name), &limit.to_string()))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |errno| Error::system("write", path.display().to_string())(errno);
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    rustix::io::write(&file, text.as_bytes()).map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unified_layout_is_found() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = find(mounts, "0::/user.slice/a.scope\n");
        assert_eq!(found, Some(Found::Unified { top: "/sys/fs/cgroup".into(), own: "/user.slice/a.scope".into() }));
    }

    #[test]
    fn in_a_hybrid_layout_version_1_has_the_controllers() {
        let mounts = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let Some(Found::Legacy(controllers)) = find(mounts, "0::/\n") else { panic!("no version 1") };
        assert_eq!(controllers.len(), 3);
        assert!(controllers.contains(&(Controller::Memory, "/sys/fs/cgroup/memory".into())));
    }

    #[test]
    fn too_little_memory_is_refused_before_anything_is_made() {
        let cgroups = Cgroups { layout: Layout::Unified("/nonexistent".into()) };
        let limits = Limits { memory: Some(LEAST_MEMORY - 1), ..Limits::default() };
        let told = cgroups.create("container", &limits).unwrap_err().to_string();
        assert_eq!(
            told,
            "the memory limit of 6291455 bytes is too low to set a container up: give at least 6291456 (6 MiB)"
        );
    }

    #[test]
    fn a_machine_without_cgroups_has_none() {
        assert_eq!(find("22 27 0:21 / /proc rw - proc proc rw\n", ""), None);
    }
}
