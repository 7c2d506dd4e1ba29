//! A container's places in networks: those that it was launched with, and those that it was given later.

use super::launching;
use super::request::{FurtherNetwork, Network, Request};
use super::state::NetworkPlace;
use super::store::Store;
use super::{Kind, refuse};
use crate::home;
use crate::journal;
use crate::networks::{self, Connection, Joining, Membership};
use anyhow::Context;
use isobench_runtime::network::{Endpoint, Mac, Namespace, Offload, Redirection, TapEndpoint, inside};
use isobench_runtime::{NetworkMode, Specification};
use isobench_workload::Resource;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

/// What a container has of networks. It is given back when the container has ended: first names and ports, then, when its links
/// have gone with its namespace, the addresses.
#[derive(Debug, Default)]
pub(super) struct Attachment {
    membership: Option<Membership>,
    endpoint: Option<Endpoint>,
    /// A virtual machine's place.
    tap: Option<TapEndpoint>,
    later: Vec<(NetworkPlace, Connection)>,
    places: Vec<NetworkPlace>,
}

impl Attachment {
    /// Takes what is asked for, and tells the specification.
    pub(super) fn make(request: &Request, name: &str, specification: &mut Specification) -> anyhow::Result<Self> {
        let mut attachment = Self::default();
        specification.network = match &request.network {
            Network::None => NetworkMode::None,
            Network::Host => NetworkMode::Host,
            Network::Container(other) => joined(request, name, other)?,
            Network::Named(network) => {
                let (joined, endpoint) = Self::join(network, request, name)?;
                attachment = joined;
                NetworkMode::Attached(endpoint)
            }
        };
        Ok(attachment)
    }

    /// Takes what is asked for of a network.
    pub(super) fn join(network: &str, request: &Request, name: &str) -> anyhow::Result<(Self, Endpoint)> {
        let network = networks::Store::open(&home::state()?)?.network(network)?;
        let (endpoint, mut membership) = network.endpoint(&joining(request, name))?;
        membership.publish(&request.ports)?;
        let places = vec![place(&membership, inside::INTERFACE_NAME)];
        Ok((Self { membership: Some(membership), places, ..Self::default() }, endpoint))
    }

    /// Takes what is asked for by a virtual machine, whose monitor is to have the tap.
    pub(super) fn make_tap(request: &Request, name: &str) -> anyhow::Result<(Self, Option<OwnedFd>)> {
        let mut attachment = Self::default();
        let Network::Named(network) = &request.network else { return Ok((attachment, None)) };
        let network = networks::Store::open(&home::state()?)?.network(network)?;
        let (tap, mut endpoint, mut membership) = network.tap(&joining(request, name), Offload::Segmentation)?;
        endpoint.hold(&tap)?;
        membership.publish(&request.ports)?;
        attachment.places.push(place(&membership, inside::INTERFACE_NAME));
        attachment.membership = Some(membership);
        attachment.tap = Some(endpoint);
        Ok((attachment, Some(tap.into())))
    }

    /// The name of the host's side of a virtual machine's link.
    pub(super) fn link(&self) -> Option<&str> {
        self.tap.as_ref().map(TapEndpoint::link)
    }

    /// A virtual machine's place.
    pub(super) fn tap(&self) -> Option<&TapEndpoint> {
        self.tap.as_ref()
    }

    /// Takes the endpoint back from whoever has attached it.
    pub(super) fn launched(mut self, endpoint: Option<Endpoint>) -> Self {
        self.endpoint = endpoint.or(self.endpoint);
        self
    }

    pub(super) fn places(&self) -> &[NetworkPlace] {
        &self.places
    }

    /// The ports of the host that lead here.
    pub(super) fn ports(&self) -> Vec<Redirection> {
        self.membership.iter().flat_map(|membership| membership.member().ports.clone()).collect()
    }

    /// The name server of the first of its networks that has one.
    pub(super) fn resolver(&self) -> Option<Ipv4Addr> {
        let first = self.membership.as_ref().and_then(|membership| membership.network().resolver());
        first.or_else(|| self.later.iter().find_map(|(_, connection)| connection.resolver()))
    }

    /// Gives the running container whose first process is `first` the place that it has [taken](take) in a further network.
    pub(super) fn connect(&mut self, first: i32, (endpoint, membership): (Endpoint, Membership)) -> anyhow::Result<()> {
        let first = Pid::from_raw(first).context("the container has no process")?;
        let pidfd = pidfd_open(first, PidfdFlags::empty()).context("hold the container's first process")?;
        let mut connection = Connection::make(endpoint, membership, &Namespace::of_pidfd(pidfd.as_fd())?)?;
        let interface = connection.interface().to_owned();
        let Some(membership) = connection.membership() else { return Ok(()) };
        let place = place(membership, &interface);
        self.places.push(place.clone());
        self.later.push((place, connection));
        Ok(())
    }

