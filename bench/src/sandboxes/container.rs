//! Our own containers, one sandbox for each network mode.

use crate::programs::Program;
use crate::testbed::cgroups;
use crate::testbed::network::OwnNetworks;
use anyhow::Context;
use isobench_microvm::sandbox::UNIKERNEL_SPIN;
use isobench_runtime::cgroup::{Cgroups, Limits};
use isobench_runtime::network::{BridgeNetwork, Namespace};
use isobench_runtime::{ContainerSandbox, Mode, SandboxNetwork};
use isobench_workload::{Family, Instance, LaunchError, Sandbox, Workload};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// What every mode has in common.
#[derive(Debug)]
pub(super) struct Containers {
    program: Arc<OwnedFd>,
    cgroups: Option<Cgroups>,
}

impl Containers {
    pub(super) fn new(agent: &Program) -> anyhow::Result<Self> {
        let program = Arc::new(agent.file().try_clone_to_owned().context("keep the agent's descriptor")?);
        // An ordinary user may have none; containers then run without.
        let cgroups = if cgroups::usable() { Cgroups::discover().ok() } else { None };
        Ok(Self { program, cgroups })
    }

    /// The sandbox of a name such as `container-bridge`.
    pub(super) fn sandbox(&self, name: &str, networks: &OwnNetworks) -> anyhow::Result<Box<dyn Sandbox>> {
        let mode = name.strip_prefix("container-").and_then(Mode::named);
        self.with_mode(name, Some(mode.with_context(|| format!("there is no network mode for `{name}`"))?), networks)
    }

    /// A sandbox with this mode, or with the runtime's own choice where none is given.
    pub(super) fn with_mode(
        &self,
        name: &str,
        mode: Option<Mode>,
        networks: &OwnNetworks,
    ) -> anyhow::Result<Box<dyn Sandbox>> {
        let attached = |network: &BridgeNetwork| SandboxNetwork::Bridge { network: network.clone(), publish: None };
        let network = match mode.unwrap_or_default() {
            Mode::Host => SandboxNetwork::Host,
            Mode::None => SandboxNetwork::None,
            Mode::Bridge => attached(&networks.bridge),
            Mode::Custom => attached(&networks.custom),
            Mode::Container => return Ok(Box::new(self.joining(name, attached(&networks.bridge))?)),
        };
        Ok(Box::new(self.with(name, network)))
    }

    /// A sandbox on the default bridge whose server looks for requests as long as the unikernel looks for frames.
    pub(super) fn polling(&self, name: &str, networks: &OwnNetworks) -> ContainerSandbox {
        let network = SandboxNetwork::Bridge { network: networks.bridge.clone(), publish: None };
        self.with(name, network).with_spin(UNIKERNEL_SPIN)
    }

    pub(super) fn with(&self, name: &str, network: SandboxNetwork) -> ContainerSandbox {
        let sandbox = ContainerSandbox::new(name, Arc::clone(&self.program), network);
        match &self.cgroups {
            Some(cgroups) => sandbox.limited(cgroups.clone(), Limits::default()),
            None => sandbox,
        }
    }

    fn joining(&self, name: &str, network: SandboxNetwork) -> anyhow::Result<JoiningContainer> {
        // It serves on another port, so that the server that joins finds its own one free.
        let named = self.with("named", network).launch(&Workload::Serve { port: NAMED_PORT })?;
        let namespace = Namespace::of_pidfd(named.process().pidfd())?.as_fd().try_clone_to_owned()?;
        let address = named.server().and_then(|server| match server.ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        let joined = SandboxNetwork::Container { namespace: Arc::new(namespace), address };
        Ok(JoiningContainer { sandbox: self.with(name, joined), _named: named })
    }
}

/// The port on which the container whose network is joined serves.
pub(crate) const NAMED_PORT: u16 = 7002;

/// Containers that join the network of a named one, which lives as long as this.
#[derive(Debug)]
struct JoiningContainer {
    sandbox: ContainerSandbox,
    _named: Instance,
}

impl Sandbox for JoiningContainer {
    fn name(&self) -> &str {
        self.sandbox.name()
    }

    fn family(&self) -> Family {
        self.sandbox.family()
    }

    fn launch(&mut self, workload: &Workload) -> Result<Instance, LaunchError> {
        self.sandbox.launch(workload)
    }
}
