//! What a monitor and the agent in a Linux guest say to each other while the agent runs programs of the user's: a
//! [`GuestCommand`] in the initramfs says what to run first, and frames of a kind, a stream, a length and as many bytes carry the
//! streams of it and of the further programs that are begun meanwhile.
//!
//! Each program has a stream, a number, and each direction of a stream has a [`WINDOW`]: so many bytes may be under way before the
//! other side has said by [`Kind::Credit`] that they arrived. So neither side ever has to stop listening, a program whose output
//! nobody reads holds up no other, and what either side must keep for the other is bounded.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Where the agent reads who its guest has become: an [`Identity`] as JSON, which a zero ends. It is memory that the monitor names to the
/// kernel when the guest is booted (`setup_data` of the
/// [boot protocol](https://docs.kernel.org/arch/x86/boot.html)) and writes before a clone goes on, so that reading it stops no processor. The
/// kernel shows it as it is at that moment (`Documentation/ABI/testing/sysfs-kernel-boot_params`).
pub const IDENTITY: &str = "/sys/kernel/boot_params/setup_data/0/data";

/// So many bytes an identity can have, its zero included.
pub const LONGEST_IDENTITY: usize = (16 << 10) - 16;

/// What the agent says on the serial console when a line that ends there has it read its identity. Before that a guest cannot be told.
pub const AWAITS: &str = "isobench: awaits another identity";

/// How its line begins when its guest is whom it was told to be, and awaits another identity again: the microseconds follow that this took.
/// Each letter is an exit, and the port takes sixteen at once.
pub const BECAME: &str = "became ";

/// Who a Linux guest is that goes on from a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Its place in a network, where it has a card.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Its host name, where it is to have another.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub host_name: Option<String>,
    /// The time, in nanoseconds since 1970.
    #[serde(rename = "t")]
    pub time: u64,
    /// Random bytes as hexadecimal digits, which no other guest has.
    #[serde(rename = "s")]
    pub seed: String,
    /// Files in /etc that are written anew, each by its name, where programs of the user's run in it.
    #[serde(rename = "f", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

/// A guest's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The card's Ethernet address.
    #[serde(rename = "m")]
    pub mac: [u8; 6],
    /// The IPv4 address.
    #[serde(rename = "a")]
    pub address: Ipv4Addr,
    /// Length of the network's prefix in bits.
    #[serde(rename = "p")]
    pub prefix: u8,
    /// The router, where there is one.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// The IPv6 address with the length of its network's prefix in bits, where the network has IPv6.
    #[serde(rename = "a6", default, skip_serializing_if = "Option::is_none")]
    pub address6: Option<(Ipv6Addr, u8)>,
    /// The router for IPv6, where there is one.
    #[serde(rename = "g6", default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<Ipv6Addr>,
    /// The largest packet in bytes, where it is not Ethernet's 1500.
    #[serde(rename = "mtu", default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// Where in the initramfs the root lies.
pub const ROOT: &str = "isobench/root";

/// Where in the initramfs the [`GuestCommand`] lies, as JSON.
pub const COMMAND: &str = "isobench/command";

/// The agent's argument that has it run that command.
pub const RUN: &str = "run";

/// The longest payload of a frame: anything longer is no frame of ours.
pub const LONGEST: usize = 64 << 10;

/// The stream of the first program, which there is from the beginning; the guest ends with it.
pub const FIRST: u32 = 0;

/// Bytes of a stream that may be under way in one direction.
pub const WINDOW: usize = 64 << 10;

/// More programs than these at once are not run in a guest.
pub const MOST_PROGRAMS: usize = 64;

/// So many bytes are taken before the other side is told, so that it is not told of each.
pub const TOLD_AT_ONCE: usize = WINDOW / 4;

/// Bytes of a frame before the payload.
pub const HEADER: usize = 9;

