//! The nftables ruleset, as messages ([nftables(8)](https://www.netfilter.org/projects/nftables/manpage.html); numbers from
//! include/uapi/linux/netfilter/nf_tables.h). Everything here is pure; [`super::firewall`] sends it. How rules are written is
//! [`super::expression`]'s, how messages are is [`super::transaction`]'s.
//!
//! In nft's own language it is, for IPv4 and, where a network has IPv6, with `ip6` for that too:
//! ```text
//! table ip NAME {
//!     flags owner                                     # where one process alone has it
//!     set networks { type ifname }                    # our bridges
//!     set within { type ifname . ifname }             # each of them with itself
//!     set closed { type ifname }                      # those without a way out
//!     set masked { type ifname }                      # those whose addresses must not be seen outside
//!     set subnets { type ipv4_addr; flags interval }  # theirs
//!     map published { type inet_proto . inet_service : ipv4_addr . inet_service }
//!     map published_at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
//!
//!     chain guard {       # what route_localnet (below) would let in: CVE-2020-8558
//!         type filter hook prerouting priority raw
//!         iifname @networks ip daddr 127.0.0.0/8 drop
//!     }
//!     chain published_in {                            # and published_out, the same for the output hook
//!         type nat hook prerouting priority dstnat
//!         fib daddr type local dnat to PORT map @published_at     # at one address of this machine
//!         fib daddr type local dnat to PORT map @published        # at all of them
//!     }
//!     chain isolation {
//!         type filter hook forward priority filter
//!         ct state established,related accept
//!         iifname . oifname @within accept            # bridged packets pass here where br_netfilter is on
//!         iifname @closed drop                        # no way out, nor to what another network publishes
//!         ct status dnat accept                       # published
//!         oifname @networks drop                      # from outside, or from another network
//!     }
//!     chain masquerade_out {
//!         type nat hook postrouting priority srcnat
//!         iifname @masked oifname != @networks masquerade
//!         ip saddr @subnets oifname @networks ct status dnat masquerade   # to one's own published port (hairpin)
//!         ip saddr 127.0.0.0/8 oifname @networks masquerade               # to a published port by 127.0.0.1
//!     }
//! }
//! ```
//! The rules never change: a network is an element in each set that concerns it, a published port one in a map. What concerns
//! 127.0.0.1 is left out for IPv6: the kernel never routes to or from `::1` over another link.

use super::expression::{
    CT_STATE, CT_STATUS, Expression, destined_to_this_machine, lookup, loopback, masquerade, meta, payload, tracked,
    translated, verdict,
};
use super::netlink::Batch;
use super::transaction::{Transaction, octets};
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{InetHookNumber, MetaKey, Register};
use std::net::{IpAddr, SocketAddr};

/// A transport protocol whose ports can be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The number in the IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// A version of the Internet Protocol: each has a table of its own, since neither knows the other's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Four,
    Six,
}

impl Family {
    const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Four } else { Self::Six }
    }

    /// Bytes of an address.
    pub(super) const fn address_length(self) -> u32 {
        match self {
            Self::Four => 4,
            Self::Six => 16,
        }
    }

    /// nft's number for the type of its addresses, `ipv4_addr` or `ipv6_addr`.
    pub(super) const fn address_type(self) -> u32 {
        match self {
            Self::Four => 7,
            Self::Six => 8,
        }
    }

    /// Loads the source or destination address of a packet.
    pub(super) fn address(self, destination: bool) -> Expression {
        let source = match self {
            Self::Four => 12,
            Self::Six => 8,
        };
        let offset = if destination { source + self.address_length() } else { source };
        payload(1, offset, self.address_length(), Register::Reg1)
    }

    pub(super) fn header(self) -> NetfilterProtoFamily {
        match self {
            Self::Four => NetfilterProtoFamily::IPv4,
            Self::Six => NetfilterProtoFamily::IPv6,
        }
    }
}

