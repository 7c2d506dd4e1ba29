//! Paths from a load generator to a served sandbox.

use super::{Ground, Place, answer, ended};
use crate::sandboxes::{Kind, Network};
use crate::testbed::network::{HOST, PUBLISHED};
use anyhow::{Context, bail};
use isobench_runtime::network::{Namespace, PublishedPort};
use isobench_workload::{Drive, DriveOutcome, Instance, Sandbox, Traffic, Workload, protocol::PORT};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

/// From where and by which address a load generator reaches a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// From the simulated host's own namespace to the sandbox's address.
    Host,
    /// From the outside client: to the published port, or to the host's address where that is the sandbox's too.
    Client,
    /// Over lo inside a network namespace that both share.
    Loopback,
}

impl Path {
    /// The name in records.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Client => "client",
            Self::Loopback => "loopback",
        }
    }

    /// The paths that a kind of sandbox has.
    pub(super) fn of(kind: &Kind) -> &'static [Self] {
        match kind.network {
            Network::Host => &[Self::Host, Self::Client, Self::Loopback],
            Network::Joined => &[Self::Host, Self::Loopback],
            Network::Bridged => &[Self::Host, Self::Client],
            Network::None => &[],
        }
    }
}

/// A sandbox that serves.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) instance: Instance,
    network: Network,
    published: Option<PublishedPort>,
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
        Ok(Self { instance, network: kind.network, published })
    }

    /// Makes traffic over a path.
    pub(super) fn drive(
        &self,
        ground: &Ground,
        sandbox: &mut dyn Sandbox,
        path: Path,
        traffic: Traffic,
        milliseconds: u64,
    ) -> anyhow::Result<DriveOutcome> {
        let drive = |server: SocketAddr| Workload::Drive(Drive { server, traffic, milliseconds });
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let generator = match path {
            Path::Host => {
                let server = match self.network {
                    Network::Host => SocketAddrV4::new(HOST, PORT).into(),
                    _ => self.instance.server().context("it has no address that the host can reach")?,
                };
                ground.agent(Place::Host, &drive(server))?
            }
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
        };
        if let Some(affinity) = ground.affinity {
            affinity.pin_generator(&generator)?;
        }
        let outcome: DriveOutcome = answer(generator, ground.settings.deadline + Duration::from_millis(milliseconds))?;
        match outcome.error {
            None => Ok(outcome),
            Some(error) => bail!(error),
        }
    }

    /// Ends the server and takes its port back.
    pub(super) fn end(self) -> anyhow::Result<()> {
        drop(self.published);
        self.instance.destroy().map(drop).map_err(ended)
    }
}
