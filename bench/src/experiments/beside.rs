//! A further machine beside the simulated host, joined to it by a link of its own, for as long as one cell needs it.

use isobench_runtime::network::inside::LOOPBACK;
use isobench_runtime::network::{Namespace, Netlink, PeerNamespace, Veth};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

/// The simulated host's address on the link (TEST-NET-3 of RFC 5737).
pub(super) const HERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// The other machine's.
pub(super) const THERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// The link's name on both sides.
const LINK: &str = "wire";

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
        let veth = Veth {
            name: LINK,
            mac: None,
            bridge: None,
            hairpin: false,
            peer_name: LINK,
            peer_mac: None,
            peer_index: None,
            segments: None,
        };
        host.create_veth(&veth, &PeerNamespace::Descriptor(machine.namespace().as_fd()))?;
        for (side, address) in [(&mut host, HERE), (&mut machine, THERE)] {
            let index = side.index(LINK)?;
            side.add_address(index, address, 24)?;
            side.bring_up(index)?;
        }
        Ok(Self { host, machine })
    }

    /// The machine's network.
    pub(super) fn namespace(&self) -> &Namespace {
        self.machine.namespace()
    }
}
