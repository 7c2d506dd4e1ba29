//! A second simulated host: a network of its own, its own outside client, and a wire to the first host.
//!
//! It has no way to the first host but the wire, and by default the same private ranges: what containers of two hosts need in
//! order to talk can be tried, and that they cannot without it.

use super::uplink::{Addresses, Uplink, connect};
use isobench_runtime::network::{Namespace, Netlink};
use std::net::Ipv4Addr;

/// The second host's own address (TEST-NET-3 of RFC 5737), towards its outside client.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// The address of its outside client.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// Name of the link between the two hosts, on both.
pub(crate) const WIRE: &str = "wire";

/// The first host's address on the wire (TEST-NET-1).
pub(crate) const FIRST_ON_WIRE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The second host's address on the wire.
pub(crate) const SECOND_ON_WIRE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// The second host's links. When this is dropped they go, and the first host's end of the wire with them; the kernel takes
/// some 40 ms for that.
#[derive(Debug)]
pub(crate) struct SecondHost {
    uplink: Uplink,
}

impl SecondHost {
    /// Makes it beside the first host.
    pub(crate) fn create(first: &Namespace) -> anyhow::Result<Self> {
        let mut uplink = Uplink::create_in(&Namespace::create()?, Addresses { host: HOST, client: CLIENT })?;
        let mut first = Netlink::open_in(first)?;
        connect(WIRE, (&mut first, FIRST_ON_WIRE), (&mut uplink.host, SECOND_ON_WIRE))?;
        Ok(Self { uplink })
    }

    /// The namespace in which it is.
    pub(crate) fn namespace(&self) -> &Namespace {
        self.uplink.host.namespace()
    }

    /// The namespace of its outside client.
    pub(crate) fn outside(&self) -> &Namespace {
        self.uplink.outside()
    }
}
