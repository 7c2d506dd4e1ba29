//! Subnets of IPv4 and IPv6, and the link-layer addresses made from IPv4 addresses.

use super::NetworkError;
use std::fmt::{self, Display, Formatter};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
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

    /// The inverse of [`Subnet::host`]: `None` for what is no host address of this subnet.
    pub fn index_of(self, address: Ipv4Addr) -> Option<u32> {
        self.is_host(address).then(|| u32::from(address) - u32::from(self.network) - 1)
    }

    /// The indices of the host addresses that lie in a part of this subnet; `None` if it is no part.
    pub fn indices_of(self, part: Self) -> Option<Range<u32>> {
        if part.prefix < self.prefix || !self.contains(part.network) {
            return None;
        }
        let offset = u32::from(part.network) - u32::from(self.network);
        let end = u32::from(part.broadcast()) - u32::from(self.network);
        Some(offset.max(1) - 1..end.min(self.hosts()))
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

/// An IPv6 subnet whose addresses end in the host part of an IPv4 address, so that one lease gives both: prefix length 8
/// to 96.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subnet6 {
    network: Ipv6Addr,
    prefix: u8,
}

impl Subnet6 {
    /// A subnet, if `network` has no bit set behind the prefix and the prefix is 8 to 96.
    pub fn new(network: Ipv6Addr, prefix: u8) -> Result<Self, NetworkError> {
        let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
        if !(8..=96).contains(&prefix) || u128::from(network) & !mask != 0 {
            return Err(NetworkError::NoSubnet6(format!("{network}/{prefix}")));
        }
        Ok(Self { network, prefix })
    }

    /// A unique local subnet ([RFC 4193](https://www.rfc-editor.org/rfc/rfc4193), 3.1) of prefix length 64: `fd`, 40 random
    /// bits and subnet 0.
    pub fn unique_local(random: u64) -> Self {
        let network = 0xfd_u128 << 120 | u128::from(random & 0xff_ffff_ffff) << 80;
        Self { network: network.into(), prefix: 64 }
    }

    /// The first address, all host bits 0.
    pub fn network(self) -> Ipv6Addr {
        self.network
    }

    /// The prefix length.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The last address, all host bits 1.
    pub fn last(self) -> Ipv6Addr {
        (u128::from(self.network) | u128::MAX >> self.prefix).into()
    }

    /// The address that belongs to an IPv4 address: its host part in `subnet` is also the host part here.
    pub fn address_of(self, address: Ipv4Addr, subnet: Subnet) -> Ipv6Addr {
        let host = u32::from(address) & !subnet.mask();
        (u128::from(self.network) | u128::from(host)).into()
    }

    /// Whether any address lies both in it and in `network`/`prefix`.
    pub fn overlaps(self, network: Ipv6Addr, prefix: u8) -> bool {
        let common = prefix.min(self.prefix);
        let mask = u128::MAX.checked_shl(128 - u32::from(common)).unwrap_or(0);
        u128::from(network) & mask == u128::from(self.network) & mask
    }

    /// Whether an address lies in it.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        self.overlaps(address, 128)
    }
}

impl Display for Subnet6 {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Subnet6 {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let no_subnet = || NetworkError::NoSubnet6(text.into());
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

impl FromStr for Mac {
    type Err = NetworkError;

    /// Six pairs of hexadecimal digits; no group address, which no link can have.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let no_mac = || NetworkError::NoMac(text.into());
        let mut bytes = [0; 6];
        let mut pairs = text.split([':', '-']);
        for byte in &mut bytes {
            let pair =
                pairs.next().filter(|pair| pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
            *byte = u8::from_str_radix(pair.ok_or_else(no_mac)?, 16).map_err(|_| no_mac())?;
        }
        let usable = pairs.next().is_none() && bytes[0] & 1 == 0 && bytes != [0; 6];
        usable.then_some(Self(bytes)).ok_or_else(no_mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_ipv6_address_ends_as_its_ipv4_address_does() {
        let (subnet, six): (Subnet, Subnet6) = ("10.89.0.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap());
        assert_eq!(six.address_of(Ipv4Addr::new(10, 89, 0, 18), subnet).to_string(), "fd00:1::12");
        assert_eq!(six.last().to_string(), "fd00:1::ffff:ffff:ffff:ffff");
        assert!(six.contains("fd00:1::5".parse().unwrap()) && !six.contains("fd00:2::5".parse().unwrap()));
        assert_eq!(Subnet6::unique_local(u64::MAX).to_string(), "fdff:ffff:ffff::/64");
        assert_eq!(Subnet6::unique_local(0x12_3456_789a).to_string(), "fd12:3456:789a::/64");
        for text in ["", "fd00::", "fd00::1/64", "fd00::/97", "fd00::/7", "10.0.0.0/8", "fd00::/200"] {
            assert!(text.parse::<Subnet6>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_link_layer_address_is_read_as_it_is_written() {
        assert_eq!("02:42:AC:11:00:02".parse::<Mac>().unwrap().to_string(), "02:42:ac:11:00:02");
        for text in
            ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "03:42:ac:11:00:02", "00:00:00:00:00:00", "2:42:ac:11:0:+2"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

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
                Some(host) => {
                    prop_assert!(subnet.is_host(host));
                    prop_assert_eq!(subnet.index_of(host), Some(index % (subnet.hosts() + 1)));
                }
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
