//! The addresses of a subnet, leased one at a time.

use super::lock_file::{Held, LockFile, Sharing};
use super::{NetworkError, Route, Subnet, Subnet6};
use isobench_workload::{Released, Resource};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The host addresses of a subnet. None is given twice while it is leased, and one that came back is the last to be given
/// again, so that nobody takes a new instance for the old one.
#[derive(Clone, Debug)]
pub struct Pool {
    subnet: Subnet,
    /// The gateway's index, as [`Subnet::host`] counts.
    gateway: u32,
    /// Indices of the addresses that are given to those who ask for none in particular.
    range: Range<u32>,
    books: Books,
}

/// Who has which address, by its index.
#[derive(Clone, Debug)]
enum Books {
    /// Kept by this process for itself.
    Memory(Arc<Mutex<State>>),
    /// Kept by the kernel for all processes: the index is an offset in a file of locks, and the file holds where to look for
    /// the next one.
    File(LockFile),
}

#[derive(Debug)]
struct State {
    leased: BTreeSet<u32>,
    /// Where to look for the next one.
    next: u32,
}

/// What keeps an address from being given again.
#[derive(Debug)]
enum Keeping {
    Memory(Arc<Mutex<State>>, u32),
    File(Held, u64),
}

impl Pool {
    /// All host addresses of a subnet but the gateway's, for this process alone.
    ///
    /// # Errors
    /// [`NetworkError::ForeignGateway`] if the gateway is no host address of the subnet.
    pub fn new(subnet: Subnet, gateway: Ipv4Addr) -> Result<Self, NetworkError> {
        let books = Books::Memory(Arc::new(Mutex::new(State { leased: BTreeSet::new(), next: 0 })));
        Self::with_books(subnet, gateway, None, books)
    }

    /// The same for all processes that use the same file. Where there is a `range`, only its addresses are given to those
    /// who ask for none in particular.
    ///
    /// # Errors
    /// Also [`NetworkError::ForeignRange`] if the range does not lie in the subnet.
    pub fn shared(
        subnet: Subnet,
        gateway: Ipv4Addr,
        range: Option<Subnet>,
        file: LockFile,
    ) -> Result<Self, NetworkError> {
        Self::with_books(subnet, gateway, range, Books::File(file))
    }

    fn with_books(
        subnet: Subnet,
        gateway: Ipv4Addr,
        range: Option<Subnet>,
        books: Books,
    ) -> Result<Self, NetworkError> {
        let (gateway, range) = check(subnet, gateway, range)?;
        Ok(Self { subnet, gateway, range, books })
    }

    /// The subnet.
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// Leases an address.
    ///
    /// # Errors
    /// [`NetworkError::Exhausted`] if every one is leased.
    pub fn lease(&self) -> Result<Lease, NetworkError> {
        let Range { start, end } = self.range;
        let found = match &self.books {
            Books::Memory(state) => {
                let mut locked = lock(state);
                // The first free index from `next` up, else from the first up: leased indices are met in order, so the first
                // gap is free.
                let next = locked.next.clamp(start, end);
                let free = self.first_gap(&locked.leased, next).or_else(|| self.first_gap(&locked.leased, start));
                free.map(|index| {
                    locked.leased.insert(index);
                    locked.next = index + 1;
                    (index, Keeping::Memory(state.clone(), index))
                })
            }
            Books::File(file) => {
                let held = file.begin()?;
                let next = held.hint().clamp(start, end);
                let mut found = None;
                for index in (next..end).chain(start..next).filter(|index| *index != self.gateway) {
                    if held.take(index.into(), Sharing::Alone)? {
                        found = Some(index);
                        break;
                    }
                }
                found.map(|index| {
                    held.set_hint(index + 1);
                    (index, Keeping::File(held, index.into()))
                })
            }
        };
        found.and_then(|(index, keeping)| self.leased_at(index, keeping)).ok_or(NetworkError::Exhausted(self.subnet))
    }

