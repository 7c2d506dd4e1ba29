//! The I/O thread of a network card: moves frames between the queues and the tap. When it has handed frames to the guest, it looks
//! for the answer for a bounded time, since a guest that must call it pays an exit; else it sleeps.
//!
//! A thread that runs a guest can take its place for a while ([`Exchange`]).

use crate::confinement::{self, Role};
use crate::devices::virtio::interrupt::Interrupt;
use crate::devices::virtio::net::{Net, QueueError};
use crate::devices::virtio::tap::Tap;
use crate::processors::GuestProcessor;
use crate::system;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;

/// Stack of the thread: it moves vectors, not frames.
const STACK: usize = 128 << 10;

/// An I/O thread: it is started with its card, so that whoever activates the card need not be allowed to start threads, and moves
/// frames whenever it is given queues.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    running: bool,
    begin: Option<Sender<()>>,
    stopped: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

/// What the I/O thread and who takes its place have in common.
#[derive(Debug)]
struct Shared {
    /// The queues and their tap, while frames are moved.
    net: Mutex<Option<Net<Tap>>>,
    /// Whether the I/O thread leaves them to another one.
    taken_over: AtomicBool,
    stop: AtomicBool,
    failed: AtomicBool,
    kick: EventFd,
    interrupt: Interrupt,
    spin: Duration,
    guest: GuestProcessor,
}

impl Worker {
    /// Starts the thread, which waits.
    pub(super) fn start(kick: EventFd, interrupt: Interrupt, spin: Duration) -> io::Result<Self> {
        let [taken_over, stop, failed] = [(); 3].map(|()| AtomicBool::new(false));
        let guest = GuestProcessor::default();
        let shared = Arc::new(Shared { net: Mutex::default(), taken_over, stop, failed, kick, interrupt, spin, guest });
        let (begin, begun) = mpsc::channel();
        let (end, stopped) = mpsc::channel();
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("net".into()).stack_size(STACK).spawn(move || {
            system::block_alarm();
            let confined = confinement::confine(Role::Network).is_ok();
            system::release_code();
            for () in begun {
                // The kernel does not confine, the driver broke its queues, or the tap's link is gone.
                if !confined || own.run().is_err() {
                    own.fail();
                }
                // Nobody waits when the card is dropped.
                let _ = end.send(());
            }
        })?;
        Ok(Self { shared, running: false, begin: Some(begin), stopped, thread: Some(thread) })
    }

    /// Has frames moved between these queues and their tap, until [`Worker::stop`].
    pub(super) fn give(&mut self, net: Net<Tap>) {
        self.shared.stop.store(false, Ordering::SeqCst);
        self.shared.failed.store(false, Ordering::SeqCst);
        self.shared.taken_over.store(false, Ordering::SeqCst);
        *self.shared.net() = Some(net);
        // Where the thread is gone, nothing comes back either, and the card is found without a tap at the next start.
        self.running = self.begin.as_ref().is_some_and(|begin| begin.send(()).is_ok());
    }

