//! The root of the container: its file system tree, as a list of operations that is data until the child carries it out.
//!
//! The new root is entered first and everything is mounted afterwards, so that a symbolic link in a hostile image can lead
//! nowhere but into the image itself: targets are resolved under the new root, and sources are opened relative to the old
//! one, which is the working directory meanwhile.
#![forbid(unsafe_code)]

use crate::child::{StepResult, open};
use crate::error::Error;
use crate::plan::{Plan, Root};
use crate::system;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};
use std::ffi::{CStr, CString};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Something mounted in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where, as an absolute path in the container.
    pub target: String,
    /// What.
    pub kind: MountKind,
    /// Flags such as `nosuid`.
    pub flags: MountFlags,
    /// Whether the mounted tree is read-only.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A new file system.
    FileSystem {
        /// Its type, such as `tmpfs`.
        name: String,
        /// Its options, such as `mode=1777`.
        options: String,
    },
    /// A file or directory of the host.
    Bind {
        /// Its path on the host.
        source: PathBuf,
        /// Whether what is mounted below comes along.
        recursive: bool,
    },
}

impl Mount {
    /// A new file system.
    pub fn file_system(name: &str, target: &str, flags: MountFlags, options: &str) -> Self {
        let kind = MountKind::FileSystem { name: name.into(), options: options.into() };
        Self { target: target.into(), kind, flags, read_only: false }
    }

    /// The mounts that Docker gives every container, less the control groups.
    pub fn standard() -> Vec<Self> {
        let closed = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
        let unprivileged = MountFlags::NOSUID | MountFlags::NOEXEC;
        let mut sysfs = Self::file_system("sysfs", "/sys", closed, "");
        sysfs.read_only = true;
        vec![
            Self::file_system("proc", "/proc", closed, ""),
            Self::file_system("tmpfs", "/dev", MountFlags::NOSUID | MountFlags::STRICTATIME, "mode=755,size=65536k"),
            Self::file_system("devpts", "/dev/pts", unprivileged, "newinstance,ptmxmode=0666,mode=0620"),
            Self::file_system("mqueue", "/dev/mqueue", closed, ""),
            Self::file_system("tmpfs", "/dev/shm", closed, "mode=1777,size=65536k"),
            sysfs,
        ]
    }
}

/// Paths that Docker hides, because they say or do too much about the host.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths that Docker hides: the fixed ones, and one a CPU where the hardware has it.
pub fn masked() -> Vec<String> {
    static THROTTLES: LazyLock<Vec<String>> = LazyLock::new(|| {
        let processors = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
        let throttles = processors.map(|entry| entry.path().join("thermal_throttle")).filter(|path| path.is_dir());
        throttles.filter_map(|path| path.to_str().map(String::from)).collect()
    });
    MASKED.iter().map(|path| (*path).to_owned()).chain(THROTTLES.iter().cloned()).collect()
}

/// Paths that Docker makes read-only.
pub const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

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
}

/// A directory that stays as it is, and the layer that takes what is written.
#[derive(Debug)]
pub(crate) struct Layers {
    lower: CString,
    upper: CString,
    work: CString,
    /// In a user namespace the kernel keeps its notes in other attributes of the files.
    user_attributes: bool,
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
            c_string(&text)
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

    fn mount(&self) -> Result<OwnedFd, Errno> {
        let context = ManuallyDrop::new(rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?);
        let options = [(c"lowerdir", &self.lower), (c"upperdir", &self.upper), (c"workdir", &self.work)];
        for (name, value) in options {
            rustix::mount::fsconfig_set_string(context.as_fd(), name, &**value)?;
        }
        if self.user_attributes {
            rustix::mount::fsconfig_set_flag(context.as_fd(), c"userxattr")?;
        }
        rustix::mount::fsconfig_create(context.as_fd())?;
        rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }
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
            if mount.target == "/dev" {
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
            operations.push(Operation::ReadOnly { path: c_string(path)? });
        }
        for path in masked {
            target_is_sound(path)?;
            operations.push(Operation::Mask { path: c_string(path)? });
        }
        if !working_directory.starts_with('/') {
            return Err(Error::invalid("the working directory", "is not an absolute path"));
        }
        Ok(Self { directory, layers, read_only, operations, working_directory: c_string(working_directory)? })
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
            let (name, options) = (c_string(name)?, c_string(options)?);
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
        let (path, source) = (c_string(&format!("/dev/{name}"))?, c_string(&format!("dev/{name}"))?);
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

fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::invalid(format!("{text:?}"), "contains a zero byte"))
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

/// Leaves the old root for the new one and makes everything in it. Runs in the child.
pub(crate) fn change_root(plan: &Plan) -> StepResult {
    let Some(root) = &plan.root else { return Ok(()) };
    let fixed = |step: usize| move |errno: Errno| (root.operations.len() + step, errno);

    // Nothing that is mounted from here on may spread to the host.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", private).map_err(fixed(0))?;
    let old_root = open(c"/", OFlags::PATH | OFlags::DIRECTORY).map_err(fixed(0))?;
    let tree = enter_new_root(root).map_err(fixed(1))?;

    // pivot_root(".", ".") stacks the old root upon the new one, where one unmount takes it away (pivot_root(2)).
    rustix::process::pivot_root(c".", c".").map_err(fixed(2))?;
    rustix::process::fchdir(&*old_root).map_err(fixed(3))?;
    rustix::process::umask(Mode::empty());
    let mut empty = None;
    for (item, operation) in root.operations.iter().enumerate() {
        carry_out(operation, &mut empty).map_err(|errno| (item, errno))?;
    }
    rustix::mount::unmount(c".", UnmountFlags::DETACH).map_err(fixed(4))?;
    if root.read_only {
        system::set_read_only(tree.as_fd(), false).map_err(fixed(5))?;
    }
    rustix::process::umask(plan.umask);
    rustix::process::chdir(&*root.working_directory).map_err(fixed(6))?;
    // A path such as /proc/self/fd/7 leads out through a descriptor that is still open (CVE-2024-21626).
    if system::working_directory_is_reachable().map_err(fixed(6))? { Ok(()) } else { Err(fixed(6)(Errno::XDEV)) }
}

