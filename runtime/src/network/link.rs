//! Network links: bridges and veth pairs, and what there is to see of links, addresses and routes.
//!
//! Links are never moved or deleted one by one on the way: moving one into a namespace or deleting it waits for an RCU
//! barrier (15 to 28 ms were measured), while those that go with their namespace cost their user nothing.

use super::message::Which;
use super::netlink::Batch;
use super::{Mac, Namespace, Netlink, NetworkError, message, sysctl};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::process::Pid;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where the other end of a veth pair comes into being.
#[derive(Clone, Copy, Debug)]
pub enum PeerNamespace<'a> {
    /// In the network namespace of this descriptor.
    Descriptor(BorrowedFd<'a>),
    /// In that of this process, which must not be reaped yet.
    Process(Pid),
}

impl<'a> From<&'a Namespace> for PeerNamespace<'a> {
    fn from(namespace: &'a Namespace) -> Self {
        Self::Descriptor(namespace.as_fd())
    }
}

/// A veth pair ([veth(4)](https://man7.org/linux/man-pages/man4/veth.4.html)) to be made by one message. This end comes
/// up at once; the peer is down, as the kernel refuses to create it up.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// Name of this end.
    pub name: &'a str,
    /// Link-layer address of this end; random where there is none.
    pub mac: Option<Mac>,
    /// Index of the bridge of which this end is a port.
    pub bridge: Option<u32>,
    /// Whether the bridge may send back by this port what came by it.
    pub hairpin: bool,
    /// Name of the peer.
    pub peer_name: &'a str,
    /// Link-layer address of the peer; random where there is none.
    pub peer_mac: Option<Mac>,
    /// Index of the peer in its namespace; the kernel chooses where there is none.
    pub peer_index: Option<u32>,
    /// Bound on the segments that one packet may stand for at either end (`gso_max_segs`); 1 makes every packet as large as
    /// it would be on a wire.
    pub segments: Option<u32>,
}

/// A link as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its kind, such as `veth`; empty for a loopback link or a physical one.
    pub kind: String,
    /// Whether it is up.
    pub up: bool,
    /// Whether it carries packets: its operational state is *up*
    /// ([RFC 2863](https://www.rfc-editor.org/rfc/rfc2863), ifOperStatus).
    pub running: bool,
    /// Link-layer address; empty where it has none.
    pub mac: Vec<u8>,
    /// Index of the bridge of which it is a port.
    pub bridge: Option<u32>,
    /// Bound on the segments that one packet may stand for.
    pub segments: u32,
    /// Bound on the size of its packets, in bytes (its MTU).
    pub mtu: u32,
    /// Packets received. A packet that stands for many segments counts once.
    pub received_packets: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
}

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of the prefix that is reached directly.
    pub prefix: u8,
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The routing table; 254 is the main one, 255 that of local addresses.
    pub table: u32,
    /// The destination; all zeros with prefix 0 for a default route.
    pub destination: IpAddr,
    /// Prefix length of the destination.
    pub prefix: u8,
    /// The next hop, where it is not reached directly.
    pub gateway: Option<IpAddr>,
    /// Index of the link that it goes over.
    pub link: Option<u32>,
}

impl Route {
    /// `RT_TABLE_MAIN`.
    pub const MAIN: u32 = 254;
}

impl Netlink {
    /// Creates a bridge that is up and has no ports, and gives its index. Router advertisements are ignored on it: whoever
    /// is attached could otherwise become the machine's IPv6 router (CVE-2020-13401).
    pub fn create_bridge(&mut self, name: &str, mac: Mac) -> Result<u32, NetworkError> {
        check_name(name)?;
        self.request("create bridge", name, NLM_F_CREATE | NLM_F_EXCL, message::new_bridge(name, mac))?;
        let index = self.index(name)?;
        if sysctl::has_ipv6() {
            sysctl::write(self.namespace(), &format!("ipv6/conf/{name}/accept_ra"), "0")?;
        }
        self.bring_up(index)?;
        Ok(index)
    }

    /// Creates a veth pair by one message. This end gets no IPv6 address of its own making.
    pub fn create_veth(&mut self, veth: &Veth<'_>, peer: &PeerNamespace<'_>) -> Result<(), NetworkError> {
        self.create_veth_of(veth, peer, None, None)
    }

