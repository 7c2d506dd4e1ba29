//! A further machine beside the simulated host, joined to it by a link of its own, for as long as one cell needs it.

use crate::testbed::second_host::WIRE;
use crate::testbed::uplink::connect;
use isobench_runtime::network::inside::LOOPBACK;
use isobench_runtime::network::{Namespace, Netlink};
use std::net::Ipv4Addr;

/// The simulated host's address on the link (TEST-NET-3 of RFC 5737).
pub(super) const HERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// The other machine's.
pub(super) const THERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// The machine. Its link, routes and firewall go with its namespace.
#[derive(Debug)]
pub(super) struct Beside {
    /// The simulated host's side.
    pub(super) host: Netlink,
    /// The machine's own side.
    pub(super) machine: Netlink,
}

impl Beside {
    /// Makes the machine and its link.
    pub(super) fn create() -> anyhow::Result<Self> {
        let mut host = Netlink::open()?;
        let mut machine = Netlink::open_in(&Namespace::create()?)?;
        machine.bring_up(LOOPBACK)?;
        connect(WIRE, (&mut host, HERE), (&mut machine, THERE))?;
        Ok(Self { host, machine })
    }

    /// The machine's network.
    pub(super) fn namespace(&self) -> &Namespace {
        self.machine.namespace()
    }
}
