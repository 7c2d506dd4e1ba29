//! Published ports: reserved for us first, so that nobody else can have them, and then led to where they are served.

use super::firewall::{Books, Firewall, State, Table, transact};
use super::lock_file::{Held, Sharing};
use super::nft::{self, Protocol, Redirection};
use super::{NetworkError, conntrack};
use isobench_workload::{Released, Resource};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

/// The lock of whoever is publishing or taking away what a dead process has left; behind those of the ports.
const CHANGING: u64 = 1 << 32;

impl Firewall {
    /// Publishes a port of this machine: whoever connects to it, on any of its addresses, is led to `target`.
    ///
    /// # Errors
    /// [`NetworkError::PortPublished`] or [`NetworkError::PortInUse`] if the port is taken; nothing is left behind.
    pub fn publish(&self, protocol: Protocol, port: u16, target: SocketAddrV4) -> Result<PublishedPort, NetworkError> {
        self.publish_all(vec![Redirection { protocol, host: None, port, target: target.into() }])
    }

    /// Publishes ports of this machine, all by one transaction.
    ///
    /// # Errors
    /// [`NetworkError::PortPublished`], [`NetworkError::PortInUse`] or [`NetworkError::NoHostAddress`] if one cannot be had;
    /// then none is, and nothing is left behind.
    pub fn publish_all(&self, ports: Vec<Redirection>) -> Result<PublishedPort, NetworkError> {
        self.reserve(ports)?.publish()
    }

    /// The first half of it: takes the ports for us, while nothing leads anywhere yet. A port with the number 0 gets a free
    /// one, the same for both families where two that stand side by side lead to the same port.
    ///
    /// # Errors
    /// As for [`Firewall::publish_all`].
    pub fn reserve(&self, mut ports: Vec<Redirection>) -> Result<Reservation, NetworkError> {
        let table = &self.0;
        let changing = table.begin_change()?;
        let state = table.lock();
        let reserved: Result<Vec<OwnedFd>, _> = state.netlink.namespace().enter(|| reserve_all(&mut ports))?;
        let sockets = reserved.map_err(|(port, errno)| table.refusal(&state, port, errno))?;
        let held = match &table.books {
            Books::Own { .. } => None,
            Books::Shared(file) => {
                let held = file.begin()?;
                for port in &ports {
                    held.take(offset(port), Sharing::Shared)?;
                }
                Some(held)
            }
        };
        drop(state);
        Ok(Reservation { firewall: self.clone(), ports, sockets, held, _changing: changing })
    }

    /// Takes away what a process that died has published; what somebody publishes now is left alone.
    pub fn forget(&self, ports: &[Redirection]) -> Result<(), NetworkError> {
        let Books::Shared(file) = &self.0.books else { return Ok(()) };
        let _changing = self.0.begin_change()?;
        let mut state = self.0.lock();
        let mut dead = Vec::new();
        for port in ports {
            // Where somebody publishes that number, it may be at another address.
            let mut own = vec![*port];
            let free =
                !file.is_held(offset(port))? || state.netlink.namespace().enter(|| reserve_all(&mut own).is_ok())?;
            dead.extend(free.then_some(*port));
        }
        self.0.delete_each(&mut state, &dead)
    }
}

impl Table {
    /// Until the result is dropped, no other process publishes a port or takes one away that a dead process has left.
    fn begin_change(&self) -> Result<Option<Held>, NetworkError> {
        let Books::Shared(file) = &self.books else { return Ok(None) };
        let held = file.begin()?;
        held.wait_for(CHANGING)?;
        Ok(Some(held))
    }

    /// Why a port cannot be had.
    fn refusal(&self, state: &State, port: Redirection, errno: Errno) -> NetworkError {
        let Redirection { protocol, host, port: number, .. } = port;
        let published = || match &self.books {
            Books::Own { .. } => state.published.iter().any(|other| offset(other) == offset(&port)),
            Books::Shared(file) => file.is_held(offset(&port)).unwrap_or(false),
        };
        match (errno, host) {
            (Errno::ADDRINUSE, _) if published() => NetworkError::PortPublished { protocol, port: number },
            (Errno::ADDRINUSE, _) => NetworkError::PortInUse { protocol, port: number },
            (Errno::ADDRNOTAVAIL, Some(host)) => NetworkError::NoHostAddress(host),
            _ => NetworkError::system("reserve", format!("{protocol} port {number}"), errno),
        }
    }

    /// Deletes those that are there, each by itself.
    fn delete_each(&self, state: &mut State, ports: &[Redirection]) -> Result<(), NetworkError> {
        for port in ports {
            let batch = nft::unpublish(&self.name, &[*port]);
            match transact(&mut state.netlink, "unpublish", &describe(&[*port]), batch) {
                Err(error) if error.errno() != Some(Errno::NOENT) => return Err(error),
                _ => {}
            }
        }
        let _ = conntrack::forget(&mut state.netlink, ports);
        Ok(())
    }
}

