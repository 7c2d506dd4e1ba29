//! The other side of a supervisor's socket: starting one, asking it, and taking part in a process's streams.

use super::connection::Connection;
use super::protocol::{Answer, Frame, Kind, Order};
use super::store::{CONTROL, Container};
use super::{refuse, supervisor};
use anyhow::{Context, bail};
use isobench_runtime::launch::fork_apart;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

/// Starts the supervisor of a container, which launches it; the order says what this side wants of it.
///
/// The supervisor is a copy of this process, which must have one thread: starting the program anew would take twice as long.
pub(crate) fn start(container: &Container, order: &Order) -> anyhow::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair().context("make a socket pair for the supervisor")?;
    // It lies there when the supervisor begins, which need not wait for this process.
    Frame::of(Kind::Order, order).send(&ours).context("give the supervisor its first order")?;
    // What a script has open must not stay open as long as the container lives: it gets the socket alone.
    fork_apart(theirs.into(), |socket| supervisor::main(container, socket.into())).context("start a supervisor")?;
    Ok(ours)
}

/// Whether a container has a supervisor that takes orders.
pub(super) fn is_supervised(container: &Container) -> anyhow::Result<bool> {
    Ok(dial(container)?.is_some())
}

/// Bytes of a socket's address at most ([unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html)), with the zero at its end.
const ADDRESS: usize = 108;

fn dial(container: &Container) -> anyhow::Result<Option<UnixStream>> {
    let path = container.path().join(CONTROL);
    let connected = if path.as_os_str().len() < ADDRESS {
        UnixStream::connect(path)
    } else {
        let Ok(directory) = File::open(container.path()) else { return Ok(None) };
        UnixStream::connect(format!("/proc/self/fd/{}/{CONTROL}", directory.as_raw_fd()))
    };
    match connected {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        socket => socket.map(Some).with_context(|| format!("connect to the {}", container.title())),
    }
}

/// The same as [`connect`] for a container of which it is not known whether it is just being started.
pub(crate) fn reach(container: &Container, order: &Order) -> anyhow::Result<Option<UnixStream>> {
    loop {
        if let Some(socket) = connect(container, order)? {
            return Ok(Some(socket));
        }
        if !container.path().exists() || container.lock()?.is_some() {
            return Ok(None);
        }
        // A supervisor has the lock, and its socket comes, or has gone, within its next few system calls.
        rustix::thread::sched_yield();
    }
}

/// Connects to a container's supervisor and gives an order; `None` where it has none any more.
pub(crate) fn connect(container: &Container, order: &Order) -> anyhow::Result<Option<UnixStream>> {
    let Some(socket) = dial(container)? else { return Ok(None) };
    match Frame::of(Kind::Order, order).send(&socket) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(None),
        sent => sent.map(|()| Some(socket)).with_context(|| format!("ask the {}", container.title())),
    }
}

/// Asks a container's supervisor one thing.
///
/// # Errors
/// A refusal where the container does not run, and what the supervisor says.
pub(crate) fn ask(container: &Container, order: &Order) -> anyhow::Result<Answer> {
    let answer = match connect(container, order)? {
        Some(socket) => answer(&socket)?,
        None => None,
    };
    match answer {
        Some(Answer::Failed { message, .. }) => refuse(message),
        Some(answer) => Ok(answer),
        None => refuse(format!("the {} is not running", container.title())),
    }
}

/// Waits for an answer; `None` where the container has ended instead.
pub(crate) fn answer(socket: &UnixStream) -> anyhow::Result<Option<Answer>> {
    match Frame::receive(socket) {
        Ok(Some(frame)) if frame.kind == Kind::Answer => Ok(Some(frame.value()?)),
        Ok(_) => Ok(None),
        // It was killed in the middle of a word.
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => Ok(None),
        Err(error) => Err(error).context("read the supervisor's answer"),
    }
}