/// A network as the firewall sees it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// The bridge's name.
    pub(crate) bridge: String,
    /// First and last address of each of its subnets.
    pub(crate) subnets: Vec<(IpAddr, IpAddr)>,
    /// Whether its addresses must not be seen outside.
    pub(crate) masked: bool,
    /// Whether it has no way out.
    pub(crate) closed: bool,
}

/// A port of this machine and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Redirection {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The address of this machine at which it is, else at all of the target's family.
    pub host: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// Where it leads.
    pub target: SocketAddr,
}

const NETWORKS: &str = "networks";
const WITHIN: &str = "within";
const CLOSED: &str = "closed";
const MASKED: &str = "masked";
const SUBNETS: &str = "subnets";
pub(super) const PUBLISHED: &str = "published";
pub(super) const PUBLISHED_AT: &str = "published_at";

/// Bytes of an interface name in a register (`IFNAMSIZ`).
const NAME: usize = 16;

/// The whole ruleset of these families, without networks and ports. A table that is `owned` goes with the socket that sends
/// this.
pub(crate) fn ruleset(table: &str, families: &[Family], owned: bool) -> Batch {
    let mut transaction = Transaction::begin(table);
    for family in families {
        transaction.family = *family;
        transaction.table(owned);
        sets_and_maps(&mut transaction);
        chains(&mut transaction);
    }
    transaction.end()
}

/// The table of a family goes, with all that is in it.
pub(crate) fn remove(table: &str, family: Family) -> Batch {
    let mut transaction = Transaction::begin(table);
    transaction.family = family;
    transaction.delete_table();
    transaction.end()
}

/// A network comes or goes.
pub(crate) fn network(table: &str, member: &Member, add: bool) -> Batch {
    let mut name = [0; NAME];
    name[..member.bridge.len()].copy_from_slice(member.bridge.as_bytes());
    let mut transaction = Transaction::begin(table);
    for (first, last) in &member.subnets {
        transaction.family = Family::of(*first);
        transaction.element(NETWORKS, name.into(), None, add);
        transaction.element(WITHIN, [name, name].concat(), None, add);
        if member.masked {
            transaction.element(MASKED, name.into(), None, add);
        }
        if member.closed {
            transaction.element(CLOSED, name.into(), None, add);
        }
        transaction.interval(SUBNETS, *first, *last, add);
    }
    transaction.end()
}

/// Ports come, with where they lead.
pub(crate) fn publish(table: &str, ports: &[Redirection]) -> Batch {
    let mut transaction = Transaction::begin(table);
    for port in ports {
        let data = [octets(port.target.ip()).as_slice(), &padded(port.target.port())].concat();
        redirection(&mut transaction, port, Some(data));
    }
    transaction.end()
}

/// Ports go.
pub(crate) fn unpublish(table: &str, ports: &[Redirection]) -> Batch {
    let mut transaction = Transaction::begin(table);
    for port in ports {
        redirection(&mut transaction, port, None);
    }
    transaction.end()
}

/// A published port, which comes with where it leads and goes without.
fn redirection(transaction: &mut Transaction<'_>, port: &Redirection, data: Option<Vec<u8>>) {
    transaction.family = Family::of(port.target.ip());
    let key = port_key(port.protocol, port.port);
    let add = data.is_some();
    match port.host {
        Some(host) => transaction.element(PUBLISHED_AT, [octets(host), key].concat(), data, add),
        None => transaction.element(PUBLISHED, key, data, add),
    }
}

fn port_key(protocol: Protocol, port: u16) -> Vec<u8> {
    [[protocol.number(), 0, 0, 0], padded(port)].concat()
}

/// A port in network order in a register of four bytes.
fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// nft's number for the type `ifname`; concatenations shift by six bits. The kernel only hands it back to who lists.
const IFNAME: u32 = 41;

/// The same for `inet_proto` and `inet_service`.
const PROTOCOL: u32 = 12;
const SERVICE: u32 = 13;

