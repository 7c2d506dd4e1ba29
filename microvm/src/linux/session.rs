//! A monitor's standard streams as those of a program in the guest: frames on the guest's virtio console carry them to and from the
//! agent there ([`isobench_workload::guest`]). The guest is not trusted with more than to write bytes.

use super::LinuxError;
use crate::confinement::{self, Role};
use crate::devices::virtio::console::{Console, Inbox, Sink};
use crate::devices::virtio::device::QueueDevice;
use crate::system;
use isobench_workload::guest::{Decoder, Kind, encode};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;
use vm_memory::GuestMemoryMmap;

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

/// Takes the standard input and the signals from now on and gives them to the guest. To be called before there is any other
/// thread, since each has the signals of the one that starts it.
pub(super) fn begin() -> Result<Inbox, LinuxError> {
    let inbox = Inbox::new().map_err(LinuxError::Devices)?;
    let signals = SigSet::from_iter(HANDED_ON);
    let failed = |error: nix::errno::Errno| LinuxError::Devices(error.into());
    signals.thread_block().map_err(failed)?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)?;
    let terminal = isatty(io::stdin());
    if terminal {
        // What is typed is for the guest's terminal, which does with it what terminals do.
        let raw = tcgetattr(io::stdin()).and_then(|mut settings| {
            settings.make_raw();
            tcsetattr(io::stdin(), OptionalActions::Now, &settings)
        });
        raw.map_err(|error| LinuxError::Devices(error.into()))?;
    }
    let given = inbox.clone();
    let carry = move || {
        system::block_alarm();
        if confinement::confine(Role::Session).is_ok() {
            carry(&given, &signals, terminal);
        }
    };
    let thread = std::thread::Builder::new().name("input".into()).stack_size(STACK).spawn(carry);
    thread.map_err(LinuxError::Devices)?;
    Ok(inbox)
}

/// The console by which the guest takes the input and gives the output.
pub(super) fn device(inbox: Inbox, memory: GuestMemoryMmap) -> io::Result<QueueDevice> {
    let outputs = Outputs { inbox: inbox.clone(), decoder: Decoder::default(), deaf: false };
    let console = Console::new(inbox.clone(), outputs);
    let device = QueueDevice::new("console", Console::<Outputs>::identity(), console, Role::Console, memory)?;
    inbox.connect(device.kick().try_clone()?);
    Ok(device)
}

/// Carries input and signals for as long as the process lives.
fn carry(inbox: &Inbox, signals: &SignalFd, terminal: bool) {
    let mut input = true;
    loop {
        let reads = input && inbox.has_room();
        let stdin = io::stdin();
        let mut waited = vec![PollFd::new(signals, PollFlags::IN)];
        if reads {
            waited.push(PollFd::new(&stdin, PollFlags::IN));
        } else {
            waited.push(PollFd::from_borrowed_fd(system::borrow_event(inbox.room()), PollFlags::IN));
        }
        // An interrupted wait is a wait that ended: the loop looks at everything again.
        let _ = poll(&mut waited, None);
        let (signalled, ready) = (!waited[0].revents().is_empty(), !waited[1].revents().is_empty());
        drop(waited);
        let mut frames = Vec::new();
        while let Some(signal) = signals.read_signal().ok().flatten().filter(|_| signalled) {
            match signal.ssi_signo as i32 {
                number if number == Signal::SIGWINCH as i32 => {
                    if let Some(size) = tcgetwinsize(io::stdin()).ok().filter(|_| terminal) {
                        let [rows, columns] = [size.ws_row.to_le_bytes(), size.ws_col.to_le_bytes()];
                        encode(Kind::Resize, &[rows, columns].concat(), &mut frames);
                    }
                }
                number => encode(Kind::Signal, &[number as u8], &mut frames),
            }
        }
        if ready && !reads {
            let _ = inbox.room().read();
        } else if ready {
            let mut buffer = [0; 16 << 10];
            match rustix::io::read(&stdin, &mut buffer) {
                Ok(length) if length > 0 => encode(Kind::Input, &buffer[..length], &mut frames),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Ok(_) | Err(_) => {
                    encode(Kind::EndOfInput, &[], &mut frames);
                    input = false;
                }
            }
        }
        if !frames.is_empty() {
            inbox.give(&frames);
        }
    }
}

/// The standard output and error as the other end of the guest's frames.
#[derive(Debug)]
struct Outputs {
    inbox: Inbox,
    decoder: Decoder,
    /// Whether the guest has said what is no frame: it is heard no more.
    deaf: bool,
}

impl Sink for Outputs {
    fn take(&mut self, bytes: &[u8]) {
        if self.deaf {
            return;
        }
        let taken = self.decoder.take(bytes, |kind, payload| match kind {
            Kind::Output => write(rustix::stdio::stdout(), payload),
            Kind::Error => write(rustix::stdio::stderr(), payload),
            Kind::Ready => self.inbox.open(),
            Kind::Last => {
                let mut taken = Vec::new();
                encode(Kind::Taken, &[], &mut taken);
                self.inbox.give(&taken);
            }
            // These go the other way.
            Kind::Input | Kind::EndOfInput | Kind::Resize | Kind::Signal | Kind::Taken => {}
        });
        self.deaf = taken.is_err();
    }
}

fn write(stream: rustix::fd::BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(stream, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            // Nobody reads it any more; the program runs all the same.
            Err(_) => return,
        }
    }
}
