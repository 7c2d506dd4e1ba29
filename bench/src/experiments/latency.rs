//! How long a round trip and a connection take, one at a time (a closed loop).

use super::traffic::{Driven, Path, Served, Span, outcome, shared};
use super::{Experiment, Point, Scene, WarmUp};
use anyhow::bail;
use isobench_reports::record::Value;
use isobench_reports::statistics::distribution;
use isobench_workload::{DriveOutcome, Traffic};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "latency",
    text: "one-byte round trips on one TCP connection, and new connections with one answer each, one after the other",
    quick_blocks: 9,
    takes_program: false,
    warm_up: WarmUp::Block,
    metrics: &[
        "tcp.round-trip",
        "tcp.round-trip.median",
        "tcp.round-trip.cost",
        "tcp.connection",
        "tcp.connection.median",
        "tcp.connection.cost",
    ],
    points: |kind| {
        let paths = Path::of(kind).iter();
        paths.flat_map(|path| LOOPS.iter().flat_map(|(_, names)| names.map(|name| point(name, *path)))).collect()
    },
    measure,
};

/// Each kind of traffic with the metrics of its distribution, of its median and of the CPU time that it takes.
const LOOPS: [(Traffic, [&str; 3]); 2] = [
    (Traffic::RoundTrips { bytes: 1 }, ["tcp.round-trip", "tcp.round-trip.median", "tcp.round-trip.cost"]),
    (Traffic::Connections { in_flight: 1 }, ["tcp.connection", "tcp.connection.median", "tcp.connection.cost"]),
];

fn point(metric: &'static str, path: Path) -> Point {
    Point::with(metric, &[("path", path.name())])
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    let span = Span::of(ground).brief();
    let served = Served::launch(ground, kind, sandbox)?;
    for path in Path::of(kind) {
        for (traffic, [all, middle, cost]) in LOOPS {
            let driven = served.drive(ground, sandbox, *path, traffic, span);
            let driven = driven.and_then(|driven| Ok((median(&driven.outcome)?, driven)));
            let histogram = |driven: &Driven| Value::Histogram(driven.outcome.histogram.clone());
            sheet.write(&point(all, *path), 0, outcome(shared(&driven).map(|(_, driven)| histogram(driven))));
            sheet.write(&point(middle, *path), 0, outcome(shared(&driven).map(|(median, _)| Value::Integer(*median))));
            sheet.write(&point(cost, *path), 0, outcome(shared(&driven).map(|(_, driven)| driven.cost())));
        }
    }
    served.end()
}

/// The median in nanoseconds.
pub(super) fn median(outcome: &DriveOutcome) -> anyhow::Result<u64> {
    if outcome.completed == 0 {
        bail!("nothing was completed in {} ms", outcome.nanoseconds / 1_000_000);
    }
    Ok(distribution::decode(&outcome.histogram)?.value_at_quantile(0.5))
}
