//! What one more idle instance costs: memory of the whole host over the number of instances, and its parts.

use super::{Experiment, Ground, Point, Scene, Sheet, WarmUp, ended};
use crate::sandboxes::{Engine, Kind, Network};
use crate::testbed::memory::{self, Snapshot};
use isobench_reports::record::Value;
use isobench_workload::{Instance, Sandbox, Workload, protocol::PORT};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "memory",
    text: "launches idle instances one after the other and reads the host's memory after each doubling",
    quick_blocks: 6,
    takes_program: false,
    warm_up: WarmUp::Block,
    metrics: &["memory.host", "memory.pss", "memory.cgroup", "memory.vmm-overhead", "memory.engine"],
    points: |kind| {
        let host = COUNTS.map(|instances| point("memory.host", instances));
        let held = COUNTS.into_iter().filter(|instances| *instances > 0 && !kind.is_user_mode());
        let points = host.into_iter().chain(held.map(|instances| point("memory.pss", instances)));
        match Engine::of(kind.name) {
            Some(_) => points.chain(COUNTS.map(|instances| point("memory.engine", instances))).collect(),
            None => points.collect(),
        }
    },
    measure,
};

/// Numbers of instances at which memory is read. The host's is recorded as it is, with none too, and no difference is made:
/// something else on the machine may give memory back meanwhile, and a difference below nought that was left out would
/// take the noise away on one side alone.
const COUNTS: [u32; 5] = [0, 1, 2, 4, 8];

fn point(metric: &'static str, instances: u32) -> Point {
    Point::with(metric, &[("instances", &instances.to_string())])
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    let before = Snapshot::take()?;
    let mut instances: Vec<Instance> = Vec::new();
    // One that serves is idle as long as nobody asks; those that share a port cannot all serve.
    let workload = if kind.network == Network::Bridged { Workload::Serve { port: PORT } } else { Workload::Idle };
    let filled = fill((ground, kind), sandbox, &workload, sheet, &before, &mut instances);
    let mut errors = Vec::new();
    for instance in instances.into_iter().rev() {
        errors.extend(instance.destroy().err().unwrap_or_default());
    }
    filled?;
    if errors.is_empty() { Ok(()) } else { Err(ended(errors)) }
}

fn fill(
    (ground, kind): (&mut Ground, &Kind),
    sandbox: &mut dyn Sandbox,
    workload: &Workload,
    sheet: &mut Sheet,
    before: &Snapshot,
    instances: &mut Vec<Instance>,
) -> anyhow::Result<()> {
    for count in COUNTS {
        while (instances.len() as u32) < count {
            let mut instance = sandbox.launch(workload)?;
            let ready = ground.patience.await_ready(kind, &mut instance);
            instances.push(instance);
            ready?;
        }
        let now = Snapshot::take()?;
        sheet.value(&point("memory.host", count), Value::Integer(now.used));
        // It is there before the first instance, so that the slope does not show it.
        if let Some(engine) = ground.networks.engine() {
            let held = memory::proportional(engine.processes());
            sheet.value(&point("memory.engine", count), Value::Integer(held));
        }
        if count == 0 {
            continue;
        }
        if kind.is_user_mode() {
            continue;
        }
        let processes = memory::processes_of(before, &now)?;
        sheet.value(&point("memory.pss", count), Value::Integer(processes.proportional));
        if let Some(accounted) = processes.accounted {
            sheet.value(&point("memory.cgroup", count), Value::Integer(accounted));
        }
        if let Some(overhead) = processes.monitors.checked_div(u64::from(count)).filter(|overhead| *overhead > 0) {
            sheet.value(&point("memory.vmm-overhead", count), Value::Integer(overhead));
        }
    }
    Ok(())
}
