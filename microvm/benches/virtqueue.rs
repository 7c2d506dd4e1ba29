//! Packets a second through the network card's queue handler, both ways, without a tap and without a guest.

#[path = "../tests/ring/mod.rs"]
#[allow(dead_code, reason = "the tests of hostile drivers need more of it")]
mod ring;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use isobench_microvm::devices::virtio::net::{FrameIo, HEADER, Net};
use isobench_microvm::memory;
use ring::{Descriptor, Ring, WRITE};
use std::hint::black_box;
use std::io;
use vm_memory::{GuestMemoryMmap, VolatileSlice};

const SIZE: u16 = 256;
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

/// A ring whose descriptors each are one buffer, of which the device writes to some.
fn ring(memory: &GuestMemoryMmap, number: u64, flags: u16) -> Ring<'_> {
    let ring = Ring { size: SIZE, ..Ring::new(memory, number) };
    let length = if flags == 0 { FRAME as u32 } else { BUFFER as u32 };
    for index in 0..SIZE {
        let address = BUFFERS + u64::from(index) * BUFFER;
        ring.describe(index.into(), Descriptor { address, length, flags, next: 0 });
    }
    ring.offer(&Vec::from_iter(0..SIZE));
    ring.offered(0);
    ring
}

fn packets(criterion: &mut Criterion) {
    let memory = memory::create(4 << 20).unwrap();
    let mut group = criterion.benchmark_group("virtqueue");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    let offer = |ring: &Ring<'_>, index: &mut u16| {
        *index = index.wrapping_add(BATCH);
        ring.offered(*index);
    };
    let net = |frames| {
        let rings = (ring(&memory, 0, WRITE), ring(&memory, 1, 0));
        let net = Net::new(Endless(frames), memory.clone(), rings.0.queue(), rings.1.queue(), false);
        (net, rings, 0)
    };
    let (mut card, (_, transmit), mut available) = net(0);
    group.bench_function("transmit", |bencher| {
        bencher.iter(|| {
            offer(&transmit, &mut available);
            assert_eq!(card.transmit().unwrap().frames, usize::from(BATCH));
        });
    });
    let (mut card, (receive, _), mut available) = net(usize::MAX);
    group.bench_function("receive", |bencher| {
        bencher.iter(|| {
            offer(&receive, &mut available);
            assert_eq!(card.receive().unwrap().frames, usize::from(BATCH));
        });
    });
    group.finish();
}

criterion_group!(benches, packets);
criterion_main!(benches);
