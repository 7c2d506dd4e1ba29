//! The other end of a connection to a session's socket: this process's standard streams, terminal and signals become those of a
//! further program in the guest, and its exit status is the program's.

use super::terminal::RawTerminal;
use super::{Typed, write};
use isobench_workload::guest::{Decoder, FIRST, GuestCommand, Kind, LONGEST, Malformed, WINDOW, encode};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;

/// The status of a program whose machine has ended, as that of one that was killed.
const KILLED: u8 = 137;

/// Why a further program could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// A command line that no frame holds.
    #[error(
        "the command with its arguments and environment has {length} bytes, more than the {LONGEST} that the guest takes"
    )]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// The command could not be written down.
    #[error("write the command down")]
    Encode(#[source] serde_json::Error),
    /// The streams could not be prepared.
    #[error("prepare the standard input and signals")]
    Prepare(#[source] io::Error),
    /// The connection failed.
    #[error("talk to the monitor")]
    Talk(#[source] io::Error),
    /// What the monitor said makes no sense.
    #[error("understand the monitor")]
    Understand(#[from] Malformed),
}

/// Runs a command in the guest of the monitor at the other end and gives its exit status.
///
/// # Errors
/// Where the command is too long, or the monitor cannot be talked to.
pub fn run(socket: UnixStream, command: &GuestCommand) -> Result<u8, ProgramError> {
    let text = serde_json::to_vec(command).map_err(ProgramError::Encode)?;
    if text.len() > LONGEST {
        return Err(ProgramError::TooLong { length: text.len() });
    }
    let _terminal = RawTerminal::begin().map_err(ProgramError::Prepare)?;
    let typed = Typed::begin().map_err(ProgramError::Prepare)?;
    socket.set_nonblocking(true).map_err(ProgramError::Talk)?;
    let mut outgoing = Vec::new();
    encode(Kind::Start, FIRST, &text, &mut outgoing);
    let (output, error) = (VecDeque::new(), VecDeque::new());
    Program { socket, typed, decoder: Decoder::default(), outgoing, output, error, status: None, ended: false }.carry()
}

struct Program {
    socket: UnixStream,
    typed: Typed,
    decoder: Decoder,
    outgoing: Vec<u8>,
    output: VecDeque<u8>,
    error: VecDeque<u8>,
    status: Option<u8>,
    /// Whether nothing more comes from the monitor.
    ended: bool,
}

impl Program {
    fn carry(mut self) -> Result<u8, ProgramError> {
        while !(self.ended && self.output.is_empty() && self.error.is_empty()) {
            self.turn()?;
        }
        Ok(self.status.unwrap_or(KILLED))
    }

    /// Waits until there is something to be done, and does it.
    fn turn(&mut self) -> Result<(), ProgramError> {
        let stdin = io::stdin();
        let reads = self.typed.open && self.outgoing.is_empty() && !self.ended;
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.output.len() + self.error.len() < WINDOW);
        flags.set(PollFlags::OUT, !self.outgoing.is_empty());
        let mut waited = vec![PollFd::new(&self.typed.signals, PollFlags::IN)];
        let mut add = |wanted: bool, descriptor| {
            if wanted {
                waited.push(descriptor);
            }
            wanted.then_some(waited.len() - 1)
        };
        let socket = add(!self.ended, PollFd::new(&self.socket, flags));
        let input = add(reads, PollFd::new(&stdin, PollFlags::IN));
        let output = add(!self.output.is_empty(), PollFd::from_borrowed_fd(rustix::stdio::stdout(), PollFlags::OUT));
        let error = add(!self.error.is_empty(), PollFd::from_borrowed_fd(rustix::stdio::stderr(), PollFlags::OUT));
        let _ = poll(&mut waited, None);
        let told = |index: Option<usize>| index.map_or(PollFlags::empty(), |index| waited[index].revents());
        let [socket, input, output, error] = [socket, input, output, error].map(told);
        let signalled = !waited[0].revents().is_empty();
        drop(waited);
        if signalled {
            self.typed.signals(&mut self.outgoing);
        }
        if !input.is_empty() {
            self.typed.input(WINDOW, &mut self.outgoing);
        }
        if socket.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.receive()?;
        }
        if !self.outgoing.is_empty() && !self.ended {
            self.send()?;
        }
        if !output.is_empty() {
            let taken = write(rustix::stdio::stdout(), &self.output);
            self.output.drain(..taken);
        }
        if !error.is_empty() {
            let taken = write(rustix::stdio::stderr(), &self.error);
            self.error.drain(..taken);
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), ProgramError> {
        let mut buffer = [0; 16 << 10];
        match rustix::io::read(&self.socket, &mut buffer) {
            Ok(0) | Err(Errno::CONNRESET) => self.ended = true,
            Ok(length) => {
                let Self { decoder, output, error, status, ended, .. } = self;
                decoder.take(&buffer[..length], |kind, _, payload| match (kind, payload) {
                    (Kind::Output, bytes) => output.extend(bytes),
                    (Kind::Error, bytes) => error.extend(bytes),
                    (Kind::Exited, &[code]) => (*status, *ended) = (Some(code), true),
                    _ => {}
                })?;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(ProgramError::Talk(error.into())),
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), ProgramError> {
        match rustix::io::write(&self.socket, &self.outgoing) {
            Ok(written) => drop(self.outgoing.drain(..written)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // What it has sent before is still read.
            Err(Errno::PIPE | Errno::CONNRESET) => self.outgoing.clear(),
            Err(error) => return Err(ProgramError::Talk(error.into())),
        }
        Ok(())
    }
}
