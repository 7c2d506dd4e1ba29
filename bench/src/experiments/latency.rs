//! How long a round trip and a connection take, one at a time (a closed loop).

use super::traffic::{Path, Served};
use super::{Experiment, Point, Scene};
use anyhow::bail;
use isobench_reports::record::{Outcome, Value};
use isobench_reports::statistics::distribution;
use isobench_workload::{DriveOutcome, Traffic};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "latency",
    text: "one-byte round trips on one TCP connection, and new connections with one answer each, one after the other",
    quick_blocks: 12,
    takes_program: false,
    metrics: &["tcp.round-trip", "tcp.round-trip.median", "tcp.connection", "tcp.connection.median"],
    points: |kind| {
        let paths = Path::of(kind).iter();
        paths.flat_map(|path| LOOPS.iter().flat_map(|(_, names)| names.map(|name| point(name, *path)))).collect()
    },
    measure,
};

/// Each kind of traffic with the metrics of its distribution and of its median.
const LOOPS: [(Traffic, [&str; 2]); 2] = [
    (Traffic::RoundTrips { bytes: 1 }, ["tcp.round-trip", "tcp.round-trip.median"]),
    (Traffic::Connections, ["tcp.connection", "tcp.connection.median"]),
];

fn point(metric: &'static str, path: Path) -> Point {
    Point::with(metric, &[("path", path.name())])
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    let milliseconds = if ground.settings.quick { 80 } else { 1000 };
    let served = Served::launch(ground, kind, sandbox)?;
    for path in Path::of(kind) {
        for (traffic, [all, middle]) in LOOPS {
            let outcome = served.drive(ground, sandbox, *path, traffic, milliseconds).and_then(|outcome| {
                let median = median(&outcome)?;
                Ok((outcome.histogram, median))
            });
            let (distribution, median) = match outcome {
                Ok((histogram, median)) => {
                    (Outcome::Value(Value::Histogram(histogram)), Outcome::Value(Value::Integer(median)))
                }
                Err(error) => (Outcome::Error(format!("{error:#}")), Outcome::Error(format!("{error:#}"))),
            };
            sheet.write(&point(all, *path), 0, distribution);
            sheet.write(&point(middle, *path), 0, median);
        }
    }
    served.end()
}

/// The median in nanoseconds.
fn median(outcome: &DriveOutcome) -> anyhow::Result<u64> {
    if outcome.completed == 0 {
        bail!("nothing was completed in {} ms", outcome.nanoseconds / 1_000_000);
    }
    Ok(distribution::decode(&outcome.histogram)?.value_at_quantile(0.5))
}
