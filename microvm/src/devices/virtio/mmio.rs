//! The register transport of a virtio device (VIRTIO 1.2, 4.2 "Virtio Over MMIO").
//!
//! It is a pure state machine: a register write returns an [`Effect`] that whoever owns the device carries out, so the
//! transport knows nothing of what kind of device is behind it, of threads or of files.

use crate::devices::virtio::configuration::Configuration;
use crate::devices::virtio::interrupt::Interrupt;
use crate::snapshot::devices::{RingState, StateError, TransportState};
use std::ops::Range;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

/// Size of the register window in bytes: the registers and 256 bytes of configuration space.
pub const WINDOW: u64 = 0x200;

/// Register offsets (VIRTIO 1.2, 4.2.2, table 4.1).
pub mod register {
    #![allow(missing_docs)]
    pub const MAGIC_VALUE: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
    pub const VENDOR_ID: u64 = 0x00c;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SELECT: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SELECT: u64 = 0x024;
    pub const QUEUE_SELECT: u64 = 0x030;
    pub const QUEUE_SIZE_MAX: u64 = 0x034;
    pub const QUEUE_SIZE: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACKNOWLEDGE: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESCRIPTOR_LOW: u64 = 0x080;
    pub const QUEUE_DESCRIPTOR_HIGH: u64 = 0x084;
    pub const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    pub const CONFIGURATION_GENERATION: u64 = 0x0fc;
    pub const CONFIGURATION: u64 = 0x100;
}

/// Device status bits (VIRTIO 1.2, 2.1).
pub mod status {
    /// The guest has noticed the device.
    pub const ACKNOWLEDGE: u32 = 1;
    /// The guest has a driver for it.
    pub const DRIVER: u32 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u32 = 4;
    /// The features are agreed upon.
    pub const FEATURES_OK: u32 = 8;
    /// The device has met an error from which only a reset recovers.
    pub const DEVICE_NEEDS_RESET: u32 = 64;
    /// The driver has given up.
    pub const FAILED: u32 = 128;
}

/// The legal steps of the device status on the way up (VIRTIO 1.2, 3.1.1): from the first to the second. A write of 0 is a
/// reset, and `FAILED` may be added at any time; all else is ignored.
pub const VALID_TRANSITIONS: [(u32, u32); 4] = [
    (0, status::ACKNOWLEDGE),
    (status::ACKNOWLEDGE, status::ACKNOWLEDGE | status::DRIVER),
    (status::ACKNOWLEDGE | status::DRIVER, status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK),
    (
        status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK,
        status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK,
    ),
];

/// `VIRTIO_F_VERSION_1`: not a legacy device (VIRTIO 1.2, 6).
pub const VERSION_1: u64 = 1 << 32;
/// `VIRTIO_F_EVENT_IDX` (VIRTIO 1.2, 6).
pub const EVENT_INDEX: u64 = 1 << 29;
/// `VIRTIO_F_INDIRECT_DESC` (VIRTIO 1.2, 6).
pub const INDIRECT_DESCRIPTORS: u64 = 1 << 28;

const MAGIC: u32 = 0x7472_6976;
const TRANSPORT_VERSION: u32 = 2;
/// "isob", so that a guest's log names us.
const VENDOR: u32 = u32::from_le_bytes(*b"isob");

/// What kind of device is behind the registers.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The virtio device number (VIRTIO 1.2, 5): 1 is a network card.
    pub device: u32,
    /// The features that it offers.
    pub features: u64,
    /// Its configuration space as it begins; read-only, unless [`Transport::with_writable_configuration`] says otherwise.
    pub configuration: Vec<u8>,
    /// The largest size of each of its queues.
    pub queues: Vec<u16>,
}

/// What has to be done after a register write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The driver is ready and every queue that it uses is valid: start the device.
    Activate,
    /// New buffers are in this queue.
    Notify(u16),
    /// Stop the device and forget its queues.
    Reset,
}

/// The registers of one device.
#[derive(Debug)]
pub struct Transport {
    identity: Identity,
    configuration: Configuration,
    /// How many of the queues, the first ones, every driver must use.
    required: usize,
    interrupt: Interrupt,
    status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    queues: Vec<Queue>,
}

impl Transport {
    /// A device after reset.
    ///
    /// # Panics
    /// Where a queue's largest size is no power of two up to 32768: such an identity is a mistake in this program.
    pub fn new(identity: Identity, interrupt: Interrupt) -> Self {
        let queues: Vec<Queue> = identity.queues.iter().map(|size| Queue::new(*size).expect("power of two")).collect();
        let configuration = Configuration::new(identity.configuration.clone(), 0..0);
        Self {
            identity,
            configuration,
            required: queues.len(),
            interrupt,
            status: 0,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues,
        }
    }

    /// The same, for a device of which a driver may leave all queues but the first so many alone.
    #[must_use]
    pub fn with_required_queues(self, required: usize) -> Self {
        Self { required, ..self }
    }

