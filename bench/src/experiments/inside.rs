//! Traffic that begins inside a sandbox: to another one like it, and out to a server outside (through source NAT where the
//! sandbox has an address of its own).

use super::latency::median;
use super::traffic::{Driven, Path, Served, Span, outcome, shared};
use super::{Experiment, Point, Scene, WarmUp};
use isobench_reports::record::Value;
use isobench_workload::Traffic;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "inside",
    text: "TCP streams, round trips and connections from inside the sandbox, to another one like it and to the outside",
    quick_blocks: 0,
    takes_program: false,
    warm_up: WarmUp::Block,
    metrics: &[
        "tcp.upload",
        "tcp.upload.cost",
        "tcp.download",
        "tcp.download.cost",
        "tcp.round-trip.median",
        "tcp.round-trip.cost",
        "tcp.connection.rate",
    ],
    points: |kind| {
        Path::from_inside(kind).iter().flat_map(|path| RUNS.iter().flat_map(|run| run.points(*path))).collect()
    },
    measure,
};

struct Run {
    traffic: Traffic,
    metric: &'static str,
    cost: Option<&'static str>,
}

const RUNS: [Run; 4] = [
    Run { traffic: Traffic::Upload { streams: 1 }, metric: "tcp.upload", cost: Some("tcp.upload.cost") },
    Run { traffic: Traffic::Download { streams: 1 }, metric: "tcp.download", cost: Some("tcp.download.cost") },
    Run {
        traffic: Traffic::RoundTrips { bytes: 1 },
        metric: "tcp.round-trip.median",
        cost: Some("tcp.round-trip.cost"),
    },
    Run { traffic: Traffic::Connections { in_flight: 4 }, metric: "tcp.connection.rate", cost: None },
];

impl Run {
    fn point(&self, metric: &'static str, path: Path) -> Point {
        match self.traffic {
            Traffic::Upload { .. } | Traffic::Download { .. } => {
                Point::with(metric, &[("path", path.name()), ("segmentation", "offload")])
            }
            _ => Point::with(metric, &[("path", path.name())]),
        }
    }

    fn points(&self, path: Path) -> Vec<Point> {
        std::iter::once(self.metric).chain(self.cost).map(|metric| self.point(metric, path)).collect()
    }

    fn value(&self, driven: &Driven) -> anyhow::Result<Value> {
        Ok(match self.traffic {
            Traffic::RoundTrips { .. } => Value::Integer(median(&driven.outcome)?),
            Traffic::Connections { .. } => driven.completions(),
            _ => driven.transfer(),
        })
    }
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    // The generator's namespace gets its congestion control while it runs.
    let span = Span::of(ground).at_least(80);
    let mut served = Served::launch(ground, kind, sandbox)?;
    served.serve_outside(ground)?;
    for path in Path::from_inside(kind) {
        for run in &RUNS {
            let driven = served.drive(ground, sandbox, *path, run.traffic, span);
            let value = shared(&driven).and_then(|driven| run.value(driven));
            sheet.write(&run.point(run.metric, *path), 0, outcome(value));
            if let Some(cost) = run.cost {
                sheet.write(&run.point(cost, *path), 0, outcome(shared(&driven).map(Driven::cost)));
            }
        }
    }
    served.end()
}