/// Waits for the end of the process that a connection takes part in, beyond what was answered; `None` where the supervisor
/// itself has ended without a word.
pub(crate) fn await_end(socket: &UnixStream) -> anyhow::Result<Option<i32>> {
    loop {
        match Frame::receive(socket) {
            Ok(Some(frame)) if frame.kind == Kind::Ended => return Ok(Some(frame.as_number()?)),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
                return Ok(None);
            }
            Err(error) => return Err(error).context("wait for the container"),
        }
    }
}

/// Sends a signal over a connection that takes part.
pub(crate) fn signal(socket: &UnixStream, signal: Signal) -> anyhow::Result<()> {
    match Frame::number(Kind::Signal, signal.as_raw()).send(socket) {
        // It has ended meanwhile.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
        sent => sent.context("send the container a signal"),
    }
}

/// How taking part came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The process ended with this code.
    Exited(i32),
    /// The keys to leave were pressed; the process goes on.
    Detached,
    /// It was asked to end as often as is worth it; the process goes on.
    Deaf,
    /// It could not be done.
    Failed {
        /// Why.
        message: String,
        /// The exit status for it.
        code: i32,
    },
    /// The supervisor was killed, and with it the container.
    Lost,
}

/// How this side takes part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Whether the process has a terminal, of which this side's is then the other end.
    pub(crate) terminal: bool,
    /// Whether the standard input is the process's.
    pub(crate) input: bool,
    /// Whether signals are handed on.
    pub(crate) signals: bool,
}

/// Rows and columns of this side's terminal, where it has one.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdin()).or_else(|_| tcgetwinsize(io::stdout())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Refuses a terminal where this side has none to be its other end.
pub(crate) fn check_terminal(terminal: bool, input: bool) -> anyhow::Result<()> {
    if terminal && input && !isatty(io::stdin()) {
        return refuse(
            "-t with -i needs a terminal, and the standard input is none: leave -t out, or start it from a terminal",
        );
    }
    Ok(())
}

/// As Docker's client: who asks so often for the end wants the terminal back, whatever the process makes of it.
const PATIENCE: usize = 3;

/// Takes part in a process's streams until it ends or the keys to leave are pressed: Ctrl-P Ctrl-Q.
pub(crate) fn attend(socket: UnixStream, part: Part) -> anyhow::Result<End> {
    let mut connection = Connection::new(socket)?;
    let mut signals = part.signals.then(signals).transpose()?;
    let raw = if part.terminal && part.input { RawTerminal::enter()? } else { None };
    let mut input = part.input;
    let mut keys = LeaveKeys::default();
    let mut asked = 0;
    loop {
        let mut waited = vec![PollFd::new(connection.socket(), connection.interest(true))];
        let signal_at = signals.as_ref().map(|signals| {
            waited.push(PollFd::new(signals.get_read(), PollFlags::IN));
            waited.len() - 1
        });
        let stdin = io::stdin();
        let input_at = (input && connection.keeps_up()).then(|| {
            waited.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
            waited.len() - 1
        });
        match poll(&mut waited, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for the container"),
        }
        let ready = |index: Option<usize>| index.is_some_and(|index| !waited[index].revents().is_empty());
        let (socket_ready, signalled, typed) = (ready(Some(0)), ready(signal_at), ready(input_at));
        drop(waited);
        if signalled {
            for signal in signals.iter_mut().flat_map(SignalDelivery::pending) {
                hand_on(&mut connection, signal, part);
                asked += usize::from(matches!(signal, SIGINT | SIGTERM));
            }
            if asked >= PATIENCE {
                connection.send(Kind::Detach, &[]);
                return Ok(End::Deaf);
            }
        }
        if typed {
            let mut buffer = [0_u8; 16 << 10];
            match rustix::io::read(io::stdin(), &mut buffer) {
                Err(Errno::INTR | Errno::AGAIN) => {}
                Ok(length) if length > 0 => {
                    let leave =
                        raw.is_some() && keys.find(&buffer[..length], &mut |bytes| connection.send(Kind::Input, bytes));
                    if raw.is_none() {
                        connection.send(Kind::Input, &buffer[..length]);
                    }
                    if leave {
                        connection.send(Kind::Detach, &[]);
                        return Ok(End::Detached);
                    }
                }
                Ok(_) | Err(_) => {
                    connection.send(Kind::EndOfInput, &[]);
                    input = false;
                }
            }
        }
        if socket_ready {
            connection.flush();
            for frame in connection.receive() {
                if let Some(end) = show(&frame)? {
                    return Ok(end);
                }
            }
            if connection.gone {
                return Ok(End::Lost);
            }
        }
    }
}

