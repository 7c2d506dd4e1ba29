//! Networks that several processes share: what a full one costs the next container, and how fast names are answered.

use crate::strategies::Agent;
use crate::{Pair, both};
use anyhow::Context;
use isobench::networks::{Joining, Request, Store};
use isobench_runtime::NetworkMode;
use isobench_runtime::network::bridge_network::Settings;
use isobench_runtime::network::inside::LOOPBACK;
use isobench_runtime::network::{BridgeNetwork, Endpoint, Firewall, LockFile, Namespace, Netlink, PeerNamespace};
use isobench_workload::clock;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;
use tempfile::TempDir;

/// Containers that are on the bridge before the one that is measured.
const OTHERS: usize = 999;

/// Questions of which the slowest hundredth is looked at.
const QUESTIONS: usize = 10_000;

/// A network in a namespace that plays the host, with files as several processes share them.
struct Shared {
    network: BridgeNetwork,
    others: Vec<(Endpoint, Namespace)>,
    _host: Namespace,
    _files: TempDir,
}

impl Shared {
    fn with(others: usize) -> anyhow::Result<Self> {
        let (host, files) = (Namespace::create()?, tempfile::tempdir()?);
        let file = |name| LockFile::create(&files.path().join(name));
        let (ports, leases) = (file("ports")?, file("leases")?);
        let network = host.enter(|| {
            let firewall = Firewall::establish("figures", ports)?;
            BridgeNetwork::establish(&firewall, Settings::default_bridge(), leases)
        })??;
        let mut shared = Self { network, others: Vec::new(), _host: host, _files: files };
        for _ in 0..others {
            let (endpoint, namespace) = (shared.network.endpoint()?, Namespace::create()?);
            endpoint.attach(&PeerNamespace::from(&namespace))?;
            let configured = namespace.enter(|| endpoint.configuration().apply())?;
            configured.map_err(|(step, errno)| anyhow::anyhow!("{}: {errno}", step.name()))?;
            shared.others.push((endpoint, namespace));
        }
        Ok(shared)
    }
}

/// The thousandth container on a bridge against the first.
pub(crate) fn thousandth_against_first() -> anyhow::Result<Pair> {
    let agent = Agent::open()?;
    let (full, empty) = (Shared::with(OTHERS)?, Shared::with(0)?);
    Ok(Box::new(move || {
        // The whole of them is held by this.
        let (full, empty) = (&full, &empty);
        both(
            || agent.ready(|| Ok(NetworkMode::Attached(full.network.endpoint()?))),
            || agent.ready(|| Ok(NetworkMode::Attached(empty.network.endpoint()?))),
        )
    }))
}

/// The slowest hundredth of answers to a container, in milliseconds, against one.
pub(crate) fn names_answered() -> anyhow::Result<Pair> {
    let (host, state) = (Namespace::create()?, tempfile::tempdir()?);
    let (network, endpoint, membership, container) = host.enter(|| {
        Netlink::open()?.bring_up(LOOPBACK)?;
        let store = Store::open(state.path())?;
        store.create(&Request { name: "web".into(), ..Request::default() })?;
        let network = store.network("web")?;
        let (endpoint, membership) = network.endpoint(&Joining { instance: "one".into(), ..Joining::default() })?;
        let container = Namespace::create()?;
        endpoint.attach(&PeerNamespace::from(&container))?;
        container
            .enter(|| endpoint.configuration().apply())?
            .map_err(|(step, errno)| anyhow::anyhow!("{}: {errno}", step.name()))?;
        endpoint.await_carrier()?;
        Ok::<_, anyhow::Error>((network, endpoint, membership, container))
    })??;
    let server = network.resolver().context("the network has no name server")?;
    let socket = container.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect((server, 53))?;
    // The question for the address of `one` (RFC 1035, 4.1), with a number before it.
    let question = [b"\0\0\x01\0\0\x01\0\0\0\0\0\0".as_slice(), b"\x03one\0\0\x01\0\x01"].concat();
    let held = Held { names: Some(Box::new((endpoint, membership, container, network))), host, state };
    Ok(Box::new(move || {
        let _held = &held;
        let mut question = question.clone();
        let mut times = Vec::with_capacity(QUESTIONS);
        for number in 0..QUESTIONS {
            question[..2].copy_from_slice(&(number as u16).to_be_bytes());
            let mut answer = [0; 512];
            let begun = clock::now();
            socket.send(&question)?;
            let length = socket.recv(&mut answer)?;
            times.push(clock::now() - begun);
            // One answer, and it is no error.
            anyhow::ensure!(answer[..2] == question[..2] && answer[3] & 15 == 0 && answer[7] == 1 && length > 30);
        }
        times.sort_unstable();
        Ok((times[QUESTIONS * 99 / 100] as f64 / 1e6, 1.0))
    }))
}

/// What is held while names are asked for; the name server ends with the last network.
struct Held {
    names: Option<Box<dyn std::any::Any>>,
    host: Namespace,
    state: TempDir,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.names = None;
        let cleared =
            self.host.enter(|| Store::open(self.state.path()).and_then(|store| store.clear()).map(drop).map_err(drop));
        let _ = cleared;
    }
}
