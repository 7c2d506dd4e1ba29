//! A Linux guest's network card, set up by the few messages that it takes.

use crate::Failure;
use isobench_workload::guest::Network;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::fs;
use std::net::{IpAddr, Ipv6Addr};

/// The guest's network card.
const CARD: &str = "eth0";
/// All IPv6 addresses (proc_net(5)), where the kernel has IPv6.
const ADDRESSES: &str = "/proc/net/if_inet6";
const LINK_LOCAL_PREFIX: u8 = 64;

/// A route netlink socket: the few messages that a guest needs (rtnetlink(7)).
pub(crate) struct Netlink {
    socket: rustix::fd::OwnedFd,
    sequence: u32,
}

impl Netlink {
    const REQUEST_ACKNOWLEDGED: u16 = 1 | 4;
    const CREATE_EXCLUSIVE: u16 = 0x400 | 0x200;
    const HEADER: usize = 16;

    pub(crate) fn open() -> Result<Self, Failure> {
        // The protocol NETLINK_ROUTE is number 0, the default.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Gives the network card its packets' size, its addresses and its routers.
    pub(crate) fn configure(&mut self, network: &Network) -> Result<(), Failure> {
        if let Some(mtu) = network.mtu {
            self.limit_packets(CARD, mtu)?;
        }
        self.address(CARD, network.address.into(), network.prefix)?;
        self.up(CARD)?;
        if let Some(gateway) = network.gateway {
            self.default_route(gateway.into())?;
        }
        if let Some((address, prefix)) = network.address6.filter(|_| has_ipv6()) {
            self.address(CARD, address.into(), prefix)?;
            if let Some(gateway) = network.gateway6 {
                self.default_route(gateway.into())?;
            }
        }
        Ok(())
    }

    /// Gives the network card another place than the one that it has. What has an address of the old one is dead then: the kernel
    /// sends nothing from an address that is not the machine's.
    pub(crate) fn reconfigure(&mut self, old: Option<&Network>, new: &Network) -> Result<(), Failure> {
        if let Some(old) = old {
            // With the address go the routes through it; one of IPv6 does not.
            self.forget_address(CARD, old.address.into(), old.prefix)?;
            if let Some((address, prefix)) = old.address6.filter(|_| has_ipv6()) {
                if let Some(gateway) = old.gateway6 {
                    self.forget_default_route(gateway.into())?;
                }
                self.forget_address(CARD, address.into(), prefix)?;
            }
        }
        self.card_address(CARD, new.mac)?;
        // The kernel made the link-local one of the Ethernet address, and keeps it when that is another.
        if let Some(address) = link_local(&fs::read_to_string(ADDRESSES).unwrap_or_default()) {
            self.forget_address(CARD, address.into(), LINK_LOCAL_PREFIX)?;
            self.address(CARD, made_of(new.mac).into(), LINK_LOCAL_PREFIX)?;
        }
        self.configure(new)
    }

    /// Switches a link on: RTM_NEWLINK with the flag IFF_UP.
    pub(crate) fn up(&mut self, link: &str) -> Result<(), Failure> {
        let index = self.index(link)?;
        let mut body = vec![0, 0, 0, 0];
        body.extend(index.to_ne_bytes());
        body.extend([1_u32.to_ne_bytes(), 1_u32.to_ne_bytes()].concat());
        self.ask(&format!("switch {link} on"), 16, 0, &body)
    }

    /// Limits a link's packets: RTM_NEWLINK with IFLA_MTU.
    fn limit_packets(&mut self, link: &str, mtu: u32) -> Result<(), Failure> {
        let mut body = vec![0, 0, 0, 0];
        body.extend(self.index(link)?.to_ne_bytes());
        body.extend([0; 8]);
        body.extend(attribute(4, &mtu.to_ne_bytes()));
        self.ask(&format!("limit packets of {link} to {mtu} bytes"), 16, 0, &body)
    }

    /// Gives a link another Ethernet address: RTM_NEWLINK with IFLA_ADDRESS.
    fn card_address(&mut self, link: &str, mac: [u8; 6]) -> Result<(), Failure> {
        let mut body = vec![0, 0, 0, 0];
        body.extend(self.index(link)?.to_ne_bytes());
        body.extend([0; 8]);
        body.extend(attribute(1, &mac));
        self.ask(&format!("give {link} another Ethernet address"), 16, 0, &body)
    }

    /// Takes an address away: RTM_DELADDR.
    fn forget_address(&mut self, link: &str, address: IpAddr, prefix: u8) -> Result<(), Failure> {
        let mut body = vec![family(address), prefix, 0, 0];
        body.extend(self.index(link)?.to_ne_bytes());
        body.extend(attribute(2, &octets(address)));
        self.ask(&format!("take the address {address}/{prefix} from {link}"), 21, 0, &body)
    }

    /// Takes the default route away: RTM_DELROUTE.
    fn forget_default_route(&mut self, gateway: IpAddr) -> Result<(), Failure> {
        let mut body = vec![family(gateway), 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
        body.extend(attribute(5, &octets(gateway)));
        self.ask(&format!("route no more through {gateway}"), 25, 0, &body)
    }

    /// Adds an address: RTM_NEWADDR with IFA_ADDRESS and IFA_LOCAL; nobody is asked whether it is taken (IFA_F_NODAD), since the
    /// network gives no address twice.
    fn address(&mut self, link: &str, address: IpAddr, prefix: u8) -> Result<(), Failure> {
        const NO_QUESTION: u8 = 2;
        let mut body = vec![family(address), prefix, if address.is_ipv6() { NO_QUESTION } else { 0 }, 0];
        body.extend(self.index(link)?.to_ne_bytes());
        body.extend(attribute(1, &octets(address)));
        body.extend(attribute(2, &octets(address)));
        self.ask(&format!("give {link} the address {address}/{prefix}"), 20, Self::CREATE_EXCLUSIVE, &body)
    }

    /// Adds the default route: RTM_NEWROUTE in the main table, static, unicast, with RTA_GATEWAY.
    fn default_route(&mut self, gateway: IpAddr) -> Result<(), Failure> {
        let mut body = vec![family(gateway), 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
        body.extend(attribute(5, &octets(gateway)));
        self.ask(&format!("route through {gateway}"), 24, Self::CREATE_EXCLUSIVE, &body)
    }

    fn index(&self, link: &str) -> Result<u32, Failure> {
        // Any socket will do for this question.
        let index = rustix::net::netdevice::name_to_index(&self.socket, link);
        Ok(index.map_err(|error| format!("find the link {link}: {error}"))?)
    }

    /// Sends one message and waits for its acknowledgement.
    fn ask(&mut self, what: &str, kind: u16, flags: u16, body: &[u8]) -> Result<(), Failure> {
        self.sequence += 1;
        let mut message = ((Self::HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((Self::REQUEST_ACKNOWLEDGED | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        rustix::net::sendto(&self.socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = [0_u8; 1024];
        let (_, length) = rustix::net::recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
        // NLMSG_ERROR: the error number, negative, follows the header; 0 is success.
        let error = answer[..length].get(Self::HEADER..Self::HEADER + 4).ok_or("the kernel's answer is cut short")?;
        match i32::from_ne_bytes([error[0], error[1], error[2], error[3]]) {
            0 => Ok(()),
            error => Err(format!("{what}: {}", std::io::Error::from_raw_os_error(-error)).into()),
        }
    }
}

/// The card's link-local address (RFC 4291, 2.5.6), where it has one; of what the kernel says of all addresses.
fn link_local(addresses: &str) -> Option<Ipv6Addr> {
    /// `IPV6_ADDR_LINKLOCAL`, in the column of the scope.
    const LINK: &str = "20";
    addresses.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = u128::from_str_radix(words.next()?, 16).ok()?;
        // After the address come the link's number, the prefix, the scope, flags and the link's name.
        let here = words.nth(2) == Some(LINK) && words.nth(1) == Some(CARD);
        here.then(|| Ipv6Addr::from_bits(address))
    })
}

/// The link-local address that is made of an Ethernet address (RFC 4291, appendix A).
fn made_of([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// A route attribute, with zeros up to a whole word.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = [&(4 + value.len() as u16).to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Whether the guest's kernel has IPv6 (proc(5)).
fn has_ipv6() -> bool {
    fs::exists(ADDRESSES).unwrap_or(false)
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    family.as_raw() as u8
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cards_link_local_address_is_found_and_made() {
        let text = "00000000000000000000000000000001 01 80 10 80       lo\n\
                    fe800000000000000000000000000001 03 40 20 80    other\n\
                    fd000000000000000000000000000005 02 40 00 82     eth0\n\
                    fe80000000000000000000fffe000005 02 40 20 80     eth0\n";
        assert_eq!(link_local(text), Some(made_of([2, 0, 0, 0, 0, 5])));
        assert_eq!(link_local(&text[..text.len() - 60]), None);
        assert_eq!(made_of([0x52, 0x54, 0, 0x12, 0x34, 0x56]).to_string(), "fe80::5054:ff:fe12:3456");
    }
}
