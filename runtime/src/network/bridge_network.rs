//! A network of containers: a bridge, the addresses of its subnet, and its place in the firewall.
//!
//! It has two forms: for one process, with which it goes ([`BridgeNetwork::create`]), and for all processes that know its
//! settings and its file of leases, until it is removed ([`BridgeNetwork::establish`], [`BridgeNetwork::open`]).
//!
//! A container joins it in steps, so that nothing is left to prepare once its process exists:
//! 1. [`BridgeNetwork::endpoint`] leases an address and makes the messages for the inside;
//! 2. the process is created, and while it builds its root, [`Endpoint::attach`] makes the veth pair with one end in its
//!    namespace; then it sends the messages ([`super::Configuration::apply`]);
//! 3. [`Endpoint::await_carrier`] sees to it that no packet is lost on the bridge any more.

use super::firewall::Admission;
use super::inside::{Interface, Ipv6};
use super::lock_file::LockFile;
use super::message::Which;
use super::nft::Member;
use super::pool::check_free;
use super::{
    Endpoint, EndpointSettings, Firewall, Lease, Link, Mac, Netlink, NetworkError, Offload, Pool, Subnet, Subnet6, Tap,
    TapEndpoint, sysctl, watch,
};
use isobench_workload::ENDS_WITHIN;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a network is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The bridge's name.
    pub bridge: String,
    /// The subnet from which containers get their addresses.
    pub subnet: Subnet,
    /// The bridge's own address, which is the containers' way out.
    pub gateway: Ipv4Addr,
    /// Whether containers are seen outside with this machine's address instead of their own.
    pub nat: bool,
    /// Bound on the segments that one packet may stand for (`gso_max_segs`); 1 for packets as large as on a wire.
    pub segments: Option<u32>,
    /// The part of the subnet from which addresses are given to those who ask for none in particular.
    pub range: Option<Subnet>,
    /// Whether there is no way out of it.
    pub internal: bool,
    /// Bound on the size of packets; the usual one where there is none.
    pub mtu: Option<u32>,
    /// Its IPv6 subnet, where it has one. Each address ends as its IPv4 address does.
    pub ipv6: Option<Subnet6>,
}

impl Settings {
    /// The network that containers get by default: 172.17.0.0/16 with source NAT, as it is known from Docker.
    pub fn default_bridge() -> Self {
        Self::of("bridge0", [172, 17, 0, 0], 16)
    }

    /// A network with a subnet of its own, 10.89.0.0/24 with source NAT, as it is known from podman.
    pub fn custom() -> Self {
        Self::of("custom0", [10, 89, 0, 0], 24)
    }

    fn of(bridge: &str, network: [u8; 4], prefix: u8) -> Self {
        let network = Ipv4Addr::from(network);
        Self {
            bridge: bridge.into(),
            // The literals above are subnets.
            subnet: Subnet::new(network, prefix).unwrap_or_else(|error| unreachable!("{error}")),
            gateway: Ipv4Addr::from(u32::from(network) + 1),
            nat: true,
            segments: None,
            range: None,
            internal: false,
            mtu: None,
            ipv6: None,
        }
    }

    /// The IPv6 address that belongs to an address of the network.
    pub fn ipv6_of(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        Some(self.ipv6?.address_of(address, self.subnet))
    }

    /// How the firewall sees it.
    fn member(&self) -> Member {
        let mut subnets: Vec<(IpAddr, IpAddr)> = vec![(self.subnet.network().into(), self.subnet.broadcast().into())];
        subnets.extend(self.ipv6.map(|six| (six.network().into(), six.last().into())));
        Member { bridge: self.bridge.clone(), subnets, masked: self.nat && !self.internal, closed: self.internal }
    }
}

/// A network of containers. One that this process has made for itself ends, with its bridge and its place in the firewall,
/// when this and its endpoints are dropped.
#[derive(Clone, Debug)]
pub struct BridgeNetwork(Arc<Network>);

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) settings: Settings,
    pool: Pool,
    pub(crate) bridge: u32,
    ipv6: bool,
    /// Where bridged packets pass the firewall, a container's packet to its own published port turns round within the bridge;
    /// elsewhere the host routes it.
    pub(crate) hairpin: bool,
    netlink: Mutex<Netlink>,
    firewall: Firewall,
    /// `None` where the network stays.
    admission: Option<Admission>,
}

impl BridgeNetwork {
    /// Creates a network in the firewall's namespace, for this process.
    ///
    /// # Errors
    /// [`NetworkError::SubnetInUse`] if the machine routes to a part of the subnet already, else what failed. Nothing is
    /// left behind.
    pub fn create(firewall: &Firewall, settings: Settings) -> Result<Self, NetworkError> {
        let pool = Pool::new(settings.subnet, settings.gateway)?;
        let mut netlink = Netlink::open_in(&firewall.namespace()?)?;
        check_routes(&mut netlink, &settings)?;
        // The rules are there before the link, so that nothing is ever open.
        let admission = firewall.admit(settings.member())?;
        let bridge = netlink.create_bridge(&settings.bridge, Mac::of(settings.gateway))?;
        // From here on, dropping it deletes the bridge.
        let network = Self::of(firewall, settings, pool, bridge, netlink, Some(admission));
        network.0.set_up()?;
        Ok(network)
    }

