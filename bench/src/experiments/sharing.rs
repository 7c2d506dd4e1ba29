//! Which pages instances of one program share, with each other and with the host.

use super::{Experiment, Point, Scene, WarmUp, ended};
use crate::sandboxes::Kind;
use crate::testbed::memory::{self, Snapshot};
use anyhow::{Context, bail};
use isobench_reports::record::Value;
use isobench_workload::{Family, Instance, Sandbox, Workload};
use std::time::{Duration, Instant};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "sharing",
    text: "runs eight instances of one dynamically linked program from one root, and reads which of their pages are shared",
    quick_blocks: 6,
    takes_program: false,
    warm_up: WarmUp::Block,
    metrics: &[PAGES],
    points,
    measure,
};

const PAGES: &str = "sharing.pages";

/// Instances that run at the same time.
const INSTANCES: usize = 8;

/// A dynamically linked program that every machine has: it says a line, so that it is known to run, and becomes one that waits.
const PROGRAM: [&str; 3] = ["/bin/sh", "-c", "echo ready; exec sleep 3600"];

/// The program that waits, by the name that the kernel has for it.
const WAITING: &str = "sleep";

fn point(set: &str) -> Point {
    Point::with(PAGES, &[("set", set)])
}

fn points(kind: &Kind) -> Vec<Point> {
    let own = ["process", "container-none", "container-bridge"].contains(&kind.name);
    match own || matches!(kind.family, Family::Unikernel | Family::Linux) {
        true => ["resident", "proportional", "shared", "private"].map(point).into(),
        false => Vec::new(),
    }
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, sandbox, sheet, .. } = scene;
    let before = Snapshot::take()?;
    let mut instances = Vec::new();
    let launched = launch(sandbox, ground.settings.deadline, &mut instances);
    let held = launched.and_then(|()| memory::pages_of(&before, &Snapshot::take()?));
    let errors: Vec<_> =
        instances.into_iter().flat_map(|instance: Instance| instance.destroy().err().unwrap_or_default()).collect();
    let held = held?;
    if !errors.is_empty() {
        return Err(ended(errors));
    }
    for (set, bytes) in [
        ("resident", held.resident),
        ("proportional", held.proportional),
        ("shared", held.shared),
        ("private", held.private),
    ] {
        sheet.value(&point(set), Value::Integer(bytes));
    }
    Ok(())
}

/// A virtual machine of ours runs no program from the host's files: the agent alone stands for it, which takes less.
fn launch(sandbox: &mut dyn Sandbox, deadline: Duration, instances: &mut Vec<Instance>) -> anyhow::Result<()> {
    let machine = matches!(sandbox.family(), Family::Unikernel | Family::Linux);
    for _ in 0..INSTANCES {
        if machine {
            let mut instance = sandbox.launch(&Workload::Idle)?;
            let ready = instance.await_ready(deadline);
            instances.push(instance);
            ready?;
        } else {
            let arguments = PROGRAM.map(str::to_owned).into();
            let mut instance = sandbox.launch(&Workload::Program { arguments })?;
            let line = instance.output().line(deadline);
            instances.push(instance);
            line.context("wait for the program's line")?;
        }
    }
    if !machine {
        instances.iter().try_for_each(|instance| settle(instance, deadline))?;
    }
    Ok(())
}

/// Waits until the shell has become the program that waits, and that one waits: until then its pages come and go.
///
/// By the clock: the kernel tells a tracer of an exec, who would change what is measured, and nobody of a process that begins to
/// wait. What is measured is looked at afterwards.
fn settle(instance: &Instance, deadline: Duration) -> anyhow::Result<()> {
    let path = format!("/proc/{}/stat", instance.inside_pid());
    let begun = Instant::now();
    loop {
        let stat = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        if stat.contains(&format!("({WAITING}) S ")) {
            return Ok(());
        }
        if begun.elapsed() > deadline {
            bail!("{} did not come to wait: {}", PROGRAM.join(" "), stat.trim());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
