//! Starting the card: the handshake of VIRTIO 1.2, 3.1.1, over the registers of 4.2.2.
//!
//! It is run by the monitor before the guest is entered, as firmware initialises a device that an operating system then finds
//! ready: from inside each of these forty register accesses would be an exit of some 25 us.

use crate::contract::{QUEUE_SIZE, RINGS};
use crate::virtio::ring;

/// `VIRTIO_F_VERSION_1`, `VIRTIO_F_EVENT_IDX` (6), and of the network card (5.1.3) `CSUM` and `GUEST_CSUM`. Not merged receive
/// buffers: one buffer that fits the largest frame costs address space, but no memory until such a frame comes.
pub const FEATURES: u64 = 1 << 32 | 1 << 29 | 1 << 1 | 1;
/// `GUEST_TSO4` and `HOST_TSO4` of the network card (5.1.3), with [`FEATURES`] where frames may be segmented by the other side.
pub const SEGMENTATION: u64 = 1 << 7 | 1 << 11;

const MAGIC_VALUE: u64 = 0x000;
const VERSION: u64 = 0x004;
const DEVICE_ID: u64 = 0x008;
const DEVICE_FEATURES: u64 = 0x010;
const DEVICE_FEATURES_SELECT: u64 = 0x014;
const DRIVER_FEATURES: u64 = 0x020;
const DRIVER_FEATURES_SELECT: u64 = 0x024;
const QUEUE_SELECT: u64 = 0x030;
const QUEUE_SIZE_MAX: u64 = 0x034;
const QUEUE_SIZE_REGISTER: u64 = 0x038;
const QUEUE_READY: u64 = 0x044;
/// Written with a queue's number: there are new buffers in it.
pub(super) const QUEUE_NOTIFY: u64 = 0x050;
const STATUS: u64 = 0x070;
/// Low halves of the addresses of the descriptor, driver and device areas; the high half follows each.
const QUEUE_ADDRESSES: [u64; 3] = [0x080, 0x090, 0x0a0];

const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;

/// The registers of a card.
pub trait Registers {
    /// Reads the register at an offset.
    fn read(&mut self, offset: u64) -> u32;

    /// Writes the register at an offset.
    fn write(&mut self, offset: u64, value: u32);
}

/// Why a card can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// There is no virtio network card of version 2 at these registers.
    NoCard,
    /// It lacks features that the driver needs.
    Features {
        /// What it offers.
        offered: u64,
    },
    /// A queue is smaller than the driver's.
    QueueSize {
        /// The queue.
        queue: u32,
        /// Its largest size.
        most: u32,
    },
    /// The device did not become ready.
    Status(u32),
}

impl core::fmt::Display for StartError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoCard => formatter.write_str("there is no virtio network card"),
            Self::Features { offered } => write!(formatter, "the network card offers features {offered:#x} only"),
            Self::QueueSize { queue, most } => write!(formatter, "queue {queue} takes at most {most} descriptors"),
            Self::Status(status) => write!(formatter, "the network card is not ready (status {status:#x})"),
        }
    }
}

impl core::error::Error for StartError {}

/// Takes a card from reset to running, with or without segmentation, with its queues at [`RINGS`].
pub fn start(card: &mut impl Registers, segmentation: bool) -> Result<(), StartError> {
    let wanted = FEATURES | if segmentation { SEGMENTATION } else { 0 };
    if (card.read(MAGIC_VALUE), card.read(VERSION), card.read(DEVICE_ID)) != (u32::from_le_bytes(*b"virt"), 2, 1) {
        return Err(StartError::NoCard);
    }
    card.write(STATUS, 0);
    card.write(STATUS, ACKNOWLEDGE);
    card.write(STATUS, ACKNOWLEDGE | DRIVER);
    let mut offered = 0;
    for half in [0, 1] {
        card.write(DEVICE_FEATURES_SELECT, half);
        offered |= u64::from(card.read(DEVICE_FEATURES)) << (32 * half);
        card.write(DRIVER_FEATURES_SELECT, half);
        card.write(DRIVER_FEATURES, (wanted >> (32 * half)) as u32);
    }
    if offered & wanted != wanted {
        return Err(StartError::Features { offered });
    }
    card.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    for (queue, address) in (0..).zip(RINGS) {
        card.write(QUEUE_SELECT, queue);
        let most = card.read(QUEUE_SIZE_MAX);
        if (most as usize) < QUEUE_SIZE {
            return Err(StartError::QueueSize { queue, most });
        }
        card.write(QUEUE_SIZE_REGISTER, QUEUE_SIZE as u32);
        for (register, offset) in QUEUE_ADDRESSES.into_iter().zip(ring::AREAS) {
            let area = address + offset;
            card.write(register, area as u32);
            card.write(register + 4, (area >> 32) as u32);
        }
        card.write(QUEUE_READY, 1);
    }
    let running = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
    card.write(STATUS, running);
    match card.read(STATUS) {
        status if status == running => Ok(()),
        status => Err(StartError::Status(status)),
    }
}
