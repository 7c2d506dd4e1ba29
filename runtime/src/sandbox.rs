//! The container as one of the sandboxes that the interface knows.
#![forbid(unsafe_code)]

use crate::cgroup::{Cgroup, Cgroups, Limits};
use crate::error::Error;
use crate::launch::{Launched, capture_output, launch};
use crate::network::{BridgeNetwork, Protocol};
use crate::plan::Plan;
use crate::root::Mount;
use crate::specification::{NetworkMode, Program, Root, Specification};
use isobench_workload::{
    ENDS_WITHIN, Family, Instance, LaunchError, Released, Resource, Sandbox, Stage, Stages, Unsupported, Workload,
    clock,
};
use rustix::fd::OwnedFd;
use rustix::mount::MountFlags;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

/// A network mode by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The launching process's own network.
    Host,
    /// That of another container.
    Container,
    /// Nothing but `lo`.
    None,
    /// The default bridge, which is also what a container gets for which no mode is given.
    #[default]
    Bridge,
    /// A network with a subnet of one's own choice.
    Custom,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 5] = [Self::Host, Self::Container, Self::None, Self::Bridge, Self::Custom];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Container => "container",
            Self::None => "none",
            Self::Bridge => "bridge",
            Self::Custom => "custom",
        }
    }

    /// The mode of this name, where there is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

/// The network of every container that a sandbox launches.
#[derive(Clone, Debug)]
pub enum SandboxNetwork {
    /// The launching process's own.
    Host,
    /// Nothing but `lo`.
    None,
    /// That of another container.
    Container {
        /// Its namespace.
        namespace: Arc<OwnedFd>,
        /// The address at which it is reached from outside, if it has one.
        address: Option<Ipv4Addr>,
    },
    /// An address of its own in a network: the default bridge or a custom one.
    Bridge {
        /// The network.
        network: BridgeNetwork,
        /// A port of the host that leads to the served port.
        publish: Option<u16>,
    },
}

/// Containers with one network mode. Each launch is a whole one: the strategy *plain*, nothing prepared or pooled.
#[derive(Debug)]
pub struct ContainerSandbox {
    name: String,
    program: Arc<OwnedFd>,
    network: SandboxNetwork,
    cgroups: Option<(Cgroups, Limits)>,
    spin: Option<u32>,
    tied: bool,
    launched: u64,
}

impl ContainerSandbox {
    /// A sandbox of this name, whose workloads are run by the agent behind `program` (a sealed memfd).
    pub fn new(name: &str, program: Arc<OwnedFd>, network: SandboxNetwork) -> Self {
        Self { name: name.into(), program, network, cgroups: None, spin: None, tied: false, launched: 0 }
    }

    /// Puts each container into a cgroup of its own with these limits.
    pub fn limited(mut self, cgroups: Cgroups, limits: Limits) -> Self {
        self.cgroups = Some((cgroups, limits));
        self
    }

    /// The same, where a server looks for requests so many microseconds long before it sleeps.
    #[must_use]
    pub fn with_spin(self, microseconds: u32) -> Self {
        Self { spin: Some(microseconds), ..self }
    }

    /// Has the kernel kill each container when the thread that launched it ends, however it does
    /// ([`Specification::dies_with_parent`]). Without it a container outlives a launcher that is killed, unless something else
    /// takes it along, such as the pid namespace of a testbed.
    pub fn tied(mut self) -> Self {
        self.tied = true;
        self
    }

    /// The network.
    pub fn network(&self) -> &SandboxNetwork {
        &self.network
    }

