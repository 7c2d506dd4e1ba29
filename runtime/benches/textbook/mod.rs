//! A bare clone3 by the book: what a launch is measured against.

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::os::fd::{AsRawFd, OwnedFd};

/// The least that gives a process the same namespaces and another root, as a textbook would write it.
///
/// `flags` are the namespaces (`CLONE_NEW*`); the program is busybox.
pub(crate) fn launch(program: &OwnedFd, flags: i32) {
    let mut arguments = [0_u64; 11];
    arguments[0] = flags as u64 & 0xffff_ffff;
    arguments[4] = libc::SIGCHLD as u64;
    let (path, name, applet) = (c"", c"busybox", c"true");
    let argv = [name.as_ptr(), applet.as_ptr(), std::ptr::null()];
    let envp = [std::ptr::null::<libc::c_char>()];
    // SAFETY: a valid `clone_args` without CLONE_VM: the child is a copy of this thread and goes on at the same place.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) };
    assert!(pid >= 0, "clone3");
    if pid == 0 {
        let root = || -> rustix::io::Result<()> {
            rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            rustix::mount::mount(c"tmpfs", c"/tmp", c"tmpfs", MountFlags::empty(), c"")?;
            rustix::process::chdir(c"/tmp")?;
            rustix::process::pivot_root(c".", c".")?;
            rustix::mount::unmount(c".", UnmountFlags::DETACH)
        };
        if root().is_ok() {
            // SAFETY: path and vectors are terminated.
            unsafe {
                let (argv, envp) = (argv.as_ptr(), envp.as_ptr());
                libc::syscall(libc::SYS_execveat, program.as_raw_fd(), path.as_ptr(), argv, envp, libc::AT_EMPTY_PATH)
            };
        }
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(127) };
    }
    let mut status = 0;
    // SAFETY: `status` is a valid place.
    assert_eq!(unsafe { libc::waitpid(pid as i32, &raw mut status, 0) }, pid as i32);
    assert_eq!(status, 0);
}
