//! Hostile drivers of a network card: whatever a guest writes to rings and descriptors, the monitor neither panics nor loops nor touches
//! anything but guest memory.

mod frames;
mod ring;

use frames::Frames;
use isobench_microvm::devices::virtio::net::{FrameIo, HEADER, LARGEST, Net, Progress, QueueError};
use isobench_microvm::memory;
use proptest::prelude::*;
use ring::{BUFFER, DESCRIPTORS, Descriptor, MEMORY, NEXT, Ring, SIZE, WRITE, any_queue};
use std::io;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, VolatileSlice};

const INDIRECT: u16 = 4;

/// The transmit queue's driver.
fn transmit(memory: &GuestMemoryMmap) -> Ring<'_> {
    Ring::new(memory, 0)
}

/// The receive queue's.
fn receive(memory: &GuestMemoryMmap) -> Ring<'_> {
    Ring::new(memory, 1)
}

/// Whoever writes descriptors into an indirect table at this address.
fn indirect_table(memory: &GuestMemoryMmap, address: u64) -> Ring<'_> {
    Ring { base: address - DESCRIPTORS, ..Ring::new(memory, 0) }
}

fn net(memory: &GuestMemoryMmap, merged: bool, give: Vec<Vec<u8>>) -> Net<Frames> {
    Net::new(
        Frames { give, taken: Vec::new() },
        memory.clone(),
        receive(memory).queue(),
        transmit(memory).queue(),
        merged,
    )
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
    transmit(&memory).describe(0, Descriptor { address: BUFFER, length: 12, flags: NEXT, next: 3 });
    transmit(&memory).describe(3, Descriptor { address: BUFFER + 12, length: 0, flags: NEXT, next: 1 });
    transmit(&memory).describe(1, Descriptor { address: BUFFER + 12, length: 100, flags: 0, next: 0 });
    transmit(&memory).offer(&[0]);
    let mut net = net(&memory, false, Vec::new());
    assert_eq!(net.transmit().unwrap(), Progress { frames: 1, notify: true, starved: true });
    assert_eq!(net.frames().taken, [bytes]);
    assert_eq!((transmit(&memory).used(), net.dropped()), (vec![(0, 0)], 0));
}

#[test]
fn frames_of_another_ethernet_address_are_dropped_where_there_is_to_be_one() {
    let memory = memory::create(MEMORY).unwrap();
    memory.write_slice(&frame(100), GuestAddress(BUFFER)).unwrap();
    // However the frame is cut; the last one ends within the address.
    let header = HEADER as u32 + 8;
    transmit(&memory).chain(0, &[(BUFFER, 112, false)]);
    transmit(&memory).chain(1, &[(BUFFER, header, false), (BUFFER + u64::from(header), 92, false)]);
    transmit(&memory).chain(3, &[(BUFFER, header, false)]);
    transmit(&memory).offer(&[0, 1, 3]);
    for (source, sent) in [([6, 7, 8, 9, 10, 11], 2), ([6, 7, 8, 9, 10, 12], 0)] {
        let mut net = net(&memory, false, Vec::new()).with_source(Some(source));
        assert_eq!(net.transmit().unwrap().frames, 3);
        assert_eq!((net.frames().taken.len(), net.dropped()), (sent, 3 - sent as u64));
    }
}

#[test]
fn a_frame_is_received_with_its_length_and_number_of_buffers() {
    let memory = memory::create(MEMORY).unwrap();
    receive(&memory).chain(2, &[(BUFFER, 2000, true)]);
    receive(&memory).offer(&[2]);
    let mut net = net(&memory, false, vec![frame(100)]);
    assert_eq!(net.receive().unwrap().frames, 1);
    assert_eq!(receive(&memory).used(), [(2, 112)]);
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
        receive(&memory).describe(index, Descriptor { address, length: 0x4000, flags: WRITE, next: 0 });
    }
    receive(&memory).offer(&[0, 1, 2, 3, 4, 5, 6, 7]);
    let mut net = net(&memory, true, vec![frame(10), frame(40_000)]);
    let progress = net.receive().unwrap();
    // After the large frame took three buffers, five are left, which the largest frame would fit; after the small one four.
    assert_eq!((progress.frames, progress.starved), (2, true));
    assert_eq!(receive(&memory).used(), [(0, 0x4000), (1, 0x4000), (2, 40_012 - 0x8000), (3, 22)]);
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
        transmit(&memory).describe(index, wrong);
    }
    transmit(&memory).describe(count.into(), good);
    let heads: Vec<u16> = (0..=count).collect();
    transmit(&memory).offer(&heads);
    let mut net = net(&memory, false, Vec::new());
    assert_eq!(net.transmit().unwrap().frames, heads.len());
    assert_eq!(transmit(&memory).used().len(), heads.len());
    // The loop is cut off after as many descriptors as the queue has, which makes it a frame of 16 times 100 bytes.
    let lengths: Vec<usize> = net.frames().taken.iter().map(Vec::len).collect();
    assert_eq!(lengths, [1600, 100]);
    assert_eq!(net.dropped(), u64::from(count) - 1);
}

