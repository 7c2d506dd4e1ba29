//! IPv4 subnets and the link-layer addresses made from IPv4 addresses.

use super::NetworkError;
use std::fmt::{self, Display, Formatter};
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 subnet with room for a gateway and at least one more host: prefix length 1 to 30.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// A subnet, if `network` has no bit set behind the prefix and the prefix is 1 to 30.
    pub fn new(network: Ipv4Addr, prefix: u8) -> Result<Self, NetworkError> {
        let subnet = Self { network, prefix };
        if !(1..=30).contains(&prefix) || u32::from(network) & !subnet.mask() != 0 {
            return Err(NetworkError::NoSubnet(subnet.to_string()));
        }
        Ok(subnet)
    }

    /// The first address, all host bits 0.
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// The prefix length.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The last address, all host bits 1.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) | !self.mask())
    }

    /// Number of host addresses: all but the network and the broadcast address.
    pub fn hosts(self) -> u32 {
        !self.mask() - 1
    }

    /// The `index`th host address, counted from 0.
    pub fn host(self, index: u32) -> Option<Ipv4Addr> {
        (index < self.hosts()).then(|| Ipv4Addr::from(u32::from(self.network) + 1 + index))
    }

    /// Whether an address lies in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == u32::from(self.network)
    }

    /// Whether it is a host address of this subnet: in it, and neither the network nor the broadcast address.
    pub fn is_host(self, address: Ipv4Addr) -> bool {
        self.contains(address) && address != self.network && address != self.broadcast()
    }

    /// Whether any address lies both in it and in `network`/`prefix`.
    pub fn overlaps(self, network: Ipv4Addr, prefix: u8) -> bool {
        let common = mask(prefix.min(self.prefix));
        u32::from(network) & common == u32::from(self.network) & common
    }

    fn mask(self) -> u32 {
        mask(self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

impl Display for Subnet {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let no_subnet = || NetworkError::NoSubnet(text.into());
        let (network, prefix) = text.split_once('/').ok_or_else(no_subnet)?;
        let network = network.parse().map_err(|_| no_subnet())?;
        let prefix = prefix.parse().map_err(|_| no_subnet())?;
        Self::new(network, prefix).map_err(|_| no_subnet())
    }
}

/// A link-layer (MAC) address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The locally administered address `02:42:` + IPv4 address. Being a function of the IPv4 address, it can never be
    /// stale in a neighbour table when the IPv4 address is leased again.
    pub fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }
}

impl Display for Mac {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_subnet_has_the_addresses_that_everyone_knows() {
        let subnet: Subnet = "172.17.0.0/16".parse().unwrap();
        assert_eq!(subnet.host(0), Some(Ipv4Addr::new(172, 17, 0, 1)));
        assert_eq!(subnet.broadcast(), Ipv4Addr::new(172, 17, 255, 255));
        assert_eq!(subnet.hosts(), 65534);
        assert_eq!(subnet.host(65534), None);
        assert_eq!(Mac::of(Ipv4Addr::new(172, 17, 0, 2)).to_string(), "02:42:ac:11:00:02");
    }

    #[test]
    fn what_is_no_subnet_is_refused_in_one_sentence() {
        for text in
            ["", "10.0.0.0", "10.0.0.1/24", "10.0.0.0/31", "0.0.0.0/0", "10.0.0.0/33", "::/64", "a/8", "10.0.0.0/-1"]
        {
            let error = text.parse::<Subnet>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{text}` is no IPv4 subnet")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn every_host_lies_inside_and_text_reads_back(bits: u32, prefix in 1_u8..=30, index: u32) {
            let network = Ipv4Addr::from(bits & mask(prefix));
            let subnet = Subnet::new(network, prefix).unwrap();
            prop_assert_eq!(subnet.to_string().parse::<Subnet>().unwrap(), subnet);
            match subnet.host(index % (subnet.hosts() + 1)) {
                Some(host) => prop_assert!(subnet.is_host(host)),
                None => prop_assert_eq!(index % (subnet.hosts() + 1), subnet.hosts()),
            }
        }

        #[test]
        fn overlap_is_what_a_common_address_shows(a: u32, b: u32, p in 1_u8..=30, q in 0_u8..=32) {
            let subnet = Subnet::new(Ipv4Addr::from(a & mask(p)), p).unwrap();
            let other = Ipv4Addr::from(b & mask(q));
            // Of two aligned ranges one holds the other's first address or they have nothing in common.
            let common = subnet.contains(other) || u32::from(subnet.network()) & mask(q) == u32::from(other);
            prop_assert_eq!(subnet.overlaps(other, q), common);
        }
    }
}