    /// Whether it has stopped by itself.
    pub(super) fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::SeqCst)
    }

    /// Stops moving frames and gives back what it was given, where that was something.
    pub(super) fn stop(&mut self) -> Option<Net<Tap>> {
        if !std::mem::take(&mut self.running) {
            return None;
        }
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = self.shared.kick.write(1);
        self.stopped.recv().ok()?;
        self.shared.net().take()
    }

    /// A way to take the thread's place.
    pub(super) fn exchange(&self) -> Exchange {
        Exchange(Arc::clone(&self.shared))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
        // The thread ends when there is nobody left to give it work.
        self.begin = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn net(&self) -> MutexGuard<'_, Option<Net<Tap>>> {
        // Its counters are as the last complete move left them.
        self.net.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device needs a reset (VIRTIO 1.2, 2.1.2).
    fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
        self.interrupt.configuration_change();
    }

    /// The I/O thread's work.
    fn run(&self) -> Result<(), QueueError> {
        // When the guest was last handed frames that it has not answered yet.
        let mut handed: Option<Instant> = None;
        while !self.stop.load(Ordering::SeqCst) {
            if self.taken_over.load(Ordering::SeqCst) {
                self.sleep(None);
                continue;
            }
            let mut guard = self.net();
            // Who has taken this thread's place meanwhile has seen to it that the guest looks at what was moved until then, and no
            // more.
            if self.taken_over.load(Ordering::SeqCst) {
                continue;
            }
            let Some(net) = guard.as_mut() else { return Ok(()) };
            let received = net.receive()?;
            if received.notify {
                self.interrupt.used_buffer();
            }
            let sent = net.transmit()?;
            if sent.notify {
                self.interrupt.used_buffer();
            }
            if sent.frames > 0 {
                handed = None;
            } else if received.frames > 0 {
                handed = Some(Instant::now());
            } else if handed.is_some_and(|at| at.elapsed() < self.spin) {
                drop(guard);
                // Whoever waits for this processor goes first: often that is who waits for the answer.
                std::thread::yield_now();
            } else {
                handed = None;
                let waiting = net.request_notification()? || (received.starved && net.request_buffers()?);
                // A frame that there is no buffer for is not waited for.
                let tap = (!received.starved).then(|| net.frames().clone());
                drop(guard);
                if !waiting {
                    self.sleep(tap.as_ref());
                }
            }
        }
        Ok(())
    }

    /// Sleeps until somebody kicks or a frame comes.
    fn sleep(&self, tap: Option<&Tap>) {
        let kick = PollFd::from_borrowed_fd(system::borrow_event(&self.kick), PollFlags::IN);
        // An interrupted wait is a wait that ended: the loop looks at everything again.
        let _ = match tap {
            Some(tap) => poll(&mut [kick, PollFd::new(tap, PollFlags::IN)], None),
            None => poll(&mut [kick], None),
        };
        let _ = self.kick.read();
        // Not where the guest looks for what this thread is to hand it.
        self.guest.avoid();
    }
}

/// Moves a card's frames on the thread that runs its guest, in place of the I/O thread, which sleeps meanwhile: for a guest that
/// stops for it, that spares the wake-up of another thread and its way to another processor's cache.
#[derive(Clone, Debug)]
pub struct Exchange(Arc<Shared>);

impl Exchange {
    /// Moves frames both ways, from now on in the I/O thread's place. Returns when the driver was given one, after `limit` at the
    /// latest, or when a signal comes, and at once where it has just taken that place, since the driver may not have seen what was moved
    /// last; `false` where nothing can be moved here, and the driver waits for the interrupt.
    pub fn exchange(&self, limit: Option<Duration>) -> bool {
        let just_taken_over = !self.0.taken_over.swap(true, Ordering::SeqCst);
        if just_taken_over && !self.0.spin.is_zero() {
            // Unless it has moved much, it has looked for a frame in vain: most often since who is to send one waits for this processor.
            self.0.guest.change();
        }
        let began = Instant::now();
        loop {
            let mut guard = self.0.net();
            let able = guard.as_mut().filter(|_| !self.0.failed.load(Ordering::SeqCst));
            let moved = able.map(|net| Ok((net.transmit()?, net.receive()?, net.frames().clone())));
            drop(guard);
            let tap = match moved {
                Some(Ok((_, received, _))) if received.frames > 0 || just_taken_over => return true,
                Some(Ok((_, received, tap))) if !received.starved => tap,
                Some(Err(error)) => {
                    let _: QueueError = error;
                    self.0.fail();
                    return false;
                }
                // No queues, or a driver without buffers: it is the I/O thread that sees when there are.
                Some(Ok(_)) | None => {
                    self.end();
                    return false;
                }
            };
            let waited = began.elapsed();
            if limit.is_some_and(|limit| waited >= limit) {
                return true;
            }
            if waited < self.0.spin {
                std::thread::yield_now();
                continue;
            }
            let left = limit.and_then(|limit| Timespec::try_from(limit - waited).ok());
            if poll(&mut [PollFd::new(&tap, PollFlags::IN)], left.as_ref()).is_err() {
                return true;
            }
        }
    }

    /// Leaves the frames to the I/O thread again.
    pub fn end(&self) {
        if self.0.taken_over.swap(false, Ordering::SeqCst) {
            // What the driver has for the host does not wait for that thread to wake.
            if let Some(Err(_)) = self.0.net().as_mut().map(Net::transmit) {
                self.0.fail();
            }
            let _ = self.0.kick.write(1);
        }
    }
}
