//! A place in a network: a container's, with a veth pair, or a virtual machine's, with a tap.

use super::inside::{self, Configuration, Interface, Ipv6};
use super::{
    BridgeNetwork, EmptyNamespace, Lease, Mac, Namespace, Netlink, NetworkError, PeerNamespace, Route, Tap, Veth,
};
use isobench_workload::{Aftermath, Released, Resource};
use rustix::fd::{AsFd, OwnedFd};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

/// What is asked of a place in a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointSettings {
    /// The address; the next free one where there is none.
    pub address: Option<Ipv4Addr>,
    /// The link-layer address; one made of the address where there is none.
    pub mac: Option<Mac>,
}

/// A container's place in a network: an address, and a veth pair once it is attached. Releasing it waits until the link
/// has gone with the container's namespace; only then can the address be leased again.
#[derive(Debug)]
pub struct Endpoint {
    network: BridgeNetwork,
    lease: Lease,
    mac: Mac,
    interface: Interface,
    configuration: Configuration,
    /// Name of the host's end of the veth pair.
    link: OnceLock<String>,
}

impl Endpoint {
    pub(crate) fn new(network: &BridgeNetwork, lease: Lease, mac: Option<Mac>) -> Self {
        let interface = network.interface(lease.address());
        Self {
            network: network.clone(),
            mac: mac.unwrap_or_else(|| Mac::of(lease.address())),
            lease,
            configuration: Configuration::new(&interface),
            interface,
            link: OnceLock::new(),
        }
    }

    /// The network.
    pub fn network(&self) -> &BridgeNetwork {
        &self.network
    }

    /// The container's IPv6 address, where the network has IPv6.
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        self.network.settings().ipv6_of(self.address())
    }

    /// The container's address.
    pub fn address(&self) -> Ipv4Addr {
        self.lease.address()
    }

    /// The container's link-layer address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// What the container's process has to send in its namespace once it is attached.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Name of the host's end of the veth pair, once it is attached.
    pub fn link(&self) -> Option<&str> {
        self.link.get().map(String::as_str)
    }

    /// Makes the veth pair: the host's end a port of the bridge and up, the container's end in its namespace.
    pub fn attach(&self, container: &PeerNamespace<'_>) -> Result<(), NetworkError> {
        self.make_veth(container, inside::INTERFACE_NAME, Some(inside::INTERFACE))
    }

    /// The same in a namespace where nobody is yet, and then all that is left to do: when this returns, the bridge carries
    /// packets to and from it.
    ///
    /// # Errors
    /// What the kernel refused, and [`NetworkError::Silent`] if no packet passes. A link that was made goes with the namespace.
    pub fn attach_ahead(&self, ahead: &EmptyNamespace) -> Result<(), NetworkError> {
        self.attach(&PeerNamespace::Descriptor(ahead.descriptor.as_fd()))?;
        let applied = self.configuration.apply_by(ahead.socket.as_fd());
        applied.map_err(|(step, errno)| NetworkError::system(step.name(), "in a network namespace", errno))?;
        self.await_carrier()
    }

    fn make_veth(
        &self,
        container: &PeerNamespace<'_>,
        peer_name: &str,
        peer_index: Option<u32>,
    ) -> Result<(), NetworkError> {
        let network = self.network.network();
        let name = network.with_free_name('v', &self.lease, |name| {
            let veth = Veth {
                name,
                mac: None,
                bridge: Some(network.bridge),
                hairpin: network.hairpin,
                peer_name,
                peer_mac: Some(self.mac),
                peer_index,
                segments: network.settings.segments,
            };
            let made = network.lock().create_veth_of(&veth, container, network.settings.mtu, Some(self.address()));
            made.map(|()| name.to_owned())
        })?;
        self.link.get_or_init(|| name);
        Ok(())
    }

    /// Gives a container that runs already another link, ready for use, and tells its name there: the first of `eth0`,
    /// `eth1` and so on that is free. A default route is added where there is none.
    ///
    /// # Errors
    /// What failed; the link is gone then.
    pub fn connect(&self, container: &Namespace) -> Result<String, NetworkError> {
        let mut inner = Netlink::open_in(container)?;
        let links = inner.links()?;
        let name = (0..).map(|number| format!("eth{number}")).find(|name| links.iter().all(|link| link.name != *name));
        let name = name.unwrap_or_else(|| inside::INTERFACE_NAME.into());
        let mut interface = self.interface;
        let has_default = |routes: &[Route], ipv4| {
            let is_default = |route: &&Route| route.prefix == 0 && route.table == Route::MAIN;
            routes.iter().filter(is_default).any(|route| route.destination.is_ipv4() == ipv4)
        };
        let routes = inner.routes()?;
        if has_default(&routes, true) {
            interface.gateway = None;
        }
        if let Ipv6::Address { gateway, .. } = &mut interface.ipv6
            && has_default(&routes, false)
        {
            *gateway = None;
        }
        self.make_veth(&container.into(), &name, None)?;
        let configured = inner.index(&name).and_then(|index| {
            let applied = container.enter(|| Configuration::later(index, &interface).apply())?;
            applied.map_err(|(step, errno)| NetworkError::system(step.name(), format!("({name})"), errno))?;
            self.await_carrier()
        });
        match configured {
            Ok(()) => Ok(name),
            Err(error) => {
                let _ = self.disconnect();
                Err(error)
            }
        }
    }

    /// The container has ended: what is left is to wait until its link has gone, and whoever takes the whole network away need
    /// not wait for that.
    pub fn retire(&self) -> Result<(), NetworkError> {
        self.lease.retire()
    }

    /// Deletes the link, in the container too.
    pub fn disconnect(&self) -> Result<(), NetworkError> {
        let Some(name) = self.link.get() else { return Ok(()) };
        let mut netlink = self.network.network().lock();
        // It may have gone with the container.
        netlink.link(name)?.map_or(Ok(()), |link| netlink.delete_link(link.index))
    }

    /// Waits until the bridge carries packets to and from the container, once its inside is configured.
    ///
    /// See [`Netlink::await_carrier`] for why that is not so at once.
    ///
    /// # Errors
    /// [`NetworkError::Silent`] if it never does.
    pub fn await_carrier(&self) -> Result<(), NetworkError> {
        let Some(name) = self.link.get() else { return Ok(()) };
        let network = self.network.network();
        // The bridge itself carries packets only since its first port does: its own worker may be late too.
        network.await_carrier(name).and_then(|()| network.await_carrier(&network.settings.bridge))
    }
}

