//! The console device (VIRTIO 1.2, 5.3) with one port, which is no terminal: bytes both ways.

use crate::devices::virtio::attendant::{Active, Service};
use crate::devices::virtio::chain::{self, BrokenRing, Buffers};
use crate::devices::virtio::mmio::{self, Identity};
use crate::snapshot::devices::{ServiceState, SessionState};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Size of each queue.
const QUEUE_SIZE: u16 = 64;
/// Buffers done in one go before it is seen whether the device is to stop.
const BATCH: usize = 64;
/// So many bytes are taken of the guest at once.
const PIECE: usize = 16 << 10;
/// A longer buffer is taken of no guest: Linux writes 32 KiB at most, and a chain may name the same memory many times.
const LONGEST: usize = 1 << 20;
/// So many bytes may wait for the guest before no more should be given.
const ENOUGH: usize = 64 << 10;
/// The queues (5.3.2): of the port, and for messages about it.
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const CONTROL_RECEIVE: usize = 2;
const CONTROL_TRANSMIT: usize = 3;
/// `VIRTIO_CONSOLE_F_MULTIPORT`: ports other than terminals, and messages about them (5.3.3).
const MULTIPORT: u64 = 1 << 1;
/// Messages, by number (5.3.6.2).
const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;
/// Size of a message: port, event, value.
const MESSAGE: usize = 8;
/// No more messages than these wait for a guest that does not take them.
const MOST_MESSAGES: usize = 16;

/// Where what the guest writes goes.
pub trait Sink: Debug + Send + 'static {
    /// Takes bytes; how long it takes for that is how long the guest waits.
    fn take(&mut self, bytes: &[u8]);

    /// What a snapshot must hold of it, and what of these bytes, which are on their way to the guest.
    fn save(&self, inbox: &Inbox) -> (SessionState, Vec<u8>) {
        (SessionState::default(), inbox.unread())
    }

    /// Goes on where another one was saved.
    fn restore(&mut self, _state: SessionState) {}
}

/// Bytes on their way to the guest, shared by whoever gives them and the device.
#[derive(Clone, Debug)]
pub struct Inbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes: Mutex<VecDeque<u8>>,
    /// Signalled when there is room again.
    room: EventFd,
    /// The device's own, signalled when there are bytes; there is none before there is a device.
    kick: Mutex<Option<EventFd>>,
    /// Whether the guest is to have them yet.
    open: AtomicBool,
}

