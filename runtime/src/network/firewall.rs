//! One nftables table of ours: address translation, isolation and published ports.

use super::netlink::Batch;
use super::nft::{self, Protocol};
use super::sysctl::Changed;
use super::{Namespace, Netlink, NetworkError, Subnet};
use isobench_workload::Resource;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The table, and the forwarding of packets between links; both go when this and everything that was added by it is dropped. If the process
/// dies, the kernel takes the table.
#[derive(Clone, Debug)]
pub struct Firewall(Arc<Table>);

#[derive(Debug)]
struct Table {
    name: String,
    state: Mutex<State>,
    _forwarding: Changed,
}

#[derive(Debug)]
struct State {
    /// Kept open for the table's whole life: it owns the table.
    netlink: Netlink,
    published: BTreeSet<(Protocol, u16)>,
}

impl Firewall {
    /// Creates the table in the calling thread's network namespace, without networks and ports.
    ///
    /// # Errors
    /// If there is one of that name, or the kernel lacks nftables.
    pub fn create(table: &str) -> Result<Self, NetworkError> {
        let mut netlink = Netlink::netfilter()?;
        transact(&mut netlink, "create nftables table", table, nft::ruleset(table))?;
        // Only once the rules are there: nothing is ever forwarded without them.
        let forwarding = Changed::new(Namespace::current()?, "ipv4/ip_forward", "1")?;
        let state = Mutex::new(State { netlink, published: BTreeSet::new() });
        Ok(Self(Arc::new(Table { name: table.into(), state, _forwarding: forwarding })))
    }

    /// Creates the table in another namespace.
    pub fn create_in(namespace: &Namespace, table: &str) -> Result<Self, NetworkError> {
        namespace.enter(|| Self::create(table))?
    }

    /// The namespace in which it works.
    pub fn namespace(&self) -> Result<Namespace, NetworkError> {
        self.0.lock().netlink.namespace().duplicate()
    }

    /// Admits a network by its bridge: nothing reaches it but answers and what is published, and where it is `masked` its
    /// addresses are not seen outside.
    pub fn admit(&self, bridge: &str, subnet: Subnet, masked: bool) -> Result<Admission, NetworkError> {
        super::link::check_name(bridge)?;
        let mut state = self.0.lock();
        let batch = nft::network(&self.0.name, bridge, subnet, masked, true);
        transact(&mut state.netlink, "admit network", bridge, batch)?;
        Ok(Admission { firewall: self.clone(), bridge: bridge.into(), subnet, masked })
    }

    /// Publishes a port of this machine: whoever connects to it, on any of its addresses, is led to `target`.
    ///
    /// # Errors
    /// [`NetworkError::PortPublished`] or [`NetworkError::PortInUse`] if the port is taken; nothing is left behind.
    pub fn publish(&self, protocol: Protocol, port: u16, target: SocketAddrV4) -> Result<PublishedPort, NetworkError> {
        let mut state = self.0.lock();
        if state.published.contains(&(protocol, port)) {
            return Err(NetworkError::PortPublished { protocol, port });
        }
        let reservation = state.netlink.namespace().enter(|| reserve(protocol, port))?;
        let reservation = reservation.map_err(|errno| match errno {
            Errno::ADDRINUSE => NetworkError::PortInUse { protocol, port },
            errno => NetworkError::system("reserve", format!("{protocol} port {port}"), errno),
        })?;
        let batch = nft::publish(&self.0.name, protocol, port, target);
        transact(&mut state.netlink, "publish", &format!("{protocol} port {port}"), batch)?;
        state.published.insert((protocol, port));
        drop(state);
        Ok(PublishedPort { firewall: self.clone(), protocol, port, target, reservation: Some(reservation) })
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The kernel holds the truth; a panic elsewhere leaves nothing half done here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn transact(netlink: &mut Netlink, operation: &'static str, object: &str, batch: Batch) -> Result<(), NetworkError> {
    // The end mark is not acknowledged; the message before it is.
    let last = batch.count() - 1;
    netlink.exchange(batch.as_bytes(), last).map_err(|(_, errno)| NetworkError::system(operation, object, errno))
}

/// Takes a port on every address, so that no program of the machine's can believe that it serves it, and none that does
/// loses it to us. The socket is bound but does not listen: it is in no list of listeners and answers nobody.
///
/// Address reuse is on while it is bound, as connections that ended a moment ago are no obstacle, and off afterwards, as it
/// must not be shared ([socket(7)](https://man7.org/linux/man-pages/man7/socket.7.html), `SO_REUSEADDR`).
fn reserve(protocol: Protocol, port: u16) -> Result<OwnedFd, Errno> {
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
    if protocol == Protocol::Tcp {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
    if protocol == Protocol::Tcp {
        sockopt::set_socket_reuseaddr(&socket, false)?;
    }
    Ok(socket)
}

/// A network in the table's sets, until this is dropped.
#[derive(Debug)]
pub struct Admission {
    firewall: Firewall,
    bridge: String,
    subnet: Subnet,
    masked: bool,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let table = &self.firewall.0;
        let batch = nft::network(&table.name, &self.bridge, self.subnet, self.masked, false);
        let _ = transact(&mut table.lock().netlink, "dismiss network", &self.bridge, batch);
    }
}

/// A published port, until this is released or dropped. Connections that exist go on.
#[derive(Debug)]
pub struct PublishedPort {
    firewall: Firewall,
    protocol: Protocol,
    port: u16,
    target: SocketAddrV4,
    /// The port's socket; `None` once the port is given back.
    reservation: Option<OwnedFd>,
}

impl PublishedPort {
    /// The port of this machine.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it leads.
    pub fn target(&self) -> SocketAddrV4 {
        self.target
    }

    fn unpublish(&mut self) -> Result<(), NetworkError> {
        let Some(reservation) = self.reservation.take() else { return Ok(()) };
        let table = &self.firewall.0;
        let mut state = table.lock();
        state.published.remove(&(self.protocol, self.port));
        let batch = nft::unpublish(&table.name, self.protocol, self.port);
        let object = format!("{} port {}", self.protocol, self.port);
        let result = transact(&mut state.netlink, "unpublish", &object, batch);
        // Only now may somebody else have the port.
        drop(reservation);
        result
    }
}

impl Drop for PublishedPort {
    fn drop(&mut self) {
        let _ = self.unpublish();
    }
}

impl Resource for PublishedPort {
    fn describe(&self) -> String {
        format!("published {} port {} to {}", self.protocol, self.port, self.target)
    }

    fn release(mut self: Box<Self>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.unpublish()?)
    }
}
