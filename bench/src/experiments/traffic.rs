//! Paths from a load generator to a served sandbox.

use super::{Ground, Place, answer, ended};
use crate::sandboxes::{Kind, Network};
use crate::testbed::network::{HOST, PUBLISHED};
use anyhow::{Context, bail};
use isobench_runtime::network::{Protocol, PublishedPort};
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
        let mut instance = sandbox.launch(&Workload::Serve { port: PORT })?;
        instance.await_ready(ground.settings.deadline)?;
        ground.network.fix_congestion_control_of(&instance)?;
        if let Some(affinity) = ground.affinity {
            affinity.pin_server(&instance, kind.family)?;
        }
        let published = match (kind.network, instance.server()) {
            (Network::Bridged, Some(SocketAddr::V4(server))) => {
                Some(ground.networks.firewall.publish(Protocol::Tcp, PUBLISHED, server)?)
            }
            _ => None,
        };
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
                let port = self.published.as_ref().map_or(PORT, |_| PUBLISHED);
                ground.agent(Place::Outside, &drive(SocketAddrV4::new(HOST, port).into()))?
            }
            // The generator shares the namespace: on the host as a plain process, else in a container that joins too.
            Path::Loopback if self.network == Network::Host => ground.agent(Place::Host, &drive(loopback))?,
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
