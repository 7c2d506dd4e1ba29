//! What network a sandbox has: facts seen from inside and from outside, each beside its control.

use super::traffic::Served;
use super::{Experiment, Ground, PATIENCE, Place, Point, Scene, Sheet, WarmUp, answer, ended};
use crate::sandboxes::{Kind, NAMED_PORT, Network, Networks};
use crate::testbed::network::{CLIENT, HOST, PUBLISHED};
use anyhow::{Context, bail};
use isobench_reports::record::{Outcome, Value};
use isobench_runtime::Mode;
use isobench_runtime::network::inside::LOOPBACK;
use isobench_runtime::network::{Link, Namespace, Netlink};
use isobench_workload::connect::{Encounter, Target};
use isobench_workload::{Family, Finding, Instance, Probe, Sandbox, Workload, client, protocol::PORT};
use std::net::{Ipv4Addr, SocketAddr};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "network",
    text: "looks from inside at interfaces, addresses and routes, and tries to connect, to listen and to be reached",
    quick_blocks: 2,
    takes_program: false,
    warm_up: WarmUp::Nothing,
    metrics: &[
        "network.interfaces",
        "network.addresses",
        "network.routes",
        "network.host-interfaces",
        "network.host-addresses",
        "network.namespace-is-host",
        "network.connects",
        "network.port-conflict",
        "network.source-address",
        "network.default-mode",
        "network.range",
        "network.publish",
        HAS_ADDRESS,
        LINKS,
    ],
    points,
    measure,
};

const HAS_ADDRESS: &str = "network.has-address";
const PORT_CONFLICT: &str = "network.port-conflict";
const LINKS: &str = "network.links";

/// A port of the simulated host's own that a sandbox can try to reach by its gateway.
const GATEWAY_PORT: u16 = 7001;

fn points(kind: &Kind) -> Vec<Point> {
    // What a Linux guest sees is its own kernel's. A guest without programs cannot look around, but it can be told to connect.
    match kind.family {
        Family::Linux => return Vec::new(),
        Family::Unikernel => return by_order(),
        _ if kind.is_unikernel() => return Vec::new(),
        _ => {}
    }
    let mut names = vec![
        "network.interfaces",
        "network.addresses",
        "network.routes",
        "network.host-interfaces",
        "network.host-addresses",
        "network.namespace-is-host",
        "network.port-conflict",
    ];
    if kind.network != Network::None {
        names.push("network.source-address");
    }
    if kind.network == Network::Bridged {
        names.extend(["network.range", "network.publish"]);
    }
    if tells_default_mode(kind) {
        names.push(DEFAULT_MODE);
    }
    if shows_links(kind) {
        names.push(LINKS);
    }
    let mut points: Vec<Point> = names.into_iter().map(Point::plain).collect();
    points.extend(["outside", "gateway"].map(connects));
    points.extend(["named", "host"].map(|with| Point::with(PORT_CONFLICT, &[("with", with)])));
    points.push(has_address("host"));
    if kind.network == Network::Joined {
        points.push(has_address("named"));
    }
    points
}

/// What a guest without programs tells: whether it reaches servers, and as whom those see it.
fn by_order() -> Vec<Point> {
    let points = [Point::plain("network.publish"), Point::plain("network.source-address"), seen_by_host()];
    points.into_iter().chain(["outside", "gateway"].map(connects)).collect()
}

/// The address that a server on the simulated host itself saw, to which nothing is translated.
fn seen_by_host() -> Point {
    Point::with("network.source-address", &[("seen-by", "host")])
}

fn has_address(of: &str) -> Point {
    Point::with(HAS_ADDRESS, &[("of", of)])
}

/// Whether a container brings links of its own to the host; a virtual machine's tap is none inside.
fn shows_links(kind: &Kind) -> bool {
    kind.network == Network::Bridged && matches!(kind.family, Family::Container | Family::Peer)
}

const DEFAULT_MODE: &str = "network.default-mode";

/// What a runtime does when no mode is given is asked once, beside the mode that it is said to be.
fn tells_default_mode(kind: &Kind) -> bool {
    kind.is_default_bridge()
}

fn connects(target: &str) -> Point {
    Point::with("network.connects", &[("target", target)])
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    let deadline = ground.settings.deadline;
    let mut servers = Vec::new();
    for (place, port) in [(Place::Outside, PORT), (Place::Host, GATEWAY_PORT)] {
        let mut server = ground.agent(place, &Workload::Serve { port })?;
        server.await_ready(deadline)?;
        servers.push(server);
    }
    let result = match kind.family {
        Family::Unikernel => order(ground, kind, sandbox, sheet),
        _ => look(ground, kind, sandbox, sheet),
    };
    for server in servers {
        server.destroy().map_err(ended)?;
    }
    result
}

