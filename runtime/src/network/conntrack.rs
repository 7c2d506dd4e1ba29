//! The kernel's memory of connections, as far as it concerns published ports.
//!
//! Where a connection was led is kept longer than the connection: ten seconds after a reset, half a minute after a last datagram
//! ([nf_conntrack-sysctl](https://docs.kernel.org/networking/nf_conntrack-sysctl.html)). A client that comes from the same port
//! of its own meanwhile is led where the published port led before, to a container that is gone, and waits for seconds. So what
//! is kept of a port goes when the port is given back.

use super::NetworkError;
use super::netlink::{Batch, Netlink};
use super::nft::{Protocol, Redirection};
use netlink_packet_core::{NLA_F_NESTED, NLM_F_ACK, NLM_F_DUMP, NetlinkSerializable, Nla};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol as Number, Tuple,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use std::net::{IpAddr, SocketAddr};

/// So many entries are deleted at a time: the socket takes some hundred kilobytes.
const AT_ONCE: usize = 256;

/// `IPCTNL_MSG_CT_GET_STATS` and `CTA_STATS_GLOBAL_ENTRIES` of `linux/netfilter/nfnetlink_conntrack.h`.
const STATISTICS: u8 = 5;
const ENTRIES: u16 = 1;

/// `CTA_FILTER` of the same header: by which parts of the two tuples entries are picked, as flags for either
/// (`CTA_FILTER_ORIG_FLAGS`, `CTA_FILTER_REPLY_FLAGS`), which are those of net/netfilter/nf_internals.h.
const FILTER: u16 = 25;
/// Its header, and two attributes of 8 bytes.
const FILTER_LENGTH: usize = 20;
const BY_SOURCE_ADDRESS: u32 = 1 << 0;
const BY_DESTINATION_ADDRESS: u32 = 1 << 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_SOURCE_PORT: u32 = 1 << 4;
const BY_DESTINATION_PORT: u32 = 1 << 5;

/// Forgets every connection that was led by one of these ports to where it led. The socket is one for netfilter, and its
/// namespace is meant.
///
/// # Errors
/// Where the kernel does not tell what it keeps. An entry that has gone by itself meanwhile is none.
pub(super) fn forget(netlink: &mut Netlink, ports: &[Redirection]) -> Result<(), NetworkError> {
    if ports.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    ports.iter().for_each(|port| batch.push(0, all_led_by(port)));
    if netlink.transact(batch).is_ok() {
        return Ok(());
    }
    // A kernel before 6.12. Its dump walks the whole table and locks each list, empty or not: 10 ms for the 262,144 lists that a
    // machine of some size has.
    if remembered(netlink) == Some(0) {
        return Ok(());
    }
    for (family, version) in [(true, NetfilterProtoFamily::IPv4), (false, NetfilterProtoFamily::IPv6)] {
        if !ports.iter().any(|port| port.target.is_ipv4() == family) {
            continue;
        }
        let message = |conntrack| NetfilterMessage::new(NetfilterHeader::new(version, 0, 0), conntrack);
        let every = message(ConntrackMessage::Get(Vec::new()));
        let kept = netlink.query("list", "tracked connections", NLM_F_DUMP, every)?;
        let led: Vec<_> = kept.into_iter().filter_map(|entry| led_by(entry, ports)).collect();
        for some in led.chunks(AT_ONCE) {
            let mut batch = Batch::new();
            some.iter().for_each(|entry| batch.push(0, message(ConntrackMessage::Delete(vec![entry.clone()]))));
            // Each is deleted by itself, and one may have gone already.
            let _ = netlink.transact(batch);
        }
    }
    Ok(())
}

/// Forgets every connection of the calling thread's network namespace.
///
/// # Errors
/// Where the kernel tracks no connections, or the namespace is not ours to change.
pub fn forget_connections() -> Result<(), NetworkError> {
    let mut batch = Batch::new();
    // Without attributes the whole table is meant (ctnetlink_flush_conntrack).
    let every = ConntrackMessage::Delete(Vec::new());
    batch.push(0, NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0), every));
    let forgotten = Netlink::netfilter()?.transact(batch).map_err(|(_, errno)| errno);
    forgotten.map_err(|errno| NetworkError::system("forget", "tracked connections", errno))
}

