//! A network of containers: a bridge, the addresses of its subnet, and its place in the firewall.
//!
//! A container joins it in steps, so that nothing is left to prepare once its process exists:
//! 1. [`BridgeNetwork::endpoint`] leases an address and makes the messages for the inside;
//! 2. the process is created, and while it builds its root, [`Endpoint::attach`] makes the veth pair with one end in its
//!    namespace; then it sends the messages ([`Configuration::apply`]);
//! 3. [`Endpoint::await_carrier`] sees to it that no packet is lost on the bridge any more.

use super::inside::{self, Configuration};
use super::pool::check_free;
use super::{
    Admission, Firewall, Lease, Link, Mac, Netlink, NetworkError, Offload, PeerNamespace, Pool, Subnet, Tap, Veth,
    sysctl,
};
use isobench_workload::Resource;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a link may take to carry packets, or to go with its namespace or descriptor.
const PATIENCE: Duration = Duration::from_secs(10);

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
        }
    }
}

/// A network of containers; its bridge and its place in the firewall go when this and its endpoints are dropped.
#[derive(Clone, Debug)]
pub struct BridgeNetwork(Arc<Network>);

#[derive(Debug)]
struct Network {
    settings: Settings,
    pool: Pool,
    bridge: u32,
    ipv6: bool,
    /// Where bridged packets pass the firewall, a container's packet to its own published port turns round within the bridge;
    /// elsewhere the host routes it.
    hairpin: bool,
    netlink: Mutex<Netlink>,
    firewall: Firewall,
    _admission: Admission,
}

impl BridgeNetwork {
    /// Creates a network in the firewall's namespace.
    ///
    /// # Errors
    /// [`NetworkError::SubnetInUse`] if the machine routes to a part of the subnet already, else what failed. Nothing is
    /// left behind.
    pub fn create(firewall: &Firewall, settings: Settings) -> Result<Self, NetworkError> {
        let pool = Pool::new(settings.subnet, settings.gateway)?;
        let mut netlink = Netlink::open_in(&firewall.namespace()?)?;
        let links = netlink.links()?;
        let name_of =
            |index| links.iter().find(|link| link.index == index).map_or("?".into(), |link| link.name.clone());
        check_free(settings.subnet, &netlink.routes()?, name_of)?;
        // The rules are there before the link, so that nothing is ever open.
        let admission = firewall.admit(&settings.bridge, settings.subnet, settings.nat)?;
        let bridge = netlink.create_bridge(&settings.bridge, Mac::of(settings.gateway))?;
        // From here on, dropping it deletes the bridge.
        let network = Self(Arc::new(Network {
            pool,
            bridge,
            ipv6: sysctl::has_ipv6(),
            hairpin: sysctl::filters_bridged_packets(netlink.namespace()),
            netlink: Mutex::new(netlink),
            firewall: firewall.clone(),
            _admission: admission,
            settings,
        }));
        network.0.set_up()?;
        Ok(network)
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
        let network = &self.0;
        let lease = network.pool.lease()?;
        let configuration = Configuration::new(&inside::Interface {
            address: lease.address(),
            prefix: network.settings.subnet.prefix(),
            gateway: network.settings.gateway,
            ipv6: network.ipv6,
        });
        Ok(Endpoint {
            network: self.clone(),
            mac: Mac::of(lease.address()),
            lease,
            configuration,
            link: OnceLock::new(),
        })
    }
}

impl BridgeNetwork {
    /// Leases an address for a virtual machine and creates a tap for its monitor, which is handed the descriptor.
    pub fn tap(&self, offload: Offload) -> Result<(Tap, TapEndpoint), NetworkError> {
        let lease = self.0.pool.lease()?;
        let tap = with_free_name('t', |name| Tap::create(&mut self.0.lock(), name, self.0.bridge, offload))?;
        let link = tap.name().to_owned();
        Ok((tap, TapEndpoint { network: self.clone(), lease, link }))
    }
}

/// Makes a link under a name that is free. Names are counted through, so that a link that is about to go is in nobody's
/// way; another process may count too.
fn with_free_name<T>(letter: char, create: impl Fn(&str) -> Result<T, NetworkError>) -> Result<T, NetworkError> {
    const NAMES: u32 = 4096;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut attempt = 0;
    loop {
        attempt += 1;
        match create(&format!("{letter}{}", NEXT.fetch_add(1, Ordering::Relaxed))) {
            // A tap of that name gives EBUSY.
            Err(error) if matches!(error.errno(), Some(Errno::EXIST | Errno::BUSY)) && attempt < NAMES => {}
            result => return result,
        }
    }
}

impl Network {
    fn set_up(&self) -> Result<(), NetworkError> {
        let mut netlink = self.lock();
        netlink.add_address(self.bridge, self.settings.gateway, self.settings.subnet.prefix())?;
        if let Some(segments) = self.settings.segments {
            netlink.limit_segments(self.bridge, segments)?;
        }
        // Lets published ports be reached by 127.0.0.1; the firewall drops what else this would let in.
        let setting = format!("ipv4/conf/{}/route_localnet", self.settings.bridge);
        sysctl::write(netlink.namespace(), &setting, "1")
    }

