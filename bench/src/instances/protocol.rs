//! What is said on a supervisor's socket: frames of a kind, a length and as many bytes.
//!
//! Whoever connects says first what it wants ([`Order`]). An attached or executing one then sends input and reads output;
//! each conversation ends with the end of the connection. A connection that ends before its answer means that the supervisor
//! was killed.

use super::request::{Execution, FurtherNetwork};
use isobench_microvm::devices::virtio::balloon::BalloonState;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// The longest payload of a frame: anything longer is no frame of ours.
const LONGEST: usize = 1 << 20;

/// Bytes before the payload.
const HEADER: usize = 5;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// To the supervisor: an [`Order`].
    Order = b'o',
    /// To the supervisor: bytes for the standard input.
    Input = b'i',
    /// To the supervisor: the standard input ends.
    EndOfInput = b'e',
    /// To the supervisor: rows and columns of the terminal, two bytes each.
    Resize = b'r',
    /// To the supervisor: a signal for the process, four bytes.
    Signal = b's',
    /// To the supervisor: this connection ends on purpose, and the process goes on.
    Detach = b'd',
    /// From the supervisor: an [`Answer`].
    Answer = b'a',
    /// From the supervisor: standard output.
    Output = b'1',
    /// From the supervisor: standard error.
    Error = b'2',
    /// From the supervisor: the process's exit code, four bytes.
    Ended = b'x',
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        const ALL: [Kind; 10] = [
            Kind::Order,
            Kind::Input,
            Kind::EndOfInput,
            Kind::Resize,
            Kind::Signal,
            Kind::Detach,
            Kind::Answer,
            Kind::Output,
            Kind::Error,
            Kind::Ended,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What is asked of a supervisor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Take part in the container's streams, and be told of its end.
    Attach {
        /// Whether what this side sends is the container's input.
        input: bool,
        /// Whether this side is sent what the container writes.
        output: bool,
        /// Rows and columns of this side's terminal; for the first order alone.
        size: Option<(u16, u16)>,
    },
    /// Run a further process.
    Execute(Execution),
    /// Send a signal to the first process.
    Signal(i32),
    /// Stop all processes where they are.
    Pause,
    /// Let them go on.
    Unpause,
    /// Tell of a virtual machine's balloon, after the guest was asked to leave so many bytes unused where a number is given.
    Balloon(Option<u64>),
    /// Tell what the container uses.
    Statistics,
    /// The container has another name now.
    Renamed,
    /// Attach the container to a further network.
    Connect(FurtherNetwork),
    /// Take the container from a network.
    Disconnect {
        /// The network's name.
        network: String,
    },
}

/// What a supervisor answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The program runs.
    Started,
    /// It is done.
    Done,
    /// It cannot be done.
    Failed {
        /// Why, in one sentence.
        message: String,
        /// The exit status for it.
        code: i32,
    },
    /// How a virtual machine's balloon is.
    Balloon(BalloonState),
    /// What the container uses; absent is what cannot be known here.
    Statistics {
        /// Bytes of memory.
        memory: Option<u64>,
        /// Nanoseconds of processor time.
        cpu: Option<u64>,
        /// Processes and threads.
        pids: Option<u64>,
    },
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// What it carries.
    pub(crate) kind: Kind,
    /// The payload.
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// A frame with a value as JSON.
    pub(crate) fn of(kind: Kind, value: &impl Serialize) -> Self {
        // Serialising our own types to memory cannot fail: they have no maps with keys that are no text.
        Self { kind, payload: serde_json::to_vec(value).unwrap_or_default() }
    }

    /// A frame with a number.
    pub(crate) fn number(kind: Kind, number: i32) -> Self {
        Self { kind, payload: number.to_le_bytes().to_vec() }
    }

    /// The value in it.
    pub(crate) fn value<T: DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.payload).map_err(|_| malformed())
    }

    /// The number in it.
    pub(crate) fn as_number(&self) -> io::Result<i32> {
        self.payload.as_slice().try_into().map(i32::from_le_bytes).map_err(|_| malformed())
    }

    /// Writes it down as it is sent.
    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        encode(self.kind, &self.payload, into);
    }

    /// Sends it.
    pub(crate) fn send(&self, mut socket: impl Write) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEADER + self.payload.len());
        self.encode(&mut bytes);
        socket.write_all(&bytes)
    }

    /// Waits for one; `None` where the other side has ended.
    pub(crate) fn receive(mut socket: impl Read) -> io::Result<Option<Self>> {
        let mut header = [0_u8; HEADER];
        let mut filled = 0;
        while filled < HEADER {
            match socket.read(&mut header[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let (kind, length) = read_header(&header)?;
        let mut payload = vec![0; length];
        socket.read_exact(&mut payload)?;
        Ok(Some(Self { kind, payload }))
    }

    /// Takes the first one off what has been received so far; `None` where it is not complete yet.
    pub(crate) fn take(received: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let Some(header) = received.first_chunk::<HEADER>() else { return Ok(None) };
        let (kind, length) = read_header(header)?;
        if received.len() < HEADER + length {
            return Ok(None);
        }
        let payload = received[HEADER..HEADER + length].to_vec();
        received.drain(..HEADER + length);
        Ok(Some(Self { kind, payload }))
    }
}

/// Writes a frame down as it is sent; a long payload as several.
pub(crate) fn encode(kind: Kind, payload: &[u8], into: &mut Vec<u8>) {
    let pieces = payload.chunks(LONGEST).chain(payload.is_empty().then_some(&[][..]));
    for piece in pieces {
        into.push(kind as u8);
        into.extend_from_slice(&(piece.len() as u32).to_le_bytes());
        into.extend_from_slice(piece);
    }
}

fn read_header(header: &[u8; HEADER]) -> io::Result<(Kind, usize)> {
    let [kind, length @ ..] = *header;
    let length = u32::from_le_bytes(length) as usize;
    Kind::of(kind).filter(|_| length <= LONGEST).map(|kind| (kind, length)).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what was received is no frame")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_are_read_back_however_they_are_cut(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..8), cut in 1_usize..20) {
            let frames: Vec<_> = payloads.into_iter().map(|payload| Frame { kind: Kind::Input, payload }).collect();
            let mut bytes = Vec::new();
            frames.iter().for_each(|frame| frame.encode(&mut bytes));
            let (mut received, mut read) = (Vec::new(), Vec::new());
            for piece in bytes.chunks(cut) {
                received.extend_from_slice(piece);
                while let Some(frame) = Frame::take(&mut received).unwrap() {
                    read.push(frame);
                }
            }
            prop_assert_eq!(&read, &frames);
            let mut stream = bytes.as_slice();
            for frame in frames {
                prop_assert_eq!(Frame::receive(&mut stream).unwrap(), Some(frame));
            }
            prop_assert_eq!(Frame::receive(&mut stream).unwrap(), None);
        }

        #[test]
        fn nonsense_is_refused_and_never_believed(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut received = bytes.clone();
            while let Ok(Some(frame)) = Frame::take(&mut received) {
                prop_assert!(frame.payload.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn a_length_beyond_the_bound_is_no_frame() {
        let mut bytes = vec![Kind::Input as u8];
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(Frame::take(&mut bytes).is_err());
    }
}