    /// Creates a network in the firewall's namespace that stays until it is dismantled; its leases are in a file. What an
    /// interrupted attempt has left of it is made anew.
    ///
    /// # Errors
    /// As for [`BridgeNetwork::create`]; nothing is left behind then either.
    pub fn establish(firewall: &Firewall, settings: Settings, leases: LockFile) -> Result<Self, NetworkError> {
        let pool = Pool::shared(settings.subnet, settings.gateway, settings.range, leases)?;
        let mut netlink = Netlink::open_in(&firewall.namespace()?)?;
        match netlink.link(&settings.bridge)? {
            Some(left) if left.kind == "bridge" && left.mac == Mac::of(settings.gateway).0 => {
                netlink.delete_link(left.index)?;
            }
            _ => {}
        }
        check_routes(&mut netlink, &settings)?;
        firewall.admit_for_good(&settings.member())?;
        let made = netlink.create_bridge(&settings.bridge, Mac::of(settings.gateway)).and_then(|bridge| {
            let network = Self::of(firewall, settings.clone(), pool, bridge, netlink, None);
            network.0.set_up().inspect_err(|_| {
                let _ = network.0.lock().delete_link(bridge);
            })?;
            Ok(network)
        });
        made.inspect_err(|_| {
            let _ = firewall.dismiss(&settings.member());
        })
    }

    /// The network with these settings that was established before, by whatever process.
    ///
    /// # Errors
    /// With the error number `ENODEV` if its bridge is not there.
    pub fn open(firewall: &Firewall, settings: Settings, leases: LockFile) -> Result<Self, NetworkError> {
        let pool = Pool::shared(settings.subnet, settings.gateway, settings.range, leases)?;
        let mut netlink = Netlink::open_in(&firewall.namespace()?)?;
        let bridge = netlink.index(&settings.bridge)?;
        Ok(Self::of(firewall, settings, pool, bridge, netlink, None))
    }

    /// Removes an established network, whatever is left of it. The caller has seen to it that nobody uses it.
    pub fn dismantle(firewall: &Firewall, settings: &Settings) -> Result<(), NetworkError> {
        let mut netlink = Netlink::open_in(&firewall.namespace()?)?;
        if let Some(bridge) = netlink.link(&settings.bridge)? {
            netlink.delete_link(bridge.index)?;
        }
        // The rules last, so that nothing is ever open.
        firewall.dismiss(&settings.member())
    }

    fn of(
        firewall: &Firewall,
        settings: Settings,
        pool: Pool,
        bridge: u32,
        netlink: Netlink,
        admission: Option<Admission>,
    ) -> Self {
        Self(Arc::new(Network {
            pool,
            bridge,
            ipv6: sysctl::has_ipv6(),
            hairpin: sysctl::filters_bridged_packets(netlink.namespace()),
            netlink: Mutex::new(netlink),
            firewall: firewall.clone(),
            admission,
            settings,
        }))
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The firewall in which it has its place, where ports are published.
    pub fn firewall(&self) -> &Firewall {
        &self.0.firewall
    }

    /// Index of the bridge, to which a tap can be attached.
    pub fn bridge(&self) -> u32 {
        self.0.bridge
    }

    /// The addresses that are leased and free.
    pub fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// The bridge as it is now.
    pub fn link(&self) -> Result<Link, NetworkError> {
        let name = &self.0.settings.bridge;
        self.0.lock().link(name)?.ok_or_else(|| NetworkError::system("look for bridge", name, Errno::NODEV))
    }

    /// Leases an address for a container that is to be launched, and prepares its inside.
    pub fn endpoint(&self) -> Result<Endpoint, NetworkError> {
        self.endpoint_with(&EndpointSettings::default())
    }

    /// The same with an address of one's own choice.
    pub fn endpoint_with(&self, asked: &EndpointSettings) -> Result<Endpoint, NetworkError> {
        let lease = self.0.lease(asked)?;
        Ok(Endpoint::new(self, lease, asked.mac))
    }

    /// Leases an address for a virtual machine and creates a tap for its monitor, which is handed the descriptor.
    pub fn tap(&self, offload: Offload) -> Result<(Tap, TapEndpoint), NetworkError> {
        self.tap_with(&EndpointSettings::default(), offload)
    }

    /// The same with an address of one's own choice.
    pub fn tap_with(&self, asked: &EndpointSettings, offload: Offload) -> Result<(Tap, TapEndpoint), NetworkError> {
        let lease = self.0.lease(asked)?;
        let create = |name: &str| Tap::create(&mut self.0.lock(), name, self.0.bridge, offload);
        let tap = self.0.with_free_name('t', &lease, create)?;
        if let Some(mtu) = self.0.settings.mtu {
            self.0.lock().limit_packets(Which::Index(tap.index()), mtu)?;
        }
        let link = tap.name().to_owned();
        Ok((tap, TapEndpoint::new(self, lease, asked.mac, link)))
    }

    /// The link that belongs to an address of the network, as its owner sees it.
    pub(crate) fn interface(&self, address: Ipv4Addr) -> Interface {
        let Network { settings, ipv6, .. } = &*self.0;
        let ipv6 = match settings.ipv6.zip(settings.ipv6_of(address)) {
            Some((subnet, address)) => {
                let gateway = settings.ipv6_of(settings.gateway).filter(|_| !settings.internal);
                Ipv6::Address { address, prefix: subnet.prefix(), gateway }
            }
            None => Ipv6::silent_if(*ipv6),
        };
        let gateway = (!settings.internal).then_some(settings.gateway);
        Interface { address, prefix: settings.subnet.prefix(), gateway, mtu: settings.mtu, ipv6 }
    }

    pub(crate) fn network(&self) -> &Network {
        &self.0
    }
}

/// Sees to it that nothing is routed to the network's subnets yet.
fn check_routes(netlink: &mut Netlink, settings: &Settings) -> Result<(), NetworkError> {
    let links = netlink.links()?;
    let name_of = |index| links.iter().find(|link| link.index == index).map_or("?".into(), |link| link.name.clone());
    check_free(settings.subnet, settings.ipv6, &netlink.routes()?, name_of)
}

impl Network {
    fn lease(&self, asked: &EndpointSettings) -> Result<Lease, NetworkError> {
        asked.address.map_or_else(|| self.pool.lease(), |address| self.pool.lease_address(address))
    }

