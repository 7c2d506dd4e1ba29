//! A network card is added by hand to a container that runs without one.

use super::{Experiment, Ground, Place, Point, Scene, answer, ended};
use crate::sandboxes::{Kind, Network};
use crate::testbed::network::CLIENT;
use isobench_reports::record::Value;
use isobench_runtime::network::{Namespace, PeerNamespace};
use isobench_workload::{Family, Finding, Probe, Resource, Workload, protocol::PORT};
use std::net::SocketAddr;
use std::os::fd::AsFd;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "attachment",
    text: "adds a network card to a running container that has none, and tries the way out before and after",
    quick_blocks: 2,
    takes_program: false,
    metrics: &[INTERFACES, CONNECTS],
    points,
    measure,
};

const INTERFACES: &str = "attachment.interfaces";
const CONNECTS: &str = "attachment.connects";

fn points(kind: &Kind) -> Vec<Point> {
    // Only those with a network mode: runc, crun and bubblewrap are launched without a network and have none to speak of.
    let has_modes = kind.family == Family::Container || kind.name.ends_with("-none");
    if kind.network != Network::None || !has_modes {
        return Vec::new();
    }
    vec![Point::plain(INTERFACES), connects("before"), connects("after")]
}

fn connects(when: &str) -> Point {
    Point::with(CONNECTS, &[("when", when)])
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, sandbox, sheet, .. } = scene;
    let deadline = ground.settings.deadline;
    let mut server = ground.agent(Place::Outside, &Workload::Serve { port: PORT })?;
    server.await_ready(deadline)?;
    let mut running = sandbox.launch(&Workload::Idle)?;
    running.await_ready(deadline)?;
    let namespace = Namespace::of_pidfd(running.process().pidfd())?;

    let before = look(ground, &namespace)?;
    let endpoint = ground.networks.bridge.endpoint()?;
    endpoint.attach(&PeerNamespace::Descriptor(namespace.as_fd()))?;
    namespace.enter(|| endpoint.configuration().apply())?.map_err(|(step, errno)| {
        anyhow::Error::new(std::io::Error::from(errno)).context(format!("{} of a running container", step.name()))
    })?;
    endpoint.await_carrier()?;
    let after = look(ground, &namespace)?;

    running.destroy().map_err(ended)?;
    drop(namespace);
    Box::new(endpoint).release().map_err(anyhow::Error::from_boxed)?;
    server.destroy().map_err(ended)?;
    for (when, finding) in [("before", &before), ("after", &after)] {
        sheet.value(&connects(when), Value::Boolean(matches!(finding.connects[..], [Ok(_)])));
    }
    sheet.value(&Point::plain(INTERFACES), Value::Texts(after.interfaces));
    Ok(())
}

/// Looks from the container's own network, in which whatever it starts would find itself.
fn look(ground: &Ground, namespace: &Namespace) -> anyhow::Result<Finding> {
    let question = Probe { connect: vec![SocketAddr::from((CLIENT, PORT))], ..Probe::default() };
    answer(ground.agent_in(namespace, &Workload::Probe(question))?, ground.settings.deadline)
}
