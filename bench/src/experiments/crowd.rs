//! What the last of many instances on one network takes: its start, and a round trip to it.

use super::Ground;
use super::latency::median;
use super::traffic::Span;
use super::{Experiment, Place, Point, Scene, Sheet, WarmUp, answer, ended};
use crate::sandboxes::Kind;
use crate::testbed::memory::available;
use anyhow::{Context, bail};
use isobench_reports::record::Value;
use isobench_workload::{Drive, DriveOutcome, Instance, Sandbox, Stage, Traffic, Workload, protocol::PORT};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "crowd",
    text: "launches containers on the bridge; the start of the 1st, 10th and 100th, and a round trip to it beside the others",
    quick_blocks: 0,
    takes_program: false,
    warm_up: WarmUp::Block,
    metrics: METRICS,
    points: |kind| points(kind, &[1, 10, 100]),
    measure: |scene| measure(scene, &[1, 10, 100]),
};

/// The same with a thousand, which takes a minute a block: in the full suite alone.
pub(super) const THOUSAND: Experiment = Experiment {
    name: "thousand",
    text: "launches 1,000 containers on the bridge; the start of the 1st and the 1,000th, and a round trip to it beside the others",
    quick_blocks: 0,
    points: |kind| points(kind, &[1, 1000]),
    measure: |scene| measure(scene, &[1, 1000]),
    ..EXPERIMENT
};

const METRICS: &[&str] = &["crowd.start", "crowd.round-trip"];

/// What one idle container may take at most of the host's memory, in bytes: with less than that for each nothing is begun.
const MEMORY: u64 = 4 << 20;

fn point(metric: &'static str, instances: u32) -> Point {
    Point::with(metric, &[("instances", &instances.to_string())])
}

fn points(kind: &Kind, counts: &[u32]) -> Vec<Point> {
    if kind.name != "container-bridge" {
        return Vec::new();
    }
    counts.iter().flat_map(|count| METRICS.iter().map(|metric| point(metric, *count))).collect()
}

fn measure(scene: Scene<'_>, counts: &[u32]) -> anyhow::Result<()> {
    let Scene { ground, sandbox, sheet, .. } = scene;
    let needed = u64::from(counts.iter().copied().max().unwrap_or(0)) * MEMORY;
    let there = available()?;
    if there < needed {
        bail!("{} MiB of memory are available and {} MiB are needed", there >> 20, needed >> 20);
    }
    let mut instances = Vec::new();
    let filled = fill(ground, sandbox, sheet, counts, &mut instances);
    let errors: Vec<_> = instances
        .into_iter()
        .rev()
        .flat_map(|instance: Instance| instance.destroy().err().unwrap_or_default())
        .collect();
    filled?;
    if errors.is_empty() { Ok(()) } else { Err(ended(errors)) }
}

fn fill(
    ground: &Ground,
    sandbox: &mut dyn Sandbox,
    sheet: &mut Sheet,
    counts: &[u32],
    instances: &mut Vec<Instance>,
) -> anyhow::Result<()> {
    for count in counts {
        while (instances.len() as u32) < *count {
            let mut instance = sandbox.launch(&Workload::Serve { port: PORT })?;
            let ready = instance.await_ready(ground.settings.deadline);
            instances.push(instance);
            ready.with_context(|| format!("launch number {} of {count}", instances.len()))?;
        }
        let last = instances.last().context("no instance was asked for")?;
        let ready = last.stages().since_start(Stage::Answered).context("it was never seen to answer")?;
        sheet.value(&point("crowd.start", *count), Value::Integer(ready));
        let server = last.server().context("it has no address that the host can reach")?;
        let Span { warm_up, window } = Span::of(ground);
        let traffic = Traffic::RoundTrips { bytes: 1 };
        let drive = Workload::Drive(Drive { server, traffic, warm_up, milliseconds: window });
        let generator = ground.agent(Place::Host, &drive)?;
        if let Some(affinity) = ground.affinity {
            affinity.pin_server(last, sandbox.family())?;
            affinity.pin_generator(&generator)?;
        }
        let outcome: DriveOutcome = answer(generator, ground.settings.deadline)?;
        if let Some(error) = outcome.error {
            bail!(error);
        }
        sheet.value(&point("crowd.round-trip", *count), Value::Integer(median(&outcome)?));
    }
    Ok(())
}
