//! Packets a second through the network card's queue handler, both ways, without a tap and without a guest.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use isobench_microvm::devices::virtio::net::{FrameIo, HEADER, Net};
use isobench_microvm::memory;
use std::hint::black_box;
use std::io;
use std::sync::atomic::Ordering;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, VolatileSlice};

const SIZE: u16 = 256;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x3000;
const USED: u64 = 0x5000;
const RING: u64 = 0x10000;
const BUFFERS: u64 = 0x10_0000;
const BUFFER: u64 = 0x1000;
const FRAME: usize = HEADER + 1514;
const BATCH: u16 = 64;

/// Takes every frame and gives as many as are asked for, untouched: the handler's own cost.
struct Endless(usize);

impl FrameIo for Endless {
    fn read_frame(&mut self, into: &[VolatileSlice<'_>]) -> io::Result<usize> {
        black_box(into);
        self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?;
        Ok(FRAME)
    }

    fn write_frame(&mut self, from: &[VolatileSlice<'_>]) -> io::Result<usize> {
        Ok(from.iter().map(VolatileSlice::len).sum())
    }
}

/// A queue at `base` whose descriptors each are one buffer.
fn queue(memory: &GuestMemoryMmap, base: u64, flags: u16) -> Queue {
    for index in 0..u64::from(SIZE) {
        let at = GuestAddress(base + DESCRIPTORS + index * 16);
        memory.write_obj(BUFFERS + index * BUFFER, at).unwrap();
        memory.write_obj(if flags == 0 { FRAME as u32 } else { BUFFER as u32 }, GuestAddress(at.0 + 8)).unwrap();
        memory.write_obj(flags, GuestAddress(at.0 + 12)).unwrap();
        memory.write_obj(index as u16, GuestAddress(base + AVAILABLE + 4 + index * 2)).unwrap();
    }
    let mut queue = Queue::new(SIZE).unwrap();
    queue.set_desc_table_address(Some((base + DESCRIPTORS) as u32), Some(0));
    queue.set_avail_ring_address(Some((base + AVAILABLE) as u32), Some(0));
    queue.set_used_ring_address(Some((base + USED) as u32), Some(0));
    queue.set_event_idx(true);
    queue.set_ready(true);
    queue
}

fn packets(criterion: &mut Criterion) {
    let memory = memory::create(4 << 20).unwrap();
    let mut group = criterion.benchmark_group("virtqueue");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    let offer = |base: u64, index: &mut u16| {
        *index = index.wrapping_add(BATCH);
        memory.store(*index, GuestAddress(base + AVAILABLE + 2), Ordering::Release).unwrap();
    };
    let (receive, transmit) = (queue(&memory, 0, 2), queue(&memory, RING, 0));
    let mut net = Net::new(Endless(0), memory.clone(), receive, transmit, false);
    let mut available = 0;
    group.bench_function("transmit", |bencher| {
        bencher.iter(|| {
            offer(RING, &mut available);
            assert_eq!(net.transmit().unwrap().frames, usize::from(BATCH));
        });
    });
    let (receive, transmit) = (queue(&memory, 0, 2), queue(&memory, RING, 0));
    let mut net = Net::new(Endless(usize::MAX), memory.clone(), receive, transmit, false);
    let mut available = 0;
    memory.store(0_u16, GuestAddress(AVAILABLE + 2), Ordering::Release).unwrap();
    group.bench_function("receive", |bencher| {
        bencher.iter(|| {
            offer(0, &mut available);
            assert_eq!(net.receive().unwrap().frames, usize::from(BATCH));
        });
    });
    group.finish();
}

criterion_group!(benches, packets);
criterion_main!(benches);