impl Inbox {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        let room = EventFd::new(EFD_NONBLOCK)?;
        let (bytes, kick, open) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Ok(Self(Arc::new(Shared { bytes, room, kick, open })))
    }

    /// Has the device looked for bytes by this event from now on.
    pub fn connect(&self, kick: EventFd) {
        *self.0.kick.lock().unwrap_or_else(PoisonError::into_inner) = Some(kick);
        self.signal();
    }

    /// Lets the guest have what is given, which is kept back until then: a port that nobody has opened loses it.
    pub fn open(&self) {
        self.0.open.store(true, Ordering::SeqCst);
        self.signal();
    }

    /// Gives bytes.
    pub fn give(&self, bytes: &[u8]) {
        self.bytes().extend(bytes);
        self.signal();
    }

    /// Whether more should be given; where not, [`Inbox::room`] tells when.
    pub fn has_room(&self) -> bool {
        self.bytes().len() < ENOUGH
    }

    /// Whether there is something that the guest is to have now.
    fn has_something(&self) -> bool {
        self.0.open.load(Ordering::SeqCst) && !self.bytes().is_empty()
    }

    /// What the guest has not taken yet.
    pub fn unread(&self) -> Vec<u8> {
        self.bytes().iter().copied().collect()
    }

    /// The event that tells when there is room again.
    pub fn room(&self) -> &EventFd {
        &self.0.room
    }

    fn signal(&self) {
        if let Some(kick) = self.0.kick.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // Full means pending.
            let _ = kick.write(1);
        }
    }

    fn bytes(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A console as a service.
#[derive(Debug)]
pub struct Console<S> {
    inbox: Inbox,
    sink: S,
    /// Messages that the guest has not taken yet.
    messages: VecDeque<[u8; MESSAGE]>,
}

impl<S: Sink> Console<S> {
    /// A console between an inbox and a sink.
    pub fn new(inbox: Inbox, sink: S) -> Self {
        Self { inbox, sink, messages: VecDeque::new() }
    }

    /// What the driver is told of the device: one port, no size.
    pub fn identity() -> Identity {
        // `struct virtio_console_config` (5.3.4): columns, rows, ports, emergency write.
        let configuration = [0_u32, 1, 0].map(u32::to_le_bytes).concat();
        Identity {
            device: VIRTIO_ID_CONSOLE,
            features: mmio::VERSION_1 | mmio::EVENT_INDEX | MULTIPORT,
            configuration,
            queues: vec![QUEUE_SIZE; 4],
        }
    }

    /// Answers the guest's messages: there is one port, and it is open.
    fn answer(&mut self, message: [u8; MESSAGE]) {
        let [_, _, _, _, event @ .., _, _] = message;
        let answer = match u16::from_le_bytes(event) {
            DEVICE_READY => PORT_ADD,
            PORT_READY => PORT_OPEN,
            _ => return,
        };
        if self.messages.len() < MOST_MESSAGES {
            let [low, high] = answer.to_le_bytes();
            self.messages.push_back([0, 0, 0, 0, low, high, 1, 0]);
        }
    }

    /// Takes the guest's messages.
    fn take_messages(&mut self, active: &mut Active) -> Result<bool, BrokenRing> {
        let broken = BrokenRing::of("control transmit");
        let memory: &GuestMemoryMmap = &active.memory;
        let Some(queue) = active.queues.get_mut(CONTROL_TRANSMIT).filter(|queue| queue.ready()) else {
            return Ok(false);
        };
        let mut done = 0;
        while done < BATCH {
            let Some(chain) = queue.iter(memory).map_err(broken)?.next() else { break };
            let head = chain.head_index();
            let mut message = [0; MESSAGE];
            let whole = Buffers::gather(memory, chain)
                .is_some_and(|mut buffers| chain::take(&mut buffers.readable, &mut message) == MESSAGE);
            if whole {
                self.answer(message);
            }
            queue.add_used(memory, head, 0).map_err(broken)?;
            done += 1;
        }
        Ok(done > 0 && queue.needs_notification(memory).map_err(broken)?)
    }

    /// Gives the guest its messages.
    fn give_messages(&mut self, active: &mut Active) -> Result<bool, BrokenRing> {
        let broken = BrokenRing::of("control receive");
        let memory: &GuestMemoryMmap = &active.memory;
        let Some(queue) = active.queues.get_mut(CONTROL_RECEIVE).filter(|queue| queue.ready()) else {
            return Ok(false);
        };
        let mut done = 0;
        while let Some(message) = self.messages.front() {
            let Some(chain) = queue.iter(memory).map_err(broken)?.next() else { break };
            let head = chain.head_index();
            let filled = Buffers::gather(memory, chain).map_or(0, |buffers| chain::fill(&buffers.writable, message));
            self.messages.pop_front();
            queue.add_used(memory, head, filled as u32).map_err(broken)?;
            done += 1;
        }
        Ok(done > 0 && queue.needs_notification(memory).map_err(broken)?)
    }

    /// Hands on what the guest has written.
    fn transmit(&mut self, active: &mut Active) -> Result<bool, BrokenRing> {
        let broken = BrokenRing::of("transmit");
        let memory: &GuestMemoryMmap = &active.memory;
        let Some(queue) = active.queues.get_mut(TRANSMIT).filter(|queue| queue.ready()) else { return Ok(false) };
        let mut done = 0;
        while done < BATCH {
            let Some(chain) = queue.iter(memory).map_err(broken)?.next() else { break };
            let head = chain.head_index();
            let buffers = Buffers::gather(memory, chain).filter(|buffers| chain::length(&buffers.readable) <= LONGEST);
            if let Some(mut buffers) = buffers {
                let mut piece = [0; PIECE];
                loop {
                    let length = chain::take(&mut buffers.readable, &mut piece);
                    if length == 0 {
                        break;
                    }
                    self.sink.take(&piece[..length]);
                }
            }
            queue.add_used(memory, head, 0).map_err(broken)?;
            done += 1;
        }
        Ok(done > 0 && queue.needs_notification(memory).map_err(broken)?)
    }

    /// Fills the guest's buffers with what waits for it.
    fn receive(&mut self, active: &mut Active) -> Result<bool, BrokenRing> {
        let broken = BrokenRing::of("receive");
        let memory: &GuestMemoryMmap = &active.memory;
        let Some(queue) = active.queues.get_mut(RECEIVE).filter(|queue| queue.ready()) else { return Ok(false) };
        let mut done = 0;
        while done < BATCH && self.inbox.has_something() {
            let Some(chain) = queue.iter(memory).map_err(broken)?.next() else { break };
            let head = chain.head_index();
            let filled = Buffers::gather(memory, chain).map_or(0, |buffers| {
                let mut bytes = self.inbox.bytes();
                let piece: Vec<u8> = bytes.iter().copied().take(chain::length(&buffers.writable).min(PIECE)).collect();
                let filled = chain::fill(&buffers.writable, &piece);
                bytes.drain(..filled);
                filled
            });
            queue.add_used(memory, head, filled as u32).map_err(broken)?;
            done += 1;
        }
        if done > 0 && self.inbox.has_room() {
            let _ = self.inbox.room().write(1);
        }
        Ok(done > 0 && queue.needs_notification(memory).map_err(broken)?)
    }
}

impl<S: Sink> Service for Console<S> {
    fn serve(&mut self, active: &mut Active) -> Result<bool, BrokenRing> {
        let mut tell = self.take_messages(active)?;
        tell |= self.give_messages(active)?;
        tell |= self.transmit(active)?;
        Ok(self.receive(active)? || tell)
    }

    fn save(&self) -> Option<ServiceState> {
        let (session, unread) = self.sink.save(&self.inbox);
        let open = self.inbox.0.open.load(Ordering::SeqCst);
        Some(ServiceState::Console { messages: self.messages.iter().copied().collect(), open, unread, session })
    }

    fn restore(&mut self, state: ServiceState) {
        let ServiceState::Console { messages, open, unread, session } = state else { return };
        self.messages = messages.into();
        self.inbox.give(&unread);
        if open {
            self.inbox.open();
        }
        // Last, since it may have more to give.
        self.sink.restore(session);
    }

    fn waits_for(&self, queue: usize) -> bool {
        match queue {
            RECEIVE => self.inbox.has_something(),
            CONTROL_RECEIVE => !self.messages.is_empty(),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Nowhere;

    impl Sink for Nowhere {
        fn take(&mut self, _bytes: &[u8]) {}
    }

    #[test]
    fn a_guest_is_told_of_its_port_once_it_asks_and_messages_are_bounded() {
        let mut console = Console::new(Inbox::new().unwrap(), Nowhere);
        console.answer([0, 0, 0, 0, DEVICE_READY as u8, 0, 1, 0]);
        console.answer([0, 0, 0, 0, 77, 0, 1, 0]);
        console.answer([9, 9, 9, 9, PORT_READY as u8, 0, 1, 0]);
        assert_eq!(console.messages, [[0, 0, 0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 6, 0, 1, 0]]);
        for _ in 0..1000 {
            console.answer([0, 0, 0, 0, DEVICE_READY as u8, 0, 1, 0]);
        }
        assert_eq!(console.messages.len(), MOST_MESSAGES);
    }

    #[test]
    fn the_guest_has_nothing_before_its_side_is_open() {
        let inbox = Inbox::new().unwrap();
        inbox.give(b"early");
        assert!(!inbox.has_something() && inbox.has_room());
        inbox.open();
        assert!(inbox.has_something());
        inbox.give(&[0; ENOUGH]);
        assert!(!inbox.has_room());
    }
}