/// The order to forget all that a port has led to its target, which the kernel picks itself.
fn all_led_by(port: &Redirection) -> Filtered {
    let number = ProtoTuple::Protocol(match port.protocol {
        Protocol::Tcp => Number::Tcp,
        Protocol::Udp => Number::Udp,
    });
    let mut asked = vec![Tuple::Proto(vec![number.clone(), ProtoTuple::DestinationPort(port.port)])];
    let mut asked_flags = BY_PROTOCOL | BY_DESTINATION_PORT;
    if let Some(host) = port.host {
        asked.push(Tuple::Ip(vec![IPTuple::DestinationAddress(host)]));
        asked_flags |= BY_DESTINATION_ADDRESS;
    }
    let answered = vec![
        Tuple::Ip(vec![IPTuple::SourceAddress(port.target.ip())]),
        Tuple::Proto(vec![number, ProtoTuple::SourcePort(port.target.port())]),
    ];
    let answered_flags = BY_PROTOCOL | BY_SOURCE_ADDRESS | BY_SOURCE_PORT;
    let mut filter = Vec::with_capacity(FILTER_LENGTH);
    let head = |length: usize, kind: u16| [(length as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
    filter.extend(head(FILTER_LENGTH, FILTER | NLA_F_NESTED));
    for (kind, flags) in [(1, asked_flags), (2, answered_flags)] {
        filter.extend(head(8, kind));
        filter.extend(flags.to_ne_bytes());
    }
    let attributes = vec![ConntrackAttribute::CtaTupleOrig(asked), ConntrackAttribute::CtaTupleReply(answered)];
    let version = if port.target.is_ipv4() { NetfilterProtoFamily::IPv4 } else { NetfilterProtoFamily::IPv6 };
    // By version 0 the family would not count (ctnetlink_del_conntrack).
    let header = NetfilterHeader::new(version, 1, 0);
    Filtered { message: NetfilterMessage::new(header, ConntrackMessage::Delete(attributes)), filter }
}

/// A message with a filter at its end, an attribute that its crate does not have.
struct Filtered {
    message: NetfilterMessage,
    filter: Vec<u8>,
}

impl NetlinkSerializable for Filtered {
    fn message_type(&self) -> u16 {
        self.message.message_type()
    }

    fn buffer_len(&self) -> usize {
        NetlinkSerializable::buffer_len(&self.message) + self.filter.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (message, filter) = buffer.split_at_mut(NetlinkSerializable::buffer_len(&self.message));
        NetlinkSerializable::serialize(&self.message, message);
        filter.copy_from_slice(&self.filter);
    }
}

/// How many connections of all are remembered; `None` where the kernel does not tell.
fn remembered(netlink: &mut Netlink) -> Option<u32> {
    let asked = ConntrackMessage::Other { message_type: STATISTICS, attributes: Vec::new() };
    let asked = NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0), asked);
    let answers = netlink.query("count", "tracked connections", NLM_F_ACK, asked).ok()?;
    let attributes = answers.into_iter().find_map(|answer| match answer.inner {
        NetfilterMessageInner::Conntrack(ConntrackMessage::Other { message_type: STATISTICS, attributes }) => {
            Some(attributes)
        }
        _ => None,
    })?;
    let entries = attributes.iter().find(|attribute| attribute.kind() == ENTRIES && attribute.value_len() == 4)?;
    let mut number = [0; 4];
    entries.emit_value(&mut number);
    Some(u32::from_be_bytes(number))
}