/// Shows what was received; the end, where it is one.
fn show(frame: &Frame) -> anyhow::Result<Option<End>> {
    match frame.kind {
        Kind::Output => write(io::stdout().lock(), &frame.payload).context("write to the standard output")?,
        Kind::Error => write(io::stderr().lock(), &frame.payload).context("write to the standard error")?,
        Kind::Ended => return Ok(Some(End::Exited(frame.as_number()?))),
        Kind::Answer => match frame.value()? {
            Answer::Failed { message, code } => return Ok(Some(End::Failed { message, code })),
            _ => return Ok(None),
        },
        other => bail!("the supervisor sent {other:?}"),
    }
    Ok(None)
}

fn write(mut stream: impl Write, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()
}

type Signals = SignalDelivery<UnixStream, SignalOnly>;

fn signals() -> anyhow::Result<Signals> {
    let handed_on = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT, SIGWINCH];
    let (read, write) = UnixStream::pair().context("make a socket pair for signals")?;
    SignalDelivery::with_pipe(read, write, SignalOnly, handed_on).context("watch for signals")
}

fn hand_on(connection: &mut Connection, signal: i32, part: Part) {
    match signal {
        SIGWINCH => {
            if let Some((rows, columns)) = size().filter(|_| part.terminal) {
                let [rows, columns] = [rows.to_le_bytes(), columns.to_le_bytes()];
                connection.send(Kind::Resize, &[rows[0], rows[1], columns[0], columns[1]]);
            }
        }
        // This side was stopped and goes on: the container was not.
        SIGCONT => {}
        signal => connection.send(Kind::Signal, &signal.to_le_bytes()),
    }
}

/// This side's terminal passes every key on while this lives.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> anyhow::Result<Option<Self>> {
        if !isatty(io::stdin()) {
            return Ok(None);
        }
        let before = tcgetattr(io::stdin()).context("look at the terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).context("make the terminal raw")?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Looks for Ctrl-P Ctrl-Q in what is typed.
#[derive(Debug, Default)]
struct LeaveKeys {
    first: bool,
}

impl LeaveKeys {
    const FIRST: u8 = 0x10;
    const SECOND: u8 = 0x11;

    /// Passes on what is typed up to the keys; whether they were pressed. The first alone is kept back until it is known what
    /// follows.
    fn find(&mut self, typed: &[u8], pass: &mut impl FnMut(&[u8])) -> bool {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for byte in typed {
            if std::mem::take(&mut self.first) {
                if *byte == Self::SECOND {
                    pass(&passed);
                    return true;
                }
                passed.push(Self::FIRST);
            }
            if *byte == Self::FIRST {
                self.first = true;
            } else {
                passed.push(*byte);
            }
        }
        if !passed.is_empty() {
            pass(&passed);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let (mut keys, mut passed) = (LeaveKeys::default(), Vec::new());
        let left = pieces.iter().any(|piece| keys.find(piece, &mut |bytes| passed.extend_from_slice(bytes)));
        (passed, left)
    }

    #[test]
    fn the_keys_to_leave_are_found_wherever_they_are_cut() {
        assert_eq!(typed(&[b"ab\x10\x11c"]), (b"ab".to_vec(), true));
        assert_eq!(typed(&[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(typed(&[b"a\x10", b"b\x11"]), (b"a\x10b\x11".to_vec(), false));
        assert_eq!(typed(&[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
    }
}
