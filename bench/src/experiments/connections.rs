//! How many new connections a second a sandbox takes, with several in flight.

use super::traffic::{Path, Served, Span, outcome};
use super::{Experiment, Point, Scene, WarmUp};
use isobench_workload::Traffic;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "connections",
    text: "new TCP connections with one answer each, four in flight, as many as go",
    quick_blocks: 1,
    takes_program: false,
    warm_up: WarmUp::Block,
    metrics: &[RATE],
    points: |kind| Path::of(kind).iter().map(|path| point(*path)).collect(),
    measure,
};

const RATE: &str = "tcp.connection.rate";

/// Few enough for the unikernel, which has as many listening sockets.
const IN_FLIGHT: u32 = 4;

fn point(path: Path) -> Point {
    Point::with(RATE, &[("path", path.name())])
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    let span = Span::of(ground).brief();
    let served = Served::launch(ground, kind, sandbox)?;
    for path in Path::of(kind) {
        let traffic = Traffic::Connections { in_flight: IN_FLIGHT };
        let driven = served.drive(ground, sandbox, *path, traffic, span);
        sheet.write(&point(*path), 0, outcome(driven.map(|driven| driven.completions())));
    }
    served.end()
}