/// What the agent is to run in the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestCommand {
    /// The command with its arguments; the first is looked for in the `PATH` of the environment.
    pub command: Vec<String>,
    /// The environment, as `NAME=value`.
    pub environment: Vec<String>,
    /// Where it begins.
    pub directory: String,
    /// User, group and further groups.
    pub user: u32,
    /// See `user`.
    pub group: u32,
    /// See `user`.
    pub groups: Vec<u32>,
    /// The guest's host name.
    pub host_name: String,
    /// Rows and columns of its terminal, where it has one.
    pub terminal: Option<(u16, u16)>,
    /// What the root is called, for messages.
    pub root: String,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// To the guest: a [`GuestCommand`] as JSON, to be run beside the first one, by a stream that is not in use.
    Start = b'b',
    /// Either way: so many bytes of the stream have been taken, four bytes, little-endian.
    Credit = b'c',
    /// To the guest: bytes for the standard input.
    Input = b'i',
    /// To the guest: the standard input ends.
    EndOfInput = b'e',
    /// To the guest: rows and columns of the terminal, two bytes each, little-endian.
    Resize = b'r',
    /// To the guest: the number of a signal for the program.
    Signal = b's',
    /// To the guest: all that it sent has been taken.
    Taken = b't',
    /// From the guest, first of all: its end of the console is open, so that what comes from now on arrives.
    Ready = b'y',
    /// From the guest, last of all: nothing follows, and it waits for [`Kind::Taken`].
    Last = b'l',
    /// From the guest: standard output, or the terminal.
    Output = b'1',
    /// From the guest: standard error.
    Error = b'2',
    /// From the guest: a program beside the first one has ended, with this exit status, one byte. Nothing follows on its stream.
    Exited = b'x',
}

impl Kind {
    const ALL: [Self; 12] = [
        Self::Start,
        Self::Credit,
        Self::Exited,
        Self::Input,
        Self::EndOfInput,
        Self::Resize,
        Self::Signal,
        Self::Taken,
        Self::Ready,
        Self::Last,
        Self::Output,
        Self::Error,
    ];
}

/// What was received is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what was received is no frame")]
pub struct Malformed;

/// Writes a payload down as it is sent; a long one as several frames.
pub fn encode(kind: Kind, stream: u32, payload: &[u8], into: &mut Vec<u8>) {
    for piece in payload.chunks(LONGEST).chain(payload.is_empty().then_some(&[][..])) {
        into.push(kind as u8);
        into.extend(stream.to_le_bytes());
        into.extend((piece.len() as u32).to_le_bytes());
        into.extend(piece);
    }
}

/// Frames out of bytes that come in pieces. What is not complete yet is kept, at most one frame.
#[derive(Debug, Default)]
pub struct Decoder {
    received: Vec<u8>,
}

impl Decoder {
    /// What has come of a frame that is not complete yet.
    pub fn begun(&self) -> &[u8] {
        &self.received
    }

    /// Goes on where another one was.
    pub fn go_on(begun: Vec<u8>) -> Self {
        Self { received: begun }
    }

    /// Takes bytes and hands on each frame that is complete.
    ///
    /// # Errors
    /// Where the bytes are no frames; nothing after them can be understood.
    pub fn take(&mut self, bytes: &[u8], mut each: impl FnMut(Kind, u32, &[u8])) -> Result<(), Malformed> {
        self.received.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(&[kind, s0, s1, s2, s3, l0, l1, l2, l3]) = self.received[at..].first_chunk::<HEADER>() {
            let kind = Kind::ALL.into_iter().find(|known| *known as u8 == kind).ok_or(Malformed)?;
            let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
            if length > LONGEST {
                return Err(Malformed);
            }
            let Some(payload) = self.received.get(at + HEADER..at + HEADER + length) else { break };
            each(kind, u32::from_le_bytes([s0, s1, s2, s3]), payload);
            at += HEADER + length;
        }
        self.received.drain(..at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_are_read_back_however_they_are_cut(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..8), cut in 1_usize..20) {
            let mut bytes = Vec::new();
            payloads.iter().for_each(|payload| encode(Kind::Output, 77, payload, &mut bytes));
            let (mut decoder, mut read) = (Decoder::default(), Vec::new());
            for piece in bytes.chunks(cut) {
                decoder.take(piece, |kind, stream, payload| read.push((kind, stream, payload.to_vec()))).unwrap();
            }
            let sent: Vec<_> = payloads.into_iter().map(|payload| (Kind::Output, 77, payload)).collect();
            prop_assert_eq!(read, sent);
        }

        #[test]
        fn nonsense_is_refused_and_never_believed(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            let mut longest = 0;
            let _ = decoder.take(&bytes, |_, _, payload| longest = longest.max(payload.len()));
            prop_assert!(longest <= bytes.len());
        }
    }

    #[test]
    fn what_is_too_long_is_cut_and_what_claims_to_be_is_refused() {
        let mut bytes = Vec::new();
        encode(Kind::Error, FIRST, &vec![7; LONGEST + 1], &mut bytes);
        let mut lengths = Vec::new();
        Decoder::default().take(&bytes, |_, _, payload| lengths.push(payload.len())).unwrap();
        assert_eq!(lengths, [LONGEST, 1]);
        assert_eq!(Decoder::default().take(&[b'1', 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], |_, _, _| {}), Err(Malformed));
        assert_eq!(Decoder::default().take(b"?\0\0\0\0\0\0\0\0", |_, _, _| {}), Err(Malformed));
    }
}