    /// Waits until a link has gone.
    fn await_departure(&self, name: &str) -> Result<(), NetworkError> {
        let lingering = || NetworkError::Lingering(name.into());
        self.await_link(name, |link| link.is_none())?.then_some(()).ok_or_else(lingering)
    }

    /// Waits until a link is as it should be, told by the kernel of every change; false if it never is.
    fn await_link(&self, name: &str, reached: impl Fn(Option<&Link>) -> bool) -> Result<bool, NetworkError> {
        if reached(self.lock().link(name)?.as_ref()) {
            return Ok(true);
        }
        // Subscribed before the next look: no change is missed in between. The lock is not held while waiting.
        let watch = Netlink::watch_links(self.lock().namespace())?;
        let end = Instant::now() + PATIENCE;
        while !reached(self.lock().link(name)?.as_ref()) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(NetworkError::system("watch link", name, errno)),
            }
            super::netlink::discard(&watch);
        }
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, Netlink> {
        // A socket has no state that a panic elsewhere could leave half changed.
        self.netlink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.lock().delete_link(self.bridge);
    }
}

/// A container's place in a network: an address, and a veth pair once it is attached. Releasing it waits until the link
/// has gone with the container's namespace; only then can the address be leased again.
#[derive(Debug)]
pub struct Endpoint {
    network: BridgeNetwork,
    lease: Lease,
    mac: Mac,
    configuration: Configuration,
    /// Name of the host's end of the veth pair.
    link: OnceLock<String>,
}

impl Endpoint {
    /// The container's address.
    pub fn address(&self) -> Ipv4Addr {
        self.lease.address()
    }

    /// The container's link-layer address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// What the container's process has to send in its namespace once it is attached.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Name of the host's end of the veth pair, once it is attached.
    pub fn link(&self) -> Option<&str> {
        self.link.get().map(String::as_str)
    }

    /// Makes the veth pair: the host's end a port of the bridge and up, the container's end in its namespace.
    pub fn attach(&self, container: &PeerNamespace<'_>) -> Result<(), NetworkError> {
        let network = &self.network.0;
        let name = with_free_name('v', |name| {
            let veth = Veth {
                name,
                mac: None,
                bridge: Some(network.bridge),
                hairpin: network.hairpin,
                peer_name: inside::INTERFACE_NAME,
                peer_mac: Some(self.mac),
                peer_index: Some(inside::INTERFACE),
                segments: network.settings.segments,
            };
            network.lock().create_veth(&veth, container).map(|()| name.to_owned())
        })?;
        self.link.get_or_init(|| name);
        Ok(())
    }
}

impl Endpoint {
    /// Waits until the bridge carries packets to and from the container, once its inside is configured.
    ///
    /// When the container's end comes up, the kernel leaves it to a worker (net/core/link_watch.c) to let the host's end
    /// send and to make the bridge's port forward. Until then packets are dropped, and a first one that is lost costs a
    /// second. Since Linux 6.8 the question for the link's state makes the kernel catch up.
    ///
    /// # Errors
    /// [`NetworkError::Silent`] if it never does.
    pub fn await_carrier(&self) -> Result<(), NetworkError> {
        let Some(name) = self.link.get() else { return Ok(()) };
        let silent = || NetworkError::Silent(name.clone());
        self.network.0.await_link(name, |link| link.is_some_and(|link| link.running))?.then_some(()).ok_or_else(silent)
    }
}

impl Resource for Endpoint {
    fn describe(&self) -> String {
        let link = self.link.get().map(|name| format!(" and link {name}")).unwrap_or_default();
        format!("{}{link}", self.lease.describe())
    }

    fn release(self: Box<Self>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.link.get().map_or(Ok(()), |name| self.network.0.await_departure(name))?)
    }
}

/// A virtual machine's place in a network: an address, which the guest is to be told, and a tap, which its monitor has.
/// Releasing it waits until the tap has gone with its last descriptor; only then can the address be leased again.
#[derive(Debug)]
pub struct TapEndpoint {
    network: BridgeNetwork,
    lease: Lease,
    link: String,
}

impl TapEndpoint {
    /// The guest's address.
    pub fn address(&self) -> Ipv4Addr {
        self.lease.address()
    }

    /// The guest's link-layer address.
    pub fn mac(&self) -> Mac {
        Mac::of(self.lease.address())
    }

    /// The tap's name on the host.
    pub fn link(&self) -> &str {
        &self.link
    }
}

impl Resource for TapEndpoint {
    fn describe(&self) -> String {
        format!("{} and tap {}", self.lease.describe(), self.link)
    }

    fn release(self: Box<Self>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.network.0.await_departure(&self.link)?)
    }
}
