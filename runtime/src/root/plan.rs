//! Writing down, before the launch, what the child has to do for a root.
#![forbid(unsafe_code)]

use super::{Mount, MountKind};
use crate::error::Error;
use crate::plan::c_string;
use crate::specification::Root;
use rustix::mount::MountFlags;
use std::ffi::{CStr, CString};
use std::path::{Component, Path, PathBuf};

/// Device nodes of every container: name, major, minor.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links of every container under /dev.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// One thing to do in the new root. Targets are absolute in it, sources relative to the old one.
#[derive(Debug)]
pub(crate) enum Operation {
    Directory {
        path: CString,
    },
    File {
        path: CString,
    },
    Link {
        to: CString,
        path: CString,
    },
    Device {
        path: CString,
        source: CString,
        major: u32,
        minor: u32,
    },
    FileSystem {
        name: CString,
        target: CString,
        flags: MountFlags,
        options: CString,
    },
    Bind {
        source: CString,
        target: CString,
        recursive: bool,
    },
    /// New flags for a mount that is there.
    Remount {
        target: CString,
        flags: MountFlags,
    },
    /// Refuses a target that is a link: another file system under the name of proc or sys (CVE-2019-19921).
    NoLink {
        path: CString,
    },
    Mask {
        path: CString,
    },
    ReadOnly {
        path: CString,
    },
}

impl std::fmt::Display for Operation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |path: &CString| path.to_string_lossy().into_owned();
        match self {
            Self::Directory { path } => write!(formatter, "make directory {}", text(path)),
            Self::File { path } => write!(formatter, "make file {}", text(path)),
            Self::Link { path, .. } => write!(formatter, "make link {}", text(path)),
            Self::Device { path, .. } => write!(formatter, "make device {}", text(path)),
            Self::FileSystem { name, target, .. } => write!(formatter, "mount {} on {}", text(name), text(target)),
            Self::Bind { source, target, .. } => write!(formatter, "bind /{} on {}", text(source), text(target)),
            Self::Remount { target, .. } => write!(formatter, "set the flags of {}", text(target)),
            Self::NoLink { path } => write!(formatter, "see that {} is no symbolic link", text(path)),
            Self::Mask { path } => write!(formatter, "mask {}", text(path)),
            Self::ReadOnly { path } => write!(formatter, "make {} read-only", text(path)),
        }
    }
}

/// The root as the child needs it.
#[derive(Debug)]
pub(crate) struct RootPlan {
    /// A directory of the host, and whether what is mounted below it comes along; `None` for an empty file system.
    pub(crate) directory: Option<(CString, bool)>,
    /// Options of the overlay that is the root, in place of either.
    pub(crate) layers: Option<Layers>,
    pub(crate) read_only: bool,
    pub(crate) operations: Vec<Operation>,
    pub(crate) working_directory: CString,
    /// Each directory on the way there, the last one included, and its own name; none where nothing is to be made.
    pub(crate) directories_to_it: Vec<(CString, CString)>,
}

/// A directory that stays as it is, and the layer that takes what is written.
#[derive(Debug)]
pub(crate) struct Layers {
    pub(super) lower: CString,
    pub(super) upper: CString,
    pub(super) work: CString,
    /// In a user namespace the kernel keeps its notes in other attributes of the files.
    pub(super) user_attributes: bool,
}

impl Layers {
    fn new(lower: &Path, upper: &Path, work: &Path) -> Result<Self, Error> {
        let option = |path: &Path, what: &'static str| {
            let real = path.canonicalize().map_err(Error::io(what, path.display().to_string()))?;
            // A colon separates layers. fsconfig(2) takes strings below 256 bytes.
            let text = real.to_str().unwrap_or_default().replace('\\', "\\\\").replace(':', "\\:");
            if text.len() > 255 || text.is_empty() {
                return Err(Error::invalid(format!("the path {}", path.display()), "is too long or not UTF-8"));
            }
            c_string(text)
        };
        if !lower.is_dir() {
            return Err(Error::invalid(format!("the root {}", lower.display()), "is no directory"));
        }
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let user_attributes =
            map.split_ascii_whitespace().nth(2) != Some("4294967295") || !rustix::process::geteuid().is_root();
        let (upper, work) = (option(upper, "find the layer")?, option(work, "find the working directory")?);
        Ok(Self { lower: option(lower, "find the root")?, upper, work, user_attributes })
    }
}

/// A path that goes back leads nowhere that is to be made: what is there before `..` may be a link.
fn directories_to(path: &Path) -> Result<Vec<(CString, CString)>, Error> {
    let names = path.components().filter(|component| *component != Component::RootDir);
    let mut so_far = PathBuf::new();
    let mut directories = Vec::new();
    for name in names {
        let Component::Normal(name) = name else { return Ok(Vec::new()) };
        so_far.push(name);
        directories.push((c_path(&so_far)?, c_path(Path::new(name))?));
    }
    Ok(directories)
}

/// The numbers of steps that are no operation, counted from the end of the list.
const FIXED_STEPS: [&str; 7] = [
    "make mounts private",
    "make the new root",
    "enter the new root",
    "make the old root reachable",
    "detach the old root",
    "make the root read-only",
    "enter the working directory",
];

impl RootPlan {
    pub(crate) fn describe(&self, item: usize) -> String {
        match (self.operations.get(item), item.checked_sub(self.operations.len())) {
            (Some(operation), _) => operation.to_string(),
            (None, Some(fixed)) if fixed + 1 == FIXED_STEPS.len() => {
                format!("enter the working directory {}", self.working_directory.to_string_lossy())
            }
            (None, fixed) => fixed.and_then(|fixed| FIXED_STEPS.get(fixed)).copied().unwrap_or_default().into(),
        }
    }

