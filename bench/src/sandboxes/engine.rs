//! The peers with an engine: Docker and podman, each in its own five network modes.
//!
//! An engine is started by us, with state directories of its own, in a testbed of its own that has the same uplink and outside
//! client as ours has: it brings its firewall rules, its bridges and its address ranges, and neither the machine's own engine
//! nor the figures of other sandboxes are touched by them. It starts before the first cell and stays until the run's end.
//!
//! Only the engine's command line is used (`docker run`), since that is what people use; an engine's API would be faster by
//! the start of one program. *t0* lies just before the client is started, as for runc. The address and the process inside are
//! read from the kernel and from the engine's own files when the ready line is there, so that no second client delays *ready*.

pub(super) mod obstacle;
mod sandbox;

pub(crate) use sandbox::EngineSandbox;

use super::client::Client;
use super::root_directory;
use super::{Candidate, KINDS, Kind, NAMED_PORT, docker, podman};
use crate::programs::Program;
use crate::testbed::network::HostNetwork;
use crate::testbed::{EngineSettings, Forbidden, Settings, directory};
use anyhow::{Context, bail};
use isobench_runtime::Mode;
use isobench_runtime::network::Subnet;
use isobench_workload::{Instance, Process, Sandbox, Workload};
use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Docker: a client, a daemon, containerd and runc.
    Docker,
    /// Podman: a program without a daemon, conmon and an OCI runtime.
    Podman,
}

impl Engine {
    /// Every engine.
    pub const ALL: [Self; 2] = [Self::Docker, Self::Podman];

    /// Its name, with which those of its sandboxes begin.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// The engine behind a sandbox, where there is one, and its network mode.
    fn and_mode(sandbox: &str) -> Option<(Self, Mode)> {
        let (engine, mode) = sandbox.split_once('-')?;
        let engine = Self::ALL.into_iter().find(|known| known.name() == engine)?;
        Some((engine, Mode::named(mode)?))
    }

    /// The engine behind a sandbox, where there is one.
    pub fn of(sandbox: &str) -> Option<Self> {
        Self::and_mode(sandbox).map(|(engine, _)| engine)
    }

    /// Its sandboxes.
    pub fn kinds(self) -> impl Iterator<Item = &'static Kind> {
        KINDS.iter().filter(move |kind| Self::of(kind.name) == Some(self))
    }

    /// Whether its programs are there at all.
    ///
    /// # Errors
    /// The one sentence that says what is missing.
    pub fn installed(self) -> Result<(), String> {
        match self {
            Self::Docker => docker::installed(),
            Self::Podman => podman::installed(),
        }
    }
}

/// The name of the image that holds the agent.
const IMAGE: &str = "isobench-agent";

/// The name of the network with a subnet of its own, on which every engine agrees with our own `container-custom`.
const CUSTOM: &str = "isobench-custom";

/// The name of a second such network.
const SECOND: &str = "isobench-second";

/// Name, subnet and gateway of each network that is made.
const MADE: [[&str; 3]; 2] = [[CUSTOM, "10.89.0.0/24", "10.89.0.1"], [SECOND, "10.90.0.0/24", "10.90.0.1"]];

/// The name of the container whose network others join.
const NAMED: &str = "isobench-named";

/// A network of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// Where its containers have their addresses.
    pub(crate) subnet: Subnet,
    /// The host's address there.
    pub(crate) gateway: Ipv4Addr,
}

/// What one plug tells of an engine that it has started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) client: Client,
    pub(super) daemon: Option<Process>,
    pub(super) version: String,
    /// Facts that bear on a figure, by name.
    pub(super) facts: BTreeMap<&'static str, String>,
    /// Why its containers find nobody by name, where no name server of its own is installed.
    pub(super) nameless: Option<String>,
    /// The name of the network that it uses where none is given.
    pub(super) default_network: &'static str,
}

/// An engine that runs in this testbed.
#[derive(Debug)]
pub(crate) struct RunningEngine {
    engine: Engine,
    client: Client,
    version: String,
    facts: BTreeMap<&'static str, String>,
    nameless: Option<String>,
    bridge: Range,
    custom: Range,
    files: PathBuf,
    launched: Cell<u64>,
    /// Processes of the engine's own, which are there while no container runs.
    processes: Vec<u32>,
    named: RefCell<Option<Instance>>,
    _daemon: Option<Process>,
}

