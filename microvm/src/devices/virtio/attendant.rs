//! The thread that attends to a device's queues. It is started with its device, so that whoever activates the device need not be
//! allowed to start threads, and works whenever it is given queues.

use crate::confinement::{self, Role};
use crate::devices::virtio::chain::BrokenRing;
use crate::devices::virtio::interrupt::Interrupt;
use crate::snapshot::devices::ServiceState;
use crate::system;
use rustix::event::{PollFd, PollFlags, poll};
use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

/// Stack of the thread: it moves vectors, not data.
const STACK: usize = 128 << 10;

/// What a driver has laid out: valid queues, and the features that it accepted.
#[derive(Debug)]
pub struct Active {
    /// The guest's memory.
    pub memory: GuestMemoryMmap,
    /// The queues, in the device's order. An optional one may not be ready.
    pub queues: Vec<Queue>,
    /// The accepted features.
    pub features: u64,
}

impl Active {
    /// Asks the driver to tell when it adds buffers to queues that are waited for; says whether it has added some already.
    fn rearm(&mut self, service: &impl Service) -> Result<bool, BrokenRing> {
        let mut more = false;
        let waited = |(number, queue): &(usize, &mut Queue)| queue.ready() && service.waits_for(*number);
        for (_, queue) in self.queues.iter_mut().enumerate().filter(waited) {
            more |= queue.enable_notification(&self.memory).map_err(BrokenRing::of("device"))?;
        }
        Ok(more)
    }
}

/// What a device does with its queues.
pub trait Service: Debug + Send + 'static {
    /// A driver is ready: what was kept of an earlier one's queues is void.
    fn begin(&mut self) {}

    /// Does a bounded part of what the driver asks for; says whether the driver wants to be told.
    fn serve(&mut self, active: &mut Active) -> Result<bool, BrokenRing>;

    /// What a snapshot must hold of it beside its queues.
    fn save(&self) -> Option<ServiceState> {
        None
    }

    /// Takes over what another one like it saved.
    fn restore(&mut self, _state: ServiceState) {}

    /// Whether buffers in the queue with this number are something to do. Those that a driver has ready for what may come to it
    /// are not, before it comes.
    fn waits_for(&self, _queue: usize) -> bool {
        true
    }
}

/// What a service's thread is to do.
#[derive(Debug)]
pub(super) enum Work {
    /// Attend to the queues of a driver that has just laid them out.
    Begin(Active),
    /// Go on with queues where they are, in the state that another service was in, where there is one.
    Continue(Active, Option<ServiceState>),
}

/// A service's thread.
#[derive(Debug)]
pub(super) struct Attendant {
    kick: EventFd,
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicBool>,
    running: bool,
    work: Option<Sender<Work>>,
    done: Receiver<(Active, Option<ServiceState>)>,
    thread: Option<JoinHandle<()>>,
}

impl Attendant {
    /// Starts the thread, confined to its role, which waits.
    pub(super) fn start(
        name: &str,
        mut service: impl Service,
        role: Role,
        kick: EventFd,
        interrupt: Interrupt,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let failed = Arc::new(AtomicBool::new(false));
        let (work, given) = mpsc::channel::<Work>();
        let (tell, done) = mpsc::channel();
        let (stopped, has_failed, kicked) = (Arc::clone(&stop), Arc::clone(&failed), kick.try_clone()?);
        let thread = std::thread::Builder::new().name(name.into()).stack_size(STACK).spawn(move || {
            system::block_alarm();
            let confined = confinement::confine(role).is_ok();
            for work in given {
                let mut active = match work {
                    Work::Begin(active) => {
                        service.begin();
                        active
                    }
                    Work::Continue(active, state) => {
                        state.into_iter().for_each(|state| service.restore(state));
                        active
                    }
                };
                // The kernel does not confine, or the driver broke its queues: the device needs a reset (VIRTIO 1.2, 2.1.2).
                if !confined || attend(&mut service, &mut active, &kicked, &interrupt, &stopped).is_err() {
                    has_failed.store(true, Ordering::SeqCst);
                    interrupt.configuration_change();
                }
                // Nobody waits when the device is dropped.
                let _ = tell.send((active, service.save()));
            }
        })?;
        Ok(Self { kick, stop, failed, running: false, work: Some(work), done, thread: Some(thread) })
    }

    /// Has these queues attended to until [`Attendant::stop`].
    pub(super) fn give(&mut self, work: Work) {
        self.stop.store(false, Ordering::SeqCst);
        self.failed.store(false, Ordering::SeqCst);
        self.running = self.work.as_ref().is_some_and(|sender| sender.send(work).is_ok());
        if !self.running {
            self.failed.store(true, Ordering::SeqCst);
        }
    }

    /// Whether it has stopped by itself.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Stops; afterwards guest memory is left alone. Gives back what it had to attend to, and what the service holds of it.
    pub(super) fn stop(&mut self) -> Option<(Active, Option<ServiceState>)> {
        if !std::mem::take(&mut self.running) {
            return None;
        }
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.kick.write(1);
        // An error means that the thread is gone.
        self.done.recv().ok()
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        self.stop();
        // The thread ends when there is nobody left to give it work.
        self.work = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn attend(
    service: &mut impl Service,
    active: &mut Active,
    kick: &EventFd,
    interrupt: &Interrupt,
    stop: &AtomicBool,
) -> Result<(), BrokenRing> {
    while !stop.load(Ordering::SeqCst) {
        if service.serve(active)? {
            interrupt.used_buffer();
        }
        if !active.rearm(service)? {
            let event = system::borrow_event(kick);
            // An interrupted wait is a wait that ended: the loop looks at everything again.
            let _ = poll(&mut [PollFd::from_borrowed_fd(event, PollFlags::IN)], None);
            let _ = kick.read();
        }
    }
    Ok(())
}
