//! The I/O thread of a network card: moves frames between the queues and the tap. When it has handed frames to the guest, it looks
//! for the answer for a bounded time, since a guest that must call it pays an exit; else it sleeps.

use crate::confinement::{self, Role};
use crate::devices::virtio::interrupt::Interrupt;
use crate::devices::virtio::net::{Net, QueueError};
use crate::devices::virtio::tap::Tap;
use crate::system;
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;

/// Stack of the thread: it moves vectors, not frames.
const STACK: usize = 128 << 10;

/// An I/O thread: it is started with its card, so that whoever activates the card need not be allowed to start threads, and moves
/// frames whenever it is given queues.
#[derive(Debug)]
pub(super) struct Worker {
    kick: EventFd,
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicBool>,
    running: bool,
    nets: Option<Sender<Net<Tap>>>,
    stopped: Receiver<Net<Tap>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread, which waits.
    pub(super) fn start(kick: EventFd, interrupt: Interrupt, spin: Duration) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let failed = Arc::new(AtomicBool::new(false));
        let (nets, given) = mpsc::channel();
        let (give_back, stopped_nets) = mpsc::channel();
        let (stopped, has_failed, kicked) = (Arc::clone(&stop), Arc::clone(&failed), kick.try_clone()?);
        let thread = std::thread::Builder::new().name("net".into()).stack_size(STACK).spawn(move || {
            system::block_alarm();
            let confined = confinement::confine(Role::Network).is_ok();
            system::release_code();
            for mut net in given {
                // The kernel does not confine, the driver broke its queues, or the tap's link is gone: the device needs a
                // reset (VIRTIO 1.2, 2.1.2).
                if !confined || run(&mut net, &kicked, &interrupt, spin, &stopped).is_err() {
                    has_failed.store(true, Ordering::SeqCst);
                    interrupt.configuration_change();
                }
                // Nobody wants it back when the card is dropped.
                let _ = give_back.send(net);
            }
        })?;
        Ok(Self { kick, stop, failed, running: false, nets: Some(nets), stopped: stopped_nets, thread: Some(thread) })
    }

    /// Has frames moved between these queues and their tap, until [`Worker::stop`].
    pub(super) fn give(&mut self, net: Net<Tap>) {
        self.stop.store(false, Ordering::SeqCst);
        self.failed.store(false, Ordering::SeqCst);
        // Where the thread is gone, nothing comes back either, and the card is found without a tap at the next start.
        self.running = self.nets.as_ref().is_some_and(|nets| nets.send(net).is_ok());
    }

    /// Whether it has stopped by itself.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Stops moving frames and gives back what it was given, where that was something.
    pub(super) fn stop(&mut self) -> Option<Net<Tap>> {
        if !std::mem::take(&mut self.running) {
            return None;
        }
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.kick.write(1);
        self.stopped.recv().ok()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
        // The thread ends when there is nobody left to give it work.
        self.nets = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(
    net: &mut Net<Tap>,
    kick: &EventFd,
    interrupt: &Interrupt,
    spin: Duration,
    stop: &AtomicBool,
) -> Result<(), QueueError> {
    // When the guest was last handed frames that it has not answered yet.
    let mut handed: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
        let received = net.receive()?;
        if received.notify {
            interrupt.used_buffer();
        }
        let sent = net.transmit()?;
        if sent.notify {
            interrupt.used_buffer();
        }
        if sent.frames > 0 {
            handed = None;
        } else if received.frames > 0 {
            handed = Some(Instant::now());
        } else if handed.is_some_and(|at| at.elapsed() < spin) {
            // Whoever waits for this processor goes first: often that is who waits for the answer.
            std::thread::yield_now();
        } else {
            handed = None;
            let waiting = net.request_notification()? || (received.starved && net.request_buffers()?);
            if !waiting {
                sleep(net, kick, received.starved);
            }
        }
    }
    Ok(())
}

/// Sleeps until the guest kicks or a frame comes that there is a buffer for.
fn sleep(net: &Net<Tap>, kick: &EventFd, starved: bool) {
    let kick_fd = system::borrow_event(kick);
    let tap = net.frames().as_fd();
    let mut waited = [PollFd::from_borrowed_fd(kick_fd, PollFlags::IN), PollFd::from_borrowed_fd(tap, PollFlags::IN)];
    let count = if starved { 1 } else { 2 };
    // An interrupted wait is a wait that ended: the loop looks at everything again.
    let _ = poll(&mut waited[..count], None);
    let _ = kick.read();
}