impl Resource for Endpoint {
    fn describe(&self) -> String {
        let link = self.link.get().map(|name| format!(" and link {name}")).unwrap_or_default();
        format!("{}{link}", self.lease.describe())
    }

    /// A link goes with its namespace, but the kernel gives namespaces up in batches, one after the other and 20 to 40 ms each
    /// (`cleanup_net` in net/core/net_namespace.c), so that each of several waits for all before it. Deleted, the link is absent within
    /// a millisecond; but whoever deletes it waits for an RCU barrier, and that wait is the [`Aftermath`].
    fn release(self: Box<Self>) -> Released {
        let Some(name) = self.link.get() else { return Ok(None) };
        let network = self.network.network();
        let found = network.lock().link(name)?;
        let aftermath = found.map(|link| -> Result<_, NetworkError> {
            let mut netlink = Netlink::open_in(network.lock().namespace())?;
            // It may have gone with the namespace meanwhile.
            aside("link", move || drop(netlink.delete_link(link.index)))
                .map_err(NetworkError::io("start a thread that deletes link", name))
        });
        let aftermath = aftermath.transpose()?;
        network.await_departure(name)?;
        network.lock().forget_neighbour(network.bridge, self.address())?;
        Ok(aftermath)
    }
}

/// A virtual machine's place in a network: an address, which the guest is to be told, and a tap, which its monitor has.
/// Releasing it waits until the tap has gone with its last descriptor; only then can the address be leased again.
#[derive(Debug)]
pub struct TapEndpoint {
    network: BridgeNetwork,
    lease: Lease,
    mac: Mac,
    link: String,
    held: Option<OwnedFd>,
}

/// Stack of a thread that waits for the kernel.
const WAITING_STACK: usize = 64 << 10;

/// Has a thread of its own wait for what the kernel does after a link is absent.
fn aside(name: &str, wait: impl FnOnce() + Send + 'static) -> std::io::Result<Aftermath> {
    std::thread::Builder::new().name(name.into()).stack_size(WAITING_STACK).spawn(wait).map(Aftermath::of)
}

impl TapEndpoint {
    pub(crate) fn new(network: &BridgeNetwork, lease: Lease, mac: Option<Mac>, link: String) -> Self {
        let mac = mac.unwrap_or_else(|| Mac::of(lease.address()));
        Self { network: network.clone(), lease, mac, link, held: None }
    }

    /// The network.
    pub fn network(&self) -> &BridgeNetwork {
        &self.network
    }

    /// The guest's IPv6 address, where the network has IPv6.
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        self.network.settings().ipv6_of(self.address())
    }

    /// The guest's address.
    pub fn address(&self) -> Ipv4Addr {
        self.lease.address()
    }

    /// The guest's link-layer address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Keeps a copy of the tap's descriptor, so that the link goes when this is released, and not with the monitor.
    ///
    /// Whoever closes the last copy waits within close(2): the link is absent after half a millisecond, but then the kernel waits
    /// for an RCU barrier (`netdev_run_todo` in net/core/dev.c; 15 to 30 ms) until it gives the link's memory back. A monitor
    /// that does this as it ends cannot be reaped before. Released here, the link is waited for, and that wait is the
    /// [`Aftermath`].
    pub fn hold(&mut self, tap: &Tap) -> Result<(), NetworkError> {
        let copy = tap.as_fd().try_clone_to_owned();
        self.held = Some(copy.map_err(NetworkError::io("keep a descriptor of tap", &self.link))?);
        Ok(())
    }

    /// The monitor has ended: what is left is to wait until the tap has gone, and whoever takes the whole network away need not
    /// wait for that.
    pub fn retire(&self) -> Result<(), NetworkError> {
        self.lease.retire()
    }

    /// The tap's name on the host.
    pub fn link(&self) -> &str {
        &self.link
    }
}

impl Resource for TapEndpoint {
    fn describe(&self) -> String {
        format!("{} and tap {}", self.lease.describe(), self.link)
    }

    fn release(self: Box<Self>) -> Released {
        // This closes the last copy.
        let aftermath = self.held.map(|tap| aside("tap", || drop(tap)));
        self.network.network().await_departure(&self.link)?;
        Ok(aftermath.transpose()?)
    }
}