fn sets_and_maps(transaction: &mut Transaction<'_>) {
    transaction.set_of_names(NETWORKS, IFNAME, NAME as u32);
    transaction.set_of_names(WITHIN, IFNAME << 6 | IFNAME, 2 * NAME as u32);
    transaction.set_of_names(CLOSED, IFNAME, NAME as u32);
    transaction.set_of_names(MASKED, IFNAME, NAME as u32);
    transaction.set_of_addresses(SUBNETS);
    let (address, length) = (transaction.family.address_type(), transaction.family.address_length());
    let target = [address << 6 | SERVICE, length + 4];
    transaction.map(PUBLISHED, [PROTOCOL << 6 | SERVICE, 8], target);
    transaction.map(PUBLISHED_AT, [address << 12 | PROTOCOL << 6 | SERVICE, length + 8], target);
}

fn chains(transaction: &mut Transaction<'_>) {
    let accept = || verdict(1);
    let drop = || verdict(0);
    let from = |set| vec![meta(MetaKey::Iifname, Register::Reg1), lookup(set, 0)];
    let to = |set, flags| vec![meta(MetaKey::Oifname, Register::Reg1), lookup(set, flags)];
    // NFT_LOOKUP_F_INV
    const NOT: u32 = 1;
    let family = transaction.family;

    if family == Family::Four {
        transaction.chain("guard", "filter", InetHookNumber::PreRouting, -300);
        transaction.rule("guard", [from(NETWORKS), loopback(family.address(true)), vec![drop()]].concat());
    }
    for (chain, hook) in [("published_in", InetHookNumber::PreRouting), ("published_out", InetHookNumber::LocalOut)] {
        transaction.chain(chain, "nat", hook, -100);
        for at in [true, false] {
            transaction.rule(chain, [destined_to_this_machine(), translated(family, at)].concat());
        }
    }

    transaction.chain("isolation", "filter", InetHookNumber::Forward, 0);
    // NF_CT_STATE_BIT(IP_CT_ESTABLISHED) and (IP_CT_RELATED)
    transaction.rule("isolation", [tracked(CT_STATE, 2 | 4), vec![accept()]].concat());
    let (link_in, link_out) = (meta(MetaKey::Iifname, Register::Reg1), meta(MetaKey::Oifname, Register::Reg2));
    transaction.rule("isolation", vec![link_in, link_out, lookup(WITHIN, 0), accept()]);
    transaction.rule("isolation", [from(CLOSED), vec![drop()]].concat());
    // IPS_DST_NAT
    transaction.rule("isolation", [tracked(CT_STATUS, 0x20), vec![accept()]].concat());
    transaction.rule("isolation", [to(NETWORKS, 0), vec![drop()]].concat());

    transaction.chain("masquerade_out", "nat", InetHookNumber::PostRouting, 100);
    transaction.rule("masquerade_out", [from(MASKED), to(NETWORKS, NOT), vec![masquerade()]].concat());
    // By address, not by link: where br_netfilter is on, such a packet stays in the bridge and has come by no link.
    let inside = vec![family.address(false), lookup(SUBNETS, 0)];
    let hairpin = [inside, to(NETWORKS, 0), tracked(CT_STATUS, 0x20), vec![masquerade()]].concat();
    transaction.rule("masquerade_out", hairpin);
    if family == Family::Four {
        let local = [loopback(family.address(false)), to(NETWORKS, 0), vec![masquerade()]].concat();
        transaction.rule("masquerade_out", local);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::{NLM_F_ACK, NetlinkMessage, NetlinkPayload};
    use netlink_packet_netfilter::nftables::{
        ChainAttribute, DataAttribute, ListAttribute, NfTablesMessage, RuleAttribute, SetElementAttribute,
        SetElementList,
    };
    use netlink_packet_netfilter::none::ControlMessage;
    use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
    use proptest::prelude::*;

    /// Reads a batch back; sees that it is a whole transaction of which only the last change is acknowledged.
    fn changes(batch: Batch) -> Vec<NfTablesMessage> {
        let bytes = batch.as_bytes();
        let (mut found, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(&bytes[at..]).unwrap();
            at += (message.header.length as usize).next_multiple_of(4);
            let NetlinkPayload::InnerMessage(inner) = message.payload else { panic!("no message of netfilter's") };
            found.push((message.header.flags & NLM_F_ACK != 0, inner.inner));
        }
        assert_eq!(found.first().unwrap(), &(false, NetfilterMessageInner::None(ControlMessage::BatchBegin)));
        assert_eq!(found.pop().unwrap(), (false, NetfilterMessageInner::None(ControlMessage::BatchEnd)));
        let acknowledged: Vec<_> = found.iter().map(|(acknowledged, _)| *acknowledged).collect();
        assert_eq!(acknowledged.iter().position(|acknowledged| *acknowledged), Some(found.len() - 1));
        let changes = found.into_iter().skip(1).map(|(_, inner)| match inner {
            NetfilterMessageInner::NfTables(change) => change,
            other => panic!("{other:?}"),
        });
        changes.collect()
    }

    fn elements(change: &NfTablesMessage) -> (bool, &[SetElementList]) {
        match change {
            NfTablesMessage::NewSetElement(message) => (true, &message.attributes),
            NfTablesMessage::DeleteSetElement(message) => (false, &message.attributes),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_ruleset_has_the_table_first_and_every_rule_in_a_chain_that_is_there() {
        let (mut chains, mut rules) = (Vec::new(), 0);
        let changes = changes(ruleset("isobench", &[Family::Four], true));
        assert!(matches!(changes[0], NfTablesMessage::NewTable(_)));
        for change in changes {
            match change {
                NfTablesMessage::NewChain(chain) => {
                    chains.extend(chain.attributes.into_iter().filter_map(|attribute| match attribute {
                        ChainAttribute::Name(name) => Some(name),
                        _ => None,
                    }));
                }
                NfTablesMessage::NewRule(rule) => {
                    let chain = rule.attributes.iter().find_map(|attribute| match attribute {
                        RuleAttribute::Chain(name) => Some(name),
                        _ => None,
                    });
                    assert!(chains.contains(chain.unwrap()));
                    rules += 1;
                }
                _ => {}
            }
        }
        assert_eq!((chains.len(), rules), (5, 13));
    }

    proptest! {
        #[test]
        fn a_published_port_is_one_element_and_goes_by_its_key(
            port: u16,
            address: IpAddr,
            target: u16,
            udp: bool,
            at: bool,
        ) {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let host = at.then_some(address);
            let redirection = Redirection { protocol, host, port, target: SocketAddr::new(address, target) };
            let own = octets(address);
            let key = [protocol.number(), 0, 0, 0, (port >> 8) as u8, port as u8, 0, 0];
            let key = [if at { own.as_slice() } else { &[] }, &key].concat();
            let data = [own.as_slice(), &[(target >> 8) as u8, target as u8, 0, 0]].concat();
            let key = SetElementAttribute::Key(DataAttribute::Value(key));
            let data = SetElementAttribute::Data(DataAttribute::Value(data));
            let element = |content| SetElementList::Elements(vec![ListAttribute::Element(content)]);

            let added = changes(publish("t", &[redirection]));
            prop_assert_eq!(added.len(), 1);
            prop_assert!(elements(&added[0]).0);
            prop_assert!(elements(&added[0]).1.contains(&element(vec![key.clone(), data])));
            let removed = changes(unpublish("t", &[redirection]));
            prop_assert_eq!(removed.len(), 1);
            prop_assert!(!elements(&removed[0]).0);
            prop_assert!(elements(&removed[0]).1.contains(&element(vec![key])));
        }
    }
}
