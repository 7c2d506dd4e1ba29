//! Keeps the machine's own files from an engine that is told where its state lies and yet writes elsewhere too: dockerd to
//! /etc/docker/key.json, podman to /etc/containers, /var/lib/containers, /var/cache/containers and /dev/shm.

use anyhow::Context;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where an engine reads what the machine's administrator chose, and must not write.
const SHIELDED: [&str; 3] = ["/etc", "/var/lib", "/var/cache"];

/// Lays a layer over each place, so that all that is written there goes below `data`. Called in a testbed's own mount
/// namespace, with which the layers go. Nothing that is started afterwards can load a module into the machine's kernel:
/// dockerd would load br_netfilter, and with it every bridge of the machine would pass the firewall.
pub(super) fn files(data: &Path) -> anyhow::Result<()> {
    remove_capability_from_bounding_set(CapabilitySet::SYS_MODULE).context("give up loading kernel modules")?;
    for place in SHIELDED {
        let name = place.trim_start_matches('/').replace('/', "-");
        let (upper, work) = (data.join(format!("over-{name}")), data.join(format!("work-{name}")));
        for directory in [&upper, &work] {
            fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        }
        let options = [b"lowerdir=", place.as_bytes(), b",upperdir=", upper.as_os_str().as_bytes(), b",workdir="];
        let options = CString::new([options.concat(), work.as_os_str().as_bytes().to_vec()].concat())
            .context("name the layers")?;
        mount("overlay", place, "overlay", MountFlags::empty(), Some(options.as_c_str()))
            .with_context(|| format!("lay a layer over {place} (needs the kernel's overlay file system)"))?;
    }
    let shared = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", "/dev/shm", "tmpfs", shared, None::<&CStr>).context("mount a tmpfs on /dev/shm")
}

/// Debian's crun 1.8.1 refuses a hybrid layout of control groups: the unified hierarchy beside version 1 is taken away from
/// this testbed, which is the engine's alone.
pub(super) fn unified_groups() -> anyhow::Result<()> {
    const UNIFIED: &str = "/sys/fs/cgroup/unified";
    // The testbed's own branch lies over the machine's hierarchy.
    while Path::new(UNIFIED).join("cgroup.procs").exists() {
        unmount(UNIFIED, UnmountFlags::DETACH).with_context(|| format!("unmount {UNIFIED}"))?;
    }
    Ok(())
}
