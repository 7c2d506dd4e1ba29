//! Who makes the networks that the sandboxes of a testbed join.

use super::engine::{Range, RunningEngine};
use super::{Kind, container};
use crate::programs::Program;
use crate::testbed::network::{HOST, OwnNetworks, PUBLISHED};
use isobench_runtime::Mode;
use isobench_runtime::network::{BridgeNetwork, Protocol, PublishedPort};
use isobench_workload::{Instance, Sandbox, Workload};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

/// Our own runtime's networks, or those of the engine that this testbed was made for.
#[derive(Debug)]
pub(crate) enum Networks {
    /// Our own.
    Own(OwnNetworks),
    /// An engine's.
    Engine(Rc<RunningEngine>),
}

impl Networks {
    /// The engine, where there is one.
    pub(crate) fn engine(&self) -> Option<&Rc<RunningEngine>> {
        match self {
            Self::Own(_) => None,
            Self::Engine(engine) => Some(engine),
        }
    }

    /// Our own runtime's networks.
    ///
    /// # Errors
    /// In a testbed that was made for an engine.
    pub(crate) fn own(&self) -> anyhow::Result<&OwnNetworks> {
        match self {
            Self::Own(networks) => Ok(networks),
            Self::Engine(_) => {
                Err(anyhow::anyhow!("this testbed was made for an engine and has none of our own networks"))
            }
        }
    }

    /// The network that bridge mode gives.
    pub(crate) fn bridge(&self) -> Range {
        match self {
            Self::Own(networks) => range(&networks.bridge),
            Self::Engine(engine) => engine.bridge(),
        }
    }

    /// The network with a subnet of its own.
    fn custom(&self) -> Range {
        match self {
            Self::Own(networks) => range(&networks.custom),
            Self::Engine(engine) => engine.custom(),
        }
    }

    /// How many addresses of the network that bridge mode gives are taken, as far as that can be seen: an engine keeps it to
    /// itself.
    pub(crate) fn leased(&self) -> anyhow::Result<usize> {
        match self {
            Self::Own(networks) => Ok(networks.bridge.pool().leased()?),
            Self::Engine(_) => Ok(0),
        }
    }

    /// The simulated host's address on a sandbox's way out.
    pub(crate) fn gateway(&self, kind: &Kind) -> Ipv4Addr {
        match kind.network {
            super::Network::Host => HOST,
            _ if kind.is_custom() => self.custom().gateway,
            _ => self.bridge().gateway,
        }
    }

    /// The mode whose network has such a range.
    pub(crate) fn mode_of(&self, subnet: &str) -> Option<Mode> {
        match () {
            () if self.bridge().subnet.to_string() == subnet => Some(Mode::Bridge),
            () if self.custom().subnet.to_string() == subnet => Some(Mode::Custom),
            () => None,
        }
    }

    /// A container with no network mode given: the runtime chooses.
    pub(crate) fn without_mode(&self, agent: &Program) -> anyhow::Result<Box<dyn Sandbox>> {
        match self {
            Self::Own(networks) => container::Containers::new(agent)?.with_mode("container", None, networks),
            Self::Engine(engine) => Ok(Box::new(engine.sandbox("unnamed", None))),
        }
    }

    /// Launches a server that the outside client reaches by the port [`PUBLISHED`] of the host, in the way of whoever runs it:
    /// an engine publishes when it launches, and our own firewall at any time.
    pub(crate) fn launch_published(
        &self,
        kind: &Kind,
        sandbox: &mut dyn Sandbox,
        workload: &Workload,
        deadline: Duration,
    ) -> anyhow::Result<(Instance, Option<PublishedPort>)> {
        let mut instance = match self {
            Self::Own(_) => sandbox.launch(workload)?,
            Self::Engine(engine) => engine.publishing(kind, PUBLISHED).launch(workload)?,
        };
        instance.await_ready(deadline)?;
        let port = match (self, instance.server()) {
            (Self::Own(networks), Some(SocketAddr::V4(server))) => {
                Some(networks.firewall.publish(Protocol::Tcp, PUBLISHED, server)?)
            }
            _ => None,
        };
        Ok((instance, port))
    }
}

fn range(network: &BridgeNetwork) -> Range {
    let settings = network.settings();
    Range { subnet: settings.subnet, gateway: settings.gateway }
}
