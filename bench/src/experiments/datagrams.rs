//! How many small UDP datagrams a second arrive in a sandbox and from it, and how many were sent.

use super::traffic::{Driven, Path, Served, Span, outcome, shared};
use super::{Experiment, Point, Scene, WarmUp};
use anyhow::Context;
use isobench_reports::record::Value;
use isobench_workload::{Family, Traffic};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "datagrams",
    text: "UDP datagrams of 64 bytes towards the sandbox and from it, as fast as they go: sent and arrived",
    quick_blocks: 1,
    takes_program: false,
    warm_up: WarmUp::Block,
    metrics: &["udp.upload", "udp.upload.sent", "udp.download", "udp.download.sent"],
    points: |kind| {
        // An engine publishes a TCP port alone when it launches.
        let paths = Path::main(kind).into_iter().filter(|_| kind.family != Family::Peer);
        paths.flat_map(|path| RUNS.iter().flat_map(move |(_, metrics)| metrics.map(|name| point(name, path)))).collect()
    },
    measure,
};

/// Payload in bytes: small, so that what is measured is the cost of a packet and not of its bytes.
const SIZE: u32 = 64;

const RUNS: [(Traffic, [&str; 2]); 2] = [
    (Traffic::DatagramUpload { bytes: SIZE }, ["udp.upload", "udp.upload.sent"]),
    (Traffic::DatagramDownload { bytes: SIZE }, ["udp.download", "udp.download.sent"]),
];

fn point(metric: &'static str, path: Path) -> Point {
    Point::with(metric, &[("path", path.name())])
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    let span = Span::of(ground);
    let path = Path::main(kind).context("it has no network")?;
    let served = Served::launch(ground, kind, sandbox)?;
    for (traffic, [arrived, sent]) in RUNS {
        let driven = served.drive(ground, sandbox, path, traffic, span);
        let offered = |driven: &Driven| Value::Transfer {
            amount: driven.outcome.offered,
            nanoseconds: driven.outcome.nanoseconds,
        };
        sheet.write(&point(arrived, path), 0, outcome(shared(&driven).map(Driven::completions)));
        sheet.write(&point(sent, path), 0, outcome(shared(&driven).map(offered)));
    }
    served.end()
}
