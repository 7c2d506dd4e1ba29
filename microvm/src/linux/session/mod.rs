//! A monitor's standard streams as those of a program in the guest, and further programs beside it, each by a connection to a socket:
//! frames on the guest's virtio console carry their streams to and from the agent there ([`isobench_workload::guest`]).
//!
//! Two threads share the [`streams`]: the console's takes what the guest says and never waits for anybody, the session's
//! ([`carrier`]) reads and writes whatever of the host's is ready. What either keeps is bounded, and a reader that does not read
//! holds up its own program alone.

mod carrier;
mod connection;
pub mod program;
mod streams;
pub(super) mod terminal;

use super::LinuxError;
use crate::confinement::{self, Role};
use crate::devices::virtio::console::{Console, Inbox, Sink};
use crate::devices::virtio::device::QueueDevice;
use crate::snapshot::devices::SessionState;
use crate::system;
use isobench_workload::guest::{Decoder, FIRST, Kind, encode};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::termios::{isatty, tcgetwinsize};
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use streams::Streams;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Signals that are meant for the program and not for the monitor.
const HANDED_ON: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// Stack of the thread: it moves small pieces.
const STACK: usize = 128 << 10;

/// How long the end waits for whoever reads what a guest wrote that ended without taking leave.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the console's thread and the session's share.
#[derive(Clone, Debug)]
pub(super) struct Session(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inbox: Inbox,
    streams: Mutex<Streams>,
    /// Signalled when the guest has said something.
    news: EventFd,
    /// Told when what was written has been taken.
    taken: Condvar,
    /// While this is there, nothing is carried: the streams are still to be those of a guest that was saved.
    held: Mutex<Option<Sender<()>>>,
}

impl Session {
    /// Takes the standard input and the signals from now on and gives them to the guest, and takes further programs on a socket. To
    /// be called before there is any other thread, since each has the signals of the one that starts it.
    pub(super) fn begin(listener: Option<UnixListener>) -> Result<Self, LinuxError> {
        let session = Self::begin_held(listener)?;
        session.release();
        Ok(session)
    }

    /// The same, for a guest that goes on from a snapshot: nothing is carried before the console has its state.
    pub(super) fn begin_held(listener: Option<UnixListener>) -> Result<Self, LinuxError> {
        let (hold, held) = mpsc::channel();
        let shared = Shared {
            inbox: Inbox::new().map_err(LinuxError::Devices)?,
            streams: Mutex::new(Streams::new()),
            news: EventFd::new(EFD_NONBLOCK).map_err(LinuxError::Devices)?,
            taken: Condvar::new(),
            held: Mutex::new(Some(hold)),
        };
        let session = Self(Arc::new(shared));
        if let Some(listener) = &listener {
            listener.set_nonblocking(true).map_err(LinuxError::Devices)?;
        }
        let typed = Typed::begin().map_err(LinuxError::Devices)?;
        let carried = session.clone();
        let carry = move || {
            system::block_alarm();
            // It ends with the other end.
            let _ = held.recv();
            if confinement::confine(Role::Session).is_ok() {
                carrier::Carrier::new(carried, typed, listener).carry();
            }
        };
        let thread = std::thread::Builder::new().name("session".into()).stack_size(STACK).spawn(carry);
        thread.map_err(LinuxError::Devices)?;
        Ok(session)
    }

