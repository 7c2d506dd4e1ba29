//! What a load generator and a server say to each other in UDP datagrams.
//!
//! A datagram begins with [`Header::SIZE`] bytes; what follows is filler, so that a datagram has the size that is measured.
//! The server keeps one count for each of a few sessions and no other state, so that one piece of code serves the agent and
//! the unikernel. It never answers an answer, so that two servers whose addresses were forged into each other's datagrams
//! stay silent, and never sends more than [`LONGEST_SOURCE`] at anyone's word. All integers are little-endian.

use crate::protocol::Malformed;

/// The first bytes of each datagram.
pub const MAGIC: [u8; 3] = *b"ISU";

/// The largest payload that fits one packet of 1500 bytes: what a server takes in and sends.
pub const LARGEST: usize = 1472;

/// The longest time for which a server sends after one request of [`Kind::Source`], in milliseconds.
pub const LONGEST_SOURCE: u64 = 2000;

/// Sessions whose datagrams a server counts at the same time; the one that began first gives way.
pub const SESSIONS: usize = 8;

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// To be counted.
    Sink = 0,
    /// Asks how many datagrams of [`Kind::Sink`] came in this session; the answer is in [`Header::number`].
    Count = 1,
    /// Asks for datagrams of the size of this one for [`Header::number`] milliseconds, numbered from 0.
    Source = 2,
    /// To be sent back.
    Echo = 3,
    /// What a server sends; it is never answered.
    Answer = 4,
}

impl Kind {
    /// The kind with this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Sink),
            1 => Some(Self::Count),
            2 => Some(Self::Source),
            3 => Some(Self::Echo),
            4 => Some(Self::Answer),
            _ => None,
        }
    }
}

/// The beginning of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Chosen by the load generator; tells its datagrams from those of others and from late ones of its own.
    pub session: u32,
    /// What [`Kind`] says that it is.
    pub number: u64,
}

impl Header {
    /// Size in bytes: magic (3), kind (1), session (4), number (8).
    pub const SIZE: usize = 16;

    /// The header as it goes over the wire.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..3].copy_from_slice(&MAGIC);
        bytes[3] = self.kind as u8;
        bytes[4..8].copy_from_slice(&self.session.to_le_bytes());
        bytes[8..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    /// Reads the header of a datagram.
    ///
    /// # Errors
    /// Where it is too short, or of another protocol.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let Some((bytes, _)) = datagram.split_first_chunk::<{ Self::SIZE }>() else { return Err(Malformed::Short) };
        let [first, second, third, kind, a, b, c, d, number @ ..] = *bytes;
        if [first, second, third] != MAGIC {
            return Err(Malformed::Magic);
        }
        let kind = Kind::from_number(kind).ok_or(Malformed::Operation(kind))?;
        Ok(Self { kind, session: u32::from_le_bytes([a, b, c, d]), number: u64::from_le_bytes(number) })
    }
}

/// What a server does about a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing.
    Nothing,
    /// Sends the datagram back as it now is in the buffer.
    Reply,
    /// Sends datagrams of the same size with this session for so many milliseconds.
    Source {
        /// The session.
        session: u32,
        /// How long.
        milliseconds: u64,
    },
}

/// The sessions of a server.
#[derive(Clone, Copy, Debug)]
pub struct Sessions {
    counts: [Option<(u32, u64)>; SESSIONS],
    next: usize,
}

impl Sessions {
    /// None yet.
    #[allow(clippy::new_without_default, reason = "a const constructor")]
    pub const fn new() -> Self {
        Self { counts: [None; SESSIONS], next: 0 }
    }

    /// Takes in a datagram and says what is to be done; a reply is written in its place.
    pub fn react(&mut self, datagram: &mut [u8]) -> Reaction {
        let Ok(Header { kind, session, number }) = Header::decode(datagram) else { return Reaction::Nothing };
        let number = match kind {
            Kind::Sink => {
                *self.count(session) += 1;
                return Reaction::Nothing;
            }
            Kind::Source => return Reaction::Source { session, milliseconds: number.min(LONGEST_SOURCE) },
            Kind::Answer => return Reaction::Nothing,
            Kind::Count => *self.count(session),
            Kind::Echo => number,
        };
        if let Some(place) = datagram.first_chunk_mut() {
            *place = Header { kind: Kind::Answer, session, number }.encode();
        }
        Reaction::Reply
    }

    fn count(&mut self, session: u32) -> &mut u64 {
        let known = self.counts.iter().position(|count| count.is_some_and(|(known, _)| known == session));
        let place = known.unwrap_or_else(|| {
            let place = self.next;
            self.next = (place + 1) % SESSIONS;
            self.counts[place] = Some((session, 0));
            place
        });
        &mut self.counts[place].get_or_insert((session, 0)).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn datagram(kind: Kind, session: u32, number: u64, size: usize) -> Vec<u8> {
        let mut bytes = Header { kind, session, number }.encode().to_vec();
        bytes.resize(size.max(Header::SIZE), 0x5a);
        bytes
    }

    #[test]
    fn sessions_are_counted_apart_and_the_first_gives_way() {
        let mut sessions = Sessions::new();
        for session in 0..=SESSIONS as u32 {
            for _ in 0..=session {
                assert_eq!(sessions.react(&mut datagram(Kind::Sink, session, 0, 64)), Reaction::Nothing);
            }
        }
        let mut count = |session| {
            let mut question = datagram(Kind::Count, session, 0, 16);
            assert_eq!(sessions.react(&mut question), Reaction::Reply);
            let answer = Header::decode(&question).unwrap();
            assert_eq!((answer.kind, answer.session), (Kind::Answer, session));
            answer.number
        };
        assert_eq!(count(SESSIONS as u32), SESSIONS as u64 + 1);
        assert_eq!(count(1), 2);
        assert_eq!(count(0), 0, "it gave way to the last one");
    }

    #[test]
    fn a_source_is_bounded() {
        let mut question = datagram(Kind::Source, 7, u64::MAX, 64);
        let expected = Reaction::Source { session: 7, milliseconds: LONGEST_SOURCE };
        assert_eq!(Sessions::new().react(&mut question), expected);
    }

    proptest! {
        #[test]
        fn a_header_reads_back_as_it_was_written(number in 0_u8..5, session: u32, amount: u64, size in 0_usize..2000) {
            let header = Header { kind: Kind::from_number(number).unwrap(), session, number: amount };
            prop_assert_eq!(Header::decode(&datagram(header.kind, session, amount, size)), Ok(header));
        }

        #[test]
        fn no_bytes_harm_and_no_answer_is_answered(
            datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..50),
            mark: bool,
        ) {
            let mut sessions = Sessions::new();
            for mut bytes in datagrams {
                if mark && bytes.len() >= 3 {
                    bytes[..3].copy_from_slice(&MAGIC);
                }
                let before = bytes.clone();
                match sessions.react(&mut bytes) {
                    Reaction::Reply => {
                        prop_assert_eq!(bytes.len(), before.len());
                        prop_assert_eq!(&bytes[Header::SIZE..], &before[Header::SIZE..]);
                        prop_assert_eq!(sessions.react(&mut bytes), Reaction::Nothing);
                    }
                    _ => prop_assert_eq!(bytes, before),
                }
            }
        }
    }
}