    /// Validates a root and writes down what the child has to do for it.
    pub(crate) fn new(
        root: &Root,
        mounts: &[Mount],
        masked: &[String],
        read_only_paths: &[String],
        working_directory: &str,
    ) -> Result<Self, Error> {
        let mut layers = None;
        let (directory, read_only, fresh) = match root {
            Root::Empty => (None, false, true),
            Root::Layered { lower, upper, work, read_only } => {
                layers = Some(Layers::new(lower, upper, work)?);
                (None, *read_only, false)
            }
            Root::Directory { path, recursive, read_only } => {
                let real = path.canonicalize().map_err(Error::io("find the root", path.display().to_string()))?;
                (Some((c_path(&real)?, *recursive)), *read_only, false)
            }
        };
        // A tree that comes with all its mounts is complete: nothing is made in it.
        let complete = matches!(&directory, Some((_, true)));
        let mut operations = Vec::with_capacity(64);
        let mut made: Vec<&str> = vec!["/"];
        for mount in mounts {
            target_is_sound(&mount.target)?;
            mount_operations(mount, fresh, complete, &mut made, &mut operations)?;
            // A directory of the host is somebody's: what a container needs is made in a file system of its own alone.
            if mount.target == "/dev" && !matches!(mount.kind, MountKind::Bind { .. }) {
                device_operations(&mut operations)?;
                made.push("/dev");
            }
        }
        if fresh && !mounts.iter().any(|mount| mount.target == "/dev") {
            operations.push(Operation::Directory { path: c"/dev".into() });
            device_operations(&mut operations)?;
        }
        for path in read_only_paths {
            target_is_sound(path)?;
            operations.push(Operation::ReadOnly { path: c_string(path.as_str())? });
        }
        for path in masked {
            target_is_sound(path)?;
            operations.push(Operation::Mask { path: c_string(path.as_str())? });
        }
        if !working_directory.starts_with('/') {
            return Err(Error::invalid("the working directory", "is not an absolute path"));
        }
        let directories_to_it = if complete { Vec::new() } else { directories_to(Path::new(working_directory))? };
        let working_directory = c_string(working_directory)?;
        Ok(Self { directory, layers, read_only, operations, working_directory, directories_to_it })
    }
}

fn mount_operations<'a>(
    mount: &'a Mount,
    fresh: bool,
    complete: bool,
    made: &mut Vec<&'a str>,
    operations: &mut Vec<Operation>,
) -> Result<(), Error> {
    let target = mount.target.as_str();
    let file = matches!(&mount.kind, MountKind::Bind { source, .. } if !source.is_dir());
    if !complete {
        for (end, _) in target.match_indices('/').skip(1).chain([(target.len(), "")]) {
            let path = &target[..end];
            if made.contains(&path) {
                continue;
            }
            made.push(path);
            let (last, path) = (end == target.len(), c_string(path)?);
            operations.push(if last && file { Operation::File { path } } else { Operation::Directory { path } });
        }
    }
    let c_target = c_string(target)?;
    match &mount.kind {
        MountKind::FileSystem { name, options } => {
            if !fresh && matches!(name.as_str(), "proc" | "sysfs") {
                operations.push(Operation::NoLink { path: c_target.clone() });
            }
            // An empty root lies in memory already: a second such file system would cost its making and its end.
            if fresh && target == "/dev" && name == "tmpfs" && !mount.read_only {
                return Ok(());
            }
            let flags = mount.flags | if mount.read_only { MountFlags::RDONLY } else { MountFlags::empty() };
            let (name, options) = (c_string(name.as_str())?, c_string(options.as_str())?);
            operations.push(Operation::FileSystem { name, target: c_target, flags, options });
        }
        MountKind::Bind { source, recursive } => {
            let real =
                source.canonicalize().map_err(Error::io("find the bind source", source.display().to_string()))?;
            let source = relative(&c_path(&real)?);
            operations.push(Operation::Bind { source, target: c_target.clone(), recursive: *recursive });
            let flags = mount.flags | if mount.read_only { MountFlags::RDONLY } else { MountFlags::empty() };
            if !flags.is_empty() {
                operations.push(Operation::Remount { target: c_target, flags });
            }
        }
    }
    Ok(())
}

fn device_operations(operations: &mut Vec<Operation>) -> Result<(), Error> {
    for (name, major, minor) in DEVICES {
        let (path, source) = (c_string(format!("/dev/{name}"))?, c_string(format!("dev/{name}"))?);
        operations.push(Operation::Device { path, source, major, minor });
    }
    for (to, path) in LINKS {
        operations.push(Operation::Link { to: c_string(to)?, path: c_string(path)? });
    }
    Ok(())
}

fn target_is_sound(target: &str) -> Result<(), Error> {
    let sound = target.starts_with('/')
        && target.len() > 1
        && target.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    if sound { Ok(()) } else { Err(Error::invalid(format!("the path {target}"), "is not absolute and plain")) }
}

fn c_path(path: &Path) -> Result<CString, Error> {
    c_string(path.to_str().ok_or_else(|| Error::invalid(format!("the path {}", path.display()), "is not UTF-8"))?)
}

/// The same path seen from the old root as working directory.
fn relative(path: &CStr) -> CString {
    let bytes = path.to_bytes();
    let bytes = bytes.strip_prefix(b"/").unwrap_or(bytes);
    CString::new(if bytes.is_empty() { b"." } else { bytes }).unwrap_or_default()
}