    /// Makes a link under a name that is free. In a network of all processes' it is made of the bridge's index and the
    /// address, which nobody else has; the link of an owner that has just died may still be there, though. Else names are
    /// counted through, so that a link that is about to go is in nobody's way; another process may count too.
    pub(crate) fn with_free_name<T>(
        &self,
        letter: char,
        lease: &Lease,
        create: impl Fn(&str) -> Result<T, NetworkError>,
    ) -> Result<T, NetworkError> {
        const NAMES: u32 = 4096;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // A tap of that name gives EBUSY.
        let taken = |error: &NetworkError| matches!(error.errno(), Some(Errno::EXIST | Errno::BUSY));
        if self.admission.is_none() {
            let host = u32::from(lease.address()) - u32::from(self.settings.subnet.network());
            match create(&format!("{letter}{:x}-{host:x}", self.bridge)) {
                Err(error) if taken(&error) => {}
                result => return result,
            }
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            match create(&format!("{letter}{}", NEXT.fetch_add(1, Ordering::Relaxed))) {
                Err(error) if taken(&error) && attempt < NAMES => {}
                result => return result,
            }
        }
    }

    fn set_up(&self) -> Result<(), NetworkError> {
        let mut netlink = self.lock();
        netlink.add_address(self.bridge, self.settings.gateway, self.settings.subnet.prefix())?;
        if let Some((subnet, gateway)) = self.settings.ipv6.zip(self.settings.ipv6_of(self.settings.gateway)) {
            netlink.add_address6(self.bridge, gateway, subnet.prefix())?;
        }
        if let Some(mtu) = self.settings.mtu {
            netlink.limit_packets(Which::Index(self.bridge), mtu)?;
        }
        if let Some(segments) = self.settings.segments {
            netlink.limit_segments(self.bridge, segments)?;
        }
        let setting = |name: &str| format!("ipv4/conf/{}/{name}", self.settings.bridge);
        // Whoever reaches a published port by another address of the host asks for the link-layer address in the gateway's name:
        // a guest need not answer to one outside its network, and the unikernel's (smoltcp) does not.
        sysctl::write(netlink.namespace(), &setting("arp_announce"), "2")?;
        // Lets published ports be reached by 127.0.0.1; the firewall drops what else this would let in.
        sysctl::write(netlink.namespace(), &setting("route_localnet"), "1")
    }

    /// Waits until a link has gone with its namespace or descriptor. The lock is not held while waiting, here and below.
    pub(crate) fn await_departure(&self, name: &str) -> Result<(), NetworkError> {
        let lingering = || NetworkError::Lingering(name.into());
        let gone = || Ok(self.lock().link(name)?.is_none());
        watch::until(name, ENDS_WITHIN, || self.watch_links(), gone)?.then_some(()).ok_or_else(lingering)
    }

    /// Waits until a link carries packets.
    pub(crate) fn await_carrier(&self, name: &str) -> Result<(), NetworkError> {
        watch::carries(name, || self.watch_links(), || self.lock().link(name))
    }

    fn watch_links(&self) -> Result<OwnedFd, NetworkError> {
        Netlink::watch_links(self.lock().namespace())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Netlink> {
        // A socket has no state that a panic elsewhere could leave half changed.
        self.netlink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if self.admission.is_some() {
            let _ = self.lock().delete_link(self.bridge);
        }
    }
}
