//! The network of the simulated host: its loopback, its uplink, and the outside client at the other end.

use anyhow::Context;
use isobench_runtime::network::inside::LOOPBACK;
use isobench_runtime::network::{
    BridgeNetwork, Firewall, Namespace, Netlink, PeerNamespace, Veth, bridge_network::Settings, sysctl,
};
use isobench_workload::Instance;
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

/// The port of the simulated host that leads to a served port inside, where one must be published.
pub(crate) const PUBLISHED: u16 = 8000;

/// The setting that says which algorithm new connections use.
const CONGESTION_CONTROL: &str = "ipv4/tcp_congestion_control";

/// `GSO_MAX_SEGS` of the kernel (include/linux/netdevice.h): no bound but the packet's size.
const UNBOUNDED: u32 = 65_535;

/// The simulated host's network and the outside client's. It goes with the namespaces.
#[derive(Debug)]
pub(crate) struct HostNetwork {
    netlink: Netlink,
    client: Netlink,
    /// The algorithm that every TCP sender on both sides uses.
    pub(crate) congestion_control: String,
}

impl HostNetwork {
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
            hairpin: false,
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

    /// Whether what the bridges forward passes the firewall like routed packets, which costs each one of them.
    pub(crate) fn filters_bridged_packets(&self) -> bool {
        sysctl::filters_bridged_packets(self.netlink.namespace())
    }

    /// The namespace in which the outside client lives.
    pub(crate) fn outside(&self) -> &Namespace {
        self.client.namespace()
    }

    /// A new network namespace starts with the machine's own algorithm: an instance that has one gets ours. Connections take
    /// the algorithm when they are accepted.
    pub(crate) fn fix_congestion_control_of(&self, instance: &Instance) -> anyhow::Result<()> {
        let namespace = Namespace::of_pidfd(instance.process().pidfd())?;
        if !namespace.same(self.netlink.namespace())? {
            sysctl::write(&namespace, CONGESTION_CONTROL, &self.congestion_control)?;
        }
        Ok(())
    }

    /// Makes every sender between the outside client and an instance send packets of one segment, as on a wire: the host's
    /// own links and, where the instance has a network namespace of its own, its interface there.
    pub(crate) fn limit_packets(&mut self, instance: &Instance) -> anyhow::Result<Limited> {
        let namespace = Namespace::of_pidfd(instance.process().pidfd())?;
        let mut inner = None;
        if !namespace.same(self.netlink.namespace())? {
            let mut netlink = Netlink::open_in(&namespace)?;
            limit_segments(&mut netlink, 1)?;
            inner = Some(netlink);
        }
        let limited = Limited(inner);
        if let Err(error) = self.limit_segments(1) {
            self.lift_limit(limited)?;
            return Err(error);
        }
        Ok(limited)
    }

    /// Takes [`HostNetwork::limit_packets`] back.
    pub(crate) fn lift_limit(&mut self, limited: Limited) -> anyhow::Result<()> {
        if let Some(mut netlink) = limited.0 {
            limit_segments(&mut netlink, UNBOUNDED)?;
        }
        self.limit_segments(UNBOUNDED)
    }

    fn limit_segments(&mut self, segments: u32) -> anyhow::Result<()> {
        [&mut self.netlink, &mut self.client].into_iter().try_for_each(|side| limit_segments(side, segments))
    }
}

/// Bounds the packets of every link in a namespace; over lo there is no wire.
fn limit_segments(side: &mut Netlink, segments: u32) -> anyhow::Result<()> {
    for link in side.links()?.iter().filter(|link| link.index != LOOPBACK) {
        side.limit_segments(link.index, segments)?;
    }
    Ok(())
}

/// The networks that our own sandboxes join on the simulated host, and the firewall where their ports are published.
#[derive(Debug)]
pub(crate) struct OwnNetworks {
    /// Where ports are published.
    pub(crate) firewall: Firewall,
    /// The default bridge network.
    pub(crate) bridge: BridgeNetwork,
    /// A network with a subnet of its own.
    pub(crate) custom: BridgeNetwork,
    _spared: Option<sysctl::Changed>,
}

impl OwnNetworks {
    pub(crate) fn create(host: &HostNetwork) -> anyhow::Result<Self> {
        let firewall = Firewall::create("isobench")?;
        let bridge = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
        let custom = BridgeNetwork::create(&firewall, Settings::custom())?;
        // Where the module br_netfilter is loaded, as dockerd does, a figure on a bridge would also be one on the firewall. An
        // ordinary user may be refused; then the record tells.
        let spared = sysctl::spare_bridged_packets(host.netlink.namespace()).ok().flatten();
        Ok(Self { firewall, bridge, custom, _spared: spared })
    }
}

/// An instance whose packets are limited to one segment.
#[derive(Debug)]
pub(crate) struct Limited(Option<Netlink>);

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
