//! Traffic against a sandbox: its server, the paths that lead to it, and load generators at their beginning.

use super::{Ground, Place, answer, ended};
use crate::sandboxes::{Kind, Network};
use crate::testbed::network::{CLIENT, HOST, PUBLISHED};
use anyhow::{Context, bail};
use isobench_reports::record::{Outcome, Value};
use isobench_runtime::network::{Namespace, Protocol, PublishedPort};
use isobench_workload::{Drive, DriveOutcome, Family, Instance, Sandbox, Traffic, Workload, protocol::PORT};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

/// From where and by which address a load generator reaches a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// From the simulated host's own namespace to the sandbox's address.
    Host,
    /// From the outside client: to the published port, or to the host's address where that is the sandbox's too.
    Client,
    /// Over lo inside a network namespace that both share.
    Loopback,
    /// From another sandbox of the same kind to this one's address.
    Sibling,
    /// From inside the sandbox to a server outside: through source NAT where the sandbox has an address of its own.
    Out,
}

impl Path {
    /// The name in records.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Client => "client",
            Self::Loopback => "loopback",
            Self::Sibling => "sibling",
            Self::Out => "out",
        }
    }

    /// The paths to a server in a kind of sandbox from generators that are processes of the host's or share its namespace.
    pub(super) fn of(kind: &Kind) -> &'static [Self] {
        match kind.network {
            Network::Host => &[Self::Host, Self::Client, Self::Loopback],
            Network::Joined => &[Self::Host, Self::Loopback],
            Network::Bridged => &[Self::Host, Self::Client],
            Network::None => &[],
        }
    }

    /// The paths whose generator runs in a sandbox of the kind. A unikernel has no load generator, and an engine's container
    /// cannot be given its CPU in time.
    pub(super) fn from_inside(kind: &Kind) -> &'static [Self] {
        match (kind.network, kind.family) {
            _ if kind.is_unikernel() => &[],
            (_, Family::Linux | Family::Unikernel | Family::Peer) | (Network::None | Network::Joined, _) => &[],
            (Network::Host, _) => &[Self::Out],
            (Network::Bridged, _) => &[Self::Sibling, Self::Out],
        }
    }

    /// The path that tells most of a kind: the one on which every kind with a network differs.
    pub(super) fn main(kind: &Kind) -> Option<Self> {
        match kind.network {
            Network::Host | Network::Bridged => Some(Self::Client),
            Network::Joined => Some(Self::Loopback),
            Network::None => None,
        }
    }
}

/// How long traffic is made, in milliseconds: before the measured window, and within it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) warm_up: u64,
    pub(super) window: u64,
}

impl Span {
    /// As the suite has it.
    pub(super) fn of(ground: &Ground) -> Self {
        if ground.settings.quick { Self { warm_up: 20, window: 40 } } else { Self { warm_up: 200, window: 1000 } }
    }

    /// For the first bulk traffic of an instance in a direction: a guest touches its buffers then, and each page's first touch is an exit,
    /// some 80 ms of them where KVM is done in software. Everybody else's are the host's, which has touched them long ago.
    pub(super) fn first(self, family: Family) -> Self {
        match family {
            Family::Unikernel | Family::Linux => Self { warm_up: self.warm_up.max(100), ..self },
            Family::Process | Family::Container | Family::Peer => self,
        }
    }

    /// For closed loops, which have nothing to warm up but caches and neighbour tables.
    pub(super) fn brief(self) -> Self {
        Self { warm_up: self.warm_up / 5, ..self }
    }

    /// With a window of at least so many milliseconds.
    pub(super) fn at_least(self, window: u64) -> Self {
        Self { window: self.window.max(window), ..self }
    }
}

/// What traffic came to.
#[derive(Debug)]
pub(super) struct Driven {
    /// What the load generator saw.
    pub(super) outcome: DriveOutcome,
    /// CPU time of generator and server for the whole drive.
    processor: u64,
}

impl Driven {
    /// What was moved and the time that it took.
    pub(super) fn transfer(&self) -> Value {
        Value::Transfer { amount: self.outcome.bytes, nanoseconds: self.outcome.nanoseconds }
    }

    /// What was completed and the time that it took.
    pub(super) fn completions(&self) -> Value {
        Value::Transfer { amount: self.outcome.completed, nanoseconds: self.outcome.nanoseconds }
    }

    /// What the whole drive moved and the CPU time that it took.
    pub(super) fn cost(&self) -> Value {
        Value::Transfer { amount: self.outcome.whole, nanoseconds: self.processor }
    }
}

/// A value, or why there is none, as a sheet takes it.
pub(super) fn outcome(value: anyhow::Result<Value>) -> Outcome {
    match value {
        Ok(value) => Outcome::Value(value),
        Err(error) => Outcome::Error(format!("{error:#}")),
    }
}

/// Error texts are kept for each of the points that one drive stands behind.
pub(super) fn shared<T>(result: &anyhow::Result<T>) -> anyhow::Result<&T> {
    result.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))
}

