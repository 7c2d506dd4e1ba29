//! The network of the simulated host: its loopback, its uplink, and the outside client at the other end.

use anyhow::Context;
use isobench_runtime::network::inside::LOOPBACK;
use isobench_runtime::network::{Namespace, Netlink, PeerNamespace, Veth, sysctl};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

/// The simulated host's own address (TEST-NET-2 of RFC 5737: no real host has it).
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// The outside client's address.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// Prefix length of the network between the two.
const PREFIX: u8 = 24;

/// Name of the link between the two, on both sides.
pub(crate) const UPLINK: &str = "uplink";

/// The simulated host's network and the outside client's. It goes with the namespaces.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) netlink: Netlink,
    client: Netlink,
    /// The algorithm that every TCP sender on both sides uses.
    pub(crate) congestion_control: String,
}

impl Network {
    /// Sets up the namespace of this process as the simulated host's.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut netlink = Netlink::open()?;
        netlink.bring_up(LOOPBACK)?;
        let outside = Namespace::create()?;
        let mut client = Netlink::open_in(&outside)?;
        client.bring_up(LOOPBACK)?;
        let veth = Veth {
            name: UPLINK,
            mac: None,
            bridge: None,
            peer_name: UPLINK,
            peer_mac: None,
            peer_index: None,
            segments: None,
        };
        netlink.create_veth(&veth, &PeerNamespace::Descriptor(outside.as_fd()))?;
        for (side, address) in [(&mut netlink, HOST), (&mut client, CLIENT)] {
            let index = side.index(UPLINK)?;
            side.add_address(index, address, PREFIX)?;
            side.bring_up(index)?;
        }
        let congestion_control = fix_congestion_control(&[netlink.namespace(), client.namespace()])?;
        Ok(Self { netlink, client, congestion_control })
    }

    /// The namespace in which the outside client lives.
    pub(crate) fn outside(&self) -> &Namespace {
        self.client.namespace()
    }

    /// Bounds the segments that one packet of the uplink stands for, on both sides.
    pub(crate) fn limit_segments(&mut self, segments: u32) -> anyhow::Result<()> {
        for side in [&mut self.netlink, &mut self.client] {
            let index = side.index(UPLINK)?;
            side.limit_segments(index, segments)?;
        }
        Ok(())
    }
}

/// One algorithm for both sides: the machine's default may pace the sender (bbr) and would then measure itself. cubic is
/// the kernel's own default, but a namespace may be refused it (`TCP_CONG_NON_RESTRICTED`); reno is allowed everywhere.
fn fix_congestion_control(sides: &[&Namespace]) -> anyhow::Result<String> {
    let mut refused = None;
    for algorithm in ["cubic", "reno"] {
        let fixed = sides.iter().try_for_each(|side| sysctl::write(side, "ipv4/tcp_congestion_control", algorithm));
        match fixed {
            Ok(()) => return Ok(algorithm.to_owned()),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.map_or_else(|| anyhow::anyhow!("no algorithm was tried"), Into::into))
        .context("fix the congestion control")
}
