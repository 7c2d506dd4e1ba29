//! Work that a server does by order: a fixed amount, the same wherever it is done, and answered when it is done.
//!
//! The client opens a connection with [`Operation::Work`](crate::protocol::Operation::Work) and sends one [`Task`]. The server
//! prepares it (takes memory, fills it, finds a directory for files) and answers with a [`Report`]: [`Report::Prepared`], or why
//! it does not. Then each number of rounds that the client sends ([`Rounds`]) is worked off and answered with [`Report::Done`],
//! until the client closes. So what preparing takes is in no figure, and one preparation serves several of them.
//!
//! Nobody can make a server work for ever or take memory without limit: it does one task at a time, looks again and again
//! whether its client is still there, stops after [`MOST_SECONDS`], and refuses more memory than it has to give.

mod job;

pub use job::{HOPS, Job, STEPS, STREAMED};

use crate::protocol::{MAGIC, Malformed};

/// After how long a server stops and reports [`Refusal::TooLong`], in seconds.
pub const MOST_SECONDS: u64 = 60;

/// The most memory that a task may ask for, in bytes.
pub const MOST_MEMORY: u64 = 1 << 30;

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Integers in registers, each step needing the one before: xor, shift, multiply, add.
    Integer = 0,
    /// Numbers in floating point in registers, each step needing the one before: multiply, subtract (IEEE 754, so that each
    /// machine has the same result).
    Floating = 1,
    /// Three streams through memory, `a = b + 3 c`, as the triad of STREAM (McCalpin 1995).
    Stream = 2,
    /// A chain of dependent loads through memory in an order that no prefetcher knows.
    Chase = 3,
    /// Calls of the kernel inside: getpid(2).
    SystemCalls = 4,
    /// A file made, written (4 KiB), synced, read and removed in the sandbox's own file system.
    SmallFile = 5,
    /// The same with 4 MiB.
    LargeFile = 6,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Integer, Self::Floating, Self::Stream, Self::Chase, Self::SystemCalls, Self::SmallFile, Self::LargeFile];

    /// How much of it is in one round: steps, bytes moved, loads, calls, or files.
    pub const fn amount(self) -> u64 {
        match self {
            Self::Integer | Self::Floating => STEPS,
            Self::Stream => STREAMED,
            Self::Chase => HOPS,
            Self::SystemCalls => CALLS,
            Self::SmallFile | Self::LargeFile => 1,
        }
    }

    /// The least memory that a task of it can have, in bytes; 0 where it has none.
    pub const fn least_memory(self) -> u64 {
        match self {
            Self::Stream => job::LEAST_STREAMS,
            Self::Chase => 4096,
            _ => 0,
        }
    }

    /// Whether only a kernel inside can do it.
    pub const fn needs_kernel(self) -> bool {
        matches!(self, Self::SystemCalls | Self::SmallFile | Self::LargeFile)
    }

    /// How many bytes the file has; 0 where there is none.
    pub const fn file(self) -> usize {
        match self {
            Self::SmallFile => 4096,
            Self::LargeFile => 4 << 20,
            _ => 0,
        }
    }
}

/// System calls in one round.
pub const CALLS: u64 = 4096;

/// Of which pages memory is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Pages {
    /// Those that a program gets which says nothing of it.
    Usual = 0,
    /// Of 2 MiB, where there are any: the kernel inside is asked for them.
    Huge = 1,
}

/// What is to be prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// What is to be done.
    pub kind: Kind,
    /// On what pages, where it has memory.
    pub pages: Pages,
    /// How much memory it has, in bytes; 0 where it has none.
    pub bytes: u64,
    /// Where its numbers begin, so that the result is the same wherever it is done.
    pub seed: u64,
}

impl Task {
    /// Size on the wire in bytes: kind (1), pages (1), zero (6), bytes (8), seed (8).
    pub const SIZE: usize = 24;

