//! What a launch costs beyond the kernel's share: a container with no network of ours, from its specification to its exit,
//! beside a bare clone3 with the same namespaces, pivot_root, exec and wait of the same static program.
#![allow(missing_docs)]

mod textbook;

use criterion::{Criterion, criterion_group, criterion_main};
use isobench_runtime::{NetworkMode, Plan, Program, Specification, launch};
use rustix::fs::{CWD, Mode, OFlags};
use std::fs::File;
use std::os::fd::OwnedFd;
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

fn launches(criterion: &mut Criterion) {
    let file = File::open(PROGRAM).expect("this benchmark needs /bin/busybox (apt-get install busybox-static)");
    let program = Arc::new(OwnedFd::from(file));
    // Seen by the kernel as executed once before anything is measured.
    let _warm = rustix::fs::openat(CWD, PROGRAM, OFlags::RDONLY, Mode::empty());
    let host = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let mut group = criterion.benchmark_group("launch-to-exit");
    group.sample_size(30).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.bench_function("container-none", |bencher| bencher.iter(|| container(&program, NetworkMode::None)));
    group.bench_function("bare-clone3-none", |bencher| {
        bencher.iter(|| textbook::launch(&program, host | libc::CLONE_NEWNET))
    });
    group.bench_function("container-host", |bencher| bencher.iter(|| container(&program, NetworkMode::Host)));
    group.bench_function("bare-clone3-host", |bencher| bencher.iter(|| textbook::launch(&program, host)));
    group.finish();
}

criterion_group!(benches, launches);
criterion_main!(benches);
