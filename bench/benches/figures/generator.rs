//! Our TCP load generator beside iperf3, over the same path: one stream for one second each.

use crate::{Pair, both};
use anyhow::{Context, bail};
use isobench_runtime::network::{Mac, Namespace, Netlink, PeerNamespace, Veth};
use isobench_workload::{Drive, DriveOutcome, Traffic, Workload};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};

const PORT: u16 = 7000;
const IPERF3_PORT: u16 = 7001;
const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

pub(crate) fn over_loopback() -> anyhow::Result<Pair> {
    let place = Namespace::create()?;
    let mut netlink = Netlink::open_in(&place)?;
    netlink.bring_up(1)?;
    let servers = Servers::start(&place)?;
    Ok(Box::new(move || pair(&place, Ipv4Addr::LOCALHOST, &servers)))
}

pub(crate) fn over_bridge() -> anyhow::Result<Pair> {
    let host = Namespace::create()?;
    let inside = Namespace::create()?;
    let mut netlink = Netlink::open_in(&host)?;
    netlink.bring_up(1)?;
    let bridge = netlink.create_bridge("bridge0", Mac([2, 0, 0, 0, 0, 1]))?;
    netlink.add_address(bridge, BRIDGE, 24)?;
    netlink.bring_up(bridge)?;
    let veth = Veth {
        name: "v1",
        mac: None,
        bridge: Some(bridge),
        peer_name: "eth0",
        peer_mac: None,
        peer_index: Some(2),
        hairpin: false,
        segments: None,
    };
    netlink.create_veth(&veth, &PeerNamespace::Descriptor(inside.as_fd()))?;
    let mut netlink = Netlink::open_in(&inside)?;
    netlink.bring_up(1)?;
    netlink.add_address(2, SERVER, 24)?;
    netlink.bring_up(2)?;
    let servers = Servers::start(&inside)?;
    Ok(Box::new(move || pair(&host, SERVER, &servers)))
}

fn pair(client: &Namespace, server: Ipv4Addr, _servers: &Servers) -> anyhow::Result<(f64, f64)> {
    both(|| ours(client, server), || iperf3(client, server))
}

/// Bytes a second by our generator.
fn ours(client: &Namespace, server: Ipv4Addr) -> anyhow::Result<f64> {
    let server = SocketAddr::new(IpAddr::V4(server), PORT);
    let drive = Drive { server, traffic: Traffic::Upload, milliseconds: 1000 };
    let output = run(client, &agent()?, &Workload::Drive(drive).arguments())?;
    let outcome: DriveOutcome = serde_json::from_slice(&output).context("read the load generator's outcome")?;
    if let Some(error) = outcome.error {
        bail!(error);
    }
    Ok(outcome.bytes as f64 / outcome.nanoseconds as f64 * 1e9)
}

/// Bytes a second by iperf3, as its receiver counts them.
fn iperf3(client: &Namespace, server: Ipv4Addr) -> anyhow::Result<f64> {
    let arguments = ["-c", &server.to_string(), "-p", &IPERF3_PORT.to_string(), "-t", "1", "-J"].map(str::to_owned);
    let output = run(client, "iperf3", &arguments)?;
    let report: serde_json::Value = serde_json::from_slice(&output).context("read iperf3's report")?;
    let bits = report.pointer("/end/sum_received/bits_per_second").and_then(serde_json::Value::as_f64);
    Ok(bits.with_context(|| format!("iperf3 measured nothing: {report}"))? / 8.0)
}

fn agent() -> anyhow::Result<String> {
    std::env::var("ISOBENCH_AGENT").context("ISOBENCH_AGENT does not name the agent; run scripts/figures")
}

fn run(place: &Namespace, program: &str, arguments: &[String]) -> anyhow::Result<Vec<u8>> {
    let output = place
        .enter(|| Command::new(program).args(arguments).stdin(Stdio::null()).output())?
        .with_context(|| format!("start {program}"))?;
    Ok(output.stdout)
}

/// Both servers, in one namespace. The outputs stay open: a server whose output is closed may end.
struct Servers {
    _ours: Server,
    _theirs: Server,
}

impl Servers {
    fn start(place: &Namespace) -> anyhow::Result<Self> {
        let listen = ["-s", "-p", &IPERF3_PORT.to_string(), "--forceflush"].map(str::to_owned);
        Ok(Self {
            _ours: Server::start(place, &agent()?, &Workload::Serve { port: PORT }.arguments(), "ready")?,
            _theirs: Server::start(place, "iperf3", &listen, "Server listening")
                .context("iperf3 is a peer: apt-get install iperf3")?,
        })
    }
}

struct Server(Child, Option<BufReader<ChildStdout>>);

impl Server {
    /// Starts a server and waits for the line in which it says that it listens.
    fn start(place: &Namespace, program: &str, arguments: &[String], listens: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = place.enter(|| command.spawn())?.with_context(|| format!("start {program}"))?;
        let mut server = Self(child, None);
        let output = server.0.stdout.take().context("the server has no output")?;
        let output = server.1.insert(BufReader::new(output));
        let mut line = String::new();
        while !line.contains(listens) {
            line.clear();
            if output.read_line(&mut line)? == 0 {
                bail!("{program} ended before it listened");
            }
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
