//! The root of the container: its file system tree, as a list of operations that is data until the child carries it out.
//!
//! The new root is entered first and everything is mounted afterwards, so that a symbolic link in a hostile image can lead
//! nowhere but into the image itself: targets are resolved under the new root, and sources are opened relative to the old
//! one, which is the working directory meanwhile.
#![forbid(unsafe_code)]

mod change;
mod plan;

pub(crate) use change::change_root;
pub(crate) use plan::RootPlan;

use rustix::mount::MountFlags;
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
        // All have it or none, and the first is always there: most virtual machines have none, and this is asked at each start.
        if !Path::new("/sys/devices/system/cpu/cpu0/thermal_throttle").is_dir() {
            return Vec::new();
        }
        let entries = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let processors = entries.filter(|entry| {
            entry.file_name().to_str().and_then(|name| name.strip_prefix("cpu")).is_some_and(is_number)
        });
        let throttles = processors.map(|entry| entry.path().join("thermal_throttle")).filter(|path| path.is_dir());
        throttles.filter_map(|path| path.to_str().map(String::from)).collect()
    });
    MASKED.iter().map(|path| (*path).to_owned()).chain(THROTTLES.iter().cloned()).collect()
}

/// Paths that Docker makes read-only.
pub const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
