//! A network card is added by hand to a container that runs without one.

use super::{Experiment, Ground, Place, Point, Scene, WarmUp, answer, ended};
use crate::sandboxes::{Kind, Network};
use crate::testbed::network::CLIENT;
use isobench_reports::record::Value;
use isobench_runtime::network::{Namespace, Netlink, PeerNamespace, Veth, inside};
use isobench_workload::{Family, Finding, Probe, Workload, protocol::PORT};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "attachment",
    text: "adds a network card to a running container that has none, and tries the way out before and after",
    quick_blocks: 2,
    takes_program: false,
    warm_up: WarmUp::Nothing,
    metrics: &[INTERFACES, CONNECTS],
    points,
    measure,
};

/// The two ends of the card (TEST-NET-1 of RFC 5737).
const OUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const INNER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const PREFIX: u8 = 24;

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
    let namespace = Namespace::of_pidfd(running.inside())?;

    let before = look(ground, &namespace)?;
    attach(&namespace, ground.network.outside())?;
    let after = look(ground, &namespace)?;

    // The card and its other end go with the network namespace, once nobody holds it open.
    drop(namespace);
    running.destroy().map_err(ended)?;
    server.destroy().map_err(ended)?;
    for (when, finding) in [("before", &before), ("after", &after)] {
        sheet.value(&connects(when), Value::Boolean(matches!(finding.connects[..], [Ok(_)])));
    }
    sheet.value(&Point::plain(INTERFACES), Value::Texts(after.interfaces));
    Ok(())
}

/// What one would type: a pair of cards, one end in the container and the other at the outside client, an address on each, and
/// the way out through the other end.
fn attach(container: &Namespace, outside: &Namespace) -> anyhow::Result<()> {
    let veth = Veth {
        name: "by-hand",
        mac: None,
        bridge: None,
        hairpin: false,
        peer_name: inside::INTERFACE_NAME,
        peer_mac: None,
        peer_index: Some(inside::INTERFACE),
        segments: None,
    };
    let (mut client, mut inner) = (Netlink::open_in(outside)?, Netlink::open_in(container)?);
    client.create_veth(&veth, &PeerNamespace::Descriptor(container.as_fd()))?;
    let index = client.index(veth.name)?;
    client.add_address(index, OUTER, PREFIX)?;
    inner.add_address(inside::INTERFACE, INNER, PREFIX)?;
    client.bring_up(index)?;
    inner.bring_up(inside::INTERFACE)?;
    inner.add_route(Ipv4Addr::UNSPECIFIED, 0, OUTER)?;
    // It was up before the container's end.
    Ok(client.await_carrier(veth.name)?)
}

/// Looks from the container's own network, in which whatever it starts would find itself.
fn look(ground: &Ground, namespace: &Namespace) -> anyhow::Result<Finding> {
    let question = Probe { connect: vec![SocketAddr::from((CLIENT, PORT))], ..Probe::default() };
    answer(ground.agent_in(namespace, &Workload::Probe(question))?, ground.settings.deadline)
}