    /// Takes it from a network in which it has a place.
    pub(super) fn disconnect(&mut self, network: &str) -> anyhow::Result<()> {
        let Some(index) = self.places.iter().position(|place| place.network == network) else { return Ok(()) };
        let place = self.places.remove(index);
        match self.later.iter().position(|(later, _)| *later == place) {
            Some(index) => self.later.remove(index).1.disconnect(),
            None => {
                self.membership = None;
                match self.endpoint.take() {
                    Some(endpoint) => {
                        endpoint.disconnect()?;
                        give_back(endpoint)
                    }
                    None => Ok(()),
                }
            }
        }
    }

    /// Lets the container's new name lead to it.
    pub(super) fn rename(&mut self, name: &str) -> anyhow::Result<()> {
        let later = self.later.iter_mut().filter_map(|(_, connection)| connection.membership());
        self.membership.iter_mut().chain(later).try_for_each(|membership| membership.rename(name))
    }

    /// The container has ended: neither name nor port leads to it any more, and its networks can be removed.
    pub(super) fn close(&mut self) -> anyhow::Result<()> {
        self.membership = None;
        self.places.clear();
        self.endpoint.as_ref().map_or(Ok(()), Endpoint::retire)?;
        self.tap.as_ref().map_or(Ok(()), TapEndpoint::retire)?;
        self.later.iter_mut().try_for_each(|(_, connection)| connection.close())
    }

    /// Has a virtual machine's link gone, which takes half a millisecond, and gives its address back. What the kernel does about the
    /// link afterwards is not waited for.
    pub(super) fn release_tap(&mut self) -> anyhow::Result<()> {
        self.tap.take().map_or(Ok(()), give_back)
    }

    /// Gives the addresses of a container back, once the links have gone.
    pub(super) fn release(&mut self) -> anyhow::Result<()> {
        for (_, connection) in self.later.drain(..) {
            connection.disconnect()?;
        }
        self.endpoint.take().map_or(Ok(()), give_back)
    }
}

/// Takes what is asked for of a further network, for a container of this name. Where it does not come to be used, it is given back.
pub(super) fn take(further: &FurtherNetwork, name: &str) -> anyhow::Result<(Endpoint, Membership)> {
    let network = networks::Store::open(&home::state()?)?.network(&further.network)?;
    let (aliases, address) = (further.aliases.clone(), further.address);
    network.endpoint(&Joining { instance: name.to_owned(), aliases, address, mac: None })
}

fn joining(request: &Request, name: &str) -> Joining {
    Joining {
        instance: name.to_owned(),
        aliases: request.aliases.clone(),
        address: request.address,
        mac: request.mac.map(Mac),
    }
}

fn give_back(endpoint: impl Resource + 'static) -> anyhow::Result<()> {
    Box::new(endpoint).release().map(drop).map_err(|error| anyhow::anyhow!(error))
}

fn place(membership: &Membership, interface: &str) -> NetworkPlace {
    let (settings, member) = (membership.network().settings(), membership.member());
    NetworkPlace {
        network: settings.name.clone(),
        address: member.address,
        prefix: membership.network().bridge().settings().subnet.prefix(),
        gateway: (!settings.internal).then_some(settings.gateway),
        mac: member.mac.clone(),
        interface: interface.to_owned(),
    }
}

/// The network of another container, which must run.
fn joined(request: &Request, name: &str, other: &str) -> anyhow::Result<NetworkMode> {
    // A virtual machine's network is inside it, where nobody can join it.
    let other = Store::of(Kind::Container)?.find(other)?;
    if other.request.id == request.id {
        return refuse(format!("the container {name} cannot join its own network"));
    }
    if !other.state.status.is_alive() {
        return refuse(format!(
            "the network of the container {0} cannot be joined: it is {1}; start it with `isobench container start {0}`",
            other.name,
            other.state.status.name()
        ));
    }
    // Once it is open, the number in its path is seen to have been that container's all the time.
    match launching::network_of(other.state.pid())? {
        Some(network) if journal::alive(&other.state.process) == Some(true) => Ok(network),
        _ => refuse(format!("the network of the container {} cannot be joined: it has just ended", other.name)),
    }
}
