//! Which way leads from outside into a container, with a port published and without, and what becomes of a second container
//! that wants the same port.

use super::beside::{Beside, HERE};
use super::{Experiment, Ground, Place, Point, Scene, Sheet, WarmUp, answer, ended};
use crate::sandboxes::{Kind, Network};
use crate::testbed::Inventory;
use crate::testbed::network::{HOST, PUBLISHED};
use anyhow::{Context, ensure};
use isobench_reports::record::Value;
use isobench_runtime::network::{Namespace, NetworkError};
use isobench_workload::{Family, Finding, Instance, Probe, Sandbox, Stage, Workload, protocol::PORT};
use std::net::{IpAddr, SocketAddr};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "publishing",
    text: "tries each way from outside into a container, publishes its port, and asks for the same port once more",
    quick_blocks: 1,
    takes_program: false,
    warm_up: WarmUp::Block,
    metrics: &[ANSWER, REACHED, REFUSED, LEFT, READY, GONE],
    points,
    measure,
};

const ANSWER: &str = "publishing.answer";
const REACHED: &str = "publishing.reached";
const REFUSED: &str = "publishing.refused";
const LEFT: &str = "publishing.left-behind";
const READY: &str = "publishing.ready";
const GONE: &str = "publishing.gone";

/// A port of the simulated host's own, by which the bridge's address is tried.
const GATEWAY_PORT: u16 = 7001;

/// Another port to publish.
const OTHER: u16 = PUBLISHED + 1;

fn points(kind: &Kind) -> Vec<Point> {
    if !matches!(kind.family, Family::Container | Family::Peer) {
        return Vec::new();
    }
    match kind.network {
        Network::Host => vec![Point::plain(ANSWER), reached("published"), reached("own-port")],
        Network::Bridged if kind.is_default_bridge() => {
            let ways = ["unpublished", "routed", "gateway", "from-host", "published"].map(reached);
            let ports = ["taken", "other", "freed"].map(refused);
            [ANSWER, LEFT, READY, GONE].map(Point::plain).into_iter().chain(ways).chain(ports).collect()
        }
        _ => Vec::new(),
    }
}

fn reached(way: &str) -> Point {
    Point::with(REACHED, &[("way", way)])
}

fn refused(port: &str) -> Point {
    Point::with(REFUSED, &[("port", port)])
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    match kind.network {
        Network::Host => with_the_hosts_ports(ground, kind, sandbox, sheet),
        _ => {
            without_publishing(ground, sandbox, sheet)?;
            with_publishing(ground, kind, sheet)
        }
    }
}

/// A container that shares the host's ports is asked to publish one.
fn with_the_hosts_ports(
    ground: &Ground,
    kind: &Kind,
    sandbox: &mut dyn Sandbox,
    sheet: &mut Sheet,
) -> anyhow::Result<()> {
    let (serving, refusal) = match ground.publishing(kind, PUBLISHED)? {
        Ok(mut publishing) => (serve(ground, publishing.as_mut()), None),
        Err(refusal) => (serve(ground, sandbox), Some(refusal)),
    };
    let serving = serving?;
    let ways = [(HOST, PUBLISHED), (HOST, PORT)].map(SocketAddr::from);
    let [published, own_port] = from(ground, ground.network.outside(), ways)?;
    serving.destroy().map_err(ended)?;
    let becomes = match refusal {
        Some(refusal) => format!("refused: {refusal}"),
        None if published => "published".into(),
        None => "ignored".into(),
    };
    sheet.value(&Point::plain(ANSWER), Value::Texts(vec![becomes]));
    sheet.value(&reached("published"), Value::Boolean(published));
    sheet.value(&reached("own-port"), Value::Boolean(own_port));
    Ok(())
}

/// Tries each way to a container whose port is not published.
fn without_publishing(ground: &Ground, sandbox: &mut dyn Sandbox, sheet: &mut Sheet) -> anyhow::Result<()> {
    let mut host_server = ground.agent(Place::Host, &Workload::Serve { port: GATEWAY_PORT })?;
    host_server.await_ready(ground.settings.deadline)?;
    let serving = serve(ground, sandbox)?;
    let server = serving.server().context("the container has no address")?;
    let IpAddr::V4(address) = server.ip() else { anyhow::bail!("{server} is no IPv4 address") };
    let gateway = ground.networks.bridge().gateway;

    // A stranger who has been told that the host leads to the containers' subnet.
    let mut stranger = Beside::create()?;
    let subnet = ground.networks.bridge().subnet;
    stranger.machine.add_route(subnet.network(), subnet.prefix(), HERE)?;
    let ways = [(HERE, PUBLISHED), (address, PORT), (gateway, GATEWAY_PORT)].map(SocketAddr::from);
    let [unpublished, routed, to_gateway] = from(ground, stranger.namespace(), ways)?;
    let [from_host] = from(ground, &Namespace::current()?, [server])?;

    drop(stranger);
    serving.destroy().map_err(ended)?;
    host_server.destroy().map_err(ended)?;
    for (way, seen) in
        [("unpublished", unpublished), ("routed", routed), ("gateway", to_gateway), ("from-host", from_host)]
    {
        sheet.value(&reached(way), Value::Boolean(seen));
    }
    Ok(())
}

