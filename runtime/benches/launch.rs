//! What a launch costs beyond the kernel's share: a container with no network of ours, from its specification to its exit,
//! beside a bare clone3 with the same namespaces, pivot_root, exec and wait of the same static program.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use isobench_runtime::{NetworkMode, Plan, Program, Specification, launch};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

const PROGRAM: &str = "/bin/busybox";

fn container(program: &Arc<OwnedFd>, mode: NetworkMode) {
    let arguments = ["busybox", "true"].map(String::from).to_vec();
    let mut specification = Specification::container(Program::Descriptor(program.clone()), arguments);
    specification.network = mode;
    let mut launched = Plan::validate(specification).and_then(launch).expect("launch");
    assert_eq!(launched.process.wait(Duration::from_secs(10)).expect("wait").code(), 0);
}

/// The least that gives a process the same namespaces and another root, as a textbook would write it.
fn bare(program: &OwnedFd, flags: i32) {
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

fn launches(criterion: &mut Criterion) {
    let file = File::open(PROGRAM).expect("this benchmark needs /bin/busybox (apt-get install busybox-static)");
    let program = Arc::new(OwnedFd::from(file));
    // Seen by the kernel as executed once before anything is measured.
    let _warm = rustix::fs::openat(CWD, PROGRAM, OFlags::RDONLY, Mode::empty());
    let host = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let mut group = criterion.benchmark_group("launch-to-exit");
    group.sample_size(30).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.bench_function("container-none", |bencher| bencher.iter(|| container(&program, NetworkMode::None)));
    group.bench_function("bare-clone3-none", |bencher| bencher.iter(|| bare(&program, host | libc::CLONE_NEWNET)));
    group.bench_function("container-host", |bencher| bencher.iter(|| container(&program, NetworkMode::Host)));
    group.bench_function("bare-clone3-host", |bencher| bencher.iter(|| bare(&program, host)));
    group.finish();
}

criterion_group!(benches, launches);
criterion_main!(benches);