/// Has a server in the sandbox connect to others, and asks it how that ended.
fn order(ground: &mut Ground, kind: &Kind, sandbox: &mut dyn Sandbox, sheet: &mut Sheet) -> anyhow::Result<()> {
    let deadline = ground.settings.deadline;
    let served = Served::launch(ground, kind, sandbox)?;
    is_published(ground, sheet)?;
    let asked = served.instance.server().context("it has no address that the host can reach");
    let gateway = ground.networks.gateway(kind);
    let targets = [
        ("outside", CLIENT, PORT, Point::plain("network.source-address")),
        ("gateway", gateway, GATEWAY_PORT, seen_by_host()),
    ];
    let met = asked.and_then(|server| {
        for (name, address, port, source) in targets {
            let target = Target { address: address.octets(), port, patience: PATIENCE as u32 };
            let encounter = client::connect(server, &target, deadline).with_context(|| format!("connect to {name}"))?;
            let connected = match encounter {
                Encounter::Answered { seen } => {
                    sheet.value(&source, Value::Texts(vec![Ipv4Addr::from_bits(seen).to_string()]));
                    true
                }
                Encounter::Refused | Encounter::Silent => {
                    sheet.write(&source, 0, Outcome::Error(encounter.to_string()));
                    false
                }
                Encounter::Stranger | Encounter::Failed { .. } | Encounter::Busy => bail!("{name}: {encounter}"),
            };
            sheet.value(&connects(name), Value::Boolean(connected));
        }
        Ok(())
    });
    served.end()?;
    met
}

/// Whether the outside client reaches the published port.
fn is_published(ground: &Ground, sheet: &mut Sheet) -> anyhow::Result<()> {
    let (published, deadline) = (SocketAddr::from((HOST, PUBLISHED)), ground.settings.deadline);
    let answered = ground.network.outside().enter(|| client::hello(published, deadline).is_ok())?;
    sheet.value(&Point::plain("network.publish"), Value::Boolean(answered));
    Ok(())
}

fn look(ground: &mut Ground, kind: &Kind, sandbox: &mut dyn Sandbox, sheet: &mut Sheet) -> anyhow::Result<()> {
    let deadline = ground.settings.deadline;
    let mut netlink = Netlink::open()?;
    let before = netlink.links()?;
    let serving = match kind.network {
        // Nobody can connect, but it can listen.
        Network::None => Serving::Alone(alone(ground, sandbox)?),
        _ => Serving::Reachable(Box::new(Served::launch(ground, kind, sandbox)?)),
    };
    if kind.network == Network::Bridged {
        is_published(ground, sheet)?;
    }
    let gateway = ground.networks.gateway(kind);
    let questions = Probe {
        connect: vec![SocketAddr::from((CLIENT, PORT)), SocketAddr::from((gateway, GATEWAY_PORT))],
        listen: vec![PORT, NAMED_PORT, GATEWAY_PORT],
        ..Probe::default()
    };
    let inside: Finding = answer(sandbox.launch(&Workload::Probe(questions))?, deadline)?;
    let host: Finding = answer(ground.agent(Place::Host, &Workload::Probe(Probe::default()))?, deadline)?;
    let links = if shows_links(kind) { Some(links(&before, &mut netlink, serving.instance())?) } else { None };
    let address = serving.instance().server().map(|server| server.ip().to_string());
    serving.end()?;

    if let Some(links) = links {
        sheet.value(&Point::plain(LINKS), Value::Texts(links));
    }
    let has = |address: &str| inside.addresses.iter().any(|own| own.contains(&format!(" {address}/")));
    sheet.value(&has_address("host"), Value::Boolean(has(&HOST.to_string())));
    if let (Network::Joined, Some(address)) = (kind.network, &address) {
        sheet.value(&has_address("named"), Value::Boolean(has(address)));
    }
    if tells_default_mode(kind) {
        let mut unnamed = ground.networks.without_mode(&ground.agent)?;
        let seen: Finding = answer(unnamed.launch(&Workload::Probe(Probe::default()))?, deadline)?;
        let outcome = match mode(&seen, &host, &ground.networks) {
            Some(mode) => Outcome::Value(Value::Texts(vec![mode.name().to_owned()])),
            None => Outcome::Error(format!("its network is that of no mode: {:?}, {:?}", seen.addresses, seen.routes)),
        };
        sheet.write(&Point::plain(DEFAULT_MODE), 0, outcome);
    }
    let mut texts = |metric, texts: &[String]| sheet.value(&Point::plain(metric), Value::Texts(texts.to_vec()));
    texts("network.interfaces", &inside.interfaces);
    texts("network.addresses", &inside.addresses);
    texts("network.routes", &inside.routes);
    texts("network.host-interfaces", &host.interfaces);
    texts("network.host-addresses", &host.addresses);
    if kind.network == Network::Bridged {
        texts("network.range", &ranges(&inside.routes));
    }
    let same = inside.namespace != 0 && inside.namespace == host.namespace;
    sheet.value(&Point::plain("network.namespace-is-host"), Value::Boolean(same));
    for (target, connected) in ["outside", "gateway"].into_iter().zip(&inside.connects) {
        sheet.value(&connects(target), Value::Boolean(connected.is_ok()));
    }
    if let (Some(outcome), true) = (inside.connects.first(), kind.network != Network::None) {
        let outcome = match outcome {
            Ok(address) => Outcome::Value(Value::Texts(vec![address.to_string()])),
            Err(error) => Outcome::Error(format!("connect from inside to the outside server: {error}")),
        };
        sheet.write(&Point::plain("network.source-address"), 0, outcome);
    }
    let conflict = |with| Point::with(PORT_CONFLICT, &[("with", with)]);
    let points = [Point::plain(PORT_CONFLICT), conflict("named"), conflict("host")];
    for (point, listened) in points.iter().zip(&inside.listens) {
        let outcome = match listened {
            Ok(()) => Outcome::Value(Value::Boolean(false)),
            Err(error) if error == "EADDRINUSE" => Outcome::Value(Value::Boolean(true)),
            Err(error) => Outcome::Error(format!("listen inside: {error}")),
        };
        sheet.write(point, 0, outcome);
    }
    Ok(())
}

