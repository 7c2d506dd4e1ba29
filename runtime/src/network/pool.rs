//! The addresses of a subnet, leased one at a time.

use super::{NetworkError, Route, Subnet};
use isobench_workload::Resource;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The host addresses of a subnet. None is given twice while it is leased, and one that came back is the last to be given
/// again, so that nobody takes a new instance for the old one.
#[derive(Clone, Debug)]
pub struct Pool {
    subnet: Subnet,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Indices of host addresses, as [`Subnet::host`] counts them.
    leased: BTreeSet<u32>,
    /// Where to look for the next one.
    next: u32,
}

impl Pool {
    /// All host addresses of a subnet but the gateway's.
    ///
    /// # Errors
    /// [`NetworkError::ForeignGateway`] if the gateway is no host address of the subnet.
    pub fn new(subnet: Subnet, gateway: Ipv4Addr) -> Result<Self, NetworkError> {
        if !subnet.is_host(gateway) {
            return Err(NetworkError::ForeignGateway { gateway, subnet });
        }
        let gateway = u32::from(gateway) - u32::from(subnet.network()) - 1;
        let state = State { leased: BTreeSet::from([gateway]), next: 0 };
        Ok(Self { subnet, state: Arc::new(Mutex::new(state)) })
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
        let mut state = self.lock();
        let hosts = self.subnet.hosts();
        // The first free index from `next` up, else from 0 up: leased indices are met in order, so the first gap is free.
        let free = first_gap(&state.leased, state.next, hosts).or_else(|| first_gap(&state.leased, 0, hosts));
        let (index, address) = free
            .and_then(|index| Some((index, self.subnet.host(index)?)))
            .ok_or(NetworkError::Exhausted(self.subnet))?;
        state.leased.insert(index);
        state.next = index + 1;
        drop(state);
        Ok(Lease { pool: self.clone(), index, address })
    }

    /// Number of addresses that are leased.
    pub fn leased(&self) -> usize {
        self.lock().leased.len() - 1
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is a single call: a panic elsewhere cannot leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn first_gap(leased: &BTreeSet<u32>, from: u32, end: u32) -> Option<u32> {
    let mut candidate = from;
    for taken in leased.range(from..) {
        if *taken != candidate {
            break;
        }
        candidate += 1;
    }
    (candidate < end).then_some(candidate)
}

/// A leased address; it goes back to its pool when this is released or dropped.
#[derive(Debug)]
pub struct Lease {
    pool: Pool,
    index: u32,
    address: Ipv4Addr,
}

impl Lease {
    /// The address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The subnet in which it lies.
    pub fn subnet(&self) -> Subnet {
        self.pool.subnet
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.lock().leased.remove(&self.index);
    }
}

impl Resource for Lease {
    fn describe(&self) -> String {
        format!("address {}", self.address)
    }

    fn release(self: Box<Self>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }
}

/// Sees to it that nothing is routed to a subnet yet: traffic would otherwise go astray, ours or the machine's. The default
/// route reaches everything and so collides with nothing.
pub fn check_free(subnet: Subnet, routes: &[Route], name_of_link: impl Fn(u32) -> String) -> Result<(), NetworkError> {
    for route in routes {
        let IpAddr::V4(destination) = route.destination else { continue };
        if route.prefix > 0 && subnet.overlaps(destination, route.prefix) {
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

    #[test]
    fn a_small_pool_is_given_out_whole_and_then_exhausted() {
        let pool = pool(29);
        let leases: Vec<_> = (0..5).map(|_| pool.lease().unwrap()).collect();
        let addresses: Vec<_> = leases.iter().map(|lease| lease.address().octets()[3]).collect();
        assert_eq!(addresses, [2, 3, 4, 5, 6]);
        assert_eq!(pool.lease().unwrap_err().to_string(), "every address of subnet 10.0.0.0/29 is in use");
        drop(leases);
        assert_eq!(pool.leased(), 0);
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
        let check = |route: Route| check_free(subnet, &[route], |index| format!("link{index}"));
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
        fn no_address_is_given_twice(prefix in 26_u8..=30, steps in proptest::collection::vec(any::<Option<u8>>(), 1..200)) {
            let pool = pool(prefix);
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
                prop_assert_eq!(pool.leased(), held.len());
            }
        }
    }
}
