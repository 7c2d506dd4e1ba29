//! Whether a container reaches another one on another host: two simulated hosts with equal private ranges, as every host has
//! them, and for comparison with ranges that differ and a route on each host.

use super::beside::{Beside, HERE, THERE};
use super::{Experiment, Ground, Point, Scene, WarmUp, answer, ended};
use crate::sandboxes::Kind;
use anyhow::Context;
use isobench_reports::record::Value;
use isobench_runtime::SandboxNetwork;
use isobench_runtime::network::bridge_network::Settings;
use isobench_runtime::network::inside;
use isobench_runtime::network::{BridgeNetwork, Firewall, Mac, Namespace, Netlink, PeerNamespace, Veth};
use isobench_workload::{Finding, Instance, Probe, Sandbox, Workload, protocol::PORT};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "hosts",
    text: "tries to reach a container on a second host, with equal private ranges and with routed ones",
    quick_blocks: 1,
    takes_program: false,
    warm_up: WarmUp::Nothing,
    metrics: &[CONNECTS],
    points,
    measure,
};

const CONNECTS: &str = "hosts.connects";

/// The ranges that differ: third byte of 10.x.0.0/24 on this host and on the other.
const ROUTED: [u8; 2] = [91, 92];

fn points(kind: &Kind) -> Vec<Point> {
    // The second host is one of ours: an engine runs on one host alone.
    if kind.name == "container-bridge" { ["equal", "own-host", "routed"].map(connects).into() } else { Vec::new() }
}

fn connects(ranges: &str) -> Point {
    Point::with(CONNECTS, &[("ranges", ranges)])
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, sandbox, sheet, .. } = scene;
    let mut beside = Beside::create()?;
    let [equal, own_host] = with_equal_ranges(ground, sandbox, &beside)?;
    let routed = with_routed_ranges(ground, &mut beside)?;
    for (ranges, seen) in [("equal", equal), ("own-host", own_host), ("routed", routed)] {
        sheet.value(&connects(ranges), Value::Boolean(seen));
    }
    Ok(())
}

/// A server in bridge mode on the other host; whether a container of this host reaches it, and that host itself.
fn with_equal_ranges(ground: &Ground, sandbox: &mut dyn Sandbox, beside: &Beside) -> anyhow::Result<[bool; 2]> {
    let firewall = Firewall::create_in(beside.namespace(), "isobench")?;
    let bridge = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    let network = SandboxNetwork::Bridge { network: bridge, publish: None };
    let (server, address) = serve(ground, network)?;
    let address = address.context("the container on the other host has no address")?;
    let from_here: Finding = answer(sandbox.launch(&ask(address))?, ground.settings.deadline)?;
    let from_there = asked_in(ground, beside.namespace(), address)?;
    server.destroy().map_err(ended)?;
    Ok([connected(&from_here), from_there])
}

/// The same with a plain bridge on each host, in a range of its own, and a route to the other's.
fn with_routed_ranges(ground: &Ground, beside: &mut Beside) -> anyhow::Result<bool> {
    // Forwarding on the other host; the network admits nothing and nobody, so packets pass as the routes have them.
    let _forwarding = Firewall::create_in(beside.namespace(), "isobench")?;
    let [here, there] = ROUTED.map(Plain::new);
    let bridges = (here.create(&mut beside.host)?, there.create(&mut beside.machine)?);
    beside.host.add_route(there.network, 24, THERE)?;
    beside.machine.add_route(here.network, 24, HERE)?;

    let (server, _) = serve(ground, SandboxNetwork::None)?;
    there.attach(&mut beside.machine, bridges.1, &Namespace::of_pidfd(server.inside())?)?;
    let mut client = ground.container("client", SandboxNetwork::None)?.launch(&Workload::Idle)?;
    client.await_ready(ground.settings.deadline)?;
    let network = Namespace::of_pidfd(client.inside())?;
    here.attach(&mut beside.host, bridges.0, &network)?;
    let reached = asked_in(ground, &network, SocketAddr::from((there.container(), PORT)))?;

    drop(network);
    client.destroy().map_err(ended)?;
    server.destroy().map_err(ended)?;
    // The route goes with the link to the other host.
    beside.host.delete_link(bridges.0)?;
    Ok(reached)
}

/// A server in one of our containers. It is not asked whether it answers: the way to it may lie on another host.
fn serve(ground: &Ground, network: SandboxNetwork) -> anyhow::Result<(Instance, Option<SocketAddr>)> {
    let mut server = ground.container("server", network)?.launch(&Workload::Serve { port: PORT })?;
    server.output().line(ground.settings.deadline)?;
    let address = server.server();
    Ok((server, address))
}

fn ask(server: SocketAddr) -> Workload {
    Workload::Probe(Probe { connect: vec![server], patience: Some(super::PATIENCE), ..Probe::default() })
}

fn asked_in(ground: &Ground, place: &Namespace, server: SocketAddr) -> anyhow::Result<bool> {
    let seen: Finding = answer(ground.agent_in(place, &ask(server))?, ground.settings.deadline)?;
    Ok(connected(&seen))
}

fn connected(seen: &Finding) -> bool {
    matches!(seen.connects[..], [Ok(_)])
}

/// Name of a bridge of no network.
const PLAIN: &str = "plain0";

/// A bridge of no network: nothing is filtered or translated on its behalf.
struct Plain {
    network: Ipv4Addr,
}

impl Plain {
    fn new(second: u8) -> Self {
        Self { network: Ipv4Addr::new(10, second, 0, 0) }
    }

    fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 1)
    }

    fn container(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 2)
    }

    fn create(&self, host: &mut Netlink) -> anyhow::Result<u32> {
        let bridge = host.create_bridge(PLAIN, Mac::of(self.gateway()))?;
        host.add_address(bridge, self.gateway(), 24)?;
        Ok(bridge)
    }

    /// Gives a container's network a card on the bridge.
    fn attach(&self, host: &mut Netlink, bridge: u32, container: &Namespace) -> anyhow::Result<()> {
        let veth = Veth {
            name: "plain1",
            mac: None,
            bridge: Some(bridge),
            hairpin: false,
            peer_name: inside::INTERFACE_NAME,
            peer_mac: None,
            peer_index: Some(inside::INTERFACE),
            segments: None,
        };
        host.create_veth(&veth, &PeerNamespace::Descriptor(container.as_fd()))?;
        let mut inside = Netlink::open_in(container)?;
        inside.add_address(inside::INTERFACE, self.container(), 24)?;
        inside.bring_up(inside::INTERFACE)?;
        inside.add_route(Ipv4Addr::UNSPECIFIED, 0, self.gateway())?;
        // First the port: the bridge carries packets since it does. The gateway's answer to the first question for its link-layer
        // address would be lost before, and the question asked again after a second.
        host.await_carrier(veth.name)?;
        Ok(host.await_carrier(PLAIN)?)
    }
}
