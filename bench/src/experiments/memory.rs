//! What one more idle instance costs: memory of the whole host over the number of instances, and its parts.

use super::{Experiment, Ground, Point, Sheet, ended};
use crate::cell::Cell;
use crate::sandboxes::{Kind, Network};
use crate::testbed::memory::{self, Snapshot};
use isobench_reports::record::{Outcome, Value};
use isobench_workload::{Instance, Sandbox, Workload, protocol::PORT};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "memory",
    text: "launches idle instances one after the other and reads the host's memory after each doubling",
    quick_blocks: 6,
    takes_program: false,
    metrics: &["memory.host", "memory.pss", "memory.cgroup", "memory.vmm-overhead"],
    points: |_| {
        let metrics = ["memory.host", "memory.pss"].iter();
        metrics.flat_map(|metric| COUNTS.map(|instances| point(metric, instances))).collect()
    },
    measure,
};

/// Numbers of instances at which memory is read.
const COUNTS: [u32; 4] = [1, 2, 4, 8];

fn point(metric: &'static str, instances: u32) -> Point {
    Point::with(metric, &[("instances", &instances.to_string())])
}

fn measure(
    ground: &mut Ground,
    kind: &Kind,
    sandbox: &mut dyn Sandbox,
    _: &Cell,
    sheet: &mut Sheet,
) -> anyhow::Result<()> {
    let before = Snapshot::take()?;
    let mut instances: Vec<Instance> = Vec::new();
    // One that serves is idle as long as nobody asks; those that share a port cannot all serve.
    let workload = if kind.network == Network::Bridged { Workload::Serve { port: PORT } } else { Workload::Idle };
    let filled = fill(ground, sandbox, &workload, sheet, &before, &mut instances);
    let mut errors = Vec::new();
    for instance in instances.into_iter().rev() {
        errors.extend(instance.destroy().err().unwrap_or_default());
    }
    filled?;
    if errors.is_empty() { Ok(()) } else { Err(ended(errors)) }
}

fn fill(
    ground: &Ground,
    sandbox: &mut dyn Sandbox,
    workload: &Workload,
    sheet: &mut Sheet,
    before: &Snapshot,
    instances: &mut Vec<Instance>,
) -> anyhow::Result<()> {
    for count in COUNTS {
        while (instances.len() as u32) < count {
            let mut instance = sandbox.launch(workload)?;
            let ready = instance.await_ready(ground.settings.deadline);
            instances.push(instance);
            ready?;
        }
        let now = Snapshot::take()?;
        let processes = memory::processes_of(before, &now)?;
        let host = match now.used.checked_sub(before.used) {
            Some(more) => Outcome::Value(Value::Integer(more)),
            None => Outcome::Error(format!(
                "memory in use fell by {} bytes: something else on the machine gave it back meanwhile",
                before.used - now.used
            )),
        };
        sheet.write(&point("memory.host", count), 0, host);
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