    /// The task as it goes over the wire.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0] = self.kind as u8;
        bytes[1] = self.pages as u8;
        bytes[8..16].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[16..].copy_from_slice(&self.seed.to_le_bytes());
        bytes
    }

    /// Reads a task from the wire.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] where there is no such kind of work or page.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, Refusal> {
        let kind = *Kind::ALL.get(usize::from(bytes[0])).ok_or(Refusal::Unknown)?;
        let pages = match bytes[1] {
            0 => Pages::Usual,
            1 => Pages::Huge,
            _ => return Err(Refusal::Unknown),
        };
        Ok(Self { kind, pages, bytes: number(bytes, 8), seed: number(bytes, 16) })
    }

    /// Sees whether whoever has so many bytes to give can do this.
    ///
    /// # Errors
    /// [`Refusal::Memory`] with what is possible.
    pub fn check(&self, free: u64) -> Result<(), Refusal> {
        let (least, most) = match self.kind.least_memory() {
            0 => (0, 0),
            least => (least, free.min(MOST_MEMORY)),
        };
        if (least..=most).contains(&self.bytes) { Ok(()) } else { Err(Refusal::Memory { least, most }) }
    }
}

/// How many rounds are to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounds(pub u64);

impl Rounds {
    /// Size on the wire in bytes.
    pub const SIZE: usize = 8;

    /// The number as it goes over the wire.
    pub const fn encode(self) -> [u8; Self::SIZE] {
        self.0.to_le_bytes()
    }

    /// Reads the number from the wire.
    pub const fn decode(bytes: [u8; Self::SIZE]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }
}

/// Why a server does not do what it was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such work.
    Unknown,
    /// There is no kernel inside that could do it, or no pages of that kind.
    Unsupported,
    /// Somebody else's task is under way.
    Busy,
    /// It cannot be done with so much memory.
    Memory {
        /// The least, in bytes.
        least: u64,
        /// The most, in bytes.
        most: u64,
    },
    /// It was not done after [`MOST_SECONDS`].
    TooLong {
        /// Rounds that were done until then.
        done: u64,
    },
    /// The kernel inside failed.
    Failed {
        /// Its error number (errno(3)), 0 where there is none.
        error: u32,
    },
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unknown => formatter.write_str("the server knows no such work"),
            Self::Unsupported => formatter.write_str("there is no kernel inside that could do this work"),
            Self::Busy => formatter.write_str("the server is at work for somebody else"),
            Self::Memory { most: 0, .. } => formatter.write_str("the server has no memory for this work"),
            Self::Memory { least, most } => {
                write!(formatter, "the server does this work with {least} to {most} bytes of memory")
            }
            Self::TooLong { done } => {
                write!(formatter, "the server gave up after {MOST_SECONDS} s and {done} rounds")
            }
            Self::Failed { error } => write!(formatter, "the kernel inside failed (errno {error})"),
        }
    }
}

impl core::error::Error for Refusal {}

/// What a server says of its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It can begin. The value is the type of the file system for files (statfs(2), `f_type`), else the bytes of memory.
    Prepared {
        /// See above.
        value: u64,
    },
    /// The rounds are done.
    Done {
        /// What came out: the same for the same task and rounds, wherever it was done.
        value: u64,
        /// How long it took by the clock inside, in nanoseconds.
        nanoseconds: u64,
    },
    /// It does not do it.
    Refused(Refusal),
}

impl Report {
    /// Size on the wire in bytes: magic (4), what it is (1), zero (3), two numbers (8 each).
    pub const SIZE: usize = 24;

