//! The network of the simulated host: its loopback, its uplink, and the outside client at the other end.

use super::uplink::{Addresses, CONGESTION_CONTROL, Uplink};
use crate::doctor::remedy;
use anyhow::Context;
use isobench_runtime::network::inside::LOOPBACK;
use isobench_runtime::network::{BridgeNetwork, Firewall, Namespace, Netlink, bridge_network::Settings, sysctl};
use isobench_workload::Instance;
use std::net::Ipv4Addr;

/// The simulated host's own address (TEST-NET-2 of RFC 5737: no real host has it).
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// The outside client's address.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// The port of the simulated host that leads to a served port inside, where one must be published.
pub(crate) const PUBLISHED: u16 = 8000;

/// `GSO_MAX_SEGS` of the kernel (include/linux/netdevice.h): no bound but the packet's size.
const UNBOUNDED: u32 = 65_535;

/// The simulated host's network and the outside client's. It goes with the namespaces.
#[derive(Debug)]
pub(crate) struct HostNetwork {
    uplink: Uplink,
}

impl HostNetwork {
    /// Sets up the namespace of this process as the simulated host's.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let addresses = Addresses { host: HOST, client: CLIENT };
        Ok(Self { uplink: Uplink::create_in(&Namespace::current()?, addresses)? })
    }

    /// Whether what the bridges forward passes the firewall like routed packets, which costs each one of them.
    pub(crate) fn filters_bridged_packets(&self) -> bool {
        sysctl::filters_bridged_packets(self.uplink.host.namespace())
    }

    /// The namespace in which the outside client lives.
    pub(crate) fn outside(&self) -> &Namespace {
        self.uplink.outside()
    }

    /// A new network namespace starts with the machine's own algorithm: an instance that has one gets ours. Connections take
    /// the algorithm when they are accepted.
    pub(crate) fn fix_congestion_control_of(&self, instance: &Instance) -> anyhow::Result<()> {
        let namespace = Namespace::of_pidfd(instance.inside())?;
        if !namespace.same(self.uplink.host.namespace())? {
            sysctl::write(&namespace, CONGESTION_CONTROL, &self.uplink.congestion_control)?;
        }
        Ok(())
    }

    /// Makes every sender between the outside client and an instance send packets of one segment, as on a wire: the host's
    /// own links and, where the instance has a network namespace of its own, its interface there.
    pub(crate) fn limit_packets(&mut self, instance: &Instance) -> anyhow::Result<Limited> {
        let namespace = Namespace::of_pidfd(instance.inside())?;
        let mut inner = None;
        if !namespace.same(self.uplink.host.namespace())? {
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
        [&mut self.uplink.host, &mut self.uplink.client].into_iter().try_for_each(|side| limit_segments(side, segments))
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
        let firewall = Firewall::create("isobench")
            .with_context(|| format!("make a firewall: `{}`", remedy::network("nftables").unwrap_or_default()))?;
        let bridge = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
        let custom = BridgeNetwork::create(&firewall, Settings::custom())?;
        // Where the module br_netfilter is loaded, as dockerd does, a figure on a bridge would also be one on the firewall. An
        // ordinary user may be refused; then the record tells.
        let spared = sysctl::spare_bridged_packets(host.uplink.host.namespace()).ok().flatten();
        Ok(Self { firewall, bridge, custom, _spared: spared })
    }
}

/// An instance whose packets are limited to one segment.
#[derive(Debug)]
pub(crate) struct Limited(Option<Netlink>);
