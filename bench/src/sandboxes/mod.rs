//! The sandboxes by name, and the adapters that make each of them a [`Sandbox`].

mod process;
mod spawn;

use crate::programs::Program;
use isobench_reports::record::SandboxRecord;
use isobench_workload::{Family, Sandbox};
use std::rc::Rc;

/// What network a sandbox has, as far as an experiment must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The simulated host's own.
    Host,
    /// That of another container.
    Joined,
    /// None but lo.
    None,
    /// A port of a bridge on the simulated host.
    Bridged,
}

/// One name of the vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The name used in records and on the command line.
    pub name: &'static str,
    /// Which kind of isolation it is.
    pub family: Family,
    /// What network it has.
    pub network: Network,
}

const fn kind(name: &'static str, family: Family, network: Network) -> Kind {
    Kind { name, family, network }
}

/// Every sandbox that this program knows, in the order of every table and chart.
pub const KINDS: &[Kind] = &[
    kind("process", Family::Process, Network::Host),
    kind("unikernel-process", Family::Process, Network::Bridged),
    kind("container-host", Family::Container, Network::Host),
    kind("container-container", Family::Container, Network::Joined),
    kind("container-none", Family::Container, Network::None),
    kind("container-bridge", Family::Container, Network::Bridged),
    kind("container-custom", Family::Container, Network::Bridged),
    kind("vm-unikernel", Family::Unikernel, Network::Bridged),
    kind("vm-linux", Family::Linux, Network::Bridged),
    kind("runc", Family::Peer, Network::None),
    kind("crun", Family::Peer, Network::None),
    kind("bubblewrap", Family::Peer, Network::None),
    kind("docker-host", Family::Peer, Network::Host),
    kind("docker-none", Family::Peer, Network::None),
    kind("docker-bridge", Family::Peer, Network::Bridged),
    kind("qemu-microvm", Family::Peer, Network::None),
];

impl Kind {
    /// The kind with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }
}

/// One sandbox on this testbed: ready to launch, or the reason why not.
pub(crate) struct Candidate {
    pub(crate) kind: &'static Kind,
    version: Option<String>,
    emulation: Option<String>,
    pub(crate) sandbox: Result<Box<dyn Sandbox>, String>,
}

impl Candidate {
    /// The candidate as a record has it.
    pub(crate) fn record(&self) -> SandboxRecord {
        SandboxRecord {
            name: self.kind.name.to_owned(),
            family: self.kind.family,
            version: self.version.clone(),
            unavailable: self.sandbox.as_ref().err().cloned(),
            emulation: self.emulation.clone(),
        }
    }
}

/// Finds every sandbox of the vocabulary on this testbed.
pub(crate) fn find(agent: &Rc<Program>) -> Vec<Candidate> {
    KINDS
        .iter()
        .map(|kind| {
            let sandbox: Result<Box<dyn Sandbox>, String> = match kind.name {
                "process" => Ok(Box::new(process::BareProcess::new(Rc::clone(agent)))),
                _ => Err(format!("{} is not part of this build", kind.name)),
            };
            Candidate { kind, version: None, emulation: None, sandbox }
        })
        .collect()
}