    /// The report as it goes over the wire.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let (what, first, second) = match *self {
            Self::Prepared { value } => (0, value, 0),
            Self::Done { value, nanoseconds } => (1, value, nanoseconds),
            Self::Refused(Refusal::Unknown) => (2, 0, 0),
            Self::Refused(Refusal::Unsupported) => (3, 0, 0),
            Self::Refused(Refusal::Busy) => (4, 0, 0),
            Self::Refused(Refusal::Memory { least, most }) => (5, least, most),
            Self::Refused(Refusal::TooLong { done }) => (6, done, 0),
            Self::Refused(Refusal::Failed { error }) => (7, u64::from(error), 0),
        };
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = what;
        bytes[8..16].copy_from_slice(&first.to_le_bytes());
        bytes[16..].copy_from_slice(&second.to_le_bytes());
        bytes
    }

    /// Reads a report from the wire.
    ///
    /// # Errors
    /// Where it is none.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, Malformed> {
        if bytes[..4] != MAGIC {
            return Err(Malformed::Magic);
        }
        let (first, second) = (number(bytes, 8), number(bytes, 16));
        Ok(match bytes[4] {
            0 => Self::Prepared { value: first },
            1 => Self::Done { value: first, nanoseconds: second },
            2 => Self::Refused(Refusal::Unknown),
            3 => Self::Refused(Refusal::Unsupported),
            4 => Self::Refused(Refusal::Busy),
            5 => Self::Refused(Refusal::Memory { least: first, most: second }),
            6 => Self::Refused(Refusal::TooLong { done: first }),
            7 => Self::Refused(Refusal::Failed { error: first as u32 }),
            other => return Err(Malformed::Report(other)),
        })
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reports() -> impl Strategy<Value = Report> {
        prop_oneof![
            any::<u64>().prop_map(|value| Report::Prepared { value }),
            any::<(u64, u64)>().prop_map(|(value, nanoseconds)| Report::Done { value, nanoseconds }),
            Just(Report::Refused(Refusal::Unknown)),
            Just(Report::Refused(Refusal::Unsupported)),
            Just(Report::Refused(Refusal::Busy)),
            any::<(u64, u64)>().prop_map(|(least, most)| Report::Refused(Refusal::Memory { least, most })),
            any::<u64>().prop_map(|done| Report::Refused(Refusal::TooLong { done })),
            any::<u32>().prop_map(|error| Report::Refused(Refusal::Failed { error })),
        ]
    }

    proptest! {
        #[test]
        fn tasks_rounds_and_reports_read_back_as_they_were_written(
            kind in 0_usize..Kind::ALL.len(), huge: bool, bytes: u64, seed: u64, rounds: u64, report in reports(),
        ) {
            let task = Task { kind: Kind::ALL[kind], pages: if huge { Pages::Huge } else { Pages::Usual }, bytes, seed };
            prop_assert_eq!(task.kind as usize, kind);
            prop_assert_eq!(Task::decode(&task.encode()), Ok(task));
            prop_assert_eq!(Rounds::decode(Rounds(rounds).encode()), Rounds(rounds));
            prop_assert_eq!(Report::decode(&report.encode()), Ok(report));
        }

        #[test]
        fn other_bytes_are_refused_or_mean_what_they_say(bytes: [u8; Task::SIZE], mark: bool) {
            let known = usize::from(bytes[0]) < Kind::ALL.len() && bytes[1] < 2;
            prop_assert_eq!(Task::decode(&bytes).is_ok(), known);
            let mut bytes = bytes;
            if mark {
                bytes[..4].copy_from_slice(&MAGIC);
                bytes[4] %= 10;
            }
            let known = bytes[..4] == MAGIC && bytes[4] < 8;
            prop_assert_eq!(Report::decode(&bytes).is_ok(), known);
        }

        #[test]
        fn what_passes_the_check_has_memory_within_bounds(kind in 0_usize..Kind::ALL.len(), bytes: u64, free: u64) {
            let task = Task { kind: Kind::ALL[kind], pages: Pages::Usual, bytes, seed: 0 };
            match task.check(free) {
                Ok(()) => prop_assert!(bytes <= MOST_MEMORY && bytes <= free && bytes >= task.kind.least_memory()),
                Err(Refusal::Memory { least, most }) => prop_assert!(bytes < least || bytes > most),
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }
}