    /// The same with a bound on the packets that this end sends, and with an address for the peer's link-layer address, for which
    /// the bridge's host then need not ask: it sends the first packet to it at once.
    pub(crate) fn create_veth_of(
        &mut self,
        veth: &Veth<'_>,
        peer: &PeerNamespace<'_>,
        mtu: Option<u32>,
        address: Option<Ipv4Addr>,
    ) -> Result<(), NetworkError> {
        check_name(veth.name)?;
        check_name(veth.peer_name)?;
        let mut batch = Batch::new();
        batch.push(NLM_F_CREATE | NLM_F_EXCL, message::new_veth(veth, peer));
        if sysctl::has_ipv6() {
            // In time: this end has no carrier before the peer is up, and gets no address before that.
            batch.push(0, message::no_ipv6_address(Which::Name(veth.name)));
        }
        if let Some(mtu) = mtu {
            batch.push(0, message::limit_packets(Which::Name(veth.name), mtu));
        }
        if veth.hairpin {
            batch.push(0, message::hairpin(veth.name));
        }
        if let (Some(bridge), Some(mac), Some(address)) = (veth.bridge, veth.peer_mac, address) {
            // One that was killed may have left an entry for the address.
            batch.push(NLM_F_CREATE | NLM_F_REPLACE, message::new_neighbour(bridge, address, mac));
        }
        self.transact(batch).map_err(|(_, source)| NetworkError::system("create veth", veth.name, source))
    }

    /// Brings a link up, without an IPv6 address of its own making.
    pub fn bring_up(&mut self, index: u32) -> Result<(), NetworkError> {
        let mut batch = Batch::new();
        if sysctl::has_ipv6() {
            batch.push(0, message::no_ipv6_address(Which::Index(index)));
        }
        batch.push(0, message::up(index));
        let failed = |(_, source)| NetworkError::system("bring up link", index.to_string(), source);
        self.transact(batch).map_err(failed)
    }

    /// Makes a link a port of a bridge and brings it up.
    pub(crate) fn enslave(&mut self, index: u32, bridge: u32) -> Result<(), NetworkError> {
        let object = format!("link {index} to bridge {bridge}");
        let mut batch = Batch::new();
        if sysctl::has_ipv6() {
            batch.push(0, message::no_ipv6_address(Which::Index(index)));
        }
        batch.push(0, message::set_link(message::change(index).controller(bridge).up()));
        self.transact(batch).map_err(|(_, source)| NetworkError::system("attach", object, source))
    }

    /// Bounds the segments that one packet may stand for on its way out of a link (`gso_max_segs`).
    pub fn limit_segments(&mut self, index: u32, segments: u32) -> Result<(), NetworkError> {
        self.request("limit the segments of link", &index.to_string(), 0, message::limit_segments(index, segments))
    }

    /// Bounds the size of the packets on a link (its MTU).
    pub(crate) fn limit_packets(&mut self, link: Which<'_>, mtu: u32) -> Result<(), NetworkError> {
        self.request("set the MTU of link", &format!("{link:?} to {mtu}"), 0, message::limit_packets(link, mtu))
    }

    /// Gives a link an IPv6 address, which serves at once.
    pub fn add_address6(&mut self, index: u32, address: Ipv6Addr, prefix: u8) -> Result<(), NetworkError> {
        let object = format!("{address}/{prefix} to link {index}");
        let message = message::new_address6(index, address, prefix);
        self.request("add address", &object, NLM_F_CREATE | NLM_F_EXCL, message)
    }

    /// Gives a link an address.
    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> Result<(), NetworkError> {
        let object = format!("{address}/{prefix} to link {index}");
        let message = message::new_address(index, address, prefix);
        self.request("add address", &object, NLM_F_CREATE | NLM_F_EXCL, message)
    }

