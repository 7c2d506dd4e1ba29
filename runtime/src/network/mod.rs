//! The network of containers and virtual machines: one file per kernel object.
//!
//! | file | kernel object | gone when |
//! |---|---|---|
//! | [`namespace`] | network namespace | the last descriptor and the last process in it are gone |
//! | [`netlink`] | netlink socket, bound to the namespace in which it was opened | dropped |
//! | [`link`] | bridge, veth pair, uplink | its namespace goes |
//! | [`inside`] | what a container sets up in its own namespace, by one `send` | its namespace goes |
//! | [`tap`] | tap of a virtual machine | dropped, by whoever has it last |
//! | [`firewall`], [`nft`] | one nftables table: NAT, isolation, published ports | dropped |
//! | [`published_port`] | a socket that holds the port, an element of a map | dropped |
//! | `conntrack` | entries of the connections that a published port has led | the port is given back |
//! | [`pool`] | (none) the addresses of a subnet, leased | released |
//! | [`lock_file`] | locks of bytes of a file: leases and ports that several processes share | dropped, or its process ends |
//! | [`bridge_network`] | (none) bridge, pool and rules composed | dropped, or removed where it is several processes' |
//! | [`endpoint`] | a veth pair or a tap with its address | its namespace or descriptor goes |
//!
//! Everything is done by synchronous netlink ([netlink(7)](https://man7.org/linux/man-pages/man7/netlink.7.html)): the
//! kernel answers a request before `send` returns, so nothing is waited for and no event loop is needed. Messages are built in
//! `message` (links, addresses, routes, neighbours) and in `transaction` and `expression` (nftables); [`sysctl`] has the settings
//! that netlink cannot reach.

pub mod bridge_network;
mod conntrack;
pub mod endpoint;
mod expression;
pub mod firewall;
pub mod inside;
pub mod link;
pub mod lock_file;
pub(crate) mod message;
pub mod namespace;
pub mod netlink;
pub mod nft;
pub mod pool;
pub mod published_port;
pub mod subnet;
pub mod sysctl;
pub mod tap;
mod transaction;
mod watch;

pub use bridge_network::BridgeNetwork;
pub use conntrack::forget_connections;
pub use endpoint::{Endpoint, EndpointSettings, TapEndpoint};
pub use firewall::Firewall;
pub use inside::Configuration;
pub use link::{Address, Link, PeerNamespace, Route, Veth};
pub use lock_file::{Held, LockFile, Sharing};
pub use namespace::{EmptyNamespace, Namespace};
pub use netlink::Netlink;
pub use nft::{Protocol, Redirection};
pub use pool::{Lease, Pool};
pub use published_port::{PublishedPort, Reservation};
pub use subnet::{Mac, Subnet, Subnet6};
pub use tap::{Offload, Tap};

use rustix::io::Errno;
use std::net::IpAddr;

/// What can go wrong with the network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel refused.
    #[error("{operation} {object}")]
    System {
        /// The operation, such as `create veth`.
        operation: &'static str,
        /// The object, such as `v12`.
        object: String,
        /// The cause.
        #[source]
        source: Errno,
    },
    /// The kernel's answer could not be understood.
    #[error("{operation} {object}: the kernel's answer cannot be understood")]
    Malformed {
        /// The operation.
        operation: &'static str,
        /// The object.
        object: String,
    },
    /// A subnet overlaps what the machine already routes.
    #[error("subnet {subnet} collides with the route to {destination}/{prefix} over {link}: choose another subnet")]
    SubnetInUse {
        /// The subnet that was asked for.
        subnet: String,
        /// Destination of the existing route.
        destination: IpAddr,
        /// Its prefix length.
        prefix: u8,
        /// The link that it goes over.
        link: String,
    },
    /// Not an IPv4 subnet that containers can have.
    #[error("`{0}` is no IPv4 subnet such as 10.89.0.0/24 (prefix 1 to 30, no bits set behind it)")]
    NoSubnet(String),
    /// The gateway is no host address of the subnet.
    #[error("gateway {gateway} is no host address of subnet {subnet}")]
    ForeignGateway {
        /// The gateway that was asked for.
        gateway: std::net::Ipv4Addr,
        /// The subnet.
        subnet: Subnet,
    },
    /// A name that no link can have.
    #[error("`{0}` is no name for a network link: 1 to 15 bytes, no slash, no colon, no white space")]
    NoLinkName(String),
    /// The port is published already.
    #[error("{protocol} port {port} is published already: choose another one, or unpublish it first")]
    PortPublished {
        /// The transport protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
    /// A program of the machine's has the port.
    #[error("{protocol} port {port} is in use by a program of this machine: choose another one, or end that program")]
    PortInUse {
        /// The transport protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
    /// Not an IPv6 subnet that containers can have.
    #[error("`{0}` is no IPv6 subnet such as fd00:89::/64 (prefix 8 to 96, no bits set behind it)")]
    NoSubnet6(String),
    /// Not a link-layer address.
    #[error("`{0}` is no MAC address of a link, such as 02:42:0a:59:00:05 (its first byte must be even)")]
    NoMac(String),
    /// The range from which addresses are given lies elsewhere.
    #[error("range {range} does not lie in subnet {subnet}")]
    ForeignRange {
        /// The range that was asked for.
        range: Subnet,
        /// The subnet.
        subnet: Subnet,
    },
    /// The address lies elsewhere.
    #[error("{address} is no host address of subnet {subnet}")]
    ForeignAddress {
        /// The address that was asked for.
        address: std::net::Ipv4Addr,
        /// The subnet.
        subnet: Subnet,
    },
    /// Somebody has the address.
    #[error("address {address} of subnet {subnet} is in use: choose another one")]
    AddressInUse {
        /// The address that was asked for.
        address: std::net::Ipv4Addr,
        /// The subnet.
        subnet: Subnet,
    },
    /// A port is to be published at an address that this machine does not have.
    #[error("{0} is no address of this machine, so no port can be published there")]
    NoHostAddress(IpAddr),
    /// Every address is leased.
    #[error("every address of subnet {0} is in use")]
    Exhausted(Subnet),
    /// A link is up and still carries no packets.
    #[error("link {0} carries no packets though both of its ends should be up")]
    Silent(String),
    /// A link is still there though it should have gone.
    #[error("link {0} is still there after its namespace should have gone")]
    Lingering(String),
}

impl NetworkError {
    /// The kernel's refusal of an operation on an object.
    pub(crate) fn system(operation: &'static str, object: impl Into<String>, source: Errno) -> Self {
        Self::System { operation, object: object.into(), source }
    }

    /// The same of an operation of the standard library's.
    pub(crate) fn io(operation: &'static str, object: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let object = object.into();
        move |error| Self::system(operation, object, Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    /// The kernel's error number, where the kernel refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::System { source, .. } => Some(*source),
            _ => None,
        }
    }
}
