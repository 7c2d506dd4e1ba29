//! A driver's side of one queue, as good or as bad as a test wants it.

use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub(crate) const MEMORY: u64 = 2 << 20;
pub(crate) const SIZE: u16 = 16;
pub(crate) const DESCRIPTORS: u64 = 0x1000;
pub(crate) const AVAILABLE: u64 = 0x2000;
pub(crate) const USED: u64 = 0x3000;
/// Queues lie this far apart.
pub(crate) const APART: u64 = 0x10000;
pub(crate) const BUFFER: u64 = 0x80000;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

/// The queue with this number in memory.
#[derive(Clone, Debug)]
pub(crate) struct Ring<'m> {
    pub(crate) memory: &'m GuestMemoryMmap,
    pub(crate) base: u64,
    /// How many descriptors it has, at most 256.
    pub(crate) size: u16,
}

impl<'m> Ring<'m> {
    pub(crate) fn new(memory: &'m GuestMemoryMmap, number: u64) -> Self {
        Self { memory, base: number * APART, size: SIZE }
    }

    /// The device's side.
    pub(crate) fn queue(&self) -> Queue {
        let mut queue = Queue::new(self.size).unwrap();
        queue.set_desc_table_address(Some((self.base + DESCRIPTORS) as u32), Some(0));
        queue.set_avail_ring_address(Some((self.base + AVAILABLE) as u32), Some(0));
        queue.set_used_ring_address(Some((self.base + USED) as u32), Some(0));
        queue.set_event_idx(true);
        queue.set_ready(true);
        queue
    }

    pub(crate) fn describe(&self, index: u64, descriptor: Descriptor) {
        let at = self.base + DESCRIPTORS + index * 16;
        self.memory.write_obj(descriptor.address, GuestAddress(at)).unwrap();
        self.memory.write_obj(descriptor.length, GuestAddress(at + 8)).unwrap();
        self.memory.write_obj(descriptor.flags, GuestAddress(at + 12)).unwrap();
        self.memory.write_obj(descriptor.next, GuestAddress(at + 14)).unwrap();
    }

    /// A chain from `first` on: each part's address, length and whether the device writes it.
    pub(crate) fn chain(&self, first: u16, parts: &[(u64, u32, bool)]) {
        for (index, (address, length, write)) in (first..).zip(parts) {
            let more = usize::from(index - first) + 1 < parts.len();
            let flags = if *write { WRITE } else { 0 } | if more { NEXT } else { 0 };
            self.describe(index.into(), Descriptor { address: *address, length: *length, flags, next: index + 1 });
        }
    }

    /// Offers these heads as all that was ever offered.
    pub(crate) fn offer(&self, heads: &[u16]) {
        for (index, head) in heads.iter().enumerate() {
            let at = self.base + AVAILABLE + 4 + (index as u64 % u64::from(self.size)) * 2;
            self.memory.write_obj(*head, GuestAddress(at)).unwrap();
        }
        self.offered(heads.len() as u16);
    }

    pub(crate) fn offered(&self, index: u16) {
        self.memory.write_obj(index, GuestAddress(self.base + AVAILABLE + 2)).unwrap();
    }

    /// What came back: each head with the number of bytes written.
    pub(crate) fn used(&self) -> Vec<(u32, u32)> {
        let count: u16 = self.memory.read_obj(GuestAddress(self.base + USED + 2)).unwrap();
        let at = |index: u16, offset| GuestAddress(self.base + USED + 4 + u64::from(index % self.size) * 8 + offset);
        let element =
            |index| (self.memory.read_obj(at(index, 0)).unwrap(), self.memory.read_obj(at(index, 4)).unwrap());
        (0..count).map(element).collect()
    }

    /// Writes a whole queue of anything.
    pub(crate) fn write(&self, anything: &Anything) {
        for (number, written) in (0..).zip(&anything.descriptors) {
            self.describe(number, *written);
        }
        self.offer(&anything.heads);
        self.offered(anything.index);
    }
}

/// A queue's content.
#[derive(Clone, Debug)]
pub(crate) struct Anything {
    descriptors: Vec<Descriptor>,
    heads: Vec<u16>,
    index: u16,
}

fn any_descriptor() -> impl Strategy<Value = Descriptor> {
    let address = prop_oneof![4 => BUFFER..BUFFER + 0x10000, 1 => 0..MEMORY * 2, 1 => any::<u64>()];
    let length = prop_oneof![
        Just(1_u32),
        Just(16),
        (0_u32..9).prop_map(|count| count * 512),
        0_u32..3000,
        60_000_u32..70_000,
        any::<u32>()
    ];
    let flags = prop_oneof![8 => 0_u16..4, 1 => 0_u16..8, 1 => any::<u16>()];
    (address, length, flags, prop_oneof![0..SIZE, any::<u16>()]).prop_map(|(address, length, flags, next)| Descriptor {
        address,
        length,
        flags,
        next,
    })
}

/// A whole queue of anything, with indices that are mostly sane so that descriptors are reached.
pub(crate) fn any_queue() -> impl Strategy<Value = Anything> {
    let heads = proptest::collection::vec(prop_oneof![9 => 0..SIZE, 1 => any::<u16>()], SIZE as usize);
    let index = prop_oneof![9 => 0..=SIZE, 1 => any::<u16>()];
    let descriptors = proptest::collection::vec(any_descriptor(), SIZE as usize);
    (descriptors, heads, index).prop_map(|(descriptors, heads, index)| Anything { descriptors, heads, index })
}
