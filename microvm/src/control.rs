//! The monitor's control socket: what is asked of a running machine from outside. A connection carries one request, which is a line
//! of words, and one answer, which is a line of JSON.
//!
//! | request | answer |
//! |---|---|
//! | `balloon` | the balloon's state, a [`BalloonState`] |
//! | `balloon BYTES` | the same, after the guest was asked to leave so many bytes unused; it does so in its own time |
//! | `snapshot` | a [`Guest`], after its memory and its state were written into the two files whose descriptors come with the request, and it goes on |
//! | `snapshot stay` | the same, but it stays paused |
//! | `resume` | `{}`, after it goes on |
//! | anything else | `{"error":"..."}` |

use crate::confinement::{self, Role};
use crate::devices::virtio::balloon::{BalloonControl, BalloonState};
use crate::snapshot::Guest;
use crate::snapshot::keeper::Keeper;
use crate::system;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Longest request and longest answer, in bytes.
const LONGEST: u64 = 4096;
/// How long a client may take over its request.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the guest may take to tell its statistics; after that its last ones are given.
const GUEST_PATIENCE: Duration = Duration::from_millis(500);
/// How long a snapshot may take: a guest's memory goes to a disk that may be slow.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(600);
/// Descriptors that may come with a request.
const MOST_DESCRIPTORS: usize = 2;
/// Stack of the thread.
const STACK: usize = 256 << 10;

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
        why: String,
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

/// Asks the machine whose control socket this is for its balloon's state.
pub fn balloon(socket: &Path) -> Result<BalloonState, ControlError> {
    ask(socket, "balloon")
}

/// Asks the machine's guest to leave so many bytes unused, rounded down to 4 KiB; 0 gives it all back. It does so in its own time:
/// [`BalloonState::actual`] says how far it is.
pub fn set_balloon(socket: &Path, bytes: u64) -> Result<BalloonState, ControlError> {
    ask(socket, &format!("balloon {bytes}"))
}

/// Has the machine write its memory and its state into these files, which are empty; it stays paused afterwards where it is to.
pub(crate) fn snapshot(
    socket: &Path,
    memory: BorrowedFd<'_>,
    state: BorrowedFd<'_>,
    stay: bool,
) -> Result<Guest, ControlError> {
    ask_with(socket, if stay { "snapshot stay" } else { "snapshot" }, &[memory, state], SNAPSHOT_PATIENCE)
}

/// Lets a machine go on that stayed paused.
pub fn resume(socket: &Path) -> Result<(), ControlError> {
    ask(socket, "resume").map(|Nothing {}| ())
}

/// An answer without content.
#[derive(Debug, Serialize, serde::Deserialize)]
struct Nothing {}

fn ask<A: DeserializeOwned>(socket: &Path, request: &str) -> Result<A, ControlError> {
    // Another client may be before this one.
    ask_with(socket, request, &[], PATIENCE * 4)
}

