//! Doing, in the child, what was written down for a root.
#![forbid(unsafe_code)]

use super::plan::{Layers, Operation, RootPlan};
use crate::child::{StepResult, open};
use crate::plan::Plan;
use crate::system;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};
use std::ffi::CStr;
use std::mem::ManuallyDrop;

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
    enter_working_directory(root).map_err(fixed(6))?;
    if root.read_only {
        system::set_read_only(tree.as_fd(), false).map_err(fixed(5))?;
    }
    rustix::process::umask(plan.umask);
    // A path such as /proc/self/fd/7 leads out through a descriptor that is still open (CVE-2024-21626).
    if system::working_directory_is_reachable().map_err(fixed(6))? { Ok(()) } else { Err(fixed(6)(Errno::XDEV)) }
}

/// Mounts the new root upon the old one and makes it the working directory. The descriptor is that of the new mount.
fn enter_new_root(root: &RootPlan) -> Result<ManuallyDrop<OwnedFd>, Errno> {
    let tree = match &root.directory {
        None if let Some(layers) = &root.layers => ManuallyDrop::new(mount_layers(layers)?),
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

/// Where it is not there it is made, as by other runtimes.
fn enter_working_directory(root: &RootPlan) -> Result<(), Errno> {
    match rustix::process::chdir(&*root.working_directory) {
        Err(Errno::NOENT) if !root.directories_to_it.is_empty() => {}
        entered => return entered,
    }
    let top = open(c"/", OFlags::PATH | OFlags::DIRECTORY)?;
    // Through a descriptor that is still open, as /proc/self/fd has them, a directory would be made outside.
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let look = |path: &CStr| openat2(top.as_fd(), path, flags, Mode::empty(), resolve).map(ManuallyDrop::new);
    let mut parent = None;
    for (path, name) in &root.directories_to_it {
        let directory = match look(path) {
            Err(Errno::NOENT) => {
                let within = parent.as_ref().unwrap_or(&top);
                exists_is_fine(rustix::fs::mkdirat(within.as_fd(), &**name, Mode::from_raw_mode(0o755)))?;
                look(path)?
            }
            found => found?,
        };
        parent = Some(directory);
    }
    rustix::process::chdir(&*root.working_directory)
}

/// The overlay, not yet mounted anywhere.
fn mount_layers(layers: &Layers) -> Result<OwnedFd, Errno> {
    let context = ManuallyDrop::new(rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?);
    let options = [(c"lowerdir", &layers.lower), (c"upperdir", &layers.upper), (c"workdir", &layers.work)];
    for (name, value) in options {
        rustix::mount::fsconfig_set_string(context.as_fd(), name, &**value)?;
    }
    if layers.user_attributes {
        rustix::mount::fsconfig_set_flag(context.as_fd(), c"userxattr")?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
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