/// Mounts the new root upon the old one and makes it the working directory. The descriptor is that of the new mount.
fn enter_new_root(root: &RootPlan) -> Result<ManuallyDrop<OwnedFd>, Errno> {
    let tree = match &root.directory {
        None if let Some(layers) = &root.layers => ManuallyDrop::new(layers.mount()?),
        Some((path, recursive)) => {
            let recursion = if *recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursion;
            ManuallyDrop::new(rustix::mount::open_tree(CWD, &**path, flags)?)
        }
        None => {
            let context = ManuallyDrop::new(rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?);
            rustix::mount::fsconfig_set_string(context.as_fd(), c"mode", c"755")?;
            rustix::mount::fsconfig_set_string(context.as_fd(), c"size", c"64m")?;
            rustix::mount::fsconfig_create(context.as_fd())?;
            let flags = FsMountFlags::FSMOUNT_CLOEXEC;
            ManuallyDrop::new(rustix::mount::fsmount(context.as_fd(), flags, MountAttrFlags::empty())?)
        }
    };
    if root.read_only && matches!(root.directory, Some((_, true))) {
        system::set_read_only(tree.as_fd(), true)?;
    }
    rustix::mount::move_mount(tree.as_fd(), c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(tree.as_fd())?;
    Ok(tree)
}

/// `empty` is where the empty file system that hides directories lies, once there is one.
fn carry_out<'a>(operation: &'a Operation, empty: &mut Option<&'a CStr>) -> Result<(), Errno> {
    match operation {
        Operation::Directory { path } => exists_is_fine(rustix::fs::mkdir(&**path, Mode::from_raw_mode(0o755))),
        Operation::File { path } => exists_is_fine(make_file(path)),
        Operation::Link { to, path } => exists_is_fine(rustix::fs::symlink(&**to, &**path)),
        Operation::Device { path, source, major, minor } => make_device(path, source, *major, *minor),
        Operation::FileSystem { name, target, flags, options } => {
            rustix::mount::mount(&**name, &**target, &**name, *flags, &**options)
        }
        Operation::Bind { source, target, recursive: false } => rustix::mount::mount_bind(&**source, &**target),
        Operation::Bind { source, target, recursive: true } => {
            rustix::mount::mount_bind_recursive(&**source, &**target)
        }
        Operation::Remount { target, flags } => remount(target, *flags),
        Operation::NoLink { path } => {
            let status = rustix::fs::statat(CWD, &**path, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(status.st_mode) == FileType::Directory { Ok(()) } else { Err(Errno::NOTDIR) }
        }
        Operation::Mask { path } => mask(path, empty),
        Operation::ReadOnly { path } => match rustix::mount::mount_bind(&**path, &**path) {
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
            // The flags of /proc, where such paths lie, stay.
            Ok(()) => remount(path, MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV),
        },
    }
}

fn exists_is_fine(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

fn make_file(path: &CStr) -> Result<(), Errno> {
    rustix::fs::mknodat(CWD, path, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
}

fn remount(target: &CStr, flags: MountFlags) -> Result<(), Errno> {
    rustix::mount::mount_remount(target, MountFlags::BIND | flags, c"")
}

/// A node, or where none may be made (in a user namespace) the host's own, bound.
fn make_device(path: &CStr, source: &CStr, major: u32, minor: u32) -> Result<(), Errno> {
    let device = rustix::fs::makedev(major, minor);
    let mode = Mode::from_raw_mode(0o666);
    match rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, mode, device) {
        Err(Errno::PERM) => {
            exists_is_fine(make_file(path))?;
            rustix::mount::mount_bind(source, path)
        }
        other => exists_is_fine(other),
    }
}

/// Hides a file behind the host's own /dev/null, which no image can have swapped (CVE-2025-31133), and a directory behind
/// an empty file system, which is made once and then bound. Which of them it is is asked first: a bind that fails costs an
/// expedited grace period of RCU, a hundred times as much as the question.
fn mask<'a>(path: &'a CStr, empty: &mut Option<&'a CStr>) -> Result<(), Errno> {
    match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
        Ok(status) if FileType::from_raw_mode(status.st_mode) == FileType::Directory => {
            // A bound mount keeps the flags of the one that it is made from (mount(2)).
            if let Some(empty) = *empty {
                return rustix::mount::mount_bind(empty, path);
            }
            let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
            *empty = Some(path);
            rustix::mount::mount(c"tmpfs", path, c"tmpfs", flags, c"nr_inodes=1,size=4k")
        }
        Ok(_) => rustix::mount::mount_bind(c"dev/null", path),
    }
}
