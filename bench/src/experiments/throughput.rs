//! What one TCP stream carries towards a sandbox and from it.

use super::traffic::{Path, Served};
use super::{Experiment, Point, Scene};
use crate::sandboxes::{self, Kind, Network};
use isobench_reports::record::{Outcome, Value};
use isobench_workload::{Family, Traffic};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "throughput",
    text: "one TCP stream towards the sandbox and one from it, with segmentation offload and in packets as large as on a \
           wire",
    quick_blocks: 12,
    takes_program: false,
    metrics: &["tcp.upload", "tcp.download"],
    points: |kind| runs(kind).map(|run| run.point()).collect(),
    measure,
};

/// One stream.
#[derive(Clone, Copy, Debug)]
struct Run {
    path: Path,
    wire: bool,
    traffic: Traffic,
}

impl Run {
    fn point(self) -> Point {
        let metric = if self.traffic == Traffic::Upload { "tcp.upload" } else { "tcp.download" };
        let segmentation = if self.wire { "wire" } else { "offload" };
        Point::with(metric, &[("path", self.path.name()), ("segmentation", segmentation)])
    }
}

/// The streams of a kind. Wire-size packets only where a packet leaves a namespace: over lo there is no wire, and its MTU of
/// 64 KiB would make the two the same. What bounds packets on the host's links does not reach into a guest: the unikernel is
/// launched anew for small ones, and a Linux guest's own choice of what it hands over cannot be changed.
fn runs(kind: &Kind) -> impl Iterator<Item = Run> {
    let (network, guest) = (kind.network, kind.family == Family::Linux);
    Path::of(kind).iter().flat_map(move |path| {
        let crosses = network == Network::Bridged || (network == Network::Host && *path == Path::Client);
        [(false, Traffic::Upload), (false, Traffic::Download), (true, Traffic::Upload), (true, Traffic::Download)]
            .into_iter()
            .filter(move |(wire, traffic)| !wire || crosses && !(guest && *traffic == Traffic::Download))
            .map(move |(wire, traffic)| Run { path: *path, wire, traffic })
    })
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    let milliseconds = if ground.settings.quick { 80 } else { 1000 };
    let mut served = Served::launch(ground, kind, sandbox)?;
    for wire in [false, true] {
        // The other instance is gone by then: taps of both sandboxes have the same names.
        if wire && kind.is_unikernel() {
            served.end()?;
            let mut sandbox = sandboxes::with_wire_packets(kind, &ground.vmm, ground.networks.own()?);
            served = Served::launch(ground, kind, sandbox.as_mut())?;
        }
        let limited = if wire { ground.network.limit_packets(&served.instance).map(Some) } else { Ok(None) };
        for run in runs(kind).filter(|run| run.wire == wire) {
            let outcome = match &limited {
                Ok(_) => served.drive(ground, sandbox, run.path, run.traffic, milliseconds),
                Err(error) => Err(anyhow::anyhow!("limit packets to one segment: {error:#}")),
            };
            let outcome = match outcome {
                Ok(outcome) => {
                    Outcome::Value(Value::Transfer { amount: outcome.bytes, nanoseconds: outcome.nanoseconds })
                }
                Err(error) => Outcome::Error(format!("{error:#}")),
            };
            sheet.write(&run.point(), 0, outcome);
        }
        if let Ok(Some(limited)) = limited {
            ground.network.lift_limit(limited)?;
        }
    }
    served.end()
}
