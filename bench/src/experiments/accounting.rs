//! Whether traffic can be counted for each container: two of them, traffic to one, and the interface counters that each has.

use super::traffic::{Path, Served, Span};
use super::{Experiment, Point, Scene, WarmUp, ended};
use crate::sandboxes::{Kind, Network};
use isobench_reports::record::Value;
use isobench_runtime::network::{Namespace, Netlink};
use isobench_workload::{Family, Instance, Traffic, Workload};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "accounting",
    text: "sends traffic to one of two containers and reads the interface counters of both",
    quick_blocks: 2,
    takes_program: false,
    warm_up: WarmUp::Nothing,
    metrics: &[COUNTED],
    points,
    measure,
};

const COUNTED: &str = "accounting.counted";

/// The port of the container to which nothing is sent.
const QUIET_PORT: u16 = 7003;

/// How long traffic is made, in milliseconds.
const DURATION: u64 = 20;

fn points(kind: &Kind) -> Vec<Point> {
    let looked_at = matches!(kind.family, Family::Container | Family::Peer)
        && (kind.network == Network::Host || kind.is_default_bridge());
    if looked_at { ["own", "other"].map(point).into() } else { Vec::new() }
}

fn point(place: &str) -> Point {
    Point::with(COUNTED, &[("at", place)])
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    let busy = Served::launch(ground, kind, sandbox)?;
    let mut quiet = sandbox.launch(&Workload::Serve { port: QUIET_PORT })?;
    quiet.await_ready(ground.settings.deadline)?;

    let (mut own, mut other) = (Counters::of(&busy.instance)?, Counters::of(&quiet)?);
    let before = (own.received()?, other.received()?);
    let span = Span { warm_up: 0, window: DURATION };
    let sent = busy.drive(ground, sandbox, Path::Client, Traffic::Upload { streams: 1 }, span)?.outcome.whole;
    let rose = (own.received()? - before.0, other.received()? - before.1);

    // The counters hold the network namespaces open.
    drop((own, other));
    quiet.destroy().map_err(ended)?;
    busy.end()?;
    anyhow::ensure!(sent > 0, "no traffic was made");
    // Headers come on top of what was sent, so nothing that was counted is below it; and a few packets of others, such as
    // the question for a link-layer address, are far below.
    sheet.value(&point("own"), Value::Boolean(rose.0 >= sent));
    sheet.value(&point("other"), Value::Boolean(rose.1 >= sent));
    Ok(())
}

/// The interface counters that an instance has.
struct Counters(Netlink);

impl Counters {
    fn of(instance: &Instance) -> anyhow::Result<Self> {
        Ok(Self(Netlink::open_in(&Namespace::of_pidfd(instance.inside())?)?))
    }

    /// Bytes received by all of its interfaces.
    fn received(&mut self) -> anyhow::Result<u64> {
        Ok(self.0.links()?.iter().map(|link| link.received_bytes).sum())
    }
}