/// A sandbox that serves.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) instance: Instance,
    network: Network,
    published: Vec<PublishedPort>,
    /// A server of the outside client's, where something inside is to reach one.
    outside: Option<Instance>,
}

impl Served {
    /// Launches the server and, where an outside client needs one, publishes its port.
    pub(super) fn launch(ground: &mut Ground, kind: &Kind, sandbox: &mut dyn Sandbox) -> anyhow::Result<Self> {
        let (workload, deadline) = (Workload::Serve { port: PORT }, ground.settings.deadline);
        let (instance, published) = if kind.network == Network::Bridged {
            ground.networks.launch_published(kind, sandbox, &workload, deadline)?
        } else {
            let mut instance = sandbox.launch(&workload)?;
            instance.await_ready(deadline)?;
            (instance, None)
        };
        ground.network.fix_congestion_control_of(&instance)?;
        if let Some(affinity) = ground.affinity {
            affinity.pin_server(&instance, kind.family)?;
        }
        let mut published = Vec::from_iter(published);
        if let (false, Some(SocketAddr::V4(server))) = (published.is_empty(), instance.server()) {
            published.push(ground.networks.own()?.firewall.publish(Protocol::Udp, PUBLISHED, server)?);
        }
        Ok(Self { instance, network: kind.network, published, outside: None })
    }

    /// Starts a server on the outside client, which [`Path::Out`] leads to.
    pub(super) fn serve_outside(&mut self, ground: &Ground) -> anyhow::Result<()> {
        let mut server = ground.agent(Place::Outside, &Workload::Serve { port: PORT })?;
        server.await_ready(ground.settings.deadline)?;
        if let Some(affinity) = ground.affinity {
            affinity.pin_server(&server, Family::Process)?;
        }
        self.outside = Some(server);
        Ok(())
    }

    /// Makes traffic over a path.
    pub(super) fn drive(
        &self,
        ground: &Ground,
        sandbox: &mut dyn Sandbox,
        path: Path,
        traffic: Traffic,
        span: Span,
    ) -> anyhow::Result<Driven> {
        let Span { warm_up, window } = span;
        let drive = |server: SocketAddr| Workload::Drive(Drive { server, traffic, warm_up, milliseconds: window });
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let server = match path {
            Path::Out => self.outside.as_ref().context("there is no server outside")?,
            _ => &self.instance,
        };
        let before = processor(server)?;
        let generator = match path {
            Path::Host => ground.agent(Place::Host, &drive(self.address()?))?,
            Path::Client => {
                let port = if self.network == Network::Bridged { PUBLISHED } else { PORT };
                ground.agent(Place::Outside, &drive(SocketAddrV4::new(HOST, port).into()))?
            }
            // The generator shares the namespace: on the host as a plain process, else in a container that joins too. An engine's
            // container cannot be given its CPU in time, so that a plain process joins in its place.
            Path::Loopback if self.network == Network::Host => ground.agent(Place::Host, &drive(loopback))?,
            Path::Loopback if ground.networks.engine().is_some() => {
                ground.agent_in(&Namespace::of_pidfd(self.instance.inside())?, &drive(loopback))?
            }
            Path::Loopback => sandbox.launch(&drive(loopback))?,
            Path::Sibling => sandbox.launch(&drive(self.address()?))?,
            Path::Out => sandbox.launch(&drive(SocketAddrV4::new(CLIENT, PORT).into()))?,
        };
        // On every other path the generator's namespace is the client's, the host's or the server's, which have it by now.
        if matches!(path, Path::Sibling | Path::Out) {
            ground.network.fix_congestion_control_of(&generator)?;
        }
        if let Some(affinity) = ground.affinity {
            affinity.pin_generator(&generator)?;
        }
        let patience = ground.settings.deadline + Duration::from_millis(2 * (warm_up + window));
        let outcome: DriveOutcome = answer(generator, patience)?;
        if let Some(error) = outcome.error {
            bail!(error);
        }
        let processor = processor(server)?.saturating_sub(before) + outcome.processor;
        Ok(Driven { outcome, processor })
    }

    /// The sandbox's address as the simulated host and its siblings have it.
    fn address(&self) -> anyhow::Result<SocketAddr> {
        match self.network {
            Network::Host => Ok(SocketAddrV4::new(HOST, PORT).into()),
            _ => self.instance.server().context("it has no address that the host can reach"),
        }
    }

    /// Ends the server and takes its ports back.
    pub(super) fn end(self) -> anyhow::Result<()> {
        drop(self.published);
        let outside = self.outside.map_or(Ok(()), |server| server.destroy().map(drop).map_err(ended));
        self.instance.destroy().map(drop).map_err(ended)?;
        outside
    }
}

/// CPU time of a server's process so far, threads that have ended included. What the kernel does for it in soft interrupts is
/// charged to whichever process runs then.
fn processor(server: &Instance) -> anyhow::Result<u64> {
    let clock = clock_getcpuclockid(Pid::from_raw(server.inside_pid()))
        .with_context(|| format!("find the CPU clock of {}", server.name()))?;
    let time = clock_gettime(clock).with_context(|| format!("read the CPU clock of {}", server.name()))?;
    Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}
