//! Messages of nftables that the kernel applies together or not at all
//! (`nfnetlink_rcv_batch` in net/netfilter/nfnetlink.c): tables, sets, chains, rules and elements. What they say is
//! [`super::nft`]'s.

use super::expression::Expression;
use super::netlink::Batch;
use super::nft::Family;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, Hook, InetHookNumber, ListAttribute, NfTablesMessage, RuleAttribute,
    RuleMessage, SetAttribute, SetElementAttribute, SetElementFlags, SetElementList, SetElementMessage, SetFlags,
    SetMessage, TableAttribute, TableFlags, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use std::net::IpAddr;

/// A transaction that is being written.
pub(super) struct Transaction<'a> {
    table: &'a str,
    /// The table of which family the next messages are about.
    pub(super) family: Family,
    batch: Batch,
    sets: u32,
}

impl<'a> Transaction<'a> {
    pub(super) fn begin(table: &'a str) -> Self {
        let mut batch = Batch::new();
        batch.push(0, control(ControlMessage::BatchBegin));
        Self { table, family: Family::Four, batch, sets: 0 }
    }

    /// The batch; its last message but one is to be acknowledged, since the end mark is no message of nftables'.
    pub(super) fn end(mut self) -> Batch {
        self.batch.acknowledge_last();
        self.batch.push(0, control(ControlMessage::BatchEnd));
        self.batch
    }

    fn push(&mut self, flags: u16, message: NfTablesMessage) {
        let header = NetfilterHeader::new(self.family.header(), 0, 0);
        self.batch.push(flags, NetfilterMessage::new(header, message));
    }

    /// The owner flag binds the table to our socket: nobody else can change it, and it goes when the socket does.
    pub(super) fn table(&mut self, owned: bool) {
        let mut attributes = vec![TableAttribute::Name(self.table.into())];
        attributes.extend(owned.then_some(TableAttribute::Flags(TableFlags::Owner)));
        self.push(NLM_F_CREATE | NLM_F_EXCL, NfTablesMessage::NewTable(TableMessage { attributes }));
    }

    pub(super) fn delete_table(&mut self) {
        let attributes = vec![TableAttribute::Name(self.table.into())];
        self.push(0, NfTablesMessage::DeleteTable(TableMessage { attributes }));
    }

    /// A set of names. The user data tell the program nft, and nobody else, how to show them: key byte order (type 0, length
    /// 4), host's (1).
    pub(super) fn set_of_names(&mut self, name: &str, key_type: u32, key_length: u32) {
        let byte_order = SetAttribute::UserData([[0, 4].as_slice(), &1_u32.to_ne_bytes()].concat());
        let key = vec![SetAttribute::KeyType(key_type), SetAttribute::KeyLen(key_length), byte_order];
        self.set(name, SetFlags::empty(), key);
    }

    /// A set of intervals of addresses.
    pub(super) fn set_of_addresses(&mut self, name: &str) {
        let key =
            vec![SetAttribute::KeyType(self.family.address_type()), SetAttribute::KeyLen(self.family.address_length())];
        self.set(name, SetFlags::Interval, key);
    }

    pub(super) fn map(&mut self, name: &str, [key_type, key_length]: [u32; 2], [data_type, data_length]: [u32; 2]) {
        let attributes = vec![
            SetAttribute::KeyType(key_type),
            SetAttribute::KeyLen(key_length),
            SetAttribute::DataType(data_type),
            SetAttribute::DataLen(data_length),
        ];
        self.set(name, SetFlags::Map, attributes);
    }

    fn set(&mut self, name: &str, flags: SetFlags, rest: Vec<SetAttribute>) {
        self.sets += 1;
        let mut attributes = vec![
            SetAttribute::Table(self.table.into()),
            SetAttribute::Name(name.into()),
            SetAttribute::Flags(flags),
            SetAttribute::Id(self.sets),
        ];
        attributes.extend(rest);
        self.push(NLM_F_CREATE, NfTablesMessage::NewSet(SetMessage { attributes }));
    }

    /// A chain at a hook, which accepts what no rule decides.
    pub(super) fn chain(&mut self, name: &str, kind: &str, hook: InetHookNumber, priority: i32) {
        // NF_ACCEPT
        const ACCEPT: u32 = 1;
        let attributes = vec![
            ChainAttribute::Table(self.table.into()),
            ChainAttribute::Name(name.into()),
            ChainAttribute::Hook(vec![Hook::Number(hook.into()), Hook::Priority(priority as u32)]),
            ChainAttribute::Policy(ACCEPT),
            ChainAttribute::Type(kind.into()),
        ];
        self.push(NLM_F_CREATE, NfTablesMessage::NewChain(ChainMessage { attributes }));
    }

    pub(super) fn rule(&mut self, chain: &str, expressions: Vec<Expression>) {
        let attributes = vec![
            RuleAttribute::Table(self.table.into()),
            RuleAttribute::Chain(chain.into()),
            RuleAttribute::Expressions(expressions),
        ];
        self.push(NLM_F_CREATE | NLM_F_APPEND, NfTablesMessage::NewRule(RuleMessage { attributes }));
    }

    /// An element of a set, or of a map with its data, comes or goes.
    pub(super) fn element(&mut self, set: &str, key: Vec<u8>, data: Option<Vec<u8>>, add: bool) {
        let mut element = vec![SetElementAttribute::Key(DataAttribute::Value(key))];
        element.extend(data.map(|data| SetElementAttribute::Data(DataAttribute::Value(data))));
        self.elements(set, vec![element], add);
    }

    /// All addresses from `first` to `last`: an element where it begins, and one just behind its end unless that is the
    /// last address of all.
    pub(super) fn interval(&mut self, set: &str, first: IpAddr, last: IpAddr, add: bool) {
        let end = match last {
            IpAddr::V4(last) => u32::from(last).checked_add(1).map(|end| IpAddr::V4(end.into())),
            IpAddr::V6(last) => u128::from(last).checked_add(1).map(|end| IpAddr::V6(end.into())),
        };
        let mut elements = vec![vec![SetElementAttribute::Key(DataAttribute::Value(octets(first)))]];
        if let Some(end) = end {
            let end = SetElementAttribute::Key(DataAttribute::Value(octets(end)));
            elements.push(vec![end, SetElementAttribute::Flags(SetElementFlags::IntervalEnd)]);
        }
        self.elements(set, elements, add);
    }

    fn elements(&mut self, set: &str, elements: Vec<Vec<SetElementAttribute>>, add: bool) {
        let message = SetElementMessage {
            attributes: vec![
                SetElementList::Table(self.table.into()),
                SetElementList::Set(set.into()),
                SetElementList::Elements(elements.into_iter().map(ListAttribute::Element).collect()),
            ],
        };
        if add {
            self.push(NLM_F_CREATE | NLM_F_EXCL, NfTablesMessage::NewSetElement(message));
        } else {
            self.push(0, NfTablesMessage::DeleteSetElement(message));
        }
    }
}

/// An address in network order.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

fn control(message: ControlMessage) -> NetfilterMessage {
    // The subsystem to which the batch belongs: NFNL_SUBSYS_NFTABLES.
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 10), message)
}
