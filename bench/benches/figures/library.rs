//! The container runtime as a library, beside the least that the kernel asks for.

use crate::{Pair, both, textbook};
use anyhow::{Context, ensure};
use isobench_runtime::{NetworkMode, Plan, Program, Specification, launch};
use isobench_workload::clock;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

const PROGRAM: &str = "/bin/busybox";

pub(crate) fn against_bare_clone() -> anyhow::Result<Pair> {
    let file = File::open(PROGRAM).with_context(|| format!("open {PROGRAM}: apt-get install busybox-static"))?;
    let program = Arc::new(OwnedFd::from(file));
    let namespaces =
        libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET;
    Ok(Box::new(move || {
        both(
            || timed(|| container(&program)),
            || {
                timed(|| {
                    textbook::launch(&program, namespaces);
                    Ok(())
                })
            },
        )
    }))
}

fn container(program: &Arc<OwnedFd>) -> anyhow::Result<()> {
    let arguments = ["busybox", "true"].map(String::from).to_vec();
    let mut specification = Specification::container(Program::Descriptor(program.clone()), arguments);
    specification.network = NetworkMode::None;
    let mut launched = Plan::validate(specification).and_then(launch)?;
    let exit = launched.process.wait(Duration::from_secs(10))?;
    ensure!(exit.code() == 0, "{PROGRAM} ended with {exit:?}");
    Ok(())
}

fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let begun = clock::now();
    work()?;
    Ok((clock::now() - begun) as f64)
}
