//! The monitor's control socket: how a guest is configured, started and looked after from outside.
//!
//! The protocol is one of lines: a client connects, sends requests, each a JSON object on a line of its own, and has for each, in
//! order, an answer, a JSON object on a line of its own. A connection lives as long as its client likes, and there may be several.
//!
//! A **request** is `{"version":1,"request":NAME}`, where wanted with `"arguments":{...}` and with `"id"`, a text or number that the
//! answer repeats. An **answer** is `{"result":{...}}` or `{"error":{"kind":KIND,"message":SENTENCE}}`; the kinds are those of
//! [`FailureKind`](protocol::FailureKind).
//!
//! | request | arguments | result |
//! |---|---|---|
//! | `describe` | | a [`Description`]: state, configuration, figures |
//! | `guest` | | a [`Guest`]: what runs in it, as a snapshot would say; the digest of a Linux guest's kernel file is worked out when it is first asked for |
//! | `create` | a configuration, as a configuration file holds it | `{}`: the guest can be started |
//! | `start` | | `{}`, once the machine is made and its guest begins |
//! | `pause` | | `{}`, once every processor stands still; a deadline ends a paused guest as it does one that runs |
//! | `resume` | | `{}` |
//! | `balloon` | `target`, where wanted, in bytes | a [`BalloonState`], after the guest was asked to leave so many bytes unused; it does so in its own time |
//! | `snapshot` | `stay`, where wanted: true for a guest that stays paused | a [`Guest`], after memory and state were written into the two empty files whose descriptors came with the request (`SCM_RIGHTS`, unix(7)) |
//! | `stop` | | `{}`; then the guest is ended, and the monitor with it |
//!
//! `create` and `start` are for a monitor that was started with nothing but `--api-socket`; descriptors that come with `create` are what
//! `fd:NUMBER` and fields that end in `-fd` count there, from 0. Everything else is answered for every guest that has the socket, by
//! whatever way it was started. A guest that was paused before its snapshot stays paused.
//!
//! **Who may ask**: whoever may connect. A socket that the monitor makes has mode 0600; one that it is handed is its launcher's business.
//! **What is kept** for a client is at most a request of [`LONGEST_REQUEST`](protocol::LONGEST_REQUEST) bytes and eight descriptors; a longer
//! line is refused and skipped. A client that does not read its answers is cut off, and of more than sixteen the quietest.

pub mod clients;
mod once;
pub mod protocol;
mod server;

pub use server::{Asked, Control, Server, Starting, too_long};

use crate::devices::virtio::balloon::BalloonState;
use crate::snapshot::Guest;
use protocol::{Failure, Request};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{self, BufRead, BufReader, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest answer that is read, in bytes.
const LONGEST_ANSWER: u64 = 1 << 20;
/// How long an answer may take: another client may be before this one.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a snapshot may take: a guest's memory goes to a disk that may be slow.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(600);
/// Descriptors that are sent with a request.
const MOST_SENT: usize = 2;

/// What a monitor says of its machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Description {
    /// The protocol's [version](protocol::VERSION).
    pub version: u64,
    /// The monitor's version.
    pub program: String,
    /// How far the machine is.
    pub state: State,
    /// Its configuration, with all that was not said; null where it has none.
    pub configuration: Option<Value>,
    /// How it is doing; null before its guest begins.
    pub figures: Option<Figures>,
}

/// How far a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It has no configuration yet.
    NotCreated,
    /// It has, and can be started.
    Created,
    /// Its guest runs.
    Running,
    /// Its guest was started, and stands still.
    Paused,
}

/// How a machine is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Figures {
    /// How long ago its guest was started, in nanoseconds.
    pub since_start: u64,
    /// CPU time of the monitor and its guest, in nanoseconds.
    pub processor_time: u64,
    /// The most memory that the monitor and its guest had resident, in bytes (getrusage(2)).
    pub most_resident: u64,
    /// Its balloon, where it has one.
    pub balloon: Option<BalloonState>,
}

/// Why a machine could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is nobody.
    #[error("reach the machine at {path}")]
    Reach {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It refused.
    #[error("the machine at {path} refused: {why}")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What it said.
        why: Failure,
    },
    /// Its answer makes no sense.
    #[error("the machine at {path} gave an answer that makes no sense")]
    Answer {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

/// Asks the machine whose control socket this is what it is and how it is doing.
pub fn describe(socket: &Path) -> Result<Description, ControlError> {
    ask(socket, &Request::Describe)
}

/// Asks the machine what its guest is, as a snapshot of it would say.
pub fn guest(socket: &Path) -> Result<Guest, ControlError> {
    ask(socket, &Request::Guest)
}

/// Lets no processor of the machine go on.
pub fn pause(socket: &Path) -> Result<(), ControlError> {
    ask(socket, &Request::Pause).map(|Nothing {}| ())
}

/// Lets a paused machine go on.
pub fn resume(socket: &Path) -> Result<(), ControlError> {
    ask(socket, &Request::Resume).map(|Nothing {}| ())
}

/// Ends a machine.
pub fn stop(socket: &Path) -> Result<(), ControlError> {
    ask(socket, &Request::Stop).map(|Nothing {}| ())
}

/// Asks the machine for its balloon's state.
pub fn balloon(socket: &Path) -> Result<BalloonState, ControlError> {
    ask(socket, &Request::Balloon(None))
}

/// Asks the machine's guest to leave so many bytes unused, rounded down to 4 KiB; 0 gives it all back. It does so in its own time:
/// [`BalloonState::actual`] says how far it is.
pub fn set_balloon(socket: &Path, bytes: u64) -> Result<BalloonState, ControlError> {
    ask(socket, &Request::Balloon(Some(bytes)))
}

/// Has the machine write its memory and its state into these files, which are empty; it stays paused afterwards where it is to.
pub(crate) fn snapshot(
    socket: &Path,
    memory: BorrowedFd<'_>,
    state: BorrowedFd<'_>,
    stay: bool,
) -> Result<Guest, ControlError> {
    ask_with(socket, &Request::Snapshot { stay }, &[memory, state], SNAPSHOT_PATIENCE)
}

/// An answer without content.
#[derive(Debug, Deserialize)]
struct Nothing {}

fn ask<A: DeserializeOwned>(socket: &Path, request: &Request) -> Result<A, ControlError> {
    ask_with(socket, request, &[], PATIENCE)
}

fn ask_with<A: DeserializeOwned>(
    socket: &Path,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
    patience: Duration,
) -> Result<A, ControlError> {
    let path = || socket.to_owned();
    let exchange = || -> io::Result<String> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(patience))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SENT))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        // A line this short goes whole into an empty socket.
        let line = protocol::request_line(request);
        sendmsg(&stream, &[IoSlice::new(line.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
        let mut answer = String::new();
        BufReader::new(stream.take(LONGEST_ANSWER)).read_line(&mut answer)?;
        if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
    };
    let answer = exchange().map_err(|source| ControlError::Reach { path: path(), source })?;
    match protocol::read_answer(&answer) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(why)) => Err(ControlError::Refused { path: path(), why }),
        Err(source) => Err(ControlError::Answer { path: path(), source }),
    }
}