    /// The same, with a part of the configuration space that the driver writes.
    #[must_use]
    pub fn with_writable_configuration(self, writable: Range<usize>) -> Self {
        let configuration = Configuration::new(self.identity.configuration.clone(), writable);
        Self { configuration, ..self }
    }

    /// The configuration space as it is now, for whoever controls the device.
    pub fn configuration(&self) -> Configuration {
        self.configuration.clone()
    }

    /// Whether the driver has accepted a feature.
    pub fn accepted(&self, feature: u64) -> bool {
        self.driver_features & feature == feature
    }

    /// The features that the driver has accepted; agreed upon at [`Effect::Activate`].
    pub fn features(&self) -> u64 {
        self.driver_features
    }

    /// The device status.
    pub fn status(&self) -> u32 {
        self.status
    }

    /// The queues as the driver laid them out, for the device to run on; valid at [`Effect::Activate`].
    pub fn queues(&self) -> Vec<Queue> {
        let event_index = self.accepted(EVENT_INDEX);
        let copy = |queue: &Queue| {
            let mut active = Queue::new(queue.max_size()).expect("power of two");
            active.set_size(queue.size());
            active.set_desc_table_address(Some(queue.desc_table() as u32), Some((queue.desc_table() >> 32) as u32));
            active.set_avail_ring_address(Some(queue.avail_ring() as u32), Some((queue.avail_ring() >> 32) as u32));
            active.set_used_ring_address(Some(queue.used_ring() as u32), Some((queue.used_ring() >> 32) as u32));
            active.set_event_idx(event_index);
            active.set_ready(queue.ready());
            active
        };
        self.queues.iter().map(copy).collect()
    }

    /// What a snapshot must hold of the registers.
    pub fn state(&self) -> TransportState {
        TransportState {
            status: self.status,
            device_features_select: self.device_features_select,
            driver_features_select: self.driver_features_select,
            driver_features: self.driver_features,
            queue_select: self.queue_select,
            queues: self.queues.iter().map(|queue| RingState::from(queue.state())).collect(),
            interrupt: self.interrupt.status(),
            configuration: self.configuration.bytes(),
        }
    }

    /// Sets the registers of a device after reset to what those of another like it were. The configuration space is left alone where
    /// `configured` says that it is this device's own, as a card's Ethernet address is.
    ///
    /// # Errors
    /// Where no driver can have brought such a device to this state.
    pub fn restore(
        &mut self,
        state: &TransportState,
        configured: bool,
        memory: &GuestMemoryMmap,
    ) -> Result<(), StateError> {
        const STEPS: [u32; 5] = [0, 1, 3, 11, 15];
        let reached = state.status & !(status::DEVICE_NEEDS_RESET | status::FAILED);
        if !STEPS.contains(&reached) || state.driver_features & !self.identity.features != 0 {
            return Err(StateError::Registers);
        }
        let queues: Vec<Queue> = state.queues.iter().map(RingState::queue).collect::<Result<_, _>>()?;
        let sizes: Vec<u16> = queues.iter().map(Queue::max_size).collect();
        if sizes != self.identity.queues {
            return Err(StateError::Queues);
        }
        if !configured && !self.configuration.set_bytes(&state.configuration) {
            return Err(StateError::Registers);
        }
        self.queues = queues;
        self.status = state.status;
        self.driver_features = state.driver_features;
        self.device_features_select = state.device_features_select;
        self.driver_features_select = state.driver_features_select;
        self.queue_select = state.queue_select;
        self.interrupt.restore(state.interrupt);
        if self.status & status::DRIVER_OK != 0 && !self.queues_are_valid(memory) {
            return Err(StateError::Queues);
        }
        Ok(())
    }

    /// Whether the driver is ready and the device has not failed.
    pub fn is_active(&self) -> bool {
        self.status & (status::DRIVER_OK | status::DEVICE_NEEDS_RESET) == status::DRIVER_OK
    }

    /// Says that the device can't go on (VIRTIO 1.2, 2.1.2).
    pub fn needs_reset(&mut self) {
        self.status |= status::DEVICE_NEEDS_RESET;
        self.interrupt.configuration_change();
    }

