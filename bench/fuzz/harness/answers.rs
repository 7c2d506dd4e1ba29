//! What a netlink socket gives.

use super::{Input, damage};
use isobench_runtime::network::netlink::{Answer, Answers};
use netlink_packet_core::{NetlinkDeserializable, NetlinkMessage};
use netlink_packet_netfilter::NetfilterMessage;
use netlink_packet_route::RouteNetlinkMessage;

/// Types of messages: an error, the end of a dump, a link, an address, a route, a neighbour, a tracked connection, a set element.
const TYPES: [u16; 8] = [2, 3, 16, 20, 24, 28, 0x0100, 0x0a0c];

/// Any bytes as a datagram: as they are, or as messages whose lengths are right. Each is whole, and is understood or not.
pub fn answers(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let datagram = if input.bool() { composed(&mut input) } else { input.bytes(usize::MAX) };
    let mut rest = datagram.len();
    for (_, answer) in Answers::new(&datagram) {
        assert!(rest >= 16, "an answer was read beyond the datagram");
        rest -= 16;
        if let Answer::Message(message, _) = answer {
            rest = rest.checked_sub(message.len() - 16).expect("answers overlap");
            understand::<RouteNetlinkMessage>(message);
            understand::<NetfilterMessage>(message);
        }
    }
}

fn understand<M: NetlinkDeserializable>(message: &[u8]) {
    let _ = NetlinkMessage::<M>::deserialize(message);
}

fn composed(input: &mut Input<'_>) -> Vec<u8> {
    let mut datagram = Vec::new();
    for _ in 0..=input.below(6) {
        let begin = datagram.len();
        datagram.extend(0_u32.to_ne_bytes());
        datagram.extend(TYPES[input.below(TYPES.len())].to_ne_bytes());
        datagram.extend(input.half().to_ne_bytes());
        datagram.extend(input.word().to_ne_bytes());
        datagram.extend(0_u32.to_ne_bytes());
        // The header of any family, then attributes.
        let header = [4, 16, 12][input.below(3)];
        datagram.extend(input.bytes(header));
        for _ in 0..input.below(8) {
            let (kind, length) = (input.byte() % 64, input.below(40));
            let value = input.bytes(length);
            datagram.extend((value.len() as u16 + 4).to_ne_bytes());
            datagram.extend(u16::from(kind).to_ne_bytes());
            datagram.extend(&value);
            datagram.resize(datagram.len().next_multiple_of(4), 0);
        }
        let length = (datagram.len() - begin) as u32;
        datagram[begin..begin + 4].copy_from_slice(&length.to_ne_bytes());
        datagram.resize(datagram.len().next_multiple_of(4), 0);
    }
    damage(&mut datagram, input);
    datagram
}
