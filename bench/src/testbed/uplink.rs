//! A simulated host's way out: its uplink, and the outside client at the other end.

use anyhow::Context;
use isobench_runtime::network::inside::LOOPBACK;
use isobench_runtime::network::{Namespace, Netlink, PeerNamespace, Veth, sysctl};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

/// Name of the link between the two, on both sides.
pub(crate) const UPLINK: &str = "uplink";

/// Prefix length of every network between hosts and clients.
const PREFIX: u8 = 24;

/// The setting that says which algorithm new connections use.
pub(super) const CONGESTION_CONTROL: &str = "ipv4/tcp_congestion_control";

/// The two addresses of an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// The host's own.
    pub(crate) host: Ipv4Addr,
    /// The outside client's.
    pub(crate) client: Ipv4Addr,
}

/// A host's uplink and its outside client; both go with their namespaces.
#[derive(Debug)]
pub(crate) struct Uplink {
    /// The host's side.
    pub(super) host: Netlink,
    /// The outside client's side.
    pub(super) client: Netlink,
    /// The algorithm that every TCP sender on both sides uses.
    pub(crate) congestion_control: String,
}

impl Uplink {
    /// Makes a namespace a host with an outside client.
    pub(crate) fn create_in(namespace: &Namespace, addresses: Addresses) -> anyhow::Result<Self> {
        let mut host = Netlink::open_in(namespace)?;
        host.bring_up(LOOPBACK)?;
        let outside = Namespace::create()?;
        let mut client = Netlink::open_in(&outside)?;
        client.bring_up(LOOPBACK)?;
        connect(UPLINK, (&mut host, addresses.host), (&mut client, addresses.client))?;
        let congestion_control = fix_congestion_control(&[host.namespace(), client.namespace()])?;
        Ok(Self { host, client, congestion_control })
    }

    /// The namespace in which the outside client lives.
    pub(crate) fn outside(&self) -> &Namespace {
        self.client.namespace()
    }
}

/// Joins two namespaces by a veth pair that has the same name at both ends, each with its address.
pub(crate) fn connect(
    name: &str,
    (one, one_address): (&mut Netlink, Ipv4Addr),
    (other, other_address): (&mut Netlink, Ipv4Addr),
) -> anyhow::Result<()> {
    let veth = Veth {
        name,
        mac: None,
        bridge: None,
        peer_name: name,
        peer_mac: None,
        peer_index: None,
        segments: None,
        hairpin: false,
    };
    one.create_veth(&veth, &PeerNamespace::Descriptor(other.namespace().as_fd()))?;
    for (side, address) in [(&mut *one, one_address), (other, other_address)] {
        let index = side.index(name)?;
        side.add_address(index, address, PREFIX)?;
        side.bring_up(index)?;
    }
    // It was up before the other.
    Ok(one.await_carrier(name)?)
}

/// One algorithm for both sides: the machine's default may pace the sender (bbr) and would then measure itself. cubic is
/// the kernel's own default, but a namespace may be refused it (`TCP_CONG_NON_RESTRICTED`); reno is allowed everywhere.
fn fix_congestion_control(sides: &[&Namespace]) -> anyhow::Result<String> {
    let mut refused = None;
    for algorithm in ["cubic", "reno"] {
        let fixed = sides.iter().try_for_each(|side| sysctl::write(side, CONGESTION_CONTROL, algorithm));
        match fixed {
            Ok(()) => return Ok(algorithm.to_owned()),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.map_or_else(|| anyhow::anyhow!("no algorithm was tried"), Into::into))
        .context("fix the congestion control")
}