#[test]
fn a_head_or_index_out_of_range_stops_the_queue() {
    let memory = memory::create(MEMORY).unwrap();
    transmit(&memory).offer(&[SIZE]);
    assert!(matches!(net(&memory, false, Vec::new()).transmit(), Err(QueueError::Ring { queue: "transmit", .. })));
    transmit(&memory).offered(SIZE + 1);
    assert!(matches!(net(&memory, false, Vec::new()).transmit(), Err(QueueError::Ring { queue: "transmit", .. })));
    receive(&memory).describe(0, Descriptor { address: BUFFER, length: 100, flags: WRITE, next: 0 });
    receive(&memory).offer(&[0]);
    assert!(matches!(net(&memory, false, vec![frame(1)]).receive(), Err(QueueError::Buffer(100))));
}

proptest! {
    #[test]
    fn any_queue_is_survived(to_send in any_queue(), to_receive in any_queue(), merged: bool, lengths in proptest::collection::vec(0..65_000_usize, 0..20)) {
        let memory = memory::create(MEMORY).unwrap();
        transmit(&memory).write(&to_send);
        receive(&memory).write(&to_receive);
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

// The checklist: what a hostile driver may do, one test each, named by its number. Those of the process that serves it, V17 and V18,
// are in jail.rs, those of a device's registers, V11 to V14, in hostile_registers.rs.

/// The good frame that follows a bad one, and its descriptor.
const GOOD: (u16, u32) = (SIZE - 1, 100);

/// Offers what `bad` describes from descriptor 0 on, then a good frame: both must come back, and the good one must be sent. Gives the
/// lengths of the frames that were sent before it.
fn sent_before_good(memory: &GuestMemoryMmap, bad: &[Descriptor]) -> Vec<usize> {
    for (index, each) in (0..).zip(bad) {
        transmit(memory).describe(index, *each);
    }
    transmit(memory).describe(GOOD.0.into(), Descriptor { address: BUFFER, length: GOOD.1, flags: 0, next: 0 });
    transmit(memory).offer(&[0, GOOD.0]);
    let mut net = net(memory, false, Vec::new());
    assert_eq!(net.transmit().unwrap().frames, 2);
    assert_eq!(transmit(memory).used(), [(0, 0), (u32::from(GOOD.0), 0)]);
    let mut lengths: Vec<usize> = net.frames().taken.iter().map(Vec::len).collect();
    assert_eq!(lengths.pop(), Some(GOOD.1 as usize));
    assert_eq!(net.dropped() as usize, 1 - lengths.len());
    lengths
}

/// No frame.
const NONE: [usize; 0] = [];

fn sent(bad: &[Descriptor]) -> Vec<usize> {
    sent_before_good(&memory::create(MEMORY).unwrap(), bad)
}

const PART: Descriptor = Descriptor { address: BUFFER, length: 100, flags: 0, next: 0 };

#[test]
fn v01_a_loop_ends() {
    // After as many descriptors as the queue has, whatever they are worth by then.
    assert_eq!(sent(&[Descriptor { flags: NEXT, next: 0, ..PART }]), [100 * usize::from(SIZE)]);
    let around = |next| Descriptor { flags: NEXT, next, length: 60_000, ..PART };
    assert_eq!(sent(&[around(1), around(2), around(0)]), NONE);
}

#[test]
fn v02_a_next_descriptor_out_of_range_ends_the_chain() {
    for next in [SIZE, SIZE + 1, u16::MAX] {
        assert_eq!(sent(&[Descriptor { flags: NEXT, next, ..PART }]), [100]);
    }
}

#[test]
fn v03_a_chain_longer_than_the_queue_is_lost() {
    // Only an indirect table can have more descriptors than the queue without a loop.
    let memory = memory::create(MEMORY).unwrap();
    let table = BUFFER + 0x10000;
    for index in 0..300 {
        let part = Descriptor { flags: NEXT, next: index as u16 + 1, ..PART };
        indirect_table(&memory, table).describe(index, part);
    }
    let whole = Descriptor { address: table, length: 300 * 16, flags: INDIRECT, next: 0 };
    assert_eq!(sent_before_good(&memory, &[whole]), NONE);
}

#[test]
fn v04_addresses_outside_memory_are_lost() {
    // Address 0 is memory like any other.
    assert_eq!(sent(&[Descriptor { address: 0, ..PART }]), [100]);
    for address in [MEMORY, MEMORY - 1, MEMORY - 99, 0xd000_0000, 1 << 32, u64::MAX] {
        assert_eq!(sent(&[Descriptor { address, ..PART }]), NONE, "{address:#x}");
    }
}

#[test]
fn v05_lengths_of_nothing_and_of_all_are_lost() {
    for (address, length) in [(BUFFER, 0), (BUFFER, u32::MAX), (u64::MAX - 10, 11), (u64::MAX - 10, u32::MAX)] {
        assert_eq!(sent(&[Descriptor { address, length, ..PART }]), NONE, "{length} bytes at {address:#x}");
    }
}

#[test]
fn v06_a_sum_beyond_32_bits_is_lost() {
    // Each part lies in memory, and together they are more than a frame can be, or than 32 bits can count.
    let whole = |next, flags| Descriptor { address: 0, length: MEMORY as u32, flags, next };
    assert_eq!(sent(&[whole(1, NEXT), whole(0, 0)]), NONE);
    let memory = memory::create(MEMORY).unwrap();
    let table = BUFFER + 0x10000;
    for index in 0..256 {
        indirect_table(&memory, table).describe(index, whole(index as u16 + 1, if index < 255 { NEXT } else { 0 }));
    }
    assert_eq!(
        sent_before_good(&memory, &[Descriptor { address: table, length: 256 * 16, flags: INDIRECT, next: 0 }]),
        NONE
    );
    let half = |next, flags| Descriptor { address: 0, length: 1 << 31, flags, next };
    assert_eq!(sent(&[half(1, NEXT), half(2, NEXT), half(0, 0)]), NONE);
}

#[test]
fn v07_the_wrong_direction_is_lost_or_stops_the_queue() {
    assert_eq!(sent(&[Descriptor { flags: WRITE, ..PART }]), NONE);
    assert_eq!(sent(&[Descriptor { flags: NEXT, next: 1, ..PART }, Descriptor { flags: WRITE, ..PART }]), NONE);
    // A frame can't be put where the device may not write, and what comes later can't go before it.
    let memory = memory::create(MEMORY).unwrap();
    receive(&memory).describe(0, Descriptor { length: 2000, flags: 0, ..PART });
    receive(&memory).offer(&[0]);
    assert!(matches!(net(&memory, false, vec![frame(100)]).receive(), Err(QueueError::Buffer(0))));
}

#[test]
fn v08_a_missing_header_is_lost_or_stops_the_queue() {
    for length in [1, HEADER as u32 - 1, HEADER as u32] {
        assert_eq!(sent(&[Descriptor { length, ..PART }]), NONE, "{length} bytes");
        let memory = memory::create(MEMORY).unwrap();
        receive(&memory).describe(0, Descriptor { length, flags: WRITE, ..PART });
        receive(&memory).offer(&[0]);
        let received = net(&memory, true, vec![frame(100)]).receive();
        assert!(matches!(received, Err(QueueError::Buffer(short)) if short == length as usize), "{received:?}");
    }
}

#[test]
fn v09_indirect_tables_that_are_nested_odd_or_huge_are_lost() {
    let table = BUFFER + 0x10000;
    let indirect = |length| Descriptor { address: table, length, flags: INDIRECT, next: 0 };
    for length in [0, 1, 15, 17, 31] {
        assert_eq!(sent(&[indirect(length)]), NONE, "{length} bytes");
    }
    for address in [MEMORY, u64::MAX - 15] {
        assert_eq!(sent(&[Descriptor { address, ..indirect(16) }]), NONE, "{address:#x}");
    }
    // More entries than 16 bits count, of which the first ends the chain: bounded either way.
    let memory = memory::create(MEMORY).unwrap();
    indirect_table(&memory, table).describe(0, PART);
    assert!(sent_before_good(&memory, &[indirect(16 * 70_000)]).len() <= 1);
    // A table in a table, which leads back to itself.
    let memory = memory::create(MEMORY).unwrap();
    indirect_table(&memory, table).describe(0, indirect(16));
    assert_eq!(sent_before_good(&memory, &[indirect(16)]), NONE);
}

#[test]
fn v10_an_available_index_that_jumps_stops_the_queue() {
    let broken = |result| matches!(result, Err(QueueError::Ring { queue: "transmit", .. }));
    for index in [SIZE + 1, 0x8000, u16::MAX] {
        let memory = memory::create(MEMORY).unwrap();
        transmit(&memory).offered(index);
        assert!(broken(net(&memory, false, Vec::new()).transmit()), "{index}");
    }
    // Back, after two were taken.
    let memory = memory::create(MEMORY).unwrap();
    transmit(&memory).describe(0, PART);
    transmit(&memory).offer(&[0, 0]);
    let mut served = net(&memory, false, Vec::new());
    assert_eq!(served.transmit().unwrap().frames, 2);
    transmit(&memory).offered(1);
    assert!(broken(served.transmit()));
    // Heads that are none.
    let memory = memory::create(MEMORY).unwrap();
    transmit(&memory).offer(&[u16::MAX; SIZE as usize]);
    assert!(broken(net(&memory, false, Vec::new()).transmit()));
}

/// A host that refuses frames whose header asks for segmentation of a kind that it does not know, as a tap does.
#[derive(Debug, Default)]
struct Strict(Frames);

impl FrameIo for Strict {
    fn read_frame(&mut self, into: &[VolatileSlice<'_>]) -> io::Result<usize> {
        self.0.read_frame(into)
    }

    fn write_frame(&mut self, from: &[VolatileSlice<'_>]) -> io::Result<usize> {
        let length = self.0.write_frame(from)?;
        match self.0.taken.last() {
            Some(frame) if frame[1] > 5 => {
                self.0.taken.pop();
                Err(io::ErrorKind::InvalidInput.into())
            }
            _ => Ok(length),
        }
    }
}

#[test]
fn v15_frames_that_are_too_large_or_refused_by_the_host_are_lost_alone() {
    let memory = memory::create(MEMORY).unwrap();
    let mut bad = frame(100);
    bad[1] = 77;
    memory.write_slice(&bad, GuestAddress(BUFFER + 0x1000)).unwrap();
    let lengths = [LARGEST as u32 + 1, LARGEST as u32, 100];
    for (index, length) in (0..).zip(lengths) {
        transmit(&memory).describe(index, Descriptor { length, ..PART });
    }
    transmit(&memory).describe(3, Descriptor { address: BUFFER + 0x1000, length: bad.len() as u32, ..PART });
    transmit(&memory).offer(&[0, 3, 1, 3, 2]);
    let mut net =
        Net::new(Strict::default(), memory.clone(), receive(&memory).queue(), transmit(&memory).queue(), false);
    assert_eq!(net.transmit().unwrap().frames, 5);
    assert_eq!(transmit(&memory).used().iter().map(|(head, _)| *head).collect::<Vec<_>>(), [0, 3, 1, 3, 2]);
    assert_eq!(net.frames().0.taken.iter().map(Vec::len).collect::<Vec<_>>(), [LARGEST, 100]);
    assert_eq!(net.dropped(), 3);
}

#[test]
fn v16_memory_that_changes_meanwhile_is_survived() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let memory = memory::create(MEMORY).unwrap();
    let stop = AtomicBool::new(false);
    let (longest, most) = std::thread::scope(|scope| {
        // The second processor writes over descriptors, heads and indices of both queues, good and bad in turn.
        scope.spawn(|| {
            let mut turn = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                turn += 1;
                for ring in [transmit(&memory), receive(&memory)] {
                    let address = if turn.is_multiple_of(3) { u64::MAX - turn % 64 } else { BUFFER + turn % 4096 };
                    let length = if turn.is_multiple_of(5) { u32::MAX } else { 2000 };
                    let flags = (turn % 8) as u16;
                    let written = Descriptor { address, length, flags, next: (turn % 20) as u16 };
                    ring.describe(turn % u64::from(SIZE), written);
                    ring.offer(&[(turn % u64::from(SIZE)) as u16; 4]);
                    ring.offered((turn % 17) as u16);
                }
            }
        });
        let (mut longest, mut most) = (0, 0);
        for round in 0..2000_u64 {
            // What broke its queues is reset and starts again.
            let mut net = net(&memory, round.is_multiple_of(2), vec![frame(1000), frame(60_000)]);
            for _ in 0..4 {
                let sent = net.transmit().map_or(0, |progress| progress.frames);
                let received = net.receive().map_or(0, |progress| progress.frames);
                most = most.max(sent).max(received);
            }
            longest = net.frames().taken.iter().map(Vec::len).max().unwrap_or(0).max(longest);
        }
        stop.store(true, Ordering::Relaxed);
        (longest, most)
    });
    assert!(longest <= LARGEST && most <= 64, "{longest} bytes, {most} frames");
}
