//! What a container sets up in its own network namespace.
//!
//! The messages are made before the container's process exists; its child sends them all by one `send` and reads one
//! answer. [`Configuration::apply`] is therefore safe in a child that shares its parent's memory: it makes four system
//! calls, allocates nothing, takes no lock and leaves `errno` alone
//! ([signal-safety(7)](https://man7.org/linux/man-pages/man7/signal-safety.7.html)).

use super::Mac;
use super::message::{self, Which};
use super::netlink::{Answer, Answers, Batch};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The loopback link has index 1 in every namespace (`LOOPBACK_IFINDEX` in include/net/net_namespace.h).
pub const LOOPBACK: u32 = 1;

/// The index that we give to a container's own link.
pub const INTERFACE: u32 = 2;

/// The name of a container's own link.
pub const INTERFACE_NAME: &str = "eth0";

/// One step of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bring the loopback link up.
    LoopbackUp,
    /// Keep IPv6 addresses from appearing on the container's own link.
    NoIpv6Address,
    /// Bound the size of its packets.
    Mtu,
    /// Give it its address.
    Address,
    /// Bring it up.
    InterfaceUp,
    /// Add the default route.
    DefaultRoute,
    /// Tell the gateway's link-layer address.
    Gateway,
    /// Give it its IPv6 address.
    Address6,
    /// Make that its own at once.
    LocalRoute6,
    /// Add the default route of IPv6.
    DefaultRoute6,
    /// Open the socket, send, or receive.
    Socket,
}

impl Step {
    /// The step in words, such as `add the default route`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LoopbackUp => "bring the loopback link up",
            Self::NoIpv6Address => "turn IPv6 addresses off",
            Self::Mtu => "set the MTU",
            Self::Address => "add the address",
            Self::InterfaceUp => "bring the link up",
            Self::DefaultRoute => "add the default route",
            Self::Gateway => "tell the gateway's link-layer address",
            Self::Address6 => "add the IPv6 address",
            Self::LocalRoute6 => "make the IPv6 address its own",
            Self::DefaultRoute6 => "add the default route of IPv6",
            Self::Socket => "use a netlink socket",
        }
    }
}

/// The container's own link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its address.
    pub address: Ipv4Addr,
    /// Prefix length of its subnet.
    pub prefix: u8,
    /// The gateway of its default route, where it has one; its link-layer address is [`Mac::of`] it.
    pub gateway: Option<Ipv4Addr>,
    /// Bound on the size of its packets, where it is not the usual one.
    pub mtu: Option<u32>,
    /// Its part in IPv6.
    pub ipv6: Ipv6,
}

/// A link's part in IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6 {
    /// The kernel has no IPv6.
    Absent,
    /// It is kept from giving the link an address by itself.
    Silent,
    /// The link has this address, and no other.
    Address {
        /// The address.
        address: Ipv6Addr,
        /// Prefix length of its subnet.
        prefix: u8,
        /// The gateway of its default route, where it has one.
        gateway: Option<Ipv6Addr>,
    },
}

impl Ipv6 {
    /// Silent where the kernel has IPv6.
    pub fn silent_if(present: bool) -> Self {
        if present { Self::Silent } else { Self::Absent }
    }
}

/// Messages that configure a network namespace from inside.
#[derive(Clone, Debug)]
pub struct Configuration {
    bytes: Vec<u8>,
    steps: Vec<Step>,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet known: read on.
    Pending,
    /// All is set up.
    Done,
    /// This step failed.
    Failed(Step, Errno),
}

impl Configuration {
    /// Only the loopback link: what a container without a network has.
    pub fn loopback() -> Self {
        let mut batch = Batch::new();
        batch.push(0, message::up(LOOPBACK));
        Self { bytes: batch.finish(), steps: vec![Step::LoopbackUp] }
    }

    /// The loopback link and the container's own, whose index is [`INTERFACE`].
    pub fn new(interface: &Interface) -> Self {
        let mut messages = vec![(Step::LoopbackUp, 0, message::up(LOOPBACK))];
        messages.extend(Self::of(INTERFACE, interface));
        Self::with(messages)
    }