fn ask_with<A: DeserializeOwned>(
    socket: &Path,
    request: &str,
    descriptors: &[BorrowedFd<'_>],
    patience: Duration,
) -> Result<A, ControlError> {
    let path = || socket.to_owned();
    let exchange = || -> io::Result<String> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(patience))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        // A line this short goes whole into an empty socket.
        sendmsg(&stream, &[IoSlice::new(format!("{request}\n").as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
        let mut answer = String::new();
        stream.take(LONGEST).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(|source| ControlError::Reach { path: path(), source })?;
    if let Ok(Refusal { error }) = serde_json::from_str(&answer) {
        return Err(ControlError::Refused { path: path(), why: error });
    }
    serde_json::from_str(&answer).map_err(|source| ControlError::Answer { path: path(), source })
}

/// An answer that is none.
#[derive(Debug, Serialize, serde::Deserialize)]
struct Refusal {
    error: String,
}

/// What of a machine can be asked for; what it has not is refused.
#[derive(Debug, Default)]
pub struct Asked {
    /// Its balloon.
    pub balloon: Option<BalloonControl>,
    /// What takes snapshots of it.
    pub keeper: Option<Keeper>,
}

/// The thread that takes requests. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Takes requests on this socket for a machine.
    pub fn start(listener: UnixListener, asked: Asked) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let stopped = stop.try_clone()?;
        let thread = std::thread::Builder::new().name("control".into()).stack_size(STACK).spawn(move || {
            system::block_alarm();
            // Unconfined it takes no orders: a client is told so by the end of its connection.
            if confinement::confine(Role::Control).is_ok() {
                serve(&listener, &stopped, &asked);
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &UnixListener, stop: &EventFd, asked: &Asked) {
    loop {
        let mut waited = [
            PollFd::from_borrowed_fd(system::borrow_event(stop), PollFlags::IN),
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
        ];
        let _ = poll(&mut waited, None);
        if !waited[0].revents().is_empty() {
            return;
        }
        // A client that has gone again is no error, and neither is one that breaks off.
        if let Ok((mut stream, _)) = listener.accept() {
            let _ = answer(&mut stream, asked);
        }
    }
}

fn answer(stream: &mut UnixStream, asked: &Asked) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let (request, descriptors) = receive(stream)?;
    let request = String::from_utf8_lossy(&request);
    let answer = match answer_to(request.trim_end(), descriptors, asked) {
        Ok(answer) => Ok(answer),
        Err(error) => serde_json::to_string(&Refusal { error }),
    };
    let told = stream.write_all(format!("{}\n", answer.map_err(io::Error::other)?).as_bytes());
    // Whoever was to end a machine that stays paused is gone.
    if let Some(keeper) = asked.keeper.as_ref().filter(|_| told.is_err() && request.starts_with("snapshot stay")) {
        keeper.resume();
    }
    told
}

/// Reads a request and the descriptors that come with it.
fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut request, mut descriptors) = (Vec::new(), Vec::new());
    while !request.ends_with(b"\n") && request.len() < LONGEST as usize {
        let mut part = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(stream, &mut [IoSliceMut::new(&mut part)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                // What comes beyond what there may be is closed again.
                descriptors.extend(rights);
            }
        }
        if received == 0 {
            break;
        }
        request.extend(&part[..received]);
    }
    Ok((request, descriptors))
}

fn answer_to(request: &str, descriptors: Vec<OwnedFd>, asked: &Asked) -> Result<String, String> {
    let text = |written: serde_json::Result<String>| written.map_err(|error| error.to_string());
    let (word, argument) = request.split_once(' ').map_or((request, None), |(word, rest)| (word, Some(rest)));
    match (word, argument) {
        ("balloon", argument) => {
            let bytes = argument.map(|bytes| bytes.parse().map_err(|_| format!("`{bytes}` is not a number of bytes")));
            let bytes = bytes.transpose()?;
            let balloon = asked.balloon.as_ref().ok_or("the machine has no balloon")?;
            bytes.into_iter().for_each(|bytes| balloon.set_target(bytes));
            text(serde_json::to_string(&balloon.state(GUEST_PATIENCE)))
        }
        ("snapshot", None | Some("stay")) => {
            let keeper = asked.keeper.as_ref().ok_or("the machine cannot be saved")?;
            let [memory, state] = <[OwnedFd; 2]>::try_from(descriptors)
                .map_err(|_| "a snapshot needs two files to be written into".to_owned())?;
            let guest = keeper.save(&File::from(memory), &File::from(state))?;
            if argument.is_none() {
                keeper.resume();
            }
            text(serde_json::to_string(&guest))
        }
        ("resume", None) => {
            asked.keeper.as_ref().ok_or("the machine cannot be paused")?.resume();
            text(serde_json::to_string(&Nothing {}))
        }
        _ => Err(format!("there is no request `{request}`")),
    }
}