    /// A read by the driver. What is no register reads as zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        if offset >= register::CONFIGURATION {
            self.configuration.read((offset - register::CONFIGURATION) as usize, data);
            return;
        }
        data.fill(0);
        // Registers are read 32 bits at a time (VIRTIO 1.2, 4.2.2.2).
        if let Ok(word) = <&mut [u8; 4]>::try_from(data) {
            *word = self.register(offset).to_le_bytes();
        }
    }

    fn register(&self, offset: u64) -> u32 {
        let queue = self.queues.get(self.queue_select as usize);
        match offset {
            register::MAGIC_VALUE => MAGIC,
            register::VERSION => TRANSPORT_VERSION,
            register::DEVICE_ID => self.identity.device,
            register::VENDOR_ID => VENDOR,
            register::DEVICE_FEATURES => match self.device_features_select {
                0 => self.identity.features as u32,
                1 => (self.identity.features >> 32) as u32,
                _ => 0,
            },
            register::QUEUE_SIZE_MAX => queue.map_or(0, |queue| queue.max_size().into()),
            register::QUEUE_READY => queue.map_or(0, |queue| queue.ready().into()),
            register::INTERRUPT_STATUS => self.interrupt.status(),
            register::STATUS => self.status,
            register::CONFIGURATION_GENERATION => self.configuration.generation(),
            _ => 0,
        }
    }

    /// A write by the driver. What is illegal in the present state, unaligned or no register is ignored.
    pub fn write(&mut self, offset: u64, data: &[u8], memory: &GuestMemoryMmap) -> Effect {
        if offset >= register::CONFIGURATION {
            self.configuration.write((offset - register::CONFIGURATION) as usize, data);
            return Effect::None;
        }
        let Ok(word) = <[u8; 4]>::try_from(data) else { return Effect::None };
        let value = u32::from_le_bytes(word);
        match offset {
            register::DEVICE_FEATURES_SELECT => self.device_features_select = value,
            register::DRIVER_FEATURES_SELECT => self.driver_features_select = value,
            register::DRIVER_FEATURES => self.accept_features(value),
            register::QUEUE_SELECT => self.queue_select = value,
            register::QUEUE_NOTIFY => {
                let known = (value as usize) < self.queues.len();
                if known && self.status & status::DRIVER_OK != 0 {
                    return Effect::Notify(value as u16);
                }
            }
            register::INTERRUPT_ACKNOWLEDGE => self.interrupt.acknowledge(value),
            register::STATUS => return self.set_status(value, memory),
            _ => self.configure_queue(offset, value),
        }
        Effect::None
    }

    fn accept_features(&mut self, value: u32) {
        if self.status != status::ACKNOWLEDGE | status::DRIVER {
            return;
        }
        match self.driver_features_select {
            0 => self.driver_features = self.driver_features & !0xffff_ffff | u64::from(value),
            1 => self.driver_features = self.driver_features & 0xffff_ffff | u64::from(value) << 32,
            _ => {}
        }
    }

    /// Queue registers may be written between `FEATURES_OK` and `DRIVER_OK` alone: an active queue never changes.
    fn configure_queue(&mut self, offset: u64, value: u32) {
        if self.status != status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK {
            return;
        }
        let Some(queue) = self.queues.get_mut(self.queue_select as usize) else { return };
        match offset {
            register::QUEUE_READY => queue.set_ready(value == 1),
            // Not to be changed while the queue is ready (VIRTIO 1.2, 4.2.2.2).
            _ if queue.ready() => {}
            // A size that doesn't fit 16 bits is refused as 0 is.
            register::QUEUE_SIZE => queue.set_size(u16::try_from(value).unwrap_or(0)),
            register::QUEUE_DESCRIPTOR_LOW => queue.set_desc_table_address(Some(value), None),
            register::QUEUE_DESCRIPTOR_HIGH => queue.set_desc_table_address(None, Some(value)),
            register::QUEUE_DRIVER_LOW => queue.set_avail_ring_address(Some(value), None),
            register::QUEUE_DRIVER_HIGH => queue.set_avail_ring_address(None, Some(value)),
            register::QUEUE_DEVICE_LOW => queue.set_used_ring_address(Some(value), None),
            register::QUEUE_DEVICE_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    fn set_status(&mut self, value: u32, memory: &GuestMemoryMmap) -> Effect {
        if value == 0 {
            self.status = 0;
            self.driver_features = 0;
            self.device_features_select = 0;
            self.driver_features_select = 0;
            self.queue_select = 0;
            self.queues.iter_mut().for_each(Queue::reset);
            self.interrupt.acknowledge(u32::MAX);
            return Effect::Reset;
        }
        if value == self.status | status::FAILED {
            self.status = value;
            return Effect::None;
        }
        if !VALID_TRANSITIONS.contains(&(self.status, value)) {
            return Effect::None;
        }
        if value & !self.status == status::FEATURES_OK && !self.features_are_acceptable() {
            // Leaving the bit clear is how a device refuses (VIRTIO 1.2, 3.1.1, step 6).
            return Effect::None;
        }
        if value & !self.status == status::DRIVER_OK && !self.queues_are_valid(memory) {
            self.needs_reset();
            return Effect::None;
        }
        self.status = value;
        if value & status::DRIVER_OK != 0 { Effect::Activate } else { Effect::None }
    }

    fn queues_are_valid(&self, memory: &GuestMemoryMmap) -> bool {
        let unused = |number, queue: &Queue| number >= self.required && !queue.ready();
        self.queues.iter().enumerate().all(|(number, queue)| unused(number, queue) || queue.is_valid(memory))
    }

    fn features_are_acceptable(&self) -> bool {
        self.driver_features & !self.identity.features == 0 && self.accepted(VERSION_1)
    }
}
