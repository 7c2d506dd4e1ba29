//! Whether the memory that a virtual machine is given is taken from the host when it starts, or when it is used, and whether the host
//! gets it back.

use super::{Experiment, Ground, Point, Scene, WarmUp, ended};
use crate::sandboxes::{self, Kind};
use crate::testbed::directory;
use crate::testbed::memory::{self, Snapshot};
use anyhow::{Context, bail};
use isobench_microvm::{control, linux, sandbox};
use isobench_reports::record::Value;
use isobench_workload::{Family, Instance, Sandbox, Workload};
use std::path::Path;
use std::time::{Duration, Instant};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "reservation",
    text: "reads what an instance holds of the host's memory when it has started, another one when it has used most of its own, and a third when it has freed that and, of a Linux guest, when a balloon has taken it",
    quick_blocks: 7,
    takes_program: false,
    warm_up: WarmUp::Block,
    metrics: &[MEMORY, TAKEN, GIVEN_BACK],
    points,
    measure,
};

const MEMORY: &str = "reservation.memory";
const TAKEN: &str = "reservation.taken";
const GIVEN_BACK: &str = "reservation.given-back";

/// What a container writes to, in bytes: as much as the smaller of the machines has.
const OF_A_CONTAINER: u64 = sandbox::MEMORY;

/// How often a balloon is asked how far it is: a monitor answers, and says nothing by itself, as does the guest's driver, which
/// fills it page by page.
const INTERVAL: Duration = Duration::from_millis(20);

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

/// When memory is looked at that was freed inside. The unikernel has nobody to free it to.
fn after_freeing(kind: &Kind) -> &'static [&'static str] {
    match kind.family {
        Family::Unikernel => &[],
        Family::Linux => &["freed", "ballooned"],
        _ => &["freed"],
    }
}

fn points(kind: &Kind) -> Vec<Point> {
    let machine = matches!(kind.family, Family::Unikernel | Family::Linux);
    if !(machine || kind.name == "container-bridge") {
        return Vec::new();
    }
    let read = ["boot", "touched"].map(|when| point(MEMORY, when));
    let assigned = machine.then(|| point(MEMORY, "assigned"));
    let freed = after_freeing(kind).iter().flat_map(|when| [point(MEMORY, when), point(GIVEN_BACK, when)]);
    read.into_iter().chain(assigned).chain([point(TAKEN, "touched")]).chain(freed).collect()
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    let (assigned, touched) = sizes(kind);
    if let Some(assigned) = assigned {
        sheet.value(&point(MEMORY, "assigned"), Value::Integer(assigned));
    }
    let mut held = |workload| {
        let running = Running::start(ground, sandbox, &workload)?;
        let held = running.held()?;
        running.end().map(|()| held)
    };
    let boot = held(Workload::Idle)?;
    sheet.value(&point(MEMORY, "boot"), Value::Integer(boot));
    let most = held(Workload::Memory { bytes: touched })?;
    sheet.value(&point(MEMORY, "touched"), Value::Integer(most));
    // Part of what the guest writes to may have been used before, while it booted.
    let taken = most.saturating_sub(boot) >= touched / 2;
    sheet.value(&point(TAKEN, "touched"), Value::Boolean(taken));

    let freed = Workload::Freed { bytes: touched };
    let mut read = |when, held: u64| {
        sheet.value(&point(MEMORY, when), Value::Integer(held));
        let given_back = most.saturating_sub(held) >= touched / 2;
        sheet.value(&point(GIVEN_BACK, when), Value::Boolean(given_back));
    };
    match kind.family {
        Family::Unikernel => {}
        Family::Linux => {
            let socket = directory("reservation")?.join("control");
            let mut sandbox = sandboxes::with_balloon(ground, socket.clone())?;
            let running = Running::start(ground, sandbox.as_mut(), &freed)?;
            read("freed", running.held()?);
            inflate(&socket, touched, ground.settings.deadline)?;
            read("ballooned", running.held()?);
            running.end()?;
        }
        _ => {
            let running = Running::start(ground, sandbox, &freed)?;
            read("freed", running.held()?);
            running.end()?;
        }
    }
    Ok(())
}

/// An instance that is ready, and the host as it was before.
struct Running {
    before: Snapshot,
    instance: Instance,
}

impl Running {
    fn start(ground: &Ground, sandbox: &mut dyn Sandbox, workload: &Workload) -> anyhow::Result<Self> {
        let before = Snapshot::take()?;
        let mut instance = sandbox.launch(workload)?;
        instance.await_ready(ground.settings.deadline)?;
        Ok(Self { before, instance })
    }

    /// What its processes hold of the host's memory, in bytes.
    fn held(&self) -> anyhow::Result<u64> {
        Ok(memory::processes_of(&self.before, &Snapshot::take()?)?.proportional)
    }

    fn end(self) -> anyhow::Result<()> {
        self.instance.destroy().map(drop).map_err(ended)
    }
}

/// Asks a guest to leave so many bytes unused and waits until it does.
fn inflate(socket: &Path, bytes: u64, deadline: Duration) -> anyhow::Result<()> {
    let mut state = control::set_balloon(socket, bytes).context("inflate the balloon")?;
    let begun = Instant::now();
    while state.actual < bytes {
        if begun.elapsed() > deadline {
            bail!("the balloon holds {} MiB instead of {} after {deadline:?}", state.actual >> 20, bytes >> 20);
        }
        std::thread::sleep(INTERVAL);
        state = control::balloon(socket).context("read the balloon")?;
    }
    Ok(())
}