    fn release(&self) {
        drop(self.0.held.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// The console by which the guest takes the input and gives the output.
    pub(super) fn device(&self, memory: GuestMemoryMmap) -> io::Result<QueueDevice> {
        let outputs = Outputs { session: self.clone(), decoder: Decoder::default() };
        let console = Console::new(self.0.inbox.clone(), outputs);
        let device = QueueDevice::new("console", Console::<Outputs>::identity(), console, Role::Console, memory)?;
        self.0.inbox.connect(device.kick().try_clone()?);
        Ok(device)
    }

    /// Waits until what the first program wrote has been taken, for a moment: a guest may end without asking for that.
    pub(super) fn finish(&self) {
        let wrote = |streams: &mut Streams| streams.get(FIRST).is_some_and(|stream| !stream.is_empty());
        let _ = self.0.taken.wait_timeout_while(self.streams(), PATIENCE, wrote);
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.0.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inbox(&self) -> &Inbox {
        &self.0.inbox
    }
}

/// The guest's frames on their way to the streams.
#[derive(Debug)]
struct Outputs {
    session: Session,
    decoder: Decoder,
}

impl Sink for Outputs {
    fn take(&mut self, bytes: &[u8]) {
        let Self { session, decoder } = self;
        let mut streams = session.streams();
        if streams.is_deaf() {
            return;
        }
        let decoded = decoder.take(bytes, |kind, stream, payload| {
            if kind == Kind::Ready {
                session.inbox().open();
            }
            // It is heard no more where it broke a bound.
            let _ = streams.take(kind, stream, payload);
        });
        if decoded.is_err() {
            streams.deafen();
        }
        drop(streams);
        // Full means pending.
        let _ = session.0.news.write(1);
    }

    fn save(&self, inbox: &Inbox) -> (SessionState, Vec<u8>) {
        // Under the lock nobody gives anything.
        let streams = self.session.streams();
        (streams.save(self.decoder.begun()), inbox.unread())
    }

    fn restore(&mut self, state: SessionState) {
        let (streams, further) = Streams::go_on(&state);
        self.decoder = Decoder::go_on(state.begun);
        *self.session.streams() = streams;
        // Whoever had them run is not here.
        further.into_iter().for_each(|number| self.session.inbox().give(&connection::death(number)));
        self.session.release();
    }
}

/// The standard input and the signals of this process, for a program in a guest.
#[derive(Debug)]
struct Typed {
    signals: SignalFd,
    terminal: bool,
    /// Whether the input has not ended.
    open: bool,
}

impl Typed {
    fn begin() -> io::Result<Self> {
        let signals = SigSet::from_iter(HANDED_ON);
        signals.thread_block()?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let terminal = isatty(io::stdin());
        Ok(Self { signals, terminal, open: true })
    }

    /// Frames for the signals that have come.
    fn signals(&self, frames: &mut Vec<u8>) {
        while let Some(signal) = self.signals.read_signal().ok().flatten() {
            match signal.ssi_signo as i32 {
                number if number == Signal::SIGWINCH as i32 => {
                    if let Some(size) = tcgetwinsize(io::stdin()).ok().filter(|_| self.terminal) {
                        let [rows, columns] = [size.ws_row.to_le_bytes(), size.ws_col.to_le_bytes()];
                        encode(Kind::Resize, FIRST, &[rows, columns].concat(), frames);
                    }
                }
                number => encode(Kind::Signal, FIRST, &[number as u8], frames),
            }
        }
    }

    /// A frame for what is typed, at most so many bytes, or for its end; how many bytes it was.
    fn input(&mut self, most: usize, frames: &mut Vec<u8>) -> usize {
        let mut buffer = [0; 16 << 10];
        let most = most.min(buffer.len());
        match rustix::io::read(io::stdin(), &mut buffer[..most]) {
            Ok(length) if length > 0 => {
                encode(Kind::Input, FIRST, &buffer[..length], frames);
                length
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => 0,
            Ok(_) | Err(_) => {
                encode(Kind::EndOfInput, FIRST, &[], frames);
                self.open = false;
                0
            }
        }
    }
}

/// So much is written at once to what is said to be ready, so that a pipe takes it all and nobody waits (pipe(7), PIPE_BUF).
const WRITTEN_AT_ONCE: usize = 4096;

/// Writes to a stream that is ready; how many bytes of it were taken, all where nobody reads it any more.
fn write(stream: rustix::fd::BorrowedFd<'_>, waiting: &std::collections::VecDeque<u8>) -> usize {
    let (bytes, _) = waiting.as_slices();
    match rustix::io::write(stream, &bytes[..bytes.len().min(WRITTEN_AT_ONCE)]) {
        Ok(written) => written,
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => 0,
        // The program runs all the same.
        Err(_) => waiting.len(),
    }
}