    /// Adds a route by a gateway; prefix 0 is the default route.
    pub fn add_route(&mut self, destination: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> Result<(), NetworkError> {
        let object = format!("to {destination}/{prefix} by {gateway}");
        let message = message::new_route(destination, prefix, gateway);
        self.request("add route", &object, NLM_F_CREATE | NLM_F_EXCL, message)
    }

    /// Adds a route of IPv6 by a gateway.
    pub fn add_route6(&mut self, destination: Ipv6Addr, prefix: u8, gateway: Ipv6Addr) -> Result<(), NetworkError> {
        let object = format!("to {destination}/{prefix} by {gateway}");
        let message = message::new_route6(destination, prefix, gateway);
        self.request("add route", &object, NLM_F_CREATE | NLM_F_EXCL, message)
    }

    /// Forgets the link-layer address of a neighbour, which is forgotten already where it is not known or its link has gone.
    pub(crate) fn forget_neighbour(&mut self, index: u32, address: Ipv4Addr) -> Result<(), NetworkError> {
        match self.request("forget neighbour", &address.to_string(), 0, message::delete_neighbour(index, address)) {
            Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::NODEV)) => Ok(()),
            result => result,
        }
    }

    /// Deletes a link. It waits for an RCU barrier: not for a path that is measured.
    pub fn delete_link(&mut self, index: u32) -> Result<(), NetworkError> {
        self.request("delete link", &index.to_string(), 0, message::delete_link(index))
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>, NetworkError> {
        let found = self.query("list", "links", NLM_F_DUMP, message::get_link(None))?;
        Ok(found.iter().filter_map(read_link).collect())
    }

    /// The link with this name, if there is one.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetworkError> {
        match self.query("look for link", name, NLM_F_ACK, message::get_link(Some(name))) {
            Ok(found) => Ok(found.iter().find_map(read_link)),
            Err(error) if error.errno() == Some(Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The index of the link with this name.
    pub fn index(&mut self, name: &str) -> Result<u32, NetworkError> {
        let link = self.link(name)?;
        link.map(|link| link.index).ok_or_else(|| NetworkError::system("look for link", name, Errno::NODEV))
    }

    /// All addresses.
    pub fn addresses(&mut self) -> Result<Vec<Address>, NetworkError> {
        let found = self.query("list", "addresses", NLM_F_DUMP, message::get_addresses())?;
        Ok(found.iter().filter_map(read_address).collect())
    }

    /// All routes of all tables, the kernel's own included.
    pub fn routes(&mut self) -> Result<Vec<Route>, NetworkError> {
        let found = self.query("list", "routes", NLM_F_DUMP, message::get_routes())?;
        Ok(found.iter().filter_map(read_route).collect())
    }
}

/// What the kernel would refuse as a name (`dev_valid_name` in net/core/dev.c), said better than `EINVAL`. A `%` would make
/// it choose a name of its own.
pub(crate) fn check_name(name: &str) -> Result<(), NetworkError> {
    let bad = |byte: u8| matches!(byte, b'/' | b':' | b'%') || byte.is_ascii_whitespace() || byte == 0;
    if (1..=15).contains(&name.len()) && !matches!(name, "." | "..") && !name.bytes().any(bad) {
        return Ok(());
    }
    Err(NetworkError::NoLinkName(name.into()))
}

fn read_link(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(LinkMessage { header, attributes, .. }) = message else { return None };
    let mut link = Link {
        index: header.index,
        name: String::new(),
        kind: String::new(),
        up: header.flags.contains(LinkFlags::Up),
        running: false,
        mac: Vec::new(),
        bridge: None,
        segments: 0,
        mtu: 0,
        received_packets: 0,
        received_bytes: 0,
        sent_packets: 0,
        sent_bytes: 0,
    };
    for attribute in attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac.clone_from(mac),
            LinkAttribute::OperState(state) => link.running = *state == State::Up,
            LinkAttribute::Controller(index) => link.bridge = Some(*index),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::GsoMaxSegs(segments) => link.segments = *segments,
            LinkAttribute::LinkInfo(information) => {
                let kind = information.iter().find_map(|item| match item {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                link.kind = kind.unwrap_or_default();
            }
            LinkAttribute::Stats64(statistics) => {
                link.received_packets = statistics.rx_packets;
                link.received_bytes = statistics.rx_bytes;
                link.sent_packets = statistics.tx_packets;
                link.sent_bytes = statistics.tx_bytes;
            }
            _ => {}
        }
    }
    Some(link)
}

fn read_address(message: &RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    // IFA_ADDRESS is the peer's on a point-to-point link, where IFA_LOCAL is ours; IPv6 often has no IFA_LOCAL.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    Some(Address { link: message.header.index, address: local.or(any)?, prefix: message.header.prefix_len })
}

fn read_route(message: &RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(RouteMessage { header, attributes, .. }) = message else { return None };
    let unspecified = match header.address_family {
        netlink_packet_route::AddressFamily::Inet => IpAddr::from([0_u8; 4]),
        netlink_packet_route::AddressFamily::Inet6 => IpAddr::from([0_u8; 16]),
        _ => return None,
    };
    let mut route = Route {
        table: header.table.into(),
        destination: unspecified,
        prefix: header.destination_prefix_length,
        gateway: None,
        link: None,
    };
    for attribute in attributes {
        match attribute {
            RouteAttribute::Destination(address) => route.destination = read_hop(address).unwrap_or(unspecified),
            RouteAttribute::Gateway(address) => route.gateway = read_hop(address),
            RouteAttribute::Oif(index) => route.link = Some(*index),
            RouteAttribute::Table(table) => route.table = *table,
            _ => {}
        }
    }
    Some(route)
}

fn read_hop(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        for name in ["eth0", "v123456789", "a", "fifteen-bytes-x"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a b", "a:b", "v%d", "sixteen-bytes-xy", "a\0"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