    /// Leases an address of one's own choice, which may lie outside of the range. One whose owner has ended is waited for until
    /// the owner's link has gone ([`Lease::retire`]).
    ///
    /// # Errors
    /// [`NetworkError::ForeignAddress`] if it is no host address of the subnet, [`NetworkError::AddressInUse`] if somebody
    /// has it.
    pub fn lease_address(&self, address: Ipv4Addr) -> Result<Lease, NetworkError> {
        let index = self.subnet.index_of(address);
        let index = index.ok_or(NetworkError::ForeignAddress { address, subnet: self.subnet })?;
        let in_use = || NetworkError::AddressInUse { address, subnet: self.subnet };
        if index == self.gateway {
            return Err(in_use());
        }
        let keeping = match &self.books {
            Books::Memory(state) => {
                lock(state).leased.insert(index).then(|| Keeping::Memory(state.clone(), index)).ok_or_else(in_use)?
            }
            Books::File(file) => {
                let held = file.begin()?;
                if !held.take(index.into(), Sharing::Alone)? && !await_retired(file, &held, index)? {
                    return Err(in_use());
                }
                Keeping::File(held, index.into())
            }
        };
        self.leased_at(index, keeping).ok_or_else(in_use)
    }

    /// Whether somebody has this address now.
    pub fn is_leased(&self, address: Ipv4Addr) -> Result<bool, NetworkError> {
        let Some(index) = self.subnet.index_of(address) else { return Ok(false) };
        match &self.books {
            Books::Memory(state) => Ok(lock(state).leased.contains(&index)),
            Books::File(file) => file.is_held(index.into()),
        }
    }

    /// Number of addresses that are leased. With a file every address is asked for: not for a path that is measured.
    pub fn leased(&self) -> Result<usize, NetworkError> {
        match &self.books {
            Books::Memory(state) => Ok(lock(state).leased.len()),
            Books::File(file) => file.count_held(0..self.subnet.hosts().into()),
        }
    }

    fn leased_at(&self, index: u32, keeping: Keeping) -> Option<Lease> {
        Some(Lease { subnet: self.subnet, address: self.subnet.host(index)?, keeping })
    }

    fn first_gap(&self, leased: &BTreeSet<u32>, from: u32) -> Option<u32> {
        let mut candidate = from;
        let skip = |candidate: u32| candidate + u32::from(candidate == self.gateway);
        candidate = skip(candidate);
        for taken in leased.range(candidate..) {
            if *taken != candidate {
                break;
            }
            candidate = skip(candidate + 1);
        }
        (candidate < self.range.end).then_some(candidate)
    }
}

/// Sees to it that gateway and range lie in the subnet; gives their indices.
pub fn check(subnet: Subnet, gateway: Ipv4Addr, range: Option<Subnet>) -> Result<(u32, Range<u32>), NetworkError> {
    let gateway = subnet.index_of(gateway).ok_or(NetworkError::ForeignGateway { gateway, subnet })?;
    let range = match range {
        None => 0..subnet.hosts(),
        Some(range) => subnet.indices_of(range).ok_or(NetworkError::ForeignRange { range, subnet })?,
    };
    Ok((gateway, range))
}

/// Where in the file the lock of whoever waits for an address is; behind those of the addresses.
const WAITING: u64 = 1 << 32;

