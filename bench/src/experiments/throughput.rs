//! What one TCP stream carries towards a sandbox and from it.

use super::traffic::{Driven, Path, Served, Span, outcome, shared};
use super::{Experiment, Point, Scene, WarmUp};
use crate::sandboxes::{self, Kind};
use isobench_workload::{Family, Traffic};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "throughput",
    text: "one TCP stream towards the sandbox and one from it, with segmentation offload and in packets as large as on a \
           wire",
    quick_blocks: 9,
    takes_program: false,
    // A window of bulk traffic begins after traffic.
    warm_up: WarmUp::Cell,
    metrics: &["tcp.upload", "tcp.upload.cost", "tcp.download", "tcp.download.cost"],
    points: |kind| runs(kind).flat_map(|run| run.points()).collect(),
    measure,
};

const UPLOAD: Traffic = Traffic::Upload { streams: 1 };
const DOWNLOAD: Traffic = Traffic::Download { streams: 1 };

/// One stream.
#[derive(Clone, Copy, Debug)]
struct Run {
    path: Path,
    wire: bool,
    traffic: Traffic,
}

impl Run {
    /// What was carried, and what CPU time it took.
    fn points(self) -> [Point; 2] {
        let metrics = match self.traffic {
            UPLOAD => ["tcp.upload", "tcp.upload.cost"],
            _ => ["tcp.download", "tcp.download.cost"],
        };
        let segmentation = if self.wire { "wire" } else { "offload" };
        metrics.map(|metric| Point::with(metric, &[("path", self.path.name()), ("segmentation", segmentation)]))
    }
}

/// The streams of a kind. Wire-size packets only from the outside client, as from a wire: over lo there is none, and its MTU
/// of 64 KiB would make the two the same. What bounds packets on the host's links does not reach into a guest: the unikernel
/// is launched anew for small ones, and a Linux guest's own choice of what it hands over cannot be changed.
fn runs(kind: &Kind) -> impl Iterator<Item = Run> {
    let guest = kind.family == Family::Linux;
    Path::of(kind).iter().flat_map(move |path| {
        let crosses = *path == Path::Client;
        [(false, UPLOAD), (false, DOWNLOAD), (true, UPLOAD), (true, DOWNLOAD)]
            .into_iter()
            .filter(move |(wire, traffic)| !wire || crosses && !(guest && *traffic == DOWNLOAD))
            .map(move |(wire, traffic)| Run { path: *path, wire, traffic })
    })
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    let span = Span::of(ground);
    let mut served = Served::launch(ground, kind, sandbox)?;
    // Directions in which this instance has carried something.
    let mut seen = Vec::new();
    for wire in [false, true] {
        // The other instance is gone by then: taps of both sandboxes have the same names.
        if wire && kind.is_unikernel() {
            served.end()?;
            let mut sandbox = sandboxes::with_wire_packets(kind, &ground.vmm, ground.networks.own()?);
            served = Served::launch(ground, kind, sandbox.as_mut())?;
            seen.clear();
        }
        let limited = if wire { ground.network.limit_packets(&served.instance).map(Some) } else { Ok(None) };
        for run in runs(kind).filter(|run| run.wire == wire) {
            let span = if seen.contains(&run.traffic) { span } else { span.first(kind.family) };
            seen.push(run.traffic);
            let driven = match &limited {
                Ok(_) => served.drive(ground, sandbox, run.path, run.traffic, span),
                Err(error) => Err(anyhow::anyhow!("limit packets to one segment: {error:#}")),
            };
            let [carried, cost] = run.points();
            sheet.write(&carried, 0, outcome(shared(&driven).map(Driven::transfer)));
            sheet.write(&cost, 0, outcome(shared(&driven).map(Driven::cost)));
        }
        if let Ok(Some(limited)) = limited {
            ground.network.lift_limit(limited)?;
        }
    }
    served.end()
}