/// Publishes the port, and asks for it a second time.
fn with_publishing(ground: &Ground, kind: &Kind, sheet: &mut Sheet) -> anyhow::Result<()> {
    let publish = |port| -> anyhow::Result<Box<dyn Sandbox>> { Ok(ground.publishing(kind, port)??) };
    let (mut publishing, mut elsewhere) = (publish(PUBLISHED)?, publish(OTHER)?);
    let first = serve(ground, publishing.as_mut())?;
    let before = (Inventory::take()?, ground.networks.leased()?);

    let taken = is_refused(ground, publishing.as_mut(), PUBLISHED)?;
    let (_, mut left) = Inventory::settled(&before.0)?;
    if ground.networks.leased()? > before.1 {
        left.push("an address".into());
    }
    let [published] = from(ground, ground.network.outside(), [SocketAddr::from((HOST, PUBLISHED))])?;
    let other = is_refused(ground, elsewhere.as_mut(), OTHER)?;
    let stages = first.destroy().map_err(ended)?;
    let freed = is_refused(ground, publishing.as_mut(), PUBLISHED)?;

    sheet.value(&Point::plain(ANSWER), Value::Texts(vec![if published { "published" } else { "ignored" }.into()]));
    sheet.value(&reached("published"), Value::Boolean(published));
    for (port, seen) in [("taken", taken), ("other", other), ("freed", freed)] {
        sheet.value(&refused(port), Value::Boolean(seen));
    }
    sheet.value(&Point::plain(LEFT), Value::Texts(left));
    let ready = stages.since_start(Stage::Answered).context("it was never seen to be ready")?;
    let gone = stages.since_start(Stage::Gone).zip(stages.since_start(Stage::Ending)).context("it never went")?;
    sheet.value(&Point::plain(READY), Value::Integer(ready));
    sheet.value(&Point::plain(GONE), Value::Integer(gone.0 - gone.1));
    Ok(())
}

/// Whether a container is refused its port. Whatever else keeps it from serving is an error; where it serves, it is ended.
fn is_refused(ground: &Ground, sandbox: &mut dyn Sandbox, port: u16) -> anyhow::Result<bool> {
    let complaints = Complaints::from_here();
    match serve(ground, sandbox) {
        Ok(instance) => instance.destroy().map(|_| false).map_err(ended),
        // The client of an engine says it on its standard error.
        Err(error) if is_taken(&error, port) || complaints.since().contains(&port.to_string()) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether our own runtime says that the port is taken.
fn is_taken(error: &anyhow::Error, asked: u16) -> bool {
    let taken = |cause: &NetworkError| match cause {
        NetworkError::PortPublished { port, .. } | NetworkError::PortInUse { port, .. } => *port == asked,
        _ => false,
    };
    error.chain().any(|cause| cause.downcast_ref().is_some_and(taken))
}

/// What programs complain of from a moment on: the testbed's standard error is a file (see the testbed's host).
struct Complaints(usize);

impl Complaints {
    fn from_here() -> Self {
        Self(Self::all().len())
    }

    fn since(&self) -> String {
        String::from_utf8_lossy(Self::all().get(self.0..).unwrap_or_default()).into_owned()
    }

    fn all() -> Vec<u8> {
        const STANDARD_ERROR: &str = "/proc/self/fd/2";
        // Anything but a file would be waited for.
        let is_file = std::fs::metadata(STANDARD_ERROR).is_ok_and(|metadata| metadata.is_file());
        if is_file { std::fs::read(STANDARD_ERROR).unwrap_or_default() } else { Vec::new() }
    }
}

fn serve(ground: &Ground, sandbox: &mut dyn Sandbox) -> anyhow::Result<Instance> {
    let mut instance = sandbox.launch(&Workload::Serve { port: PORT })?;
    instance.await_ready(ground.settings.deadline)?;
    Ok(instance)
}

/// Which of the servers answer somebody in a network.
fn from<const N: usize>(ground: &Ground, place: &Namespace, servers: [SocketAddr; N]) -> anyhow::Result<[bool; N]> {
    let question = Probe { connect: servers.into(), patience: Some(super::PATIENCE), ..Probe::default() };
    let seen: Finding = answer(ground.agent_in(place, &Workload::Probe(question))?, ground.settings.deadline)?;
    ensure!(seen.connects.len() == N, "the probe tried {} ways of {N}", seen.connects.len());
    Ok(std::array::from_fn(|index| seen.connects[index].is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use isobench_runtime::network::Protocol;
    use isobench_workload::LaunchError;

    #[test]
    fn a_port_that_is_taken_is_told_from_any_other_failure_of_a_launch() {
        let failed = |source: NetworkError| {
            let (sandbox, step) = ("container-bridge-7000".to_owned(), "publish its port".to_owned());
            anyhow::Error::from(LaunchError::Step { sandbox, step, source: Box::new(source) })
        };
        let protocol = Protocol::Tcp;
        assert!(is_taken(&failed(NetworkError::PortPublished { protocol, port: 7000 }), 7000));
        assert!(is_taken(&failed(NetworkError::PortInUse { protocol, port: 7000 }), 7000));
        assert!(!is_taken(&failed(NetworkError::PortInUse { protocol, port: 7001 }), 7000));
        assert!(!is_taken(&failed(NetworkError::Silent("v7000".into())), 7000));
    }
}
