//! A netlink socket ([netlink(7)](https://man7.org/linux/man-pages/man7/netlink.7.html)), used synchronously.
//!
//! The kernel handles a request within `send`: when that returns, every answer already waits in the socket. So `recv` is
//! always called without waiting, and an answer that is not there will never come.
//!
//! A socket stays bound to the namespace in which it was opened, whatever its threads do later: with two of them, one
//! process works in two namespaces without entering either. They are opened once and kept, since closing a netfilter
//! socket after a deletion waits for an RCU grace period (16 ms were measured).

use super::{Namespace, NetworkError};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use rustix::buffer::spare_capacity;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recv, send, socket_with,
};

/// Messages for one `send`. Only the last asks to be acknowledged: the kernel handles them in order and reports a failed
/// one whether asked or not, so one answer says that all went well.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    last: usize,
    count: u32,
}

impl Batch {
    /// No messages yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Appends a message; `flags` are added to `NLM_F_REQUEST`. Its sequence number is its position, counted from 1.
    pub(crate) fn push<M: NetlinkSerializable>(&mut self, flags: u16, message: M) {
        self.count += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.count;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        // Every message begins at a multiple of four (NLMSG_ALIGN).
        self.last = self.bytes.len();
        self.bytes.resize(self.last + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut self.bytes[self.last..]);
    }

    /// Number of messages, which is also the last one's sequence number.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The bytes so far.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes to send; the last message asks for an acknowledgement.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.acknowledge_last();
        self.bytes
    }

    /// Makes the message that was pushed last ask for an acknowledgement.
    pub(crate) fn acknowledge_last(&mut self) {
        // nlmsg_flags stand at offset 6 of the header, in the host's byte order.
        if let Some(flags) = self.bytes.get_mut(self.last + 6..self.last + 8) {
            let value = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
            flags.copy_from_slice(&value.to_ne_bytes());
        }
    }
}

/// One answer of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The request went well (error number 0) or not.
    Acknowledged(i32),
    /// A dump has ended, with this error number.
    Ended(i32),
    /// A message of the protocol's own, header included, and its flags.
    Message(&'a [u8], u16),
}

/// The answers in one received datagram, each with the sequence number of its request; allocates nothing. Bytes that are
/// no netlink message end it.
#[derive(Clone, Debug)]
pub struct Answers<'a>(&'a [u8]);

impl<'a> Answers<'a> {
    /// Reads a received datagram.
    pub fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }
}

impl<'a> Iterator for Answers<'a> {
    type Item = (u32, Answer<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        // struct nlmsghdr { u32 length; u16 type; u16 flags; u32 sequence; u32 port } in the host's byte order.
        const HEADER: usize = 16;
        const NLMSG_ERROR: u16 = 2;
        const NLMSG_DONE: u16 = 3;
        let word = |at: usize| Some(u32::from_ne_bytes(self.0.get(at..at + 4)?.try_into().ok()?));
        let half = |at: usize| Some(u16::from_ne_bytes(self.0.get(at..at + 2)?.try_into().ok()?));
        let length = usize::try_from(word(0)?).ok()?;
        let (kind, flags, sequence) = (half(4)?, half(6)?, word(8)?);
        if length < HEADER || length > self.0.len() {
            return None;
        }
        let answer = match kind {
            NLMSG_ERROR => Answer::Acknowledged(word(HEADER)? as i32),
            // A kernel may leave the error number of the end away.
            NLMSG_DONE if length >= HEADER + 4 => Answer::Ended(word(HEADER)? as i32),
            NLMSG_DONE => Answer::Ended(0),
            _ => Answer::Message(&self.0[..length], flags),
        };
        self.0 = &self.0[length.next_multiple_of(4).min(self.0.len())..];
        Some((sequence, answer))
    }
}

