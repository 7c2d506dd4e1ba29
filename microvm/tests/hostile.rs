//! Hostile drivers: whatever a guest writes to registers, rings and descriptors, the monitor neither panics nor loops nor touches
//! anything but guest memory.

use isobench_microvm::devices::virtio::interrupt::Interrupt;
use isobench_microvm::devices::virtio::mmio::{self, Effect, Identity, Transport, register, status};
use isobench_microvm::devices::virtio::net::{FrameIo, HEADER, LARGEST, Net, Progress, QueueError};
use isobench_microvm::memory;
use proptest::prelude::*;
use std::io;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, VolatileSlice};

const MEMORY: u64 = 2 << 20;
const SIZE: u16 = 16;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
/// The receive queue lies this far above the transmit queue.
const RECEIVE: u64 = 0x10000;
const BUFFER: u64 = 0x40000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Frames in memory: gives those that it holds and keeps those that it is given.
#[derive(Debug, Default)]
struct Frames {
    give: Vec<Vec<u8>>,
    taken: Vec<Vec<u8>>,
}

impl FrameIo for Frames {
    fn read_frame(&mut self, into: &[VolatileSlice<'_>]) -> io::Result<usize> {
        let frame = self.give.pop().ok_or(io::ErrorKind::WouldBlock)?;
        let mut rest = frame.as_slice();
        for slice in into {
            let (now, later) = rest.split_at(rest.len().min(slice.len()));
            slice.copy_from(now);
            rest = later;
        }
        Ok(frame.len() - rest.len())
    }

    fn write_frame(&mut self, from: &[VolatileSlice<'_>]) -> io::Result<usize> {
        let mut frame = Vec::new();
        for slice in from {
            let mut part = vec![0; slice.len()];
            slice.copy_to(&mut part[..]);
            frame.extend(part);
        }
        let length = frame.len();
        self.taken.push(frame);
        Ok(length)
    }
}

#[derive(Clone, Copy, Debug)]
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

fn descriptor(memory: &GuestMemoryMmap, base: u64, index: u64, descriptor: Descriptor) {
    let at = base + DESCRIPTORS + index * 16;
    memory.write_obj(descriptor.address, GuestAddress(at)).unwrap();
    memory.write_obj(descriptor.length, GuestAddress(at + 8)).unwrap();
    memory.write_obj(descriptor.flags, GuestAddress(at + 12)).unwrap();
    memory.write_obj(descriptor.next, GuestAddress(at + 14)).unwrap();
}

fn offer(memory: &GuestMemoryMmap, base: u64, heads: &[u16]) {
    for (index, head) in heads.iter().enumerate() {
        memory.write_obj(*head, GuestAddress(base + AVAILABLE + 4 + index as u64 * 2)).unwrap();
    }
    memory.write_obj(heads.len() as u16, GuestAddress(base + AVAILABLE + 2)).unwrap();
}

fn used(memory: &GuestMemoryMmap, base: u64) -> Vec<(u32, u32)> {
    let count: u16 = memory.read_obj(GuestAddress(base + USED + 2)).unwrap();
    let at = |index: u16, offset| GuestAddress(base + USED + 4 + u64::from(index % SIZE) * 8 + offset);
    (0..count).map(|index| (memory.read_obj(at(index, 0)).unwrap(), memory.read_obj(at(index, 4)).unwrap())).collect()
}

fn queue(base: u64) -> Queue {
    let mut queue = Queue::new(SIZE).unwrap();
    queue.set_desc_table_address(Some((base + DESCRIPTORS) as u32), Some(0));
    queue.set_avail_ring_address(Some((base + AVAILABLE) as u32), Some(0));
    queue.set_used_ring_address(Some((base + USED) as u32), Some(0));
    queue.set_event_idx(true);
    queue.set_ready(true);
    queue
}

fn net(memory: &GuestMemoryMmap, merged: bool, give: Vec<Vec<u8>>) -> Net<Frames> {
    Net::new(Frames { give, taken: Vec::new() }, memory.clone(), queue(RECEIVE), queue(0), merged)
}

fn frame(length: usize) -> Vec<u8> {
    let mut frame = vec![0; HEADER];
    frame.extend((0..length).map(|index| index as u8));
    frame
}

#[test]
fn a_frame_in_several_descriptors_is_sent_whole() {
    let memory = memory::create(MEMORY).unwrap();
    let bytes = frame(100);
    memory.write_slice(&bytes, GuestAddress(BUFFER)).unwrap();
    descriptor(&memory, 0, 0, Descriptor { address: BUFFER, length: 12, flags: NEXT, next: 3 });
    descriptor(&memory, 0, 3, Descriptor { address: BUFFER + 12, length: 0, flags: NEXT, next: 1 });
    descriptor(&memory, 0, 1, Descriptor { address: BUFFER + 12, length: 100, flags: 0, next: 0 });
    offer(&memory, 0, &[0]);
    let mut net = net(&memory, false, Vec::new());
    assert_eq!(net.transmit().unwrap(), Progress { frames: 1, notify: true, starved: true });
    assert_eq!(net.frames().taken, [bytes]);
    assert_eq!((used(&memory, 0), net.dropped()), (vec![(0, 0)], 0));
}

#[test]
fn a_frame_is_received_with_its_length_and_number_of_buffers() {
    let memory = memory::create(MEMORY).unwrap();
    descriptor(&memory, RECEIVE, 2, Descriptor { address: BUFFER, length: 2000, flags: WRITE, next: 0 });
    offer(&memory, RECEIVE, &[2]);
    let mut net = net(&memory, false, vec![frame(100)]);
    assert_eq!(net.receive().unwrap().frames, 1);
    assert_eq!(used(&memory, RECEIVE), [(2, 112)]);
    let mut received = vec![0; 112];
    memory.read_slice(&mut received, GuestAddress(BUFFER)).unwrap();
    assert_eq!(received[10..12], [1, 0]);
    assert_eq!(received[HEADER..], frame(100)[HEADER..]);
}

#[test]
fn a_large_frame_is_merged_and_the_other_buffers_stay() {
    let memory = memory::create(MEMORY).unwrap();
    for index in 0..8 {
        let address = BUFFER + index * 0x4000;
        descriptor(&memory, RECEIVE, index, Descriptor { address, length: 0x4000, flags: WRITE, next: 0 });
    }
    offer(&memory, RECEIVE, &[0, 1, 2, 3, 4, 5, 6, 7]);
    let mut net = net(&memory, true, vec![frame(10), frame(40_000)]);
    let progress = net.receive().unwrap();
    // After the large frame took three buffers, five are left, which the largest frame would fit; after the small one four.
    assert_eq!((progress.frames, progress.starved), (2, true));
    assert_eq!(used(&memory, RECEIVE), [(0, 0x4000), (1, 0x4000), (2, 40_012 - 0x8000), (3, 22)]);
    assert_eq!(memory.read_obj::<u16>(GuestAddress(BUFFER + 10)).unwrap(), 3);
}

#[test]
fn malformed_frames_are_lost_alone() {
    let memory = memory::create(MEMORY).unwrap();
    let good = Descriptor { address: BUFFER, length: 100, flags: 0, next: 0 };
    let bad = [
        // A loop, memory's end, an address that wraps, the wrong way, too short, too long.
        Descriptor { flags: NEXT, next: 0, ..good },
        Descriptor { address: MEMORY - 1, ..good },
        Descriptor { address: u64::MAX - 10, ..good },
        Descriptor { flags: WRITE, ..good },
        Descriptor { length: HEADER as u32, ..good },
        Descriptor { length: u32::MAX, ..good },
        Descriptor { length: LARGEST as u32 + 1, ..good },
        // An indirect table outside memory, and one of a size that is no multiple of 16.
        Descriptor { address: MEMORY, length: 32, flags: INDIRECT, next: 0 },
        Descriptor { length: 17, flags: INDIRECT, ..good },
    ];
    let count = bad.len() as u16;
    for (index, wrong) in (0..).zip(bad) {
        let wrong = if wrong.flags == NEXT { Descriptor { next: index as u16, ..wrong } } else { wrong };
        descriptor(&memory, 0, index, wrong);
    }
    descriptor(&memory, 0, count.into(), good);
    let heads: Vec<u16> = (0..=count).collect();
    offer(&memory, 0, &heads);
    let mut net = net(&memory, false, Vec::new());
    assert_eq!(net.transmit().unwrap().frames, heads.len());
    assert_eq!(used(&memory, 0).len(), heads.len());
    // The loop is cut off after as many descriptors as the queue has, which makes it a frame of 16 times 100 bytes.
    let lengths: Vec<usize> = net.frames().taken.iter().map(Vec::len).collect();
    assert_eq!(lengths, [1600, 100]);
    assert_eq!(net.dropped(), u64::from(count) - 1);
}

#[test]
fn a_head_or_index_out_of_range_stops_the_queue() {
    let memory = memory::create(MEMORY).unwrap();
    offer(&memory, 0, &[SIZE]);
    assert!(matches!(net(&memory, false, Vec::new()).transmit(), Err(QueueError::Ring { queue: "transmit", .. })));
    memory.write_obj(SIZE + 1, GuestAddress(AVAILABLE + 2)).unwrap();
    assert!(matches!(net(&memory, false, Vec::new()).transmit(), Err(QueueError::Ring { queue: "transmit", .. })));
    descriptor(&memory, RECEIVE, 0, Descriptor { address: BUFFER, length: 100, flags: WRITE, next: 0 });
    offer(&memory, RECEIVE, &[0]);
    assert!(matches!(net(&memory, false, vec![frame(1)]).receive(), Err(QueueError::Buffer(100))));
}

fn any_descriptor() -> impl Strategy<Value = Descriptor> {
    let address = prop_oneof![BUFFER..BUFFER + 0x10000, 0..MEMORY * 2, any::<u64>()];
    let length = prop_oneof![0_u32..3000, 60_000_u32..70_000, any::<u32>()];
    let flags = prop_oneof![0_u16..8, any::<u16>()];
    (address, length, flags, prop_oneof![0..SIZE, any::<u16>()]).prop_map(|(address, length, flags, next)| Descriptor {
        address,
        length,
        flags,
        next,
    })
}

/// A whole queue of anything, with indices that are mostly sane so that descriptors are reached.
fn any_queue() -> impl Strategy<Value = (Vec<Descriptor>, Vec<u16>, u16)> {
    let heads = proptest::collection::vec(prop_oneof![9 => 0..SIZE, 1 => any::<u16>()], SIZE as usize);
    let index = prop_oneof![9 => 0..=SIZE, 1 => any::<u16>()];
    (proptest::collection::vec(any_descriptor(), SIZE as usize), heads, index)
}

fn write_queue(memory: &GuestMemoryMmap, base: u64, (descriptors, heads, index): &(Vec<Descriptor>, Vec<u16>, u16)) {
    for (number, written) in (0..).zip(descriptors) {
        descriptor(memory, base, number, *written);
    }
    offer(memory, base, heads);
    memory.write_obj(*index, GuestAddress(base + AVAILABLE + 2)).unwrap();
}

proptest! {
    #[test]
    fn any_queue_is_survived(transmit in any_queue(), receive in any_queue(), merged: bool, lengths in proptest::collection::vec(0..65_000_usize, 0..20)) {
        let memory = memory::create(MEMORY).unwrap();
        write_queue(&memory, 0, &transmit);
        write_queue(&memory, RECEIVE, &receive);
        let mut net = net(&memory, merged, lengths.into_iter().map(frame).collect());
        // The rings may overwrite themselves, so that more than a queue's worth is done; a batch is bounded all the same.
        for _ in 0..4 {
            let sent = net.transmit();
            prop_assert!(sent.is_err() || sent.unwrap().frames <= 64);
            let received = net.receive();
            prop_assert!(received.is_err() || received.unwrap().frames <= 64);
        }
        prop_assert!(net.frames().taken.iter().all(|frame| (HEADER + 1..=LARGEST).contains(&frame.len())));
    }
}

fn transport() -> Transport {
    let identity = Identity {
        device: 1,
        features: mmio::VERSION_1 | mmio::EVENT_INDEX | 1,
        configuration: vec![2, 0, 0, 0, 0, 5],
        queues: vec![SIZE, SIZE],
    };
    Transport::new(identity, Interrupt::new().unwrap())
}

/// The registers and values of a start that goes well, so that random ones in between reach every state.
fn start() -> Vec<(u64, u32)> {
    let mut writes = vec![
        (register::STATUS, 0),
        (register::STATUS, status::ACKNOWLEDGE),
        (register::STATUS, status::ACKNOWLEDGE | status::DRIVER),
        (register::DRIVER_FEATURES_SELECT, 1),
        (register::DRIVER_FEATURES, 1),
        (register::STATUS, 11),
    ];
    for (number, base) in [(0, RECEIVE), (1, 0)] {
        writes.extend([
            (register::QUEUE_SELECT, number),
            (register::QUEUE_SIZE, SIZE.into()),
            (register::QUEUE_DESCRIPTOR_LOW, (base + DESCRIPTORS) as u32),
            (register::QUEUE_DRIVER_LOW, (base + AVAILABLE) as u32),
            (register::QUEUE_DEVICE_LOW, (base + USED) as u32),
            (register::QUEUE_READY, 1),
        ]);
    }
    writes.push((register::STATUS, 15));
    writes
}

fn write(transport: &mut Transport, memory: &GuestMemoryMmap, (offset, value): (u64, u32)) -> Effect {
    transport.write(offset, &value.to_le_bytes(), memory)
}

#[test]
fn a_start_by_the_book_activates_once() {
    let memory = memory::create(MEMORY).unwrap();
    let mut transport = transport();
    let effects: Vec<Effect> = start().into_iter().map(|step| write(&mut transport, &memory, step)).collect();
    assert_eq!(effects.iter().filter(|effect| **effect == Effect::Activate).count(), 1);
    assert_eq!(effects.last(), Some(&Effect::Activate));
    assert_eq!(write(&mut transport, &memory, (register::STATUS, 15)), Effect::None);
    assert_eq!(write(&mut transport, &memory, (register::QUEUE_NOTIFY, 1)), Effect::Notify(1));
    assert_eq!(write(&mut transport, &memory, (register::QUEUE_NOTIFY, 2)), Effect::None);
    assert_eq!(write(&mut transport, &memory, (register::STATUS, 0)), Effect::Reset);
    assert_eq!(write(&mut transport, &memory, (register::QUEUE_NOTIFY, 1)), Effect::None);
}

#[test]
fn an_active_queue_never_changes() {
    let memory = memory::create(MEMORY).unwrap();
    let mut transport = transport();
    start().into_iter().for_each(|step| _ = write(&mut transport, &memory, step));
    let before: Vec<u64> =
        transport.queues().iter().flat_map(|queue| [queue.desc_table(), queue.size().into()]).collect();
    for offset in
        (register::QUEUE_SIZE..register::CONFIGURATION).step_by(4).filter(|offset| *offset != register::STATUS)
    {
        write(&mut transport, &memory, (offset, 0));
    }
    let after: Vec<u64> =
        transport.queues().iter().flat_map(|queue| [queue.desc_table(), queue.size().into()]).collect();
    assert_eq!(before, after);
    assert!(transport.queues().iter().all(QueueT::ready));
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let memory = memory::create(MEMORY).unwrap();
    let mut transport = transport();
    let mut steps = start();
    steps.insert(3, (register::DRIVER_FEATURES, 1 << 7));
    steps.iter().for_each(|step| _ = write(&mut transport, &memory, *step));
    assert_eq!(transport.status() & (status::FEATURES_OK | status::DRIVER_OK), 0);
}

#[test]
fn queues_outside_memory_never_start() {
    for (register, value) in [
        (register::QUEUE_DESCRIPTOR_LOW, MEMORY as u32 - 16),
        (register::QUEUE_DRIVER_HIGH, 1),
        (register::QUEUE_DEVICE_LOW, MEMORY as u32),
        (register::QUEUE_SIZE, 0x1_0010),
    ] {
        let memory = memory::create(MEMORY).unwrap();
        let mut transport = transport();
        let mut steps = start();
        // Before the last queue is made ready. A size that is refused leaves the largest, which fits.
        steps.insert(steps.len() - 2, (register, value));
        let last = steps.iter().map(|step| write(&mut transport, &memory, *step)).last();
        if register == register::QUEUE_SIZE {
            assert_eq!(last, Some(Effect::Activate));
        } else {
            assert_eq!(last, Some(Effect::None));
            assert_ne!(transport.status() & status::DEVICE_NEEDS_RESET, 0);
        }
    }
}

proptest! {
    #[test]
    fn any_register_access_is_survived(accesses in proptest::collection::vec((0..0x200_u64, any::<u32>(), 0..9_usize, any::<bool>()), 0..60), splice in 0..20_usize) {
        let memory = memory::create(MEMORY).unwrap();
        let mut transport = transport();
        let mut steps: Vec<(u64, u32, usize, bool)> = start().into_iter().map(|(offset, value)| (offset, value, 4, true)).collect();
        let at = splice.min(steps.len());
        steps.splice(at..at, accesses);
        for (offset, value, width, is_write) in steps {
            let mut data = [value.to_le_bytes(), value.to_le_bytes()].concat();
            data.truncate(width);
            if !is_write {
                transport.read(offset, &mut data);
            } else if transport.write(offset, &data, &memory) == Effect::Activate {
                prop_assert!(transport.queues().iter().all(|queue| queue.is_valid(&memory)));
                prop_assert_ne!(transport.status() & status::DRIVER_OK, 0);
            }
        }
    }
}
