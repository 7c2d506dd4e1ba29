//! What is asked for.

use super::{Kind, Machine, refuse};
use crate::networks::PortMapping;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// A container as it was asked for, with all that is to be looked up on the asker's side looked up: `container.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    /// When it was made, as in RFC 3339.
    pub(crate) created: String,
    /// The root as it was given.
    pub(crate) root: String,
    /// The directory that it stands for.
    pub(crate) directory: PathBuf,
    /// The command with its arguments.
    pub(crate) command: Vec<String>,
    /// Variables, `NAME=value`.
    pub(crate) environment: Vec<String>,
    /// `USER[:GROUP]`, by name or number.
    pub(crate) user: Option<String>,
    /// Where the command begins.
    pub(crate) working_directory: String,
    /// The host name, where it is not the beginning of the id.
    pub(crate) host_name: Option<String>,
    /// Whether it has a terminal.
    pub(crate) terminal: bool,
    /// Whether its standard input is open.
    pub(crate) input: bool,
    /// Whether its standard input ends with the first that is attached to it.
    pub(crate) input_once: bool,
    /// Whether it is removed when it ends.
    pub(crate) remove: bool,
    /// Whether its root cannot be written.
    pub(crate) read_only: bool,
    /// What of the host is mounted inside.
    pub(crate) volumes: Vec<Volume>,
    /// Its limits.
    pub(crate) limits: Limits,
    /// Parameters of the kernel that it has for itself, by name, with their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) parameters: Vec<(String, String)>,
    /// Capabilities beyond the usual ones.
    pub(crate) added_capabilities: Vec<String>,
    /// Capabilities of the usual ones that it does not get.
    pub(crate) dropped_capabilities: Vec<String>,
    /// Its network.
    pub(crate) network: Network,
    /// Further names on its network.
    pub(crate) aliases: Vec<String>,
    /// The address that it wants there.
    pub(crate) address: Option<Ipv4Addr>,
    /// The link-layer address that it wants.
    pub(crate) mac: Option<[u8; 6]>,
    /// Name servers, where they are not the network's.
    pub(crate) name_servers: Vec<IpAddr>,
    /// Ports of the host that lead to it.
    pub(crate) ports: Vec<PortMapping>,
    /// Further networks, in which it was given a place later, and has one again after each start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) further: Vec<FurtherNetwork>,
    /// What makes it a virtual machine, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) machine: Option<Machine>,
}

impl Request {
    /// The beginning of the id that stands for it in tables.
    pub(crate) fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// What it is.
    pub(crate) fn kind(&self) -> Kind {
        if self.machine.is_some() { Kind::Machine } else { Kind::Container }
    }

    /// The name of its control groups.
    pub(crate) fn control_group(&self) -> String {
        format!("{}-{}", self.kind().command(), self.short_id())
    }

    /// Has it take part in a further network too; `title` says of which instance an error tells.
    pub(crate) fn connect(&mut self, title: &str, further: FurtherNetwork) -> anyhow::Result<()> {
        self.keeps_its_network(title)?;
        if matches!(self.network, Network::Host | Network::Container(_)) {
            return refuse(format!("the {title} shares another's network: connect the one that it belongs to"));
        }
        let network = &further.network;
        if self.is_in(network) {
            return refuse(format!("the {title} is in the network `{network}` already"));
        }
        self.further.push(further);
        Ok(())
    }

    /// Has it take part in a network no more, be it the one that it began with.
    pub(crate) fn disconnect(&mut self, title: &str, network: &str) -> anyhow::Result<()> {
        self.keeps_its_network(title)?;
        if !self.is_in(network) {
            return refuse(format!("the {title} is not in the network `{network}`"));
        }
        let before = self.further.len();
        self.further.retain(|further| further.network != network);
        if self.further.len() == before {
            (self.network, self.address, self.mac) = (Network::None, None, None);
            self.aliases.clear();
        }
        Ok(())
    }

    fn keeps_its_network(&self, title: &str) -> anyhow::Result<()> {
        match self.kind() {
            Kind::Container => Ok(()),
            Kind::Machine => {
                refuse(format!("the {title} keeps the network that it began with: give --network when it is made"))
            }
        }
    }

    fn is_in(&self, network: &str) -> bool {
        matches!(&self.network, Network::Named(own) if own == network)
            || self.further.iter().any(|further| further.network == network)
    }

    /// Its host name.
    pub(crate) fn host_name(&self) -> &str {
        self.host_name.as_deref().unwrap_or_else(|| self.short_id())
    }
}

/// A network that a container has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Network {
    /// The host's own.
    Host,
    /// Nothing but `lo`.
    #[default]
    None,
    /// Another container's, by its name.
    Container(String),
    /// One that was made, by its name; `bridge` is there by itself.
    Named(String),
}

impl std::fmt::Display for Network {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host => formatter.write_str("host"),
            Self::None => formatter.write_str("none"),
            Self::Container(name) => write!(formatter, "container:{name}"),
            Self::Named(name) => formatter.write_str(name),
        }
    }
}

/// What is asked of a network beside the one that a container began with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FurtherNetwork {
    /// Its name.
    pub(crate) network: String,
    /// Further names there.
    pub(crate) aliases: Vec<String>,
    /// The address that is wanted.
    pub(crate) address: Option<Ipv4Addr>,
}

/// A directory or file of the host that is mounted in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    /// Its absolute path on the host.
    pub(crate) source: PathBuf,
    /// Its absolute path in the container.
    pub(crate) target: String,
    /// Whether it cannot be written there.
    pub(crate) read_only: bool,
}

/// Bounds of what a container may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Bytes of memory.
    pub(crate) memory: Option<u64>,
    /// Processor time, in microseconds for each 100 ms.
    pub(crate) cpu: Option<u64>,
    /// Processes and threads.
    pub(crate) pids: Option<u64>,
}

/// A further process that is to run in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Execution {
    /// The command with its arguments.
    pub(crate) command: Vec<String>,
    /// Variables beyond the container's.
    pub(crate) environment: Vec<String>,
    /// Its user, where it is not the container's.
    pub(crate) user: Option<String>,
    /// Where it begins, where that is not the container's.
    pub(crate) working_directory: Option<String>,
    /// Whether it has a terminal.
    pub(crate) terminal: bool,
    /// Whether its standard input is open.
    pub(crate) input: bool,
    /// Whether nobody waits for it.
    pub(crate) detached: bool,
    /// Rows and columns of the terminal.
    pub(crate) size: (u16, u16),
}
