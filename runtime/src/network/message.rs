//! Every route-netlink message that we send, built by the crate rtnetlink's builders. They only build: no connection of
//! rtnetlink's is ever opened and no event loop started.

use super::{Mac, PeerNamespace, Veth};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVeth, LinkAttribute, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteMessage, RouteType};
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};
use rustix::fd::AsRawFd;
use std::net::{Ipv4Addr, Ipv6Addr};

/// How a link is found. A name serves where the link is made by the same batch, so that its index is not known yet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which<'a> {
    Index(u32),
    Name(&'a str),
}

/// A new bridge, down. Its link-layer address is given, else it would change with its ports; it keeps no multicast state,
/// else it would send queries of its own.
pub(crate) fn new_bridge(name: &str, mac: Mac) -> Message {
    Message::NewLink(LinkMessageBuilder::<LinkBridge>::new(name).address(mac.0.into()).mcast_snooping(false).build())
}

/// A new veth pair. This end is up and a port of the bridge if there is one; the peer comes into being in its namespace,
/// with its name, address and index. It is down: the kernel refuses to create it up before its other end exists.
pub(crate) fn new_veth(veth: &Veth<'_>, namespace: &PeerNamespace<'_>) -> Message {
    let mut peer = LinkMessageBuilder::<LinkUnspec>::new().name(veth.peer_name);
    if let Some(index) = veth.peer_index {
        peer = peer.index(index);
    }
    if let Some(mac) = veth.peer_mac {
        peer = peer.address(mac.0.into());
    }
    peer = match namespace {
        PeerNamespace::Descriptor(descriptor) => peer.setns_by_fd(descriptor.as_raw_fd()),
        PeerNamespace::Process(process) => peer.setns_by_pid(process.as_raw_nonzero().get().unsigned_abs()),
    };
    let mut link = LinkMessageBuilder::<LinkVeth>::new(veth.name, veth.peer_name).up();
    if let Some(bridge) = veth.bridge {
        link = link.controller(bridge);
    }
    if let Some(mac) = veth.mac {
        link = link.address(mac.0.into());
    }
    if let Some(segments) = veth.segments {
        link = link.append_extra_attribute(LinkAttribute::GsoMaxSegs(segments));
        peer = peer.append_extra_attribute(LinkAttribute::GsoMaxSegs(segments));
    }
    // By default both ends get a queue for each CPU, of which all but one are then given up: two grace periods of RCU
    // (veth_init_queues in drivers/net/veth.c). Asked for, the one queue is there at once.
    for queues in [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)] {
        link = link.append_extra_attribute(queues.clone());
        peer = peer.append_extra_attribute(queues);
    }
    Message::NewLink(link.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build()))).build())
}

/// Changes a link, found by its index.
pub(crate) fn change(index: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index)
}

/// Sends the change.
pub(crate) fn set_link(change: LinkMessageBuilder<LinkUnspec>) -> Message {
    Message::SetLink(change.build())
}

/// Brings a link up.
pub(crate) fn up(index: u32) -> Message {
    set_link(change(index).up())
}

/// Bounds the segments that one packet may stand for on its way to the link.
pub(crate) fn limit_segments(index: u32, segments: u32) -> Message {
    set_link(change(index).append_extra_attribute(LinkAttribute::GsoMaxSegs(segments)))
}

/// Gives the link no IPv6 address when it comes up, hence no duplicate address detection, no router solicitation and no
/// group reports: nothing that we did not ask for is on the wire.
pub(crate) fn no_ipv6_address(which: Which<'_>) -> Message {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    set_link(of(which).append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])))
}

/// Bounds the size of the packets on a link (its MTU).
pub(crate) fn limit_packets(which: Which<'_>, mtu: u32) -> Message {
    set_link(of(which).mtu(mtu))
}

fn of(which: Which<'_>) -> LinkMessageBuilder<LinkUnspec> {
    match which {
        Which::Index(index) => change(index),
        Which::Name(name) => LinkUnspec::new_with_name(name),
    }
}

