//! Whether containers find each other by name: in one network of their own, across two of them, and on the default bridge.

use super::{Experiment, Ground, PATIENCE, Point, Scene, WarmUp, answer, ended};
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
    warm_up: WarmUp::Nothing,
    metrics: &[RESOLVES, CONNECTS],
    points,
    measure,
};

const RESOLVES: &str = "names.resolves";
const CONNECTS: &str = "names.connects";

/// The port of name servers (RFC 1035).
const DNS: u16 = 53;

fn points(kind: &Kind) -> Vec<Point> {
    if !matches!(kind.family, Family::Container | Family::Peer) {
        return Vec::new();
    }
    if kind.is_custom() {
        let resolves = ["same", "other", "other-there"].map(|name| point(RESOLVES, name));
        return resolves.into_iter().chain([point(CONNECTS, "same")]).collect();
    }
    if kind.is_default_bridge() { vec![point(RESOLVES, "default"), point(CONNECTS, "address")] } else { Vec::new() }
}

fn point(metric: &'static str, name: &str) -> Point {
    Point::with(metric, &[("name", name)])
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    let engine = ground.networks.engine().is_some();
    let seen = match (kind.is_custom(), engine) {
        (false, _) => on_the_default_bridge(ground, sandbox)?,
        (true, false) => on_own_networks(ground)?,
        (true, true) => {
            let mut second = ground.in_second_network(kind)?;
            let mut one = |_: &str| Joined::by_an_engine(ground, sandbox);
            ask_in_both(ground, &mut one, &mut |_| Joined::by_an_engine(ground, second.as_mut()))?
        }
    };
    for (point, seen) in seen {
        sheet.value(&point, Value::Boolean(seen));
    }
    Ok(())
}

type Seen = Vec<(Point, bool)>;

fn on_the_default_bridge(ground: &Ground, sandbox: &mut dyn Sandbox) -> anyhow::Result<Seen> {
    let (web, visitor) = if ground.networks.engine().is_some() {
        (Joined::by_an_engine(ground, sandbox)?, Joined::by_an_engine(ground, sandbox)?)
    } else {
        // Nobody tells these whom to ask; the gateway is where a name server would be.
        let resolver = SocketAddr::from((ground.networks.bridge().gateway, DNS));
        (Joined::launch(ground, sandbox, resolver)?, Joined::launch(ground, sandbox, resolver)?)
    };
    let asked = visitor.look(ground, &[&web.name], Vec::new())?;
    let reached = visitor.look(ground, &[], vec![SocketAddr::new(web.address, PORT)])?;
    let seen = vec![
        (point(RESOLVES, "default"), leads_to(&asked, 0, web.address)),
        (point(CONNECTS, "address"), matches!(reached.connects[..], [Ok(_)])),
    ];
    [web, visitor].into_iter().try_for_each(Joined::end)?;
    Ok(seen)
}

fn on_own_networks(ground: &Ground) -> anyhow::Result<Seen> {
    let store = Store::open(&directory("names")?)?;
    for name in ["one", "two"] {
        store.create(&Request { name: name.into(), ..Request::default() })?;
    }
    let (one, two) = (store.network("one")?, store.network("two")?);
    let seen = ask_in_both(ground, &mut |name| Joined::connect(ground, &one, name), &mut |name| {
        Joined::connect(ground, &two, name)
    });
    drop((one, two));
    store.clear()?;
    seen
}

/// What launches a container of this name in one of two networks.
type Launch<'a> = dyn FnMut(&str) -> anyhow::Result<Joined> + 'a;

