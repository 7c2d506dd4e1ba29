//! Places for a figure's traffic: namespaces with paths between them, set up by hand, and the programs that run there, each on
//! a CPU of its own.

use anyhow::{Context, bail};
use isobench_runtime::network::Namespace;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io::{self, BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a client may take: some ten times what it is told to.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which side of the traffic a program is: each has a CPU of its own, as in the product's own measurements. Left to the
/// scheduler both share one by chance, and the two sides of a pair would differ by where they happened to run.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Client,
    Server,
}

/// The same algorithm as the product's testbed has: a namespace may be refused cubic, and the machine's own may pace its senders.
const CONGESTION_CONTROL: &str =
    "f=/proc/sys/net/ipv4/tcp_congestion_control; echo cubic > $f 2>/dev/null || echo reno > $f";

/// Where a client starts, and by which address it reaches the server's port.
pub(crate) struct Path {
    pub(crate) client: Namespace,
    pub(crate) server: Namespace,
    pub(crate) address: Ipv4Addr,
    /// Whether the server's port 7000 is reached as port 8000 of the address.
    pub(crate) published: bool,
    _between: Vec<Namespace>,
}

/// Over lo within one namespace.
pub(crate) fn loopback() -> anyhow::Result<Path> {
    let place = Namespace::create()?;
    script(&place, &format!("ip link set lo up; {CONGESTION_CONTROL}"))?;
    let server = place.duplicate()?;
    Ok(Path { client: place, server, address: Ipv4Addr::LOCALHOST, published: false, _between: Vec::new() })
}

/// From a host to a container on its bridge, by ip.
pub(crate) fn bridge() -> anyhow::Result<Path> {
    let (host, inside) = (Namespace::create()?, Namespace::create()?);
    on_bridge(&host, &inside)?;
    Ok(Path {
        client: host,
        server: inside,
        address: Ipv4Addr::new(172, 17, 0, 2),
        published: false,
        _between: Vec::new(),
    })
}

/// From outside to a published port of a container on a host's bridge, by ip and nft.
pub(crate) fn published() -> anyhow::Result<Path> {
    let (client, host, inside) = (Namespace::create()?, Namespace::create()?, Namespace::create()?);
    on_bridge(&host, &inside)?;
    script(
        &host,
        &format!(
            "ip link add uplink type veth peer name uplink netns {}
            ip address add 198.51.100.1/24 dev uplink
            ip link set uplink up
            echo 1 > /proc/sys/net/ipv4/ip_forward
            nft 'table ip by_hand {{
                chain inward {{ type nat hook prerouting priority -100; tcp dport 8000 dnat to 172.17.0.2:7000; }}
                chain outward {{ type nat hook postrouting priority 100; ip saddr 172.17.0.0/16 oifname != bridge0 masquerade; }}
                chain across {{
                    type filter hook forward priority 0; policy drop;
                    ct state established,related accept
                    ct status dnat accept
                    iifname bridge0 accept
                }}
            }}'",
            path(&client)
        ),
    )?;
    script(
        &client,
        &format!("ip address add 198.51.100.2/24 dev uplink; ip link set uplink up; {CONGESTION_CONTROL}"),
    )?;
    let address = Ipv4Addr::new(198, 51, 100, 1);
    Ok(Path { client, server: inside, address, published: true, _between: vec![host] })
}

fn on_bridge(host: &Namespace, inside: &Namespace) -> anyhow::Result<()> {
    script(
        host,
        &format!(
            "ip link set lo up
            {CONGESTION_CONTROL}
            ip link add bridge0 type bridge
            ip address add 172.17.0.1/16 dev bridge0
            ip link set bridge0 up
            ip link add port1 type veth peer name eth0 netns {}
            ip link set port1 master bridge0 up",
            path(inside)
        ),
    )?;
    script(
        inside,
        &format!(
            "ip link set lo up; ip address add 172.17.0.2/16 dev eth0; ip link set eth0 up
            ip route add default via 172.17.0.1
            {CONGESTION_CONTROL}"
        ),
    )
}

fn path(namespace: &Namespace) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_fd().as_raw_fd())
}

fn script(place: &Namespace, text: &str) -> anyhow::Result<()> {
    let mut command = Command::new("sh");
    command.args(["-e", "-c", text]).stdin(Stdio::null());
    let output = place.enter(|| command.output())?.context("start sh")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("set up a path by hand (ip and nft are needed: apt-get install iproute2 nftables): {}", said.trim());
    }
    Ok(())
}

/// Runs a client to its end; gives its output. One that does not end is ended.
pub(crate) fn run(place: &Namespace, program: &str, arguments: &[String]) -> anyhow::Result<Vec<u8>> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = place.enter(|| command.spawn())?.with_context(|| format!("start {program}"))?;
    pin(&child, Side::Client)?;
    let mut output = child.stdout.take().context("the client has no output")?;
    let (begun, mut said) = (Instant::now(), Vec::new());
    loop {
        let left = PATIENCE.saturating_sub(begun.elapsed());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        if poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&timeout))? == 0 {
            child.kill().and_then(|()| child.wait()).with_context(|| format!("end {program}"))?;
            bail!("{program} did not end within {PATIENCE:?}");
        }
        let mut buffer = [0; 4096];
        match output.read(&mut buffer).with_context(|| format!("read what {program} says"))? {
            0 => break,
            length => said.extend_from_slice(&buffer[..length]),
        }
    }
    child.wait().with_context(|| format!("wait for {program}"))?;
    Ok(said)
}

/// A server, ended when it is dropped. Its output is read on: one whose output is full waits, and one whose output is closed may
/// end.
pub(crate) struct Server(Child);

impl Server {
    /// Starts a server and waits for the line in which it says that it listens.
    pub(crate) fn start(place: &Namespace, program: &str, arguments: &[String], listens: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = place.enter(|| command.spawn())?.with_context(|| format!("start {program}"))?;
        let mut server = Self(child);
        pin(&server.0, Side::Server)?;
        let mut output = BufReader::new(server.0.stdout.take().context("the server has no output")?);
        let mut line = String::new();
        while !line.contains(listens) {
            line.clear();
            if output.read_line(&mut line)? == 0 {
                bail!("{program} ended before it listened");
            }
        }
        std::thread::spawn(move || io::copy(&mut output, &mut io::sink()));
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Keeps a program on its side's CPU, where there is more than one.
fn pin(child: &Child, side: Side) -> anyhow::Result<()> {
    let allowed = sched_getaffinity(None).context("read which CPUs are allowed")?;
    let mut allowed = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    let (Some(first), Some(second)) = (allowed.next(), allowed.next()) else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(match side {
        Side::Client => first,
        Side::Server => second,
    });
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    sched_setaffinity(pid, &set).context("keep a program on its CPU")
}
