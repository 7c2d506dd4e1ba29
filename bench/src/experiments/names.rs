//! Whether containers find each other by name: in one network of their own, across two of them, and on the default bridge.

use super::{Experiment, Ground, PATIENCE, Point, Scene, answer, ended};
use crate::networks::{Connection, Joining, Network, Request, Store};
use crate::sandboxes::Kind;
use crate::testbed::directory;
use anyhow::Context;
use isobench_reports::record::Value;
use isobench_runtime::SandboxNetwork;
use isobench_runtime::network::Namespace;
use isobench_workload::{Family, Finding, Instance, Lookup, Probe, Sandbox, Workload, protocol::PORT};
use std::net::{IpAddr, SocketAddr};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "names",
    text: "asks for containers by name in their network, in another one and on the default bridge",
    quick_blocks: 2,
    takes_program: false,
    metrics: &[RESOLVES, CONNECTS],
    points,
    measure,
};

const RESOLVES: &str = "names.resolves";
const CONNECTS: &str = "names.connects";

/// The port of name servers (RFC 1035).
const DNS: u16 = 53;

fn points(kind: &Kind) -> Vec<Point> {
    match kind.family {
        Family::Container if kind.is_custom() => {
            let resolves = ["same", "other", "other-there"].map(|name| point(RESOLVES, name));
            resolves.into_iter().chain([point(CONNECTS, "same")]).collect()
        }
        Family::Container if kind.is_default_bridge() => {
            vec![point(RESOLVES, "default"), point(CONNECTS, "address")]
        }
        _ => Vec::new(),
    }
}

fn point(metric: &'static str, name: &str) -> Point {
    Point::with(metric, &[("name", name)])
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    let seen = if kind.is_custom() { on_custom_networks(ground)? } else { on_the_default_bridge(ground, sandbox)? };
    for (point, seen) in seen {
        sheet.value(&point, Value::Boolean(seen));
    }
    Ok(())
}

type Seen = Vec<(Point, bool)>;

fn on_the_default_bridge(ground: &Ground, sandbox: &mut dyn Sandbox) -> anyhow::Result<Seen> {
    let mut server = sandbox.launch(&Workload::Serve { port: PORT })?;
    server.await_ready(ground.settings.deadline)?;
    let address = server.server().context("a server on the bridge has no address")?;
    let gateway = ground.networks.bridge().gateway;
    let question = Workload::Probe(Probe {
        connect: vec![address],
        lookups: vec![Lookup { server: SocketAddr::from((gateway, DNS)), name: server.name().to_owned() }],
        patience: Some(PATIENCE),
        ..Probe::default()
    });
    let seen: Finding = answer(sandbox.launch(&question)?, ground.settings.deadline)?;
    let found = leads_to(&seen, 0, address.ip());
    server.destroy().map_err(ended)?;
    Ok(vec![(point(RESOLVES, "default"), found), (point(CONNECTS, "address"), matches!(seen.connects[..], [Ok(_)]))])
}

fn on_custom_networks(ground: &Ground) -> anyhow::Result<Seen> {
    let store = Store::open(&directory("names")?)?;
    for name in ["one", "two"] {
        store.create(&Request { name: name.into(), ..Request::default() })?;
    }
    let seen = ask_in_both(ground, &store.network("one")?, &store.network("two")?);
    store.clear()?;
    seen
}

fn ask_in_both(ground: &Ground, one: &Network, two: &Network) -> anyhow::Result<Seen> {
    let (web, shop) = (Joined::launch(ground, one, "web")?, Joined::launch(ground, two, "shop")?);
    let (visitor, stranger) = (Joined::launch(ground, one, "visitor")?, Joined::launch(ground, two, "stranger")?);
    let asked = visitor.look(ground, one, &["web", "shop"], Vec::new())?;
    let there = stranger.look(ground, two, &["shop"], Vec::new())?;
    // The name is used as a program uses it: its answer is where to connect.
    let answered = asked.lookups.first().and_then(|answer| Some(*answer.as_ref().ok()?.first()?));
    let servers = answered.map(|address| SocketAddr::from((address, PORT))).into_iter().collect();
    let reached = visitor.look(ground, one, &[], servers)?;

    let seen = vec![
        (point(RESOLVES, "same"), leads_to(&asked, 0, web.address)),
        (point(RESOLVES, "other"), leads_to(&asked, 1, shop.address)),
        (point(RESOLVES, "other-there"), leads_to(&there, 0, shop.address)),
        (point(CONNECTS, "same"), matches!(reached.connects[..], [Ok(_)])),
    ];
    [web, shop, visitor, stranger].into_iter().try_for_each(Joined::end)?;
    Ok(seen)
}

/// Whether the answer to a question is this address.
fn leads_to(seen: &Finding, question: usize, address: IpAddr) -> bool {
    let found = seen.lookups.get(question).and_then(|answer| answer.as_ref().ok());
    found.is_some_and(|addresses| addresses.iter().any(|found| IpAddr::from(*found) == address))
}

/// A container that serves, in a network that answers its name.
struct Joined {
    container: Instance,
    connection: Connection,
    address: IpAddr,
}

impl Joined {
    fn launch(ground: &Ground, network: &Network, name: &str) -> anyhow::Result<Self> {
        let mut container = ground
            .container(&format!("names-{name}"), SandboxNetwork::None)?
            .launch(&Workload::Serve { port: PORT })?;
        container.output().line(ground.settings.deadline)?;
        let joining = Joining { instance: name.into(), ..Joining::default() };
        let mut connection = network.connect(&joining, &Namespace::of_pidfd(container.process().pidfd())?)?;
        let membership = connection.membership().context("it is in no network")?;
        let address = membership.member().address.into();
        Ok(Self { container, connection, address })
    }

    /// Looks from the container's own network.
    fn look(
        &self,
        ground: &Ground,
        network: &Network,
        names: &[&str],
        connect: Vec<SocketAddr>,
    ) -> anyhow::Result<Finding> {
        let resolver = network.resolver().context("the network has no name server")?;
        let server = SocketAddr::from((resolver, DNS));
        let question = Probe {
            connect,
            lookups: names.iter().map(|name| Lookup { server, name: (*name).to_owned() }).collect(),
            patience: Some(PATIENCE),
            ..Probe::default()
        };
        let place = Namespace::of_pidfd(self.container.process().pidfd())?;
        answer(ground.agent_in(&place, &Workload::Probe(question))?, ground.settings.deadline)
    }

    fn end(self) -> anyhow::Result<()> {
        self.connection.disconnect()?;
        self.container.destroy().map(drop).map_err(ended)
    }
}