fn ask_in_both(ground: &Ground, one: &mut Launch<'_>, two: &mut Launch<'_>) -> anyhow::Result<Seen> {
    let (web, visitor) = (one("web")?, one("visitor")?);
    let (shop, stranger) = (two("shop")?, two("stranger")?);
    let asked = visitor.look(ground, &[&web.name, &shop.name], Vec::new())?;
    let there = stranger.look(ground, &[&shop.name], Vec::new())?;
    // The name is used as a program uses it: its answer is where to connect.
    let answered = asked.lookups.first().and_then(|answer| Some(*answer.as_ref().ok()?.first()?));
    let servers = answered.map(|address| SocketAddr::from((address, PORT))).into_iter().collect();
    let reached = visitor.look(ground, &[], servers)?;

    let seen = vec![
        (point(RESOLVES, "same"), leads_to(&asked, 0, web.address)),
        (point(RESOLVES, "other"), leads_to(&asked, 1, shop.address)),
        (point(RESOLVES, "other-there"), leads_to(&there, 0, shop.address)),
        (point(CONNECTS, "same"), matches!(reached.connects[..], [Ok(_)])),
    ];
    [web, visitor, shop, stranger].into_iter().try_for_each(Joined::end)?;
    Ok(seen)
}

/// Whether the answer to a question is this address.
fn leads_to(seen: &Finding, question: usize, address: IpAddr) -> bool {
    let found = seen.lookups.get(question).and_then(|answer| answer.as_ref().ok());
    found.is_some_and(|addresses| addresses.iter().any(|found| IpAddr::from(*found) == address))
}

/// A container that serves, with the name by which others may find it and the name server that it asks.
struct Joined {
    container: Instance,
    connection: Option<Connection>,
    name: String,
    address: IpAddr,
    resolver: SocketAddr,
}

impl Joined {
    /// One in a network that its sandbox joins by itself.
    fn launch(ground: &Ground, sandbox: &mut dyn Sandbox, resolver: SocketAddr) -> anyhow::Result<Self> {
        let mut container = sandbox.launch(&Workload::Serve { port: PORT })?;
        container.await_ready(ground.settings.deadline)?;
        let address = container.server().context("a server in a network has no address")?.ip();
        let name = container.name().to_owned();
        Ok(Self { container, connection: None, name, address, resolver })
    }

    /// One of an engine's, which writes down inside whom to ask.
    fn by_an_engine(ground: &Ground, sandbox: &mut dyn Sandbox) -> anyhow::Result<Self> {
        // Known only once it runs.
        let mut joined = Self::launch(ground, sandbox, SocketAddr::from(([0, 0, 0, 0], DNS)))?;
        let file = format!("/proc/{}/root/etc/resolv.conf", joined.container.inside_pid());
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
        let server = servers.into_iter().find(IpAddr::is_ipv4).with_context(|| format!("{file} names no server"))?;
        joined.resolver = SocketAddr::new(server, DNS);
        Ok(joined)
    }

    /// One of our own, connected to a network that answers names.
    fn connect(ground: &Ground, network: &Network, name: &str) -> anyhow::Result<Self> {
        let mut container = ground
            .container(&format!("names-{name}"), SandboxNetwork::None)?
            .launch(&Workload::Serve { port: PORT })?;
        container.output().line(ground.settings.deadline)?;
        let joining = Joining { instance: name.into(), ..Joining::default() };
        let mut connection = network.connect(&joining, &Namespace::of_pidfd(container.inside())?)?;
        let address = connection.membership().context("it is in no network")?.member().address.into();
        let resolver = SocketAddr::from((network.resolver().context("the network has no name server")?, DNS));
        Ok(Self { container, connection: Some(connection), name: name.into(), address, resolver })
    }

    /// Looks from the container's own network.
    fn look(&self, ground: &Ground, names: &[&str], connect: Vec<SocketAddr>) -> anyhow::Result<Finding> {
        let question = Probe {
            connect,
            lookups: names.iter().map(|name| Lookup { server: self.resolver, name: (*name).to_owned() }).collect(),
            patience: Some(PATIENCE),
            ..Probe::default()
        };
        let place = Namespace::of_pidfd(self.container.inside())?;
        answer(ground.agent_in(&place, &Workload::Probe(question))?, ground.settings.deadline)
    }

    fn end(self) -> anyhow::Result<()> {
        self.connection.map_or(Ok(()), Connection::disconnect)?;
        self.container.destroy().map(drop).map_err(ended)
    }
}