    fn step<E: std::error::Error + Send + Sync + 'static>(&self, step: &str) -> impl FnOnce(E) -> LaunchError {
        let (sandbox, step) = (self.name.clone(), step.to_owned());
        move |source| LaunchError::Step { sandbox, step, source: Box::new(source) }
    }

    fn specification(&self, workload: &Workload) -> Specification {
        let mut arguments = workload.arguments();
        if let (Workload::Serve { .. }, Some(microseconds)) = (workload, self.spin) {
            arguments.extend(["--spin".into(), microseconds.to_string()]);
        }
        let Workload::Program { .. } = workload else {
            let arguments = std::iter::once("agent".to_owned()).chain(arguments).collect();
            return Specification::container(Program::Descriptor(self.program.clone()), arguments);
        };
        // A program of the user's own needs its libraries and files: the host's tree, of which it can change nothing.
        let program = Program::Path(arguments.first().cloned().unwrap_or_default());
        let mut specification = Specification::container(program, arguments);
        specification.root = Root::Directory { path: "/".into(), recursive: true, read_only: true };
        let closed = MountFlags::NOSUID | MountFlags::NODEV;
        specification.mounts = vec![
            Mount::file_system("proc", "/proc", closed | MountFlags::NOEXEC, ""),
            Mount::file_system("tmpfs", "/tmp", closed, "mode=1777,size=64m"),
        ];
        specification
    }
}

/// The cgroup of an instance.
#[derive(Debug)]
struct OwnedCgroup(Arc<Cgroup>);

impl Resource for OwnedCgroup {
    fn describe(&self) -> String {
        format!("cgroup {}", self.0.describe())
    }

    fn release(self: Box<Self>) -> Released {
        // Whoever else holds it removes it.
        if let Some(cgroup) = Arc::into_inner(self.0) {
            cgroup.remove(ENDS_WITHIN)?;
        }
        Ok(None)
    }
}

impl Sandbox for ContainerSandbox {
    fn name(&self) -> &str {
        &self.name
    }

    fn family(&self) -> Family {
        Family::Container
    }

    fn launch(&mut self, workload: &Workload) -> Result<Instance, LaunchError> {
        if matches!(workload, Workload::Program { arguments } if arguments.is_empty()) {
            let what = "a program without a name".to_owned();
            return Err(Unsupported { what, why: "there is nothing to run".into() }.into());
        }
        self.launched += 1;
        let name = format!("{}-{}", self.name, self.launched);

        // t0: everything that is prepared or made for this one instance comes after it.
        let mut stages = Stages::default();
        stages.stamp(Stage::Started, clock::now());
        let mut specification = self.specification(workload);
        specification.dies_with_parent = self.tied;
        let output = capture_output(&mut specification).map_err(self.step("prepare its output"))?;
        let mut resources: Vec<Box<dyn Resource>> = Vec::new();
        if let Some((cgroups, limits)) = &self.cgroups {
            let unique = format!("{name}-{}", std::process::id());
            let cgroup = Arc::new(cgroups.create(&unique, limits).map_err(self.step("make its cgroup"))?);
            specification.cgroup = Some(cgroup.clone());
            resources.push(Box::new(OwnedCgroup(cgroup)));
        }
        let served = if let Workload::Serve { port } = workload { Some(*port) } else { None };
        let mut address: Option<IpAddr> = None;
        match &self.network {
            SandboxNetwork::Host => {
                specification.network = NetworkMode::Host;
                address = Some(Ipv4Addr::LOCALHOST.into());
            }
            SandboxNetwork::None => {}
            SandboxNetwork::Container { namespace, address: shared } => {
                specification.network = NetworkMode::Container(namespace.clone());
                address = shared.map(IpAddr::from);
            }
            SandboxNetwork::Bridge { network, publish } => {
                let endpoint = network.endpoint().map_err(self.step("lease an address"))?;
                address = Some(endpoint.address().into());
                if let (Some(port), Some(served)) = (publish, served) {
                    let target = SocketAddrV4::new(endpoint.address(), served);
                    let published = network.firewall().publish(Protocol::Tcp, *port, target);
                    resources.push(Box::new(published.map_err(self.step("publish its port"))?));
                }
                specification.network = NetworkMode::Attached(endpoint);
            }
        }
        let launched = Plan::validate(specification).and_then(launch);
        let Launched { process, endpoint } = launched.map_err(self.step::<Error>("create the container"))?;
        stages.stamp(Stage::Created, clock::now());

        let server = address.zip(served).map(|(address, port)| SocketAddr::new(address, port));
        let mut instance = Instance::new(name, process, output, server, stages);
        // Released in reverse: the address is free again only when no port leads to it any more.
        if let Some(endpoint) = endpoint {
            instance.own(Box::new(endpoint));
        }
        resources.into_iter().for_each(|resource| instance.own(resource));
        Ok(instance)
    }
}