impl RunningEngine {
    /// Starts the engine in this testbed and gives it the agent's image and a network of its own.
    pub(crate) fn start(
        wanted: &EngineSettings,
        settings: &Settings,
        agent: &Program,
        host: &HostNetwork,
    ) -> anyhow::Result<Rc<Self>> {
        if let Some(obstacle) = obstacle::to(wanted.engine) {
            return Err(Forbidden(obstacle).into());
        }
        // A slow disk or an emulated machine: twice as long as any one launch may take.
        let deadline = settings.deadline * 2;
        let EngineSettings { engine, data } = wanted;
        let started = match engine {
            Engine::Docker => docker::start(data, deadline),
            Engine::Podman => podman::start(data, deadline),
        }?;
        let Started { client, daemon, version, mut facts, nameless, default_network } = started;
        let processes = own_processes()?;
        let image = archive(&root_directory::make(agent)?)?;
        client.ask(&["import", "-", IMAGE], Some(image))?;
        for [name, subnet, gateway] in MADE {
            client.ask(&["network", "create", "--subnet", subnet, "--gateway", gateway, name], None)?;
        }
        let range = |network| range(&client, network);
        let (bridge, custom) = (range(default_network)?, range(CUSTOM)?);
        let filtered = if host.filters_bridged_packets() { "filtered" } else { "not filtered" };
        facts.insert("bridged-packets", filtered.into());
        let (engine, files) = (*engine, directory("engine")?);
        let (launched, named) = (Cell::new(0), RefCell::new(None));
        let running = Rc::new(Self {
            engine,
            client,
            version,
            facts,
            nameless,
            bridge,
            custom,
            files,
            launched,
            processes,
            named,
            _daemon: daemon,
        });
        let mut named = running.sandbox(NAMED, Some(Mode::Bridge)).launch(&Workload::Serve { port: NAMED_PORT })?;
        named.await_ready(settings.deadline)?;
        *running.named.borrow_mut() = Some(named);
        // dockerd keeps a mount of the host's network namespace from the first container on that has it.
        let mut first = running.sandbox("isobench-first", Some(Mode::Host)).launch(&Workload::Idle)?;
        first.await_ready(settings.deadline)?;
        end(first)?;
        Ok(running)
    }

    /// Its sandboxes.
    pub(crate) fn candidates(self: &Rc<Self>) -> Vec<Candidate> {
        let kinds = self.engine.kinds().filter_map(|kind| Some((kind, Engine::and_mode(kind.name)?.1)));
        kinds
            .map(|(kind, mode)| Candidate {
                kind,
                version: Some(self.version.clone()),
                emulation: None,
                sandbox: Ok(Box::new(self.sandbox(kind.name, Some(mode)))),
                gaps: self.gaps(kind),
            })
            .collect()
    }

    /// Experiments that one of its sandboxes cannot take part in.
    fn gaps(&self, kind: &Kind) -> BTreeMap<String, String> {
        let nameless = self.nameless.clone().filter(|_| kind.is_custom());
        nameless.map(|reason| ("names".to_owned(), reason)).into_iter().collect()
    }

    /// A sandbox with a mode, or with the engine's own choice where none is given.
    pub(crate) fn sandbox(self: &Rc<Self>, name: &str, mode: Option<Mode>) -> EngineSandbox {
        EngineSandbox { engine: Rc::clone(self), name: name.to_owned(), mode, options: Vec::new() }
    }

    /// The sandbox of a kind with the request to publish its served port as this port of the host.
    pub(crate) fn publishing(self: &Rc<Self>, kind: &Kind, port: u16) -> EngineSandbox {
        let mut sandbox = self.sandbox(kind.name, Engine::and_mode(kind.name).map(|(_, mode)| mode));
        sandbox.options = vec!["--publish".into(), format!("{port}:{}", isobench_workload::protocol::PORT)];
        sandbox
    }

    /// The sandbox of a kind in a second network with a subnet of its own.
    pub(crate) fn in_second_network(self: &Rc<Self>, kind: &Kind) -> EngineSandbox {
        let mut sandbox = self.sandbox(&format!("{}-second", kind.name), None);
        sandbox.options = vec!["--network".into(), SECOND.into()];
        sandbox
    }

    /// The network that its bridge mode gives.
    pub(crate) fn bridge(&self) -> Range {
        self.bridge
    }

