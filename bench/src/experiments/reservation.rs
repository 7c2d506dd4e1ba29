//! Whether the memory that a virtual machine is given is taken from the host when it starts, or when it is used.

use super::{Experiment, Point, Scene, ended};
use crate::sandboxes::Kind;
use crate::testbed::memory::{self, Snapshot};
use isobench_microvm::{linux, sandbox};
use isobench_reports::record::Value;
use isobench_workload::{Family, Instance, Workload};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "reservation",
    text: "reads what an instance holds of the host's memory when it has started, and another one when it has used most of its own",
    quick_blocks: 6,
    takes_program: false,
    metrics: &[MEMORY, TAKEN],
    points,
    measure,
};

const MEMORY: &str = "reservation.memory";
const TAKEN: &str = "reservation.taken";

/// What a container writes to, in bytes: as much as the smaller of the machines has.
const OF_A_CONTAINER: u64 = sandbox::MEMORY;

/// Memory that a machine is given, and how much of it is written to once, in bytes. A Linux guest keeps half for itself: its
/// kernel unpacks itself and its initramfs.
fn sizes(kind: &Kind) -> (Option<u64>, u64) {
    match kind.family {
        Family::Unikernel => (Some(sandbox::MEMORY), sandbox::MEMORY / 4 * 3),
        Family::Linux => (Some(linux::sandbox::MEMORY), linux::sandbox::MEMORY / 2),
        _ => (None, OF_A_CONTAINER / 4 * 3),
    }
}

fn point(metric: &'static str, when: &str) -> Point {
    Point::with(metric, &[("when", when)])
}

fn points(kind: &Kind) -> Vec<Point> {
    let machine = matches!(kind.family, Family::Unikernel | Family::Linux);
    if !(machine || kind.name == "container-bridge") {
        return Vec::new();
    }
    let read = ["boot", "touched"].map(|when| point(MEMORY, when));
    let assigned = machine.then(|| point(MEMORY, "assigned"));
    read.into_iter().chain(assigned).chain([point(TAKEN, "touched")]).collect()
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    let (assigned, touched) = sizes(kind);
    if let Some(assigned) = assigned {
        sheet.value(&point(MEMORY, "assigned"), Value::Integer(assigned));
    }
    let mut held = |workload: &Workload| -> anyhow::Result<u64> {
        let before = Snapshot::take()?;
        let mut instance: Instance = sandbox.launch(workload)?;
        instance.await_ready(ground.settings.deadline)?;
        let held = memory::processes_of(&before, &Snapshot::take()?)?.proportional;
        instance.destroy().map_err(ended)?;
        Ok(held)
    };
    let boot = held(&Workload::Idle)?;
    sheet.value(&point(MEMORY, "boot"), Value::Integer(boot));
    let after = held(&Workload::Memory { bytes: touched })?;
    sheet.value(&point(MEMORY, "touched"), Value::Integer(after));
    // Part of what the guest writes to may have been used before, while it booted.
    let taken = after.saturating_sub(boot) >= touched / 2;
    sheet.value(&point(TAKEN, "touched"), Value::Boolean(taken));
    Ok(())
}
