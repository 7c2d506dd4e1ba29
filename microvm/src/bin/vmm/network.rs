//! The options that give a guest its place in a network: the same for one that boots and one that goes on from a snapshot.

use crate::arguments::{ArgumentError, address, mac};
use isobench_microvm::linux::Network;
use isobench_microvm::system::inherited_fd;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

/// Sizes of packets that a link can have: IPv4's least, and the most of a frame.
const LEAST_MTU: u32 = 68;
/// See [`LEAST_MTU`].
const MOST_MTU: u32 = 65_535;

/// What was given.
#[derive(Debug, Default)]
pub(crate) struct NetworkOptions {
    tap: Option<OwnedFd>,
    mac: Option<[u8; 6]>,
    address: Option<(Ipv4Addr, u8)>,
    gateway: Option<Ipv4Addr>,
    address6: Option<(Ipv6Addr, u8)>,
    gateway6: Option<Ipv6Addr>,
    mtu: Option<u32>,
}

impl NetworkOptions {
    /// Their names.
    pub(crate) const NAMES: [&str; 7] =
        ["--tap-fd", "--mac", "--address", "--gateway", "--address6", "--gateway6", "--mtu"];

    /// Takes in one of them; what was wanted where its value is wrong.
    pub(crate) fn set(&mut self, option: &str, value: &str) -> Result<(), &'static str> {
        match option {
            "--tap-fd" => {
                let number = value.parse().map_err(|_| "a file descriptor")?;
                self.tap = Some(inherited_fd(number).map_err(|_| "an open file descriptor")?);
            }
            "--mac" => self.mac = Some(mac(value).ok_or("an Ethernet address")?),
            "--address" => {
                self.address = Some(address(value).ok_or("an IPv4 address with a prefix, such as 172.17.0.5/16")?);
            }
            "--gateway" => {
                let router: Ipv4Addr = value.parse().map_err(|_| "an IPv4 address")?;
                self.gateway = Some(router).filter(|router| !router.is_unspecified());
            }
            "--address6" => {
                self.address6 = Some(six(value).ok_or("an IPv6 address with a prefix, such as fd00::5/64")?);
            }
            "--gateway6" => self.gateway6 = Some(value.parse().map_err(|_| "an IPv6 address")?),
            _ => {
                let bytes = value.parse().ok().filter(|mtu| (LEAST_MTU..=MOST_MTU).contains(mtu));
                self.mtu = Some(bytes.ok_or("a number of bytes from 68 to 65535")?);
            }
        }
        Ok(())
    }

    /// The tap with the addresses, where a tap was given.
    pub(crate) fn finish(self) -> Result<Option<(OwnedFd, Network)>, ArgumentError> {
        let Self { tap, mac, address, gateway, address6, gateway6, mtu } = self;
        match (tap, mac, address) {
            (Some(tap), Some(mac), Some((address, prefix))) => {
                Ok(Some((tap, Network { mac, address, prefix, gateway, address6, gateway6, mtu })))
            }
            (None, ..) => Ok(None),
            _ => Err(ArgumentError::NoNetwork),
        }
    }
}

/// An IPv6 address of one host, with the length of its network's prefix.
fn six(value: &str) -> Option<(Ipv6Addr, u8)> {
    let (address, prefix) = value.split_once('/')?;
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 128)?;
    let address: Ipv6Addr = address.parse().ok()?;
    (!address.is_multicast() && !address.is_unspecified()).then_some((address, prefix))
}
