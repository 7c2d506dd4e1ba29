//! The I/O thread of a network card: moves frames between the queues and the tap, spins for a bounded time after the last
//! frame and then sleeps.

use crate::devices::virtio::interrupt::Interrupt;
use crate::devices::virtio::net::{Net, QueueError};
use crate::devices::virtio::tap::Tap;
use crate::system;
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;

/// Stack of the thread: it moves vectors, not frames.
const STACK: usize = 128 << 10;

/// A running I/O thread.
#[derive(Debug)]
pub(super) struct Worker {
    kick: EventFd,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Tap, Result<(), QueueError>)>,
}

impl Worker {
    /// Starts moving frames.
    pub(super) fn start(net: Net<Tap>, kick: EventFd, interrupt: Interrupt, spin: Duration) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let kicked = kick.try_clone()?;
        let thread = std::thread::Builder::new().name("net".into()).stack_size(STACK).spawn(move || {
            system::block_alarm();
            let mut net = net;
            let result = run(&mut net, &kicked, &interrupt, spin, &stopped);
            if result.is_err() {
                interrupt.configuration_change();
            }
            (net.into_frames(), result)
        })?;
        Ok(Self { kick, stop, thread })
    }

    /// Stops and gives the tap back, with the reason where the thread had stopped by itself.
    pub(super) fn stop(self) -> Option<(Tap, Result<(), QueueError>)> {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.kick.write(1);
        self.thread.join().ok()
    }
}

fn run(
    net: &mut Net<Tap>,
    kick: &EventFd,
    interrupt: &Interrupt,
    spin: Duration,
    stop: &AtomicBool,
) -> Result<(), QueueError> {
    let mut last_frame = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let received = net.receive()?;
        if received.notify {
            interrupt.used_buffer();
        }
        let sent = net.transmit()?;
        if sent.notify {
            interrupt.used_buffer();
        }
        if received.frames + sent.frames > 0 {
            last_frame = Instant::now();
        } else if last_frame.elapsed() < spin {
            std::hint::spin_loop();
        } else if !net.request_notification()? && !(received.starved && net.request_buffers()?) {
            sleep(net, kick, received.starved);
            // Until the next sleep all is polled, so that one frame is followed by a spin.
            last_frame = Instant::now();
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
