//! The network card: the register transport, a tap and the I/O thread between them, as one device on the bus.

use crate::bus::{Device, Reaction};
use crate::devices::virtio::interrupt::Interrupt;
use crate::devices::virtio::mmio::{self, Effect, Identity, Transport, status};
use crate::devices::virtio::net::Net;
use crate::devices::virtio::tap::{Offload, Tap, TapError};
use crate::devices::virtio::vhost::VhostError;
use crate::devices::virtio::worker::{Exchange, Worker};
use crate::snapshot::devices::{DeviceState, RingState, StateError, VirtioState};
use std::io;
use std::time::Duration;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net;
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Largest size of either queue.
const QUEUE_SIZE: u16 = 256;

/// Features that the card offers (VIRTIO 1.2, 5.1.3): checksums and segmentation are left to the other side both ways, and
/// a large frame may be merged from several receive buffers.
pub const FEATURES: u64 = mmio::VERSION_1
    | mmio::EVENT_INDEX
    | mmio::INDIRECT_DESCRIPTORS
    | 1 << virtio_net::VIRTIO_NET_F_MAC
    | 1 << virtio_net::VIRTIO_NET_F_CSUM
    | 1 << virtio_net::VIRTIO_NET_F_GUEST_CSUM
    | 1 << virtio_net::VIRTIO_NET_F_HOST_TSO4
    | 1 << virtio_net::VIRTIO_NET_F_HOST_TSO6
    | 1 << virtio_net::VIRTIO_NET_F_GUEST_TSO4
    | 1 << virtio_net::VIRTIO_NET_F_GUEST_TSO6
    | 1 << virtio_net::VIRTIO_NET_F_MRG_RXBUF;

/// A network card on a tap.
#[derive(Debug)]
pub struct Card {
    transport: Transport,
    memory: GuestMemoryMmap,
    interrupt: Interrupt,
    kick: EventFd,
    tap: Option<Tap>,
    /// The Ethernet address that the driver's frames must be from, where that is checked.
    source: Option<[u8; 6]>,
    worker: Worker,
    /// What the worker was stopped with, for as long as the machine is paused.
    paused: Option<Net<Tap>>,
}

impl Card {
    /// A card after reset. `spin` is how long its I/O thread looks for more work before it sleeps.
    pub fn new(tap: Tap, mac: [u8; 6], memory: GuestMemoryMmap, spin: Duration) -> io::Result<Self> {
        let interrupt = Interrupt::new()?;
        let kick = EventFd::new(EFD_NONBLOCK)?;
        let worker = Worker::start(kick.try_clone()?, interrupt.clone(), spin)?;
        Ok(Self {
            transport: Transport::new(identity(mac), interrupt.clone()),
            memory,
            interrupt,
            kick,
            tap: Some(tap),
            source: None,
            worker,
            paused: None,
        })
    }

    /// The same, for a guest that goes on as somebody else: a frame that is not from this Ethernet address is still that of the guest
    /// that was saved, and is dropped.
    #[must_use]
    pub fn with_source(self, mac: [u8; 6]) -> Self {
        Self { source: Some(mac), ..self }
    }

    /// The card's interrupt, to be wired to whatever the guest waits for.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// The event that a write to `QueueNotify` signals: it may be registered as an ioeventfd, which spares an exit.
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// A way to move the card's frames on another thread than its own.
    pub fn exchange(&self) -> Exchange {
        self.worker.exchange()
    }

    fn activate(&mut self, queues: Vec<Queue>) -> Result<(), CardError> {
        let merged = self.transport.accepted(1 << virtio_net::VIRTIO_NET_F_MRG_RXBUF);
        let tap = self.tap.take().ok_or(CardError::NoTap)?;
        tap.set_offload(offload(&self.transport))?;
        let mut queues = queues.into_iter();
        let (Some(receive), Some(transmit)) = (queues.next(), queues.next()) else { return Err(CardError::NoTap) };
        let net = Net::new(tap, self.memory.clone(), receive, transmit, merged);
        self.worker.give(net.with_source(self.source));
        Ok(())
    }
}

/// What a network card with this Ethernet address says of itself.
pub(super) fn identity(mac: [u8; 6]) -> Identity {
    Identity {
        device: VIRTIO_ID_NET,
        features: FEATURES,
        configuration: mac.to_vec(),
        queues: vec![QUEUE_SIZE, QUEUE_SIZE],
    }
}

/// Which unfinished frames a driver has said that it takes.
pub(super) fn offload(transport: &Transport) -> Offload {
    let accepted = |bit: u32| transport.accepted(1 << bit);
    Offload {
        checksum: accepted(virtio_net::VIRTIO_NET_F_GUEST_CSUM),
        segmentation4: accepted(virtio_net::VIRTIO_NET_F_GUEST_TSO4),
        segmentation6: accepted(virtio_net::VIRTIO_NET_F_GUEST_TSO6),
    }
}

/// Why a card could not be made or started.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// The worker that had the tap has not given it back.
    #[error("the tap was lost when the card was last stopped")]
    NoTap,
    /// A call on the tap.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// A call on the kernel's side of the card.
    #[error(transparent)]
    Vhost(#[from] VhostError),
    /// No further event or descriptor can be had.
    #[error("make an event of a network card")]
    Event(#[source] io::Error),
}

impl Device for Card {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if self.worker.has_failed() && self.transport.status() & status::DEVICE_NEEDS_RESET == 0 {
            self.transport.needs_reset();
        }
        self.transport.read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Reaction {
        match self.transport.write(offset, data, &self.memory) {
            Effect::None => {}
            Effect::Activate => {
                if self.activate(self.transport.queues()).is_err() {
                    self.transport.needs_reset();
                }
            }
            Effect::Notify(_) => {
                // Full means pending.
                let _ = self.kick.write(1);
            }
            Effect::Reset => self.tap = self.worker.stop().map(Net::into_frames).or(self.tap.take()),
        }
        Reaction::Continue
    }

    fn save(&mut self) -> Option<DeviceState> {
        if self.worker.has_failed() {
            self.transport.needs_reset();
        }
        self.paused = self.worker.stop();
        let rings = |net: &Net<Tap>| net.queues().map(|queue| RingState::from(queue.state())).to_vec();
        let active = self.paused.as_ref().map(rings).unwrap_or_default();
        Some(DeviceState::Virtio(VirtioState { registers: self.transport.state(), active, service: None }))
    }

    fn resume(&mut self) {
        if let Some(net) = self.paused.take() {
            self.worker.give(net);
        }
    }

    /// The Ethernet address stays this card's.
    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError> {
        let DeviceState::Virtio(state) = state else { return Err(StateError::Kind) };
        self.transport.restore(&state.registers, true, &self.memory)?;
        if self.transport.is_active() {
            let queues = state.active_queues(&self.transport.queues())?;
            self.activate(queues).map_err(|_| StateError::Queues)?;
            // Whatever was on its way to the driver when the machine was paused: one too many does no harm.
            self.interrupt.used_buffer();
        }
        Ok(())
    }
}