    /// The network with a subnet of its own.
    pub(crate) fn custom(&self) -> Range {
        self.custom
    }

    /// Facts that bear on a figure, each name beginning with the engine's.
    pub(crate) fn facts(&self) -> impl Iterator<Item = (String, String)> {
        self.facts.iter().map(|(name, value)| (format!("{}-{name}", self.engine.name()), value.clone()))
    }

    /// Processes of the engine's own, which are there while no container runs: none where it has no daemon.
    pub(crate) fn processes(&self) -> &[u32] {
        &self.processes
    }

    /// Ends the container that others joined. The daemon goes with the testbed.
    pub(crate) fn end(&self) -> anyhow::Result<()> {
        let named = self.named.borrow_mut().take();
        named.map_or(Ok(()), end)
    }
}

fn end(instance: Instance) -> anyhow::Result<()> {
    let name = instance.name().to_owned();
    match instance.destroy() {
        Ok(_) => Ok(()),
        Err(errors) => bail!("end {name}: {errors:?}"),
    }
}

/// The range of a network, from what the engine says of it.
fn range(client: &Client, network: &str) -> anyhow::Result<Range> {
    let text = client.ask(&["network", "inspect", network], None)?;
    parse_range(&text).with_context(|| format!("find the subnet of the network {network} in `{text}`"))
}

/// Docker's words, podman's, and podman's with CNI.
fn parse_range(text: &str) -> Option<Range> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let places = [("/0/IPAM/Config/0", "Subnet", "Gateway"), ("/0/subnets/0", "subnet", "gateway")];
    let nested = ("/0/plugins/0/ipam/ranges/0/0", "subnet", "gateway");
    places.into_iter().chain([nested]).find_map(|(place, subnet, gateway)| {
        let entry = value.pointer(place)?;
        let subnet: Subnet = entry.get(subnet)?.as_str()?.parse().ok()?;
        let said = entry.get(gateway).and_then(|gateway| gateway.as_str()?.parse().ok());
        // Docker says none for its own bridge before its first container; it is the subnet's first address.
        Some(Range { subnet, gateway: said.or_else(|| subnet.host(0))? })
    })
}

/// Every process of this testbed but its first one.
fn own_processes() -> anyhow::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("read /proc")?.flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    Ok(numbers.filter(|number| *number != std::process::id()).collect())
}

/// A directory as a tar file in memory.
fn archive(root: &Path) -> anyhow::Result<File> {
    let write = || -> std::io::Result<File> {
        let file = File::from(rustix::fs::memfd_create("image", MemfdFlags::CLOEXEC)?);
        let mut archive = tar::Builder::new(file);
        archive.append_dir_all(".", root)?;
        archive.into_inner()
    };
    write().with_context(|| format!("put {} into a tar file", root.display()))
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_known_by_its_sandboxes_names() {
        assert_eq!(Engine::of("docker-bridge"), Some(Engine::Docker));
        assert_eq!(Engine::of("container-bridge"), None);
        assert_eq!(Engine::of("docker"), None);
        for engine in Engine::ALL {
            let modes: Vec<Mode> = engine.kinds().filter_map(|kind| Some(Engine::and_mode(kind.name)?.1)).collect();
            assert_eq!(modes, Mode::ALL);
        }
    }

    #[test]
    fn ranges_are_read_from_what_each_engine_says() {
        let range = |text| parse_range(text).map(|range| (range.subnet.to_string(), range.gateway.to_string()));
        let expected = |subnet: &str, gateway: &str| Some((subnet.to_owned(), gateway.to_owned()));
        let docker = r#"[{"Name":"bridge","IPAM":{"Config":[{"Subnet":"172.17.0.0/16"}]}}]"#;
        assert_eq!(range(docker), expected("172.17.0.0/16", "172.17.0.1"));
        let podman = r#"[{"name":"podman","subnets":[{"subnet":"10.88.0.0/16","gateway":"10.88.0.1"}]}]"#;
        assert_eq!(range(podman), expected("10.88.0.0/16", "10.88.0.1"));
        let cni = r#"[{"plugins":[{"ipam":{"ranges":[[{"subnet":"10.88.0.0/16","gateway":"10.88.0.9"}]]}}]}]"#;
        assert_eq!(range(cni), expected("10.88.0.0/16", "10.88.0.9"));
        assert_eq!(range("[]"), None);
        assert_eq!(range("no JSON"), None);
    }
}
