//! A place in a network, with names that lead there and ports of the host that are published.

use super::names::Names;
use super::network::Network;
use super::{PortMapping, names, port};
use crate::json_file;
use anyhow::Context;
use isobench_runtime::network::{Endpoint, Mac, Namespace, PublishedPort, Redirection};
use isobench_workload::Resource;
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// What is asked of a place in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joining {
    /// The name of who joins, which is also a name by which the others find it.
    pub instance: String,
    /// Further names.
    pub aliases: Vec<String>,
    /// The address; the next free one where there is none.
    pub address: Option<Ipv4Addr>,
    /// The link-layer address.
    pub mac: Option<Mac>,
}

/// Who has an address: `endpoints/ADDRESS.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The name of the container or virtual machine.
    pub instance: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// Its link-layer address.
    pub mac: String,
    /// The names that lead to it.
    pub names: Vec<String>,
    /// The ports of the host that lead to it.
    pub ports: Vec<Redirection>,
}

impl Member {
    /// Who has or had this address, as far as it was written down.
    pub(crate) fn read(network: &Path, address: Ipv4Addr) -> Option<Self> {
        serde_json::from_slice(&fs::read(file(network, address)).ok()?).ok()
    }

    pub(super) fn remove(network: &Path, address: Ipv4Addr) {
        let _ = fs::remove_file(file(network, address));
    }

    /// Whole or not at all: others read it at any time.
    fn write(&self, network: &Path) -> anyhow::Result<()> {
        json_file::write(&file(network, self.address), self)
    }
}

fn file(network: &Path, address: Ipv4Addr) -> PathBuf {
    network.join("endpoints").join(format!("{address}.json"))
}

/// Everybody that was written down, dead or alive, in the order of addresses.
pub(super) fn recorded(network: &Path) -> anyhow::Result<Vec<Member>> {
    let directory = network.join("endpoints");
    let entries = fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))?;
    let address = |name: &str| name.strip_suffix(".json")?.parse::<Ipv4Addr>().ok();
    let mut addresses: Vec<_> =
        entries.flatten().filter_map(|entry| address(&entry.file_name().to_string_lossy())).collect();
    addresses.sort();
    Ok(addresses.into_iter().filter_map(|address| Member::read(network, address)).collect())
}

/// The names and published ports of a place in a network; they go when this is dropped, which must be before the address is
/// given back.
#[derive(Debug)]
pub struct Membership {
    network: Network,
    member: Member,
    published: Vec<PublishedPort>,
}

impl Membership {
    pub(super) fn begin(network: &Network, member: Member) -> anyhow::Result<Self> {
        let membership = Self { network: network.clone(), member, published: Vec::new() };
        // Written down before it is done, so that it can be taken away whatever happens.
        membership.member.write(network.directory())?;
        if network.resolver().is_some() {
            let names = Names::of(network.directory());
            for name in &membership.member.names {
                names.add(name, membership.member.address)?;
            }
        }
        Ok(membership)
    }

    /// Who it is, with names and ports as they are now.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Publishes ports, all by one transaction; those for which no number was given have one afterwards
    /// ([`Member::ports`]).
    ///
    /// # Errors
    /// If one of them cannot be had; then none is published, and nothing is left behind.
    pub fn publish(&mut self, mappings: &[PortMapping]) -> anyhow::Result<()> {
        port::check_distinct(mappings)?;
        let mut ports = Vec::new();
        for mapping in mappings {
            ports.extend(self.network.redirections(&self.member, mapping)?);
        }
        if ports.is_empty() {
            return Ok(());
        }
        let (directory, firewall) = (self.network.directory(), self.network.firewall());
        // The numbers are known, and the ports reserved, before anything leads anywhere.
        let reserved = firewall.reserve(ports)?;
        let before = self.member.ports.len();
        self.member.ports.extend(reserved.ports());
        let published = self.member.write(directory).and_then(|()| Ok(reserved.publish()?));
        match published {
            Ok(published) => self.published.push(published),
            Err(error) => {
                self.member.ports.truncate(before);
                let _ = self.member.write(directory);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Lets another name lead here, in place of the one that the instance had.
    ///
    /// # Errors
    /// If it is no name.
    pub fn rename(&mut self, instance: &str) -> anyhow::Result<()> {
        names::check_name("container", instance)?;
        let names = Names::of(self.network.directory());
        let former = std::mem::replace(&mut self.member.instance, instance.into());
        self.member.names.retain(|name| *name != former);
        self.member.names.insert(0, instance.into());
        self.member.write(self.network.directory())?;
        if self.network.resolver().is_some() {
            // First, and then all anew: names know no case, so that the former one can be one of those that stay.
            names.remove(&former, self.member.address);
            self.member.names.iter().try_for_each(|name| names.add(name, self.member.address))?;
        }
        Ok(())
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.published.clear();
        let names = Names::of(self.network.directory());
        self.member.names.iter().for_each(|name| names.remove(name, self.member.address));
        Member::remove(self.network.directory(), self.member.address);
    }
}

/// A place in a network that a running container was given; it goes when this is dropped.
#[derive(Debug)]
pub struct Connection {
    /// Goes before the address.
    membership: Option<Membership>,
    endpoint: Option<Endpoint>,
    interface: String,
}

impl Connection {
    /// Brings a place that was taken ([`Network::endpoint`]) into the network namespace of a container that runs.
    ///
    /// # Errors
    /// If the namespace is gone; nothing is left behind.
    pub fn make(endpoint: Endpoint, membership: Membership, container: &Namespace) -> anyhow::Result<Self> {
        let interface = endpoint.connect(container).with_context(|| {
            let (instance, network) = (&membership.member().instance, &membership.network().settings().name);
            format!("connect {instance} to the network `{network}`")
        })?;
        Ok(Self { membership: Some(membership), endpoint: Some(endpoint), interface })
    }

    /// Its names and ports.
    pub fn membership(&mut self) -> Option<&mut Membership> {
        self.membership.as_mut()
    }

    /// The name server that is asked there, if any is.
    pub fn resolver(&self) -> Option<Ipv4Addr> {
        self.membership.as_ref()?.network().resolver()
    }

    /// Name of the link in the container, such as `eth1`.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The container has ended: neither name nor port leads there any more, and the address is used by nobody.
    pub fn close(&mut self) -> anyhow::Result<()> {
        self.membership = None;
        Ok(self.endpoint.as_ref().map_or(Ok(()), Endpoint::retire)?)
    }

    /// Takes the link out of the container and gives everything back, checked.
    ///
    /// # Errors
    /// If the link does not go.
    pub fn disconnect(mut self) -> anyhow::Result<()> {
        self.membership = None;
        let Some(endpoint) = self.endpoint.take() else { return Ok(()) };
        endpoint.disconnect()?;
        Box::new(endpoint).release().map(drop).map_err(|error| anyhow::anyhow!(error))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.membership = None;
        if let Some(endpoint) = &self.endpoint {
            let _ = endpoint.disconnect();
        }
    }
}