/// The instance beside which another one tries to listen on the same port.
enum Serving {
    Alone(Instance),
    Reachable(Box<Served>),
}

impl Serving {
    fn instance(&self) -> &Instance {
        match self {
            Self::Alone(instance) => instance,
            Self::Reachable(served) => &served.instance,
        }
    }

    fn end(self) -> anyhow::Result<()> {
        match self {
            Self::Alone(instance) => instance.destroy().map(drop).map_err(ended),
            Self::Reachable(served) => served.end(),
        }
    }
}

fn alone(ground: &Ground, sandbox: &mut dyn Sandbox) -> anyhow::Result<Instance> {
    let mut instance = sandbox.launch(&Workload::Serve { port: PORT })?;
    // Its ready line alone says that it listens.
    instance.output().line(ground.settings.deadline)?;
    Ok(instance)
}

/// Kinds of the links that a container has brought: its own inside, and what has come to the host with it.
fn links(before: &[Link], host: &mut Netlink, container: &Instance) -> anyhow::Result<Vec<String>> {
    let inside = Netlink::open_in(&Namespace::of_pidfd(container.inside())?)?.links()?;
    let after = host.links()?;
    let name = |link: &Link| if link.kind.is_empty() { link.name.clone() } else { link.kind.clone() };
    let inside = inside.iter().filter(|link| link.index != LOOPBACK).map(|link| format!("inside: {}", name(link)));
    let new = after.iter().filter(|link| before.iter().all(|known| known.index != link.index));
    let outside = new.map(|link| {
        let master = after.iter().find(|other| Some(other.index) == link.bridge);
        let port = master.map(|master| format!(", port of a {}", name(master)));
        format!("host: {}{}", name(link), port.unwrap_or_default())
    });
    let mut links: Vec<String> = inside.chain(outside).collect();
    links.sort();
    Ok(links)
}

/// The mode that gives such a network.
fn mode(seen: &Finding, host: &Finding, networks: &Networks) -> Option<Mode> {
    let ranges = ranges(&seen.routes);
    match () {
        () if seen.namespace != 0 && seen.namespace == host.namespace => Some(Mode::Host),
        () if seen.interfaces == ["lo"] => Some(Mode::None),
        () => match ranges.as_slice() {
            [range] => networks.mode_of(range),
            _ => None,
        },
    }
}

/// Subnets that are reached directly, from routes such as `172.17.0.0/16 via 0.0.0.0 dev eth0`.
fn ranges(routes: &[String]) -> Vec<String> {
    let direct = routes.iter().filter(|route| route.contains(" via 0.0.0.0 "));
    direct.filter_map(|route| route.split(' ').next().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_what_is_reached_without_a_gateway() {
        let routes = ["0.0.0.0/0 via 172.17.0.1 dev eth0", "172.17.0.0/16 via 0.0.0.0 dev eth0"].map(String::from);
        assert_eq!(ranges(&routes), ["172.17.0.0/16"]);
    }
}