    /// Only a link of this index, which comes to a container that runs.
    pub(crate) fn later(index: u32, interface: &Interface) -> Self {
        Self::with(Self::of(index, interface))
    }

    fn of(index: u32, interface: &Interface) -> Vec<(Step, u16, RouteNetlinkMessage)> {
        const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;
        let mut messages = Vec::new();
        if interface.ipv6 != Ipv6::Absent {
            messages.push((Step::NoIpv6Address, 0, message::no_ipv6_address(Which::Index(index))));
        }
        if let Some(mtu) = interface.mtu {
            messages.push((Step::Mtu, 0, message::limit_packets(Which::Index(index), mtu)));
        }
        let address = message::new_address(index, interface.address, interface.prefix);
        messages.push((Step::Address, NEW, address));
        messages.push((Step::InterfaceUp, 0, message::up(index)));
        if let Some(gateway) = interface.gateway {
            messages.push((Step::DefaultRoute, NEW, message::new_route(Ipv4Addr::UNSPECIFIED, 0, gateway)));
            messages.push((Step::Gateway, NEW, message::new_neighbour(index, gateway, Mac::of(gateway))));
        }
        if let Ipv6::Address { address, prefix, gateway } = interface.ipv6 {
            messages.push((Step::Address6, NEW, message::new_address6(index, address, prefix)));
            messages.push((Step::LocalRoute6, NEW, message::new_local_route6(index, address)));
            if let Some(gateway) = gateway {
                messages.push((Step::DefaultRoute6, NEW, message::new_default_route6(index, gateway)));
            }
        }
        messages
    }

    fn with(messages: Vec<(Step, u16, RouteNetlinkMessage)>) -> Self {
        let (mut batch, mut steps) = (Batch::new(), Vec::new());
        for (step, flags, message) in messages {
            batch.push(flags, message);
            steps.push(step);
        }
        Self { bytes: batch.finish(), steps }
    }

    /// What to send to a `NETLINK_ROUTE` socket that was opened in the namespace. One acknowledgement is to be expected,
    /// that of the last message, before it an error for each message that failed.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads a received datagram. Safe in a signal handler.
    pub fn read(&self, datagram: &[u8]) -> Verdict {
        for (sequence, answer) in Answers::new(datagram) {
            let Answer::Acknowledged(error) = answer else { continue };
            let step = self.steps.get((sequence as usize).wrapping_sub(1)).copied().unwrap_or(Step::Socket);
            if error != 0 {
                return Verdict::Failed(step, Errno::from_raw_os_error(error.saturating_neg()));
            }
            if sequence as usize == self.steps.len() {
                return Verdict::Done;
            }
        }
        Verdict::Pending
    }

    /// Configures the calling thread's namespace. Safe in a signal handler.
    pub fn apply(&self) -> Result<(), (Step, Errno)> {
        let failed = |errno| (Step::Socket, errno);
        // Protocol 0 is NETLINK_ROUTE.
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).map_err(failed)?;
        self.apply_by(socket.as_fd())
    }

    /// Configures the namespace in which this `NETLINK_ROUTE` socket was opened. Safe in a signal handler.
    pub(crate) fn apply_by(&self, socket: BorrowedFd<'_>) -> Result<(), (Step, Errno)> {
        let failed = |errno| (Step::Socket, errno);
        send(socket, &self.bytes, SendFlags::empty()).map_err(failed)?;
        // An error repeats the message that failed; the longest of ours has less than 100 bytes.
        let mut datagram = [0_u8; 512];
        loop {
            let (length, _) = recv(socket, &mut datagram, RecvFlags::DONTWAIT).map_err(failed)?;
            match self.read(&datagram[..length]) {
                Verdict::Pending => {}
                Verdict::Done => return Ok(()),
                Verdict::Failed(step, errno) => return Err((step, errno)),
            }
        }
    }
}