/// A netlink socket and the namespace to which it is bound.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    namespace: Namespace,
    /// What was received last. Its room is never written but by the kernel: most answers touch one page of it.
    buffer: Vec<u8>,
    /// Whether an exchange that failed may have left answers in the socket.
    unread: bool,
}

impl Netlink {
    /// The kernel fills at most 32 KiB of a dump at a time (`netlink_dump` in net/netlink/af_netlink.c).
    const BUFFER: usize = 64 << 10;

    /// A dump that is disturbed by changes is begun anew this many times.
    const DUMPS: usize = 16;

    /// For links, addresses, routes and neighbours of the calling thread's namespace
    /// ([rtnetlink(7)](https://man7.org/linux/man-pages/man7/rtnetlink.7.html)).
    pub fn open() -> Result<Self, NetworkError> {
        // NETLINK_ROUTE is protocol 0.
        Self::with_protocol(None)
    }

    /// The same for another namespace.
    pub fn open_in(namespace: &Namespace) -> Result<Self, NetworkError> {
        namespace.enter(Self::open)?
    }

    /// For nftables in the calling thread's namespace.
    pub(crate) fn netfilter() -> Result<Self, NetworkError> {
        Self::with_protocol(Some(netlink::NETFILTER))
    }

    /// A socket that becomes readable at every change of a link in a namespace.
    pub(crate) fn watch_links(namespace: &Namespace) -> Result<OwnedFd, NetworkError> {
        // RTMGRP_LINK
        const LINKS: u32 = 1;
        namespace.enter(|| socket(None, LINKS))?
    }

    fn with_protocol(protocol: Option<Protocol>) -> Result<Self, NetworkError> {
        let (namespace, socket) = (Namespace::current()?, socket(protocol, 0)?);
        Ok(Self { socket, namespace, buffer: Vec::with_capacity(Self::BUFFER), unread: false })
    }

    /// The namespace to which it is bound.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// One request, one acknowledgement.
    pub(crate) fn request<M: NetlinkSerializable>(
        &mut self,
        operation: &'static str,
        object: &str,
        flags: u16,
        message: M,
    ) -> Result<(), NetworkError> {
        let mut batch = Batch::new();
        batch.push(flags, message);
        self.transact(batch).map_err(|(_, source)| NetworkError::system(operation, object, source))
    }

    /// Sends a batch and reads its answers. An error comes with the sequence number of the first message that failed.
    pub(crate) fn transact(&mut self, batch: Batch) -> Result<(), (u32, Errno)> {
        let last = batch.count();
        self.exchange(&batch.finish(), last)
    }

    /// Sends bytes and reads answers until the message with sequence number `last` is acknowledged.
    pub(crate) fn exchange(&mut self, bytes: &[u8], last: u32) -> Result<(), (u32, Errno)> {
        self.discard();
        send(&self.socket, bytes, SendFlags::empty()).map_err(|errno| (0, errno))?;
        let mut failure = None;
        loop {
            match self.receive() {
                Ok(()) => {}
                // Nothing more will come: the whole batch was refused at one of its first messages, or not understood.
                Err(Errno::AGAIN) => return Err(failure.unwrap_or((0, Errno::PROTO))),
                Err(errno) => return Err(failure.unwrap_or((0, errno))),
            }
            for (sequence, answer) in Answers::new(&self.buffer) {
                let Answer::Acknowledged(error) = answer else { continue };
                if error != 0 && failure.is_none() {
                    failure = Some((sequence, Errno::from_raw_os_error(-error)));
                }
                if sequence == last {
                    self.unread = false;
                    return failure.map_or(Ok(()), Err);
                }
            }
        }
    }

    fn receive(&mut self) -> Result<(), Errno> {
        self.buffer.clear();
        recv(&self.socket, spare_capacity(&mut self.buffer), RecvFlags::DONTWAIT).map(drop)
    }

