//! A connection that a server opens by order, so that it can be seen from outside what is reached from inside.
//!
//! The client opens a connection with [`Operation::Connect`](crate::protocol::Operation::Connect) and sends one [`Target`]. The
//! server says hello to another server there, and tells by one [`Encounter`] how that ended. It waits no longer than it is told
//! to, and never longer than [`MOST_PATIENCE`]; who asks while it has no hands free hears [`Encounter::Busy`].

use crate::protocol::{MAGIC, Malformed};

/// The longest time that a server waits for an answer, in milliseconds.
pub const MOST_PATIENCE: u32 = 10_000;

/// Whom to say hello to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// IPv4 address.
    pub address: [u8; 4],
    /// TCP port.
    pub port: u16,
    /// How long to wait for the answer, in milliseconds; more than [`MOST_PATIENCE`] is as much as that.
    pub patience: u32,
}

impl Target {
    /// Size on the wire in bytes: address (4, in the order in which it is written), port (2), zero (2), patience (4), zero (4).
    pub const SIZE: usize = 16;

    /// The target as it goes over the wire.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&self.address);
        bytes[4..6].copy_from_slice(&self.port.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.patience.to_le_bytes());
        bytes
    }

    /// Reads a target from the wire, with a patience within bounds.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Self {
        let [a, b, c, d, low, high, _, _, p, q, r, s, ..] = *bytes;
        let patience = u32::from_le_bytes([p, q, r, s]).min(MOST_PATIENCE);
        Self { address: [a, b, c, d], port: u16::from_le_bytes([low, high]), patience }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encounter {
    /// The server there answered.
    Answered {
        /// This side's IPv4 address as the server there saw it, as a number; 0 where it does not know it.
        seen: u32,
    },
    /// There is nobody at that port.
    Refused,
    /// There was no answer in time.
    Silent,
    /// Somebody is there who ended the connection or does not speak the protocol.
    Stranger,
    /// It could not be tried, or something between said no.
    Failed {
        /// The kernel's error number (errno(3)), 0 where there is none.
        error: u32,
    },
    /// As many as can be are under way.
    Busy,
}

impl core::fmt::Display for Encounter {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Answered { .. } => formatter.write_str("the server there answered"),
            Self::Refused => formatter.write_str("the connection was refused"),
            Self::Silent => formatter.write_str("there was no answer in time"),
            Self::Stranger => formatter.write_str("who is there does not speak the isobench protocol"),
            Self::Failed { error } => write!(formatter, "the connection failed (errno {error})"),
            Self::Busy => formatter.write_str("the server has no hands free for one more connection"),
        }
    }
}

impl Encounter {
    /// Size on the wire in bytes: magic (4), what it is (1), zero (3), a number (4), zero (4).
    pub const SIZE: usize = 16;

    /// The encounter as it goes over the wire.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let (what, number) = match *self {
            Self::Answered { seen } => (0, seen),
            Self::Refused => (1, 0),
            Self::Silent => (2, 0),
            Self::Stranger => (3, 0),
            Self::Failed { error } => (4, error),
            Self::Busy => (5, 0),
        };
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = what;
        bytes[8..12].copy_from_slice(&u32::to_le_bytes(number));
        bytes
    }

    /// Reads an encounter from the wire.
    ///
    /// # Errors
    /// Where it is none.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, Malformed> {
        if bytes[..4] != MAGIC {
            return Err(Malformed::Magic);
        }
        let [.., a, b, c, d, _, _, _, _] = *bytes;
        let number = u32::from_le_bytes([a, b, c, d]);
        Ok(match bytes[4] {
            0 => Self::Answered { seen: number },
            1 => Self::Refused,
            2 => Self::Silent,
            3 => Self::Stranger,
            4 => Self::Failed { error: number },
            5 => Self::Busy,
            other => return Err(Malformed::Report(other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn targets_and_encounters_read_back_as_they_were_written(
            address: [u8; 4], port: u16, patience in 0..=MOST_PATIENCE, number: u32, what in 0_usize..6,
        ) {
            let target = Target { address, port, patience };
            prop_assert_eq!(Target::decode(&target.encode()), target);
            let encounters = [
                Encounter::Answered { seen: number },
                Encounter::Refused,
                Encounter::Silent,
                Encounter::Stranger,
                Encounter::Failed { error: number },
                Encounter::Busy,
            ];
            prop_assert_eq!(Encounter::decode(&encounters[what].encode()), Ok(encounters[what]));
        }

        #[test]
        fn other_bytes_are_refused_or_mean_what_they_say(bytes: [u8; Target::SIZE], mark: bool) {
            prop_assert!(Target::decode(&bytes).patience <= MOST_PATIENCE);
            let mut bytes = bytes;
            if mark {
                bytes[..4].copy_from_slice(&MAGIC);
                bytes[4] %= 8;
            }
            prop_assert_eq!(Encounter::decode(&bytes).is_ok(), bytes[..4] == MAGIC && bytes[4] < 6);
        }
    }
}
