//! What several TCP streams at the same time carry towards a sandbox and from it.

use super::traffic::{Driven, Path, Served, Span, outcome, shared};
use super::{Experiment, Point, Scene, WarmUp};
use anyhow::Context;
use isobench_workload::Traffic;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "streams",
    text: "four TCP streams at the same time towards the sandbox and four from it, with segmentation offload",
    quick_blocks: 0,
    takes_program: false,
    // A window of bulk traffic begins after traffic.
    warm_up: WarmUp::Cell,
    metrics: &["tcp.upload", "tcp.upload.cost", "tcp.download", "tcp.download.cost"],
    points: |kind| Path::main(kind).iter().flat_map(|path| RUNS.iter().flat_map(|run| points(*path, run.1))).collect(),
    measure,
};

const STREAMS: u32 = 4;

const RUNS: [(Traffic, [&str; 2]); 2] = [
    (Traffic::Upload { streams: STREAMS }, ["tcp.upload", "tcp.upload.cost"]),
    (Traffic::Download { streams: STREAMS }, ["tcp.download", "tcp.download.cost"]),
];

fn points(path: Path, metrics: [&'static str; 2]) -> [Point; 2] {
    let streams = STREAMS.to_string();
    metrics.map(|metric| {
        Point::with(metric, &[("path", path.name()), ("segmentation", "offload"), ("streams", streams.as_str())])
    })
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    let span = Span::of(ground).first(kind.family);
    let path = Path::main(kind).context("it has no network")?;
    let served = Served::launch(ground, kind, sandbox)?;
    for (traffic, metrics) in RUNS {
        let driven = served.drive(ground, sandbox, path, traffic, span);
        let [carried, cost] = points(path, metrics);
        sheet.write(&carried, 0, outcome(shared(&driven).map(Driven::transfer)));
        sheet.write(&cost, 0, outcome(shared(&driven).map(Driven::cost)));
    }
    served.end()
}
