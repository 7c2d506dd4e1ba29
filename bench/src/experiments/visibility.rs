//! Who sees a container's listener, and who reaches it by the loopback address: the host, a second container, and whoever
//! shares the container's own network.

use super::{Experiment, Place, Point, Scene, WarmUp, answer, ended};
use crate::sandboxes::{Kind, Network};
use isobench_reports::record::Value;
use isobench_runtime::network::Namespace;
use isobench_workload::{Family, Finding, Probe, Workload, protocol::PORT};
use std::net::{Ipv4Addr, SocketAddr};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "visibility",
    text: "looks for a container's listener from the host, from a second container and from its own network",
    quick_blocks: 2,
    takes_program: false,
    warm_up: WarmUp::Nothing,
    metrics: &[LISTENER, LOOPBACK],
    points,
    measure,
};

const LISTENER: &str = "visibility.listener";
const LOOPBACK: &str = "visibility.loopback";

/// From where it is looked at.
const PLACES: [&str; 3] = ["own", "other", "host"];

fn points(kind: &Kind) -> Vec<Point> {
    let looked_at = matches!(kind.family, Family::Container | Family::Peer)
        && (kind.network == Network::Host || kind.is_default_bridge());
    if !looked_at {
        return Vec::new();
    }
    PLACES.iter().flat_map(|place| [point(LISTENER, place), point(LOOPBACK, place)]).collect()
}

fn point(metric: &'static str, place: &str) -> Point {
    Point::with(metric, &[("from", place)])
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, sandbox, sheet, .. } = scene;
    let deadline = ground.settings.deadline;
    let mut server = sandbox.launch(&Workload::Serve { port: PORT })?;
    server.await_ready(deadline)?;
    let question =
        Workload::Probe(Probe { connect: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))], ..Probe::default() });
    let own = Namespace::of_pidfd(server.inside())?;
    let seen: [Finding; 3] = [
        answer(ground.agent_in(&own, &question)?, deadline)?,
        answer(sandbox.launch(&question)?, deadline)?,
        answer(ground.agent(Place::Host, &question)?, deadline)?,
    ];
    // A network namespace, and a link into it, stays as long as somebody holds it open.
    drop(own);
    server.destroy().map_err(ended)?;
    for (place, seen) in PLACES.iter().zip(seen) {
        sheet.value(&point(LISTENER, place), Value::Boolean(seen.listeners.contains(&PORT)));
        sheet.value(&point(LOOPBACK, place), Value::Boolean(matches!(seen.connects[..], [Ok(_)])));
    }
    Ok(())
}
