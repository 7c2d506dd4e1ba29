//! What a load generator and a server say to each other over one TCP connection.
//!
//! The client opens a connection and sends one [`Request`] of [`Request::SIZE`] bytes; what follows depends on its
//! [`Operation`]. Server code in the agent and in the unikernel is written against this module alone, so that both answer
//! alike. All integers are little-endian.

/// The TCP port on which a served workload listens unless told otherwise.
pub const PORT: u16 = 7000;

/// First bytes of each request and each answer, so that a stray peer is refused at once.
pub const MAGIC: [u8; 4] = *b"ISB1";

/// What the client wants of this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// The server sends one [`Answer`] and waits for the client to close. The first one is a sandbox's *ready*. Its value is
    /// the client's IPv4 address as the server sees it, as a number (what source NAT made of it), or 0 where the server
    /// does not know it.
    Hello = 0,
    /// The client sends bytes until it shuts down its sending side, or [`Request::length`] of them where that is not 0; the
    /// server then sends one [`Answer`] whose value is the number of bytes that it received.
    Sink = 1,
    /// The server sends bytes until [`Request::length`] of them are sent, or for ever where that is 0 and until the client
    /// closes; then it closes its sending side.
    Source = 2,
    /// The server sends back whatever it receives until the client shuts down its sending side.
    Echo = 3,
    /// As [`Operation::Sink`], and while bytes come in the server sends an [`Answer`] with their number so far at least each
    /// [`METER_MILLISECONDS`], so that the client knows what has arrived while it goes on sending.
    Meter = 4,
    /// The client sends one [`Task`](crate::work::Task), which the server prepares, and then numbers of rounds to do of it, each
    /// answered by a [`Report`](crate::work::Report) as the task is: [`crate::work`].
    Work = 5,
    /// The client sends one [`Target`](crate::connect::Target); the server says hello to whoever is there and tells by an
    /// [`Encounter`](crate::connect::Encounter) how that ended: [`crate::connect`].
    Connect = 6,
}

/// The longest time between two answers of [`Operation::Meter`] while bytes come in.
pub const METER_MILLISECONDS: u64 = 5;

impl Operation {
    /// The operation with this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Hello),
            1 => Some(Self::Sink),
            2 => Some(Self::Source),
            3 => Some(Self::Echo),
            4 => Some(Self::Meter),
            5 => Some(Self::Work),
            6 => Some(Self::Connect),
            _ => None,
        }
    }
}

/// The first bytes of a connection, from client to server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub operation: Operation,
    /// Payload length in bytes, 0 for *until closed*.
    pub length: u64,
}

/// Why bytes are no request or no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The first four bytes are not [`MAGIC`].
    Magic,
    /// There is no operation with this number.
    Operation(u8),
    /// There is no report or encounter with this number.
    Report(u8),
    /// There are fewer bytes than a header has.
    Short,
}

impl core::fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Magic => formatter.write_str("the peer does not speak the isobench protocol (wrong magic)"),
            Self::Operation(number) => write!(formatter, "unknown operation {number}"),
            Self::Report(number) => write!(formatter, "unknown report {number}"),
            Self::Short => formatter.write_str("too short for a header of the isobench protocol"),
        }
    }
}

impl core::error::Error for Malformed {}

impl Request {
    /// Size on the wire in bytes: magic (4), operation (1), zero (3), length (8).
    pub const SIZE: usize = 16;

    /// The request as it goes over the wire.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = self.operation as u8;
        bytes[8..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    /// Reads a request from the wire.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, Malformed> {
        if bytes[..4] != MAGIC {
            return Err(Malformed::Magic);
        }
        let operation = Operation::from_number(bytes[4]).ok_or(Malformed::Operation(bytes[4]))?;
        let mut length = [0; 8];
        length.copy_from_slice(&bytes[8..]);
        Ok(Self { operation, length: u64::from_le_bytes(length) })
    }
}

/// What a server sends in answer to [`Operation::Hello`], at the end of [`Operation::Sink`] and during [`Operation::Meter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the operation says that it is.
    pub value: u64,
}

impl Answer {
    /// Size on the wire in bytes: magic (4), zero (4), value (8).
    pub const SIZE: usize = 16;

    /// The answer as it goes over the wire.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[8..].copy_from_slice(&self.value.to_le_bytes());
        bytes
    }

    /// Reads an answer from the wire.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, Malformed> {
        if bytes[..4] != MAGIC {
            return Err(Malformed::Magic);
        }
        let mut value = [0; 8];
        value.copy_from_slice(&bytes[8..]);
        Ok(Self { value: u64::from_le_bytes(value) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn requests_and_answers_read_back_as_they_were_written(number in 0_u8..7, length: u64) {
            let request = Request { operation: Operation::from_number(number).unwrap(), length };
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
            prop_assert_eq!(Answer::decode(&Answer { value: length }.encode()), Ok(Answer { value: length }));
        }

        #[test]
        fn other_bytes_are_refused_or_mean_what_they_say(bytes: [u8; Request::SIZE], mark: bool) {
            let mut bytes = bytes;
            if mark {
                bytes[..4].copy_from_slice(&MAGIC);
            }
            match Request::decode(&bytes) {
                Ok(request) => prop_assert_eq!(request.operation as u8, bytes[4]),
                Err(Malformed::Operation(number)) => prop_assert_eq!((number, Operation::from_number(number)), (bytes[4], None)),
                Err(_) => prop_assert_ne!(&bytes[..4], &MAGIC),
            }
            prop_assert_eq!(Answer::decode(&bytes).is_ok(), bytes[..4] == MAGIC);
        }
    }
}