/// Lets a port of a bridge send back what came by it. The kernel looks at a port's settings in
/// `RTM_NEWLINK` only.
pub(crate) fn hairpin(name: &str) -> Message {
    Message::NewLink(LinkBridgePort::new(0).name(name).hairpin(true).build())
}

/// Deletes a link.
pub(crate) fn delete_link(index: u32) -> Message {
    Message::DelLink(change(index).build())
}

/// Adds an address.
pub(crate) fn new_address(index: u32, address: Ipv4Addr, prefix: u8) -> Message {
    Message::NewAddress(AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, prefix).build())
}

/// Adds an IPv6 address that serves at once: nobody else can have it, so it is not looked for first.
pub(crate) fn new_address6(index: u32, address: Ipv6Addr, prefix: u8) -> Message {
    let mut message = AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(address, prefix).build();
    message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    message.header.flags |= AddressHeaderFlags::Nodad;
    Message::NewAddress(message)
}

/// Makes an IPv6 address this machine's own at once. The kernel does so too, but by a worker (`addrconf_dad_work` in
/// net/ipv6/addrconf.c); until it has, the answer to the first question for a neighbour is dropped, which costs a second.
pub(crate) fn new_local_route6(index: u32, address: Ipv6Addr) -> Message {
    // RT_TABLE_LOCAL
    const LOCAL_TABLE: u8 = 255;
    let route = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).output_interface(index);
    let mut message = route.build();
    message.header.kind = RouteType::Local;
    message.header.table = LOCAL_TABLE;
    Message::NewRoute(message)
}

/// Adds the default route of IPv6 by a gateway on this link.
pub(crate) fn new_default_route6(index: u32, gateway: Ipv6Addr) -> Message {
    let route = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(Ipv6Addr::UNSPECIFIED, 0);
    Message::NewRoute(route.gateway(gateway).output_interface(index).build())
}

/// Adds a route of IPv6 by a gateway.
pub(crate) fn new_route6(destination: Ipv6Addr, prefix: u8, gateway: Ipv6Addr) -> Message {
    let route = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(destination, prefix);
    Message::NewRoute(route.gateway(gateway).build())
}

/// Tells the link-layer address of a neighbour, which then need not be asked for. As one learned elsewhere (`NTF_EXT_LEARNED`,
/// include/uapi/linux/neighbour.h) it does not count towards `net.ipv4.neigh.default.gc_thresh3`, which is one bound for the
/// neighbours of all namespaces together: the gateways of 512 containers would take half of it. It ages as any other, and stays
/// until it is forgotten.
pub(crate) fn new_neighbour(index: u32, address: Ipv4Addr, mac: Mac) -> Message {
    let mut message = neighbour(index, address);
    message.header.state = NeighbourState::Reachable;
    message.header.flags = NeighbourFlags::ExtLearned;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    Message::NewNeighbour(message)
}

/// Forgets a neighbour.
pub(crate) fn delete_neighbour(index: u32, address: Ipv4Addr) -> Message {
    Message::DelNeighbour(neighbour(index, address))
}

fn neighbour(index: u32, address: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
    message
}

/// Adds a route by a gateway; prefix 0 makes it the default route.
pub(crate) fn new_route(destination: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> Message {
    Message::NewRoute(
        RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(destination, prefix).gateway(gateway).build(),
    )
}

/// Asks for one link by name, or for all of them, with statistics.
pub(crate) fn get_link(name: Option<&str>) -> Message {
    Message::GetLink(name.map_or_else(LinkMessage::default, |name| LinkUnspec::new_with_name(name).build()))
}

/// Asks for all addresses of all families.
pub(crate) fn get_addresses() -> Message {
    Message::GetAddress(AddressMessage::default())
}

/// Asks for all routes of all families and tables.
pub(crate) fn get_routes() -> Message {
    Message::GetRoute(RouteMessage::default())
}
