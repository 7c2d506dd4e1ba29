//! The monitor's control socket: what is asked of a running machine from outside. A connection carries one request, which is a line
//! of words, and one answer, which is a line of JSON.
//!
//! | request | answer |
//! |---|---|
//! | `balloon` | the balloon's state, a [`BalloonState`] |
//! | `balloon BYTES` | the same, after the guest was asked to leave so many bytes unused; it does so in its own time |
//! | anything else | `{"error":"..."}` |

use crate::confinement::{self, Role};
use crate::devices::virtio::balloon::{BalloonControl, BalloonState};
use crate::system;
use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
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
/// Stack of the thread.
const STACK: usize = 128 << 10;

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

fn ask(socket: &Path, request: &str) -> Result<BalloonState, ControlError> {
    let path = || socket.to_owned();
    let exchange = || -> io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        // Another client may be before this one.
        stream.set_read_timeout(Some(PATIENCE * 4))?;
        stream.write_all(format!("{request}\n").as_bytes())?;
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

/// The thread that takes requests. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Takes requests on this socket for a machine with this balloon, or with none.
    pub fn start(listener: UnixListener, balloon: Option<BalloonControl>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let stopped = stop.try_clone()?;
        let thread = std::thread::Builder::new().name("control".into()).stack_size(STACK).spawn(move || {
            system::block_alarm();
            // Unconfined it takes no orders: a client is told so by the end of its connection.
            if confinement::confine(Role::Control).is_ok() {
                serve(&listener, &stopped, balloon.as_ref());
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

fn serve(listener: &UnixListener, stop: &EventFd, balloon: Option<&BalloonControl>) {
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
            let _ = answer(&mut stream, balloon);
        }
    }
}

fn answer(stream: &mut UnixStream, balloon: Option<&BalloonControl>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    while !request.ends_with(b"\n") && request.len() < LONGEST as usize {
        let mut part = [0; 256];
        match stream.read(&mut part)? {
            0 => break,
            count => request.extend(&part[..count]),
        }
    }
    let request = String::from_utf8_lossy(&request);
    let answer = match answer_to(request.trim_end(), balloon) {
        Ok(state) => serde_json::to_string(&state),
        Err(error) => serde_json::to_string(&Refusal { error }),
    };
    stream.write_all(format!("{}\n", answer.map_err(io::Error::other)?).as_bytes())
}

fn answer_to(request: &str, balloon: Option<&BalloonControl>) -> Result<BalloonState, String> {
    let bytes = match request.split_once(' ') {
        None if request == "balloon" => None,
        Some(("balloon", bytes)) => Some(bytes.parse().map_err(|_| format!("`{bytes}` is not a number of bytes"))?),
        _ => return Err(format!("there is no request `{request}`")),
    };
    let balloon = balloon.ok_or("the machine has no balloon")?;
    if let Some(bytes) = bytes {
        balloon.set_target(bytes);
    }
    Ok(balloon.state(GUEST_PATIENCE))
}
