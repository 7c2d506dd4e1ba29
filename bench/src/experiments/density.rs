//! How many instances it takes to use up a budget of the host's memory: counted, not calculated.

use super::{Experiment, Ground, Point, Scene, WarmUp, ended};
use crate::sandboxes::Kind;
use crate::testbed::memory::{Snapshot, available, held_since};
use anyhow::{Context, bail};
use isobench_reports::record::Value;
use isobench_workload::{Family, Instance, Sandbox, Workload, protocol::PORT};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "density",
    text: "launches idle instances until they and the kernel hold 192 MiB more than before, and counts those that fit",
    quick_blocks: 0,
    takes_program: false,
    warm_up: WarmUp::Block,
    metrics: &[INSTANCES, BUDGET],
    points,
    measure,
};

const INSTANCES: &str = "density.instances";
const BUDGET: &str = "density.budget";

/// The budget in bytes: some instances of the largest kind, and not so many of the smallest that a network is full.
const MEMORY: u64 = 192 << 20;

/// Instances at most: a usual machine's table of neighbours has no room for more on one network.
const MOST: usize = 480;

fn points(kind: &Kind) -> Vec<Point> {
    let machine = matches!(kind.family, Family::Unikernel | Family::Linux);
    match machine || kind.name == "container-bridge" {
        true => [INSTANCES, BUDGET].map(Point::plain).into(),
        false => Vec::new(),
    }
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, sandbox, sheet, .. } = scene;
    let there = available()?;
    if there < 2 * MEMORY {
        bail!("{} MiB of memory are available and {} MiB are needed", there >> 20, (2 * MEMORY) >> 20);
    }
    let mut instances = Vec::new();
    let filled = fill(ground, sandbox, &mut instances);
    let errors: Vec<_> = instances
        .into_iter()
        .rev()
        .flat_map(|instance: Instance| instance.destroy().err().unwrap_or_default())
        .collect();
    let count = filled?;
    if !errors.is_empty() {
        return Err(ended(errors));
    }
    sheet.value(&Point::plain(BUDGET), Value::Integer(MEMORY));
    sheet.value(&Point::plain(INSTANCES), Value::Integer(count));
    Ok(())
}

/// The largest number of instances that was seen to be within the budget. Memory is read after each launch at first, and then
/// whenever a sixteenth more have been launched, since each reading goes through all of them.
fn fill(ground: &Ground, sandbox: &mut dyn Sandbox, instances: &mut Vec<Instance>) -> anyhow::Result<u64> {
    let before = Snapshot::take()?;
    let mut within = 0;
    loop {
        for _ in 0..(within / 16).max(1) {
            let mut instance = sandbox.launch(&Workload::Serve { port: PORT })?;
            let ready = instance.await_ready(ground.settings.deadline);
            instances.push(instance);
            ready.with_context(|| format!("launch number {}", instances.len()))?;
        }
        if held_since(&before, &Snapshot::take()?)? > MEMORY {
            return Ok(within as u64);
        }
        within = instances.len();
        if within >= MOST {
            bail!("{within} instances do not use up {} MiB", MEMORY >> 20);
        }
    }
}
