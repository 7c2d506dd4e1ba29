//! The expressions of which rules are made: each loads into a register, looks up, compares or decides. Numbers are from
//! include/uapi/linux/netfilter/nf_tables.h.

use super::nft::{Family, PUBLISHED, PUBLISHED_AT};
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Lookup, Meta, MetaKey,
    Operator, Payload, Register, Verdict, VerdictAttribute,
};

/// One expression of a rule.
pub(super) type Expression = ListAttribute<ExpressionAttribute>;

/// `NFT_CT_STATE` and `NFT_CT_STATUS`.
pub(super) const CT_STATE: u32 = 0;
pub(super) const CT_STATUS: u32 = 2;

pub(super) fn meta(key: MetaKey, register: Register) -> Expression {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(register)]).into()
}

pub(super) fn lookup(set: &str, flags: u32) -> Expression {
    let set = Lookup::Set(set.into());
    Expressions::Lookup(vec![set, Lookup::SourceRegister(Register::Reg1), Lookup::Flags(flags)]).into()
}

pub(super) fn payload(base: u32, offset: u32, length: u32, register: Register) -> Expression {
    let source = [Payload::Base(base), Payload::Offset(offset), Payload::Len(length)];
    Expressions::Payload([vec![Payload::DestinationRegister(register)], source.into()].concat()).into()
}

fn masked(mask: [u8; 4]) -> Expression {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(4),
        Bitwise::Mask(DataAttribute::Value(mask.into())),
        Bitwise::Xor(DataAttribute::Value(vec![0; 4])),
    ])
    .into()
}

fn compare(operator: Operator, value: [u8; 4]) -> Expression {
    let data = Cmp::Data(DataAttribute::Value(value.into()));
    Expressions::Cmp(vec![Cmp::SourceRegister(Register::Reg1), Cmp::Op(operator), data]).into()
}

pub(super) fn verdict(code: u32) -> Expression {
    let verdict = DataAttribute::Verdict(vec![VerdictAttribute::Code(Verdict::Other(code))]);
    Expressions::Immediate(vec![Immediate::DestinationRegister(Register::Verdict), Immediate::Data(verdict)]).into()
}

/// An expression for which the crate has no type: attributes with 32-bit values in network order.
fn other(name: &str, attributes: &[(u16, u32)]) -> Expression {
    let attributes = attributes.iter().map(|(kind, value)| DefaultNla::new(*kind, value.to_be_bytes().into()));
    Expressions::Other { expression_type: name.into(), attributes: attributes.collect() }.into()
}

/// The loaded address is in 127.0.0.0/8.
pub(super) fn loopback(address: Expression) -> Vec<Expression> {
    vec![address, masked([255, 0, 0, 0]), compare(Operator::Equal, [127, 0, 0, 0])]
}

/// `fib daddr type local`
pub(super) fn destined_to_this_machine() -> Vec<Expression> {
    // NFTA_FIB_DREG, NFTA_FIB_RESULT = NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_FLAGS = NFTA_FIB_F_DADDR; RTN_LOCAL
    vec![other("fib", &[(1, 1), (2, 3), (3, 2)]), compare(Operator::Equal, 2_u32.to_ne_bytes())]
}

/// `ct KEY & BITS != 0`
pub(super) fn tracked(key: u32, bits: u32) -> Vec<Expression> {
    // NFTA_CT_DREG, NFTA_CT_KEY
    vec![other("ct", &[(1, 1), (2, key)]), masked(bits.to_ne_bytes()), compare(Operator::NotEqual, [0; 4])]
}

/// `dnat ip to ip daddr . meta l4proto . th dport map @published_at`, or without the address by `@published`. Registers of
/// four bytes have names of their own; the long register 1 is the first four of them.
pub(super) fn translated(family: Family, at: bool) -> Vec<Expression> {
    let short = [Register::Reg1, Register::Reg32_01, Register::Reg32_02, Register::Reg32_04, Register::Reg32_05];
    let [first, second, third, fifth, sixth] = short;
    let (map, load, protocol, port) = match (at, family) {
        (false, _) => (PUBLISHED, None, first, second),
        (true, Family::Four) => (PUBLISHED_AT, Some(family.address(true)), second, third),
        (true, Family::Six) => (PUBLISHED_AT, Some(family.address(true)), fifth, sixth),
    };
    let key = [Lookup::SourceRegister(Register::Reg1), Lookup::DestinationRegister(Register::Reg1)];
    let lookup = Expressions::Lookup([vec![Lookup::Set(map.into())], key.into()].concat());
    // NFPROTO_IPV4 and NFPROTO_IPV6; the target's port stands behind its address (NFT_REG32_00 is 8).
    let (number, port_register) = match family {
        Family::Four => (2, 9),
        Family::Six => (10, 12),
    };
    load.into_iter()
        .chain([
            meta(MetaKey::L4Proto, protocol),
            payload(2, 2, 2, port),
            lookup.into(),
            // NFTA_NAT_TYPE = NFT_NAT_DNAT, NFTA_NAT_FAMILY, NFTA_NAT_REG_ADDR_MIN, NFTA_NAT_REG_PROTO_MIN
            other("nat", &[(1, 1), (2, number), (3, 1), (5, port_register)]),
        ])
        .collect()
}

pub(super) fn masquerade() -> Expression {
    other("masq", &[])
}