/// Where in the file the lock of a port is.
fn offset(port: &Redirection) -> u64 {
    u64::from(port.protocol.number()) << 16 | u64::from(port.port)
}

fn describe(ports: &[Redirection]) -> String {
    match ports {
        [one] => format!("{} port {}", one.protocol, one.port),
        _ => format!("{} ports", ports.len()),
    }
}

/// Reserves each of the ports, and fills in the numbers that the kernel has chosen.
fn reserve_all(ports: &mut [Redirection]) -> Result<Vec<OwnedFd>, (Redirection, Errno)> {
    let mut sockets = Vec::new();
    let mut chosen: Option<Redirection> = None;
    for port in ports {
        let asked = *port;
        if port.port == 0 {
            let same =
                |other: &Redirection| other.protocol == asked.protocol && other.target.port() == asked.target.port();
            port.port = chosen.filter(same).map_or(0, |other| other.port);
        }
        let socket = reserve(port).map_err(|errno| (*port, errno))?;
        if port.port == 0 {
            let address = rustix::net::getsockname(&socket).map_err(|errno| (*port, errno))?;
            port.port = SocketAddr::try_from(address).map_or(0, |address| address.port());
        }
        chosen = (asked.port == 0).then_some(*port);
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Takes a port on every address, so that no program of the machine's can believe that it serves it, and none that does
/// loses it to us. The socket is bound but does not listen: it is in no list of listeners and answers nobody.
///
/// Address reuse is on while it is bound, as connections that ended a moment ago are no obstacle, and off afterwards, as it
/// must not be shared ([socket(7)](https://man7.org/linux/man-pages/man7/socket.7.html), `SO_REUSEADDR`).
fn reserve(port: &Redirection) -> Result<OwnedFd, Errno> {
    let kind = match port.protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let six = port.target.is_ipv6();
    let any = if six { IpAddr::from(Ipv6Addr::UNSPECIFIED) } else { Ipv4Addr::UNSPECIFIED.into() };
    let family = if six { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if six {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if port.protocol == Protocol::Tcp {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &SocketAddr::new(port.host.unwrap_or(any), port.port))?;
    if port.protocol == Protocol::Tcp {
        sockopt::set_socket_reuseaddr(&socket, false)?;
    }
    Ok(socket)
}

/// Ports that are ours while nothing leads anywhere yet; they are given back when this is dropped.
#[derive(Debug)]
pub struct Reservation {
    firewall: Firewall,
    ports: Vec<Redirection>,
    sockets: Vec<OwnedFd>,
    held: Option<Held>,
    _changing: Option<Held>,
}

impl Reservation {
    /// The ports, each with its number.
    pub fn ports(&self) -> &[Redirection] {
        &self.ports
    }

    /// Leads whoever connects to them to their targets, from now on.
    pub fn publish(self) -> Result<PublishedPort, NetworkError> {
        let Self { firewall, ports, sockets, held, _changing } = self;
        let table = &firewall.0;
        let mut state = table.lock();
        let object = describe(&ports);
        match transact(&mut state.netlink, "publish", &object, nft::publish(&table.name, &ports)) {
            // The port is reserved, so what leads to it comes from a process that died.
            Err(error) if error.errno() == Some(Errno::EXIST) && held.is_some() => {
                table.delete_each(&mut state, &ports)?;
                transact(&mut state.netlink, "publish", &object, nft::publish(&table.name, &ports))?;
            }
            result => result?,
        }
        state.published.extend(&ports);
        drop(state);
        Ok(PublishedPort { firewall, ports, reservations: sockets, _held: held })
    }
}

/// A published port, or several, until this is released or dropped; connections by it are forgotten then.
#[derive(Debug)]
pub struct PublishedPort {
    firewall: Firewall,
    ports: Vec<Redirection>,
    /// The ports' sockets; empty once the ports are given back.
    reservations: Vec<OwnedFd>,
    _held: Option<Held>,
}

impl PublishedPort {
    /// The ports of this machine, each with where it leads.
    pub fn ports(&self) -> &[Redirection] {
        &self.ports
    }

    fn unpublish(&mut self) -> Result<(), NetworkError> {
        let reservations = std::mem::take(&mut self.reservations);
        if reservations.is_empty() {
            return Ok(());
        }
        let table = &self.firewall.0;
        let mut state = table.lock();
        state.published.retain(|port| !self.ports.contains(port));
        let result =
            transact(&mut state.netlink, "unpublish", &describe(&self.ports), nft::unpublish(&table.name, &self.ports));
        // Not every kernel tells of connections; what it keeps then goes by itself within the minute.
        let _ = conntrack::forget(&mut state.netlink, &self.ports);
        // Only now may somebody else have the port.
        drop(reservations);
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
        let each =
            self.ports.iter().map(|port| format!("published {} port {} to {}", port.protocol, port.port, port.target));
        each.collect::<Vec<_>>().join(", ")
    }

    fn release(mut self: Box<Self>) -> Released {
        self.unpublish()?;
        Ok(None)
    }
}