    /// Asks for objects: one (`flags` = `NLM_F_ACK`) or all of a kind (`NLM_F_DUMP`).
    pub(crate) fn query<M>(
        &mut self,
        operation: &'static str,
        object: &str,
        flags: u16,
        message: M,
    ) -> Result<Vec<M>, NetworkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Clone,
    {
        for _ in 0..Self::DUMPS {
            if let Some(found) = self.query_once(operation, object, flags, message.clone())? {
                return Ok(found);
            }
        }
        Err(NetworkError::system(operation, object, Errno::INTR))
    }

    /// `None` if a dump was disturbed by a change and may lack something (`NLM_F_DUMP_INTR`).
    fn query_once<M>(
        &mut self,
        operation: &'static str,
        object: &str,
        flags: u16,
        message: M,
    ) -> Result<Option<Vec<M>>, NetworkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        let failed = |source| NetworkError::system(operation, object, source);
        let mut batch = Batch::new();
        batch.push(flags, message);
        self.discard();
        send(&self.socket, &batch.bytes, SendFlags::empty()).map_err(failed)?;
        let (mut found, mut whole) = (Vec::new(), true);
        loop {
            self.receive().map_err(failed)?;
            for (_, answer) in Answers::new(&self.buffer) {
                match answer {
                    Answer::Acknowledged(0) | Answer::Ended(0) => {
                        self.unread = false;
                        return Ok(whole.then_some(found));
                    }
                    Answer::Acknowledged(error) | Answer::Ended(error) => {
                        return Err(failed(Errno::from_raw_os_error(-error)));
                    }
                    Answer::Message(bytes, flags) => {
                        whole &= flags & NLM_F_DUMP_INTR == 0;
                        let malformed = || NetworkError::Malformed { operation, object: object.into() };
                        let message = NetlinkMessage::<M>::deserialize(bytes).map_err(|_| malformed())?;
                        if let NetlinkPayload::InnerMessage(message) = message.payload {
                            found.push(message);
                        }
                    }
                }
            }
        }
    }

    /// Throws away answers that an earlier, failed exchange has left unread.
    fn discard(&mut self) {
        if std::mem::replace(&mut self.unread, true) {
            discard(&self.socket);
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket in the calling thread's namespace that is told of what concerns `groups`.
fn socket(protocol: Option<Protocol>, groups: u32) -> Result<OwnedFd, NetworkError> {
    let failed = |source| NetworkError::system("open", "a netlink socket", source);
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol).map_err(failed)?;
    bind(&socket, &netlink::SocketAddrNetlink::new(0, groups)).map_err(failed)?;
    Ok(socket)
}

/// Throws away what waits in a socket.
pub(crate) fn discard(socket: &OwnedFd) {
    let mut nothing = [0_u8; 0];
    // A datagram that does not fit is cut, and an overrun is told once as ENOBUFS.
    while matches!(recv(socket, &mut nothing[..], RecvFlags::DONTWAIT), Ok(_) | Err(Errno::NOBUFS)) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn acknowledgement(sequence: u32, error: i32) -> Vec<u8> {
        let mut bytes = vec![36, 0, 0, 0, 2, 0, 0, 0];
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(error.to_ne_bytes());
        bytes.resize(36, 0);
        bytes
    }

    #[test]
    fn acknowledgements_are_read_with_their_sequence_numbers() {
        let mut bytes = acknowledgement(7, -17);
        bytes.extend(acknowledgement(8, 0));
        let answers: Vec<_> = Answers::new(&bytes).collect();
        assert_eq!(answers, [(7, Answer::Acknowledged(-17)), (8, Answer::Acknowledged(0))]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Answers::new(&bytes).count() <= bytes.len() / 16);
        }

        #[test]
        fn any_cut_of_real_answers_gives_only_whole_ones(cut in 0_usize..72) {
            let mut bytes = acknowledgement(7, -17);
            bytes.extend(acknowledgement(8, 0));
            prop_assert_eq!(Answers::new(&bytes[..cut]).count(), cut / 36);
        }
    }
}
