//! The namespaces that make the testbed a machine of its own.

use crate::doctor::remedy;
use crate::home;
use anyhow::Context;
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{getegid, geteuid};
use std::ffi::CStr;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

/// Where the testbed keeps files: on a tmpfs that only it sees and that goes with its mount namespace. Peers keep their
/// state under /run too, so that it is private without being told where to go.
pub(crate) const PRIVATE: &str = "/run";

/// Leaves the machine's namespaces. The process itself stays in the old pid namespace; its next child is the first process
/// of the new one ([pid_namespaces(7)](https://man7.org/linux/man-pages/man7/pid_namespaces.7.html)).
///
/// Must be called while this process has one thread: a second one makes a new user namespace fail with EINVAL.
pub(crate) fn leave() -> anyhow::Result<()> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    if user != 0 {
        become_root(user, group).with_context(|| {
            format!(
                "make a user namespace: an ordinary user may not here; `{}` allows it, or run it as root",
                remedy::user_namespace()
            )
        })?;
    }
    unshare(CloneFlags::CLONE_NEWNET | NAMESPACES)
        .context("make the testbed's namespaces (needs root, or CAP_SYS_ADMIN in a user namespace)")
}

/// Leaves the namespaces of a host for those of another one beside it, whose network is there already.
pub(crate) fn leave_for_second() -> anyhow::Result<()> {
    unshare(NAMESPACES).context("make the second host's namespaces")
}

/// What makes a machine of its own, beside the network.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWCGROUP);

/// Becomes root of a user namespace ([user_namespaces(7)](https://man7.org/linux/man-pages/man7/user_namespaces.7.html)).
fn become_root(user: u32, group: u32) -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER)?;
    // A process without privilege may map itself alone, and only after giving up setgroups.
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("0 {user} 1"))?;
    write("/proc/self/gid_map", &format!("0 {group} 1"))
}

/// Furnishes the new namespaces; called by their first process. With `lasting`, what the machine mounts and unmounts later is
/// seen inside too, so that a testbed that is kept pins no disk; nothing spreads the other way.
pub(crate) fn furnish(host: &str, lasting: bool) -> anyhow::Result<()> {
    let propagation = if lasting { MountPropagationFlags::DOWNSTREAM } else { MountPropagationFlags::PRIVATE };
    mount_change("/", propagation | MountPropagationFlags::REC).context("separate the mounts from the machine's")?;
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    // Without a new proc, /proc/self would still speak of the machine's process numbers.
    mount("proc", "/proc", "proc", plain | MountFlags::NOEXEC, None::<&CStr>).context("mount /proc")?;
    mount("tmpfs", PRIVATE, "tmpfs", plain, Some(c"mode=0755"))
        .with_context(|| format!("mount a tmpfs on {PRIVATE}"))?;
    home::mark(host)?;
    // A slash is not a part of a host's name (RFC 1123).
    rustix::system::sethostname(host.replace('/', "-").as_bytes()).context("set the host name")?;
    Ok(())
}

/// Where a network namespace gets a name that `ip netns` and `nsenter --net=` know
/// ([ip-netns(8)](https://man7.org/linux/man-pages/man8/ip-netns.8.html)).
pub(crate) fn named_network(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Gives a network namespace a name, by a mount that goes with this mount namespace.
pub(crate) fn name_network(name: &str, namespace: impl AsFd) -> anyhow::Result<()> {
    let path = named_network(name);
    let named = || -> std::io::Result<()> {
        fs::create_dir_all("/run/netns")?;
        fs::write(&path, "")?;
        Ok(mount_bind(format!("/proc/self/fd/{}", namespace.as_fd().as_raw_fd()), &path)?)
    };
    named().with_context(|| format!("name the network namespace {}", path.display()))
}

/// A directory of the testbed's own for files of that kind.
pub(crate) fn directory(name: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(PRIVATE).join("isobench").join(name);
    fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
    Ok(path)
}

fn write(path: &str, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("write `{text}` to {path}"))
}

/// A file of this process's own in /proc. A process that has joined a testbed and is not seen there
/// ([`super::enter::Inside::stay`]) shares maps, mounts and control groups with the testbed's first process, which is.
pub(crate) fn own(name: &str) -> std::io::Result<String> {
    let itself = fs::read_to_string(format!("/proc/self/{name}"));
    itself.or_else(|_| fs::read_to_string(format!("/proc/1/{name}")))
}

/// Whether an ordinary user made the testbed: user 0 here is then another user outside.
pub(crate) fn is_rootless() -> anyhow::Result<bool> {
    let map = own("uid_map").context("read /proc/self/uid_map")?;
    Ok(map.split_ascii_whitespace().nth(1) != Some("0"))
}
