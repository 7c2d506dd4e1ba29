//! One split virtqueue as the driver sees it (VIRTIO 1.2, 2.7). Each buffer is one descriptor, and descriptor and buffer have
//! the same number.

use crate::contract::QUEUE_SIZE;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

/// `VIRTQ_DESC_F_WRITE`: the device writes to the buffer.
const WRITE: u16 = 2;

/// Offsets of the descriptor, driver and device areas in a [`Ring`].
pub(super) const AREAS: [u64; 3] =
    [offset_of!(Ring, descriptors) as u64, offset_of!(Ring, available) as u64, offset_of!(Ring, used) as u64];

/// The memory that driver and device share; all zero is an empty queue. Atomics, because the other side is another thread.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Ring {
    descriptors: [Descriptor; QUEUE_SIZE],
    available: Available,
    used: Used,
}

/// VIRTIO 1.2, 2.7.5.
#[derive(Debug)]
#[repr(C)]
struct Descriptor {
    address: AtomicU64,
    length: AtomicU32,
    flags: AtomicU16,
    next: AtomicU16,
}

/// VIRTIO 1.2, 2.7.6.
#[derive(Debug)]
#[repr(C)]
struct Available {
    flags: AtomicU16,
    index: AtomicU16,
    ring: [AtomicU16; QUEUE_SIZE],
    used_event: AtomicU16,
}

/// VIRTIO 1.2, 2.7.8; aligned to 4 bytes (2.7).
#[derive(Debug)]
#[repr(C, align(4))]
struct Used {
    flags: AtomicU16,
    index: AtomicU16,
    ring: [UsedElement; QUEUE_SIZE],
    available_event: AtomicU16,
}

#[derive(Debug)]
#[repr(C)]
struct UsedElement {
    descriptor: AtomicU32,
    length: AtomicU32,
}

/// The driver's side of a ring.
#[derive(Debug)]
pub(super) struct DriverQueue<'a> {
    ring: &'a Ring,
    /// The available index as published, and as it was when the device was last told.
    available: u16,
    told: u16,
    /// Used elements that have been taken.
    used: u16,
}

impl<'a> DriverQueue<'a> {
    /// The driver's side of a queue on which nothing has happened yet.
    pub(super) fn new(ring: &'a Ring) -> Self {
        Self { ring, available: 0, told: 0, used: 0 }
    }

    /// Makes a buffer available to the device (2.7.13).
    pub(super) fn offer(&mut self, buffer: u16, address: u64, length: u32, device_writes: bool) {
        let descriptor = &self.ring.descriptors[usize::from(buffer)];
        descriptor.address.store(address, Ordering::Relaxed);
        descriptor.length.store(length, Ordering::Relaxed);
        descriptor.flags.store(if device_writes { WRITE } else { 0 }, Ordering::Relaxed);
        self.ring.available.ring[usize::from(self.available) % QUEUE_SIZE].store(buffer, Ordering::Relaxed);
        self.available = self.available.wrapping_add(1);
        self.ring.available.index.store(self.available, Ordering::Release);
    }

    /// Takes the next buffer that the device has used, and the number of bytes that it wrote (2.7.14).
    pub(super) fn take(&mut self) -> Option<(u16, u32)> {
        if !self.has_used() {
            return None;
        }
        let element = &self.ring.used.ring[usize::from(self.used) % QUEUE_SIZE];
        self.used = self.used.wrapping_add(1);
        let buffer = element.descriptor.load(Ordering::Relaxed) as usize % QUEUE_SIZE;
        Some((buffer as u16, element.length.load(Ordering::Relaxed)))
    }

    /// Whether the device has used a buffer that is not taken yet.
    pub(super) fn has_used(&self) -> bool {
        self.ring.used.index.load(Ordering::Acquire) != self.used
    }

    /// Whether the device wants to be told of the buffers offered since the last call (2.7.10).
    pub(super) fn must_tell(&mut self) -> bool {
        if self.told == self.available {
            return false;
        }
        // The index must be seen by the device before its wish is read, or both sides may wait for each other.
        fence(Ordering::SeqCst);
        let event = self.ring.used.available_event.load(Ordering::Relaxed);
        let wanted = self.available.wrapping_sub(event).wrapping_sub(1) < self.available.wrapping_sub(self.told);
        self.told = self.available;
        wanted
    }

    /// Asks to be told of the next used buffer (2.7.10); says whether there is one already.
    pub(super) fn ask_to_be_told(&mut self) -> bool {
        self.ring.available.used_event.store(self.used, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.has_used()
    }
}