/// Takes an address whose owner has ended, once it is given back; false if somebody uses it.
fn await_retired(file: &LockFile, held: &Held, index: u32) -> Result<bool, NetworkError> {
    // One alone waits: two who share the lock would wait for each other.
    let waiting = file.begin()?;
    // Once it is shared nobody else can come to use it.
    if !waiting.take(WAITING + u64::from(index), Sharing::Alone)? || !held.take(index.into(), Sharing::Shared)? {
        return Ok(false);
    }
    held.wait_for(index.into())?;
    Ok(true)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Every change of the state is a single call: a panic elsewhere cannot leave it half done.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Keeping {
    fn drop(&mut self) {
        if let Self::Memory(state, index) = self {
            lock(state).leased.remove(index);
        }
    }
}

/// A leased address; it goes back to its pool when this is released or dropped.
#[derive(Debug)]
pub struct Lease {
    subnet: Subnet,
    address: Ipv4Addr,
    keeping: Keeping,
}

impl Lease {
    /// The address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The subnet in which it lies.
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// Nobody uses the address any more, and it comes back as soon as this is dropped: until then it is given to nobody else,
    /// and whoever takes the whole network away need not wait for it ([`super::Held::take_all`]).
    pub fn retire(&self) -> Result<(), NetworkError> {
        match &self.keeping {
            Keeping::Memory(..) => Ok(()),
            // One's own lock is changed for the other kind at once.
            Keeping::File(held, index) => held.take(*index, Sharing::Shared).map(drop),
        }
    }
}

impl Resource for Lease {
    fn describe(&self) -> String {
        format!("address {}", self.address)
    }

    fn release(self: Box<Self>) -> Released {
        Ok(None)
    }
}

/// Sees to it that nothing is routed to a subnet yet: traffic would otherwise go astray, ours or the machine's. The default
/// route reaches everything and so collides with nothing; nor do the link-local and multicast routes that every link has
/// with IPv6.
pub fn check_free(
    subnet: Subnet,
    subnet6: Option<Subnet6>,
    routes: &[Route],
    name_of_link: impl Fn(u32) -> String,
) -> Result<(), NetworkError> {
    for route in routes.iter().filter(|route| route.prefix > 0) {
        let collides = match (route.destination, subnet6) {
            (IpAddr::V4(destination), _) => subnet.overlaps(destination, route.prefix).then(|| subnet.to_string()),
            (IpAddr::V6(destination), Some(six)) => six.overlaps(destination, route.prefix).then(|| six.to_string()),
            (IpAddr::V6(_), None) => None,
        };
        if let Some(subnet) = collides {
            return Err(NetworkError::SubnetInUse {
                subnet,
                destination: route.destination,
                prefix: route.prefix,
                link: route.link.map_or_else(|| "no link".into(), &name_of_link),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(prefix: u8) -> Pool {
        Pool::new(Subnet::new(Ipv4Addr::new(10, 0, 0, 0), prefix).unwrap(), Ipv4Addr::new(10, 0, 0, 1)).unwrap()
    }

    fn shared(prefix: u8, range: Option<&str>, directory: &std::path::Path) -> Pool {
        let subnet = Subnet::new(Ipv4Addr::new(10, 0, 0, 0), prefix).unwrap();
        let file = LockFile::create(&directory.join("leases")).unwrap();
        let range = range.map(|range| range.parse().unwrap());
        Pool::shared(subnet, Ipv4Addr::new(10, 0, 0, 1), range, file).unwrap()
    }

    #[test]
    fn a_range_bounds_what_is_given_but_not_what_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let (pool, other) =
            (shared(24, Some("10.0.0.128/30"), directory.path()), shared(24, Some("10.0.0.0/30"), directory.path()));
        let leases: Vec<_> = (0..4).map(|_| pool.lease().unwrap()).collect();
        let last = |lease: &Lease| lease.address().octets()[3];
        assert_eq!(leases.iter().map(last).collect::<Vec<_>>(), [128, 129, 130, 131]);
        assert!(pool.lease().is_err());
        let asked = pool.lease_address(Ipv4Addr::new(10, 0, 0, 3)).unwrap();
        assert_eq!(
            other.lease_address(asked.address()).unwrap_err().to_string(),
            "address 10.0.0.3 of subnet 10.0.0.0/24 is in use: choose another one"
        );
        assert!(other.is_leased(asked.address()).unwrap());
        assert_eq!(last(&other.lease().unwrap()), 2, "neither the gateway nor what somebody has");
        for address in [[10, 0, 0, 0], [10, 0, 0, 255], [10, 0, 1, 1]] {
            assert!(matches!(pool.lease_address(address.into()), Err(NetworkError::ForeignAddress { .. })));
        }
        assert!(pool.lease_address(Ipv4Addr::new(10, 0, 0, 1)).is_err(), "the gateway");
    }

    #[test]
    fn an_address_whose_owner_has_ended_is_waited_for_and_bars_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let (pool, other) = (shared(24, None, directory.path()), shared(24, None, directory.path()));
        let file = LockFile::at(&directory.path().join("leases"));
        let all = || file.begin().unwrap().take_all(Sharing::Shared).unwrap();
        let lease = pool.lease().unwrap();
        assert!(!all(), "somebody uses an address");
        lease.retire().unwrap();
        assert!(all(), "nobody does");
        assert!(other.is_leased(lease.address()).unwrap());
        assert_ne!(other.lease().unwrap().address(), lease.address(), "it is not given again yet");
        let (address, number) = (lease.address(), u64::from(lease.subnet().index_of(lease.address()).unwrap()));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| other.lease_address(address).map(|lease| lease.address()));
            while !file.is_held(WAITING + number).unwrap() {
                std::thread::yield_now();
            }
            let second = other.lease_address(address);
            assert!(matches!(second, Err(NetworkError::AddressInUse { .. })), "one alone waits: {second:?}");
            assert!(!waiting.is_finished());
            drop(lease);
            assert_eq!(waiting.join().unwrap().unwrap(), address);
        });
    }

    #[test]
    fn a_small_pool_is_given_out_whole_and_then_exhausted() {
        let pool = pool(29);
        let leases: Vec<_> = (0..5).map(|_| pool.lease().unwrap()).collect();
        let addresses: Vec<_> = leases.iter().map(|lease| lease.address().octets()[3]).collect();
        assert_eq!(addresses, [2, 3, 4, 5, 6]);
        assert_eq!(pool.lease().unwrap_err().to_string(), "every address of subnet 10.0.0.0/29 is in use");
        drop(leases);
        assert_eq!(pool.leased().unwrap(), 0);
        assert_eq!(pool.lease().unwrap().address().octets()[3], 2);
    }

    #[test]
    fn what_came_back_last_is_given_last() {
        let pool = pool(29);
        let first = pool.lease().unwrap();
        assert_eq!(first.describe(), "address 10.0.0.2");
        assert_eq!(pool.lease().unwrap().address().octets()[3], 3);
    }

    #[test]
    fn a_gateway_must_be_a_host_of_the_subnet() {
        let subnet: Subnet = "10.89.0.0/24".parse().unwrap();
        for gateway in [[10, 89, 0, 0], [10, 89, 0, 255], [10, 89, 1, 1]] {
            assert!(Pool::new(subnet, gateway.into()).is_err(), "{gateway:?}");
        }
        let pool = Pool::new(subnet, [10, 89, 0, 254].into()).unwrap();
        assert_eq!(pool.lease().unwrap().address(), Ipv4Addr::new(10, 89, 0, 1));
    }

    #[test]
    fn only_other_than_default_routes_collide() {
        let subnet: Subnet = "172.17.0.0/16".parse().unwrap();
        let route = |destination: [u8; 4], prefix| Route {
            table: Route::MAIN,
            destination: destination.into(),
            prefix,
            gateway: None,
            link: Some(3),
        };
        let check = |route: Route| check_free(subnet, None, &[route], |index| format!("link{index}"));
        assert!(check(route([0, 0, 0, 0], 0)).is_ok());
        assert!(check(route([172, 18, 0, 0], 16)).is_ok());
        assert_eq!(
            check(route([172, 17, 3, 0], 24)).unwrap_err().to_string(),
            "subnet 172.17.0.0/16 collides with the route to 172.17.3.0/24 over link3: choose another subnet"
        );
        assert!(check(route([172, 16, 0, 0], 12)).is_err());
    }

    proptest! {
        /// Leases and releases in any order: never an address twice, never the gateway, never one outside, and refused
        /// only when every address is out.
        #[test]
        fn no_address_is_given_twice(
            prefix in 26_u8..=30,
            in_file: bool,
            steps in proptest::collection::vec(any::<Option<u8>>(), 1..200),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let pool = if in_file { shared(prefix, None, directory.path()) } else { pool(prefix) };
            let all = pool.subnet().hosts() as usize - 1;
            let mut held: Vec<Lease> = Vec::new();
            for step in steps {
                match step {
                    Some(which) if !held.is_empty() => drop(held.swap_remove(usize::from(which) % held.len())),
                    _ => match pool.lease() {
                        Ok(lease) => {
                            prop_assert!(pool.subnet().is_host(lease.address()));
                            prop_assert_ne!(lease.address(), Ipv4Addr::new(10, 0, 0, 1));
                            prop_assert!(held.iter().all(|other| other.address() != lease.address()));
                            held.push(lease);
                        }
                        Err(_) => prop_assert_eq!(held.len(), all),
                    },
                }
                prop_assert_eq!(pool.leased().unwrap(), held.len());
            }
        }
    }
}