/// By what an entry is known, if it is of a connection that one of these ports has led to its target.
fn led_by(entry: NetfilterMessage, ports: &[Redirection]) -> Option<ConntrackAttribute> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = entry.inner else { return None };
    let tuple = |wanted: fn(&ConntrackAttribute) -> Option<&Vec<Tuple>>| attributes.iter().find_map(wanted);
    let asked = tuple(|attribute| match attribute {
        ConntrackAttribute::CtaTupleOrig(tuple) => Some(tuple),
        _ => None,
    })?;
    let answered = tuple(|attribute| match attribute {
        ConntrackAttribute::CtaTupleReply(tuple) => Some(tuple),
        _ => None,
    })?;
    let led = ports.iter().any(|port| {
        let protocol = match port.protocol {
            Protocol::Tcp => Number::Tcp,
            Protocol::Udp => Number::Udp,
        };
        let by = addresses(asked, false);
        is_of(asked, protocol)
            && by.is_some_and(|by| by.port() == port.port && port.host.is_none_or(|host| host == by.ip()))
            && addresses(answered, true) == Some(port.target)
    });
    led.then(|| ConntrackAttribute::CtaTupleOrig(asked.clone()))
}

fn is_of(tuple: &[Tuple], protocol: Number) -> bool {
    let protocols = tuple.iter().filter_map(|part| match part {
        Tuple::Proto(parts) => Some(parts),
        _ => None,
    });
    protocols.flatten().any(|part| *part == ProtoTuple::Protocol(protocol))
}

/// The source, or the destination, of a direction.
fn addresses(tuple: &[Tuple], source: bool) -> Option<SocketAddr> {
    let (mut address, mut port): (Option<IpAddr>, Option<u16>) = (None, None);
    for part in tuple {
        match part {
            Tuple::Ip(parts) => parts.iter().for_each(|part| match part {
                IPTuple::SourceAddress(found) if source => address = Some(*found),
                IPTuple::DestinationAddress(found) if !source => address = Some(*found),
                _ => {}
            }),
            Tuple::Proto(parts) => parts.iter().for_each(|part| match part {
                ProtoTuple::SourcePort(found) if source => port = Some(*found),
                ProtoTuple::DestinationPort(found) if !source => port = Some(*found),
                _ => {}
            }),
            _ => {}
        }
    }
    Some(SocketAddr::new(address?, port?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direction(from: (&str, u16), to: (&str, u16), protocol: Number) -> Vec<Tuple> {
        let [source, destination] = [from.0, to.0].map(|text| text.parse().unwrap());
        vec![
            Tuple::Ip(vec![IPTuple::SourceAddress(source), IPTuple::DestinationAddress(destination)]),
            Tuple::Proto(vec![
                ProtoTuple::Protocol(protocol),
                ProtoTuple::SourcePort(from.1),
                ProtoTuple::DestinationPort(to.1),
            ]),
        ]
    }

    #[test]
    fn an_entry_is_known_by_port_and_target() {
        let client = ("198.51.100.2", 40_000);
        let entry = |asked: (&str, u16), answered: (&str, u16), protocol: Number| {
            let attributes = vec![
                ConntrackAttribute::CtaTupleOrig(direction(client, asked, protocol)),
                ConntrackAttribute::CtaTupleReply(direction(answered, client, protocol)),
            ];
            let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
            NetfilterMessage::new(header, ConntrackMessage::New(attributes))
        };
        let port = |host: Option<&str>| Redirection {
            protocol: Protocol::Tcp,
            host: host.map(|text| text.parse().unwrap()),
            port: 8000,
            target: "172.17.0.2:7000".parse().unwrap(),
        };
        let (host, inside) = (("198.51.100.1", 8000), ("172.17.0.2", 7000));
        let led = |entry: NetfilterMessage, host| led_by(entry, &[port(host)]).is_some();
        assert!(led(entry(host, inside, Number::Tcp), None));
        assert!(led(entry(host, inside, Number::Tcp), Some("198.51.100.1")));
        assert!(!led(entry(host, inside, Number::Tcp), Some("127.0.0.1")), "at another address of the host");
        assert!(!led(entry(host, inside, Number::Udp), None), "another protocol");
        assert!(!led(entry(("198.51.100.1", 8001), inside, Number::Tcp), None), "another port");
        assert!(!led(entry(host, ("172.17.0.3", 7000), Number::Tcp), None), "somebody else has the port by now");
        assert!(!led(entry(inside, inside, Number::Tcp), None), "it went there directly");
    }
}
