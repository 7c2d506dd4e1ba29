//! A kind of sandbox that differs in one thing from what it is everywhere else.

use super::Ground;
use crate::sandboxes::{self, Kind, Network};
use anyhow::bail;
use isobench_runtime::network::bridge_network::Settings;
use isobench_runtime::network::{BridgeNetwork, Subnet};
use isobench_runtime::{ContainerSandbox, SandboxNetwork};
use isobench_workload::{Sandbox, Unsupported};
use std::net::Ipv4Addr;

impl Ground {
    /// One of our own containers in a network of the caller's.
    pub(super) fn container(&self, name: &str, network: SandboxNetwork) -> anyhow::Result<ContainerSandbox> {
        sandboxes::own_container(&self.agent, name, network)
    }

    /// The kind with the request to publish the served port as this port of the host.
    ///
    /// # Errors
    /// Where the request is refused before anything is launched.
    pub(super) fn publishing(&self, kind: &Kind, port: u16) -> anyhow::Result<Result<Box<dyn Sandbox>, Unsupported>> {
        if let Some(engine) = self.networks.engine() {
            // What becomes of the request is the engine's answer, when it launches.
            return Ok(Ok(Box::new(engine.publishing(kind, port))));
        }
        if kind.network != Network::Bridged {
            let why = "a container without an address of its own has no port to which one of the host's could lead";
            return Ok(Err(Unsupported { what: "publishing a port".into(), why: why.into() }));
        }
        let network = SandboxNetwork::Bridge { network: self.networks.own()?.bridge.clone(), publish: Some(port) };
        // The name tells its control groups from those of the kind itself.
        Ok(Ok(Box::new(self.container(&format!("{}-{port}", kind.name), network)?)))
    }

    /// The kind in a second network with a subnet of its own, which goes with the sandbox.
    pub(super) fn in_second_network(&self, kind: &Kind) -> anyhow::Result<Box<dyn Sandbox>> {
        if let Some(engine) = self.networks.engine() {
            return Ok(Box::new(engine.in_second_network(kind)));
        }
        if kind.name != "container-custom" {
            bail!("{} has no second network", kind.name);
        }
        let subnet = Subnet::new(Ipv4Addr::new(10, 90, 0, 0), 24)?;
        let gateway = Ipv4Addr::new(10, 90, 0, 1);
        let settings = Settings { bridge: "custom1".into(), subnet, gateway, ..Settings::custom() };
        let network = BridgeNetwork::create(&self.networks.own()?.firewall, settings)?;
        let name = format!("{}-second", kind.name);
        Ok(Box::new(self.container(&name, SandboxNetwork::Bridge { network, publish: None })?))
    }
}
