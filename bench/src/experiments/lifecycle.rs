//! What it takes to make and to remove instances: the steps of one, and how many go through all of them in a second.

use super::{Experiment, Ground, Point, Scene, WarmUp, ended};
use crate::sandboxes::{Engine, Kind, Network};
use anyhow::{Context, bail};
use isobench_reports::record::Value;
use isobench_workload::{Ended, Family, Instance, Sandbox, Stage, Stages, Workload, clock, protocol::PORT};
use std::time::Duration;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "lifecycle",
    text: "creates, starts, stops and deletes one instance, then 2, 4 and 8 at once",
    quick_blocks: 7,
    takes_program: false,
    warm_up: WarmUp::Block,
    metrics: &[CREATION, DELETION, STEP, RATE],
    points,
    measure,
};

const CREATION: &str = "lifecycle.creation";
const DELETION: &str = "lifecycle.deletion";
const STEP: &str = "lifecycle.step";
const RATE: &str = "lifecycle.rate";

/// How many instances are under way at the same time.
const AT_ONCE: [u32; 4] = [1, 2, 4, 8];

/// The steps, each from one stage to another; the start ends when the instance is ready.
const STEPS: [(&str, Stage, &[Stage]); 4] = [
    ("create", Stage::Started, &[Stage::Created]),
    ("start", Stage::Created, READY),
    ("stop", Stage::Ending, &[Stage::Reaped]),
    ("delete", Stage::Reaped, &[Stage::Gone]),
];

/// Ready is the answer where there is a network, else the line.
const READY: &[Stage] = &[Stage::Answered, Stage::Announced];

/// Containers with no network and with one of their own, machines and peers; what shares a network shares its ports as well.
fn points(kind: &Kind) -> Vec<Point> {
    let compared = kind.name == "container-none" || kind.is_default_bridge();
    let machine = matches!(kind.family, Family::Unikernel | Family::Linux);
    let peer = kind.family == Family::Peer && Engine::of(kind.name).is_none();
    if !(compared || machine || peer) {
        return Vec::new();
    }
    let steps = STEPS.iter().map(|(name, _, _)| step(name));
    [CREATION, DELETION].map(Point::plain).into_iter().chain(steps).chain(AT_ONCE.map(rate)).collect()
}

fn step(name: &str) -> Point {
    Point::with(STEP, &[("step", name)])
}

fn rate(at_once: u32) -> Point {
    Point::with(RATE, &[("at-once", &at_once.to_string())])
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    let workload = if kind.network == Network::Bridged { Workload::Serve { port: PORT } } else { Workload::Idle };
    for at_once in AT_ONCE {
        let (stages, nanoseconds) = together(ground, kind, sandbox, &workload, at_once)?;
        sheet.value(&rate(at_once), Value::Transfer { amount: at_once.into(), nanoseconds });
        if let ([alone], 1) = (stages.as_slice(), at_once) {
            let whole = [(CREATION, Stage::Started, READY), (DELETION, Stage::Ending, &[Stage::Gone])];
            for (metric, from, to) in whole {
                sheet.value(&Point::plain(metric), Value::Integer(between(alone, from, to)?));
            }
            for (name, from, to) in STEPS {
                sheet.value(&step(name), Value::Integer(between(alone, from, to)?));
            }
            // What is known of the one must not be lost in the ends of many, which would not come in time for an answer.
            let deletion = Duration::from_nanos(between(alone, Stage::Ending, &[Stage::Gone])?);
            if deletion > ground.settings.deadline {
                bail!("one alone was gone after {} s: no more at once were tried", deletion.as_secs());
            }
        }
    }
    Ok(())
}

/// So many instances through their whole life. One launcher creates them one after the other and waits for none; what goes on
/// in their own processes goes on at once. When all are ready, it removes them one after the other. The time is that until the last one
/// is gone: what the kernel does afterwards is waited for, but takes no part in it, as it takes none in the stages of one.
fn together(
    ground: &mut Ground,
    kind: &Kind,
    sandbox: &mut dyn Sandbox,
    workload: &Workload,
    at_once: u32,
) -> anyhow::Result<(Vec<Stages>, u64)> {
    let begun = clock::now();
    let mut instances: Vec<Instance> = Vec::new();
    for number in 1..=at_once {
        let launched = sandbox.launch(workload).with_context(|| format!("launch number {number} of {at_once}"))?;
        instances.push(launched);
    }
    match instances.as_mut_slice() {
        // Claims are about one that is alone; how long it may take is enough for all of a cell.
        [alone] => ground.patience.await_ready(kind, alone)?,
        several => several.iter_mut().try_for_each(|instance| instance.await_ready(ground.settings.deadline))?,
    }
    let gone: Vec<Ended> = instances.into_iter().map(Instance::end).collect();
    let nanoseconds = clock::now() - begun;
    let mut errors = Vec::new();
    let mut stages = Vec::new();
    for instance in gone {
        match instance.settle() {
            Ok(seen) => stages.push(seen),
            Err(several) => errors.extend(several),
        }
    }
    if errors.is_empty() { Ok((stages, nanoseconds)) } else { Err(ended(errors)) }
}

/// Nanoseconds from one stage to the first of several that was seen.
fn between(stages: &Stages, from: Stage, to: &[Stage]) -> anyhow::Result<u64> {
    let begun = stages.at(from).with_context(|| format!("it was never seen to be {}", from.name()))?;
    let reached = to.iter().find_map(|stage| stages.at(*stage));
    Ok(reached.with_context(|| format!("it was never seen to be {}", to[0].name()))?.saturating_sub(begun))
}
