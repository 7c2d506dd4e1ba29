//! Hostile drivers of a disk: whatever is asked of it, nothing but the disk's sectors is read or written, every request comes back,
//! and the monitor neither panics nor loops.

mod ring;

use isobench_microvm::bus::Device;
use isobench_microvm::confinement::Role;
use isobench_microvm::devices::virtio::attendant::{Active, Service};
use isobench_microvm::devices::virtio::block::Block;
use isobench_microvm::devices::virtio::device::QueueDevice;
use isobench_microvm::devices::virtio::disk::Disk;
use isobench_microvm::devices::virtio::mmio::{register, status};
use isobench_microvm::memory;
use proptest::prelude::*;
use ring::{AVAILABLE, BUFFER, DESCRIPTORS, Descriptor, MEMORY, NEXT, Ring, SIZE, USED, WRITE, any_queue};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Sectors of the disk.
const SECTORS: u64 = 64;
const HEADER: u64 = BUFFER;
const STATUS: u64 = BUFFER + 0x100;
const DATA: u64 = BUFFER + 0x1000;
const INDIRECT: u16 = 4;
/// A status that no device gives.
const UNTOUCHED: u8 = 0x55;
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const OK: u8 = 0;
const ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;
const FLUSHES: u64 = 1 << 9;

fn image() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = (0..SECTORS * 512).map(|index| (index / 512 + index % 251) as u8).collect();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

fn block(file: &tempfile::NamedTempFile, read_only: bool) -> Block {
    Block::new(Disk::open(file.path(), read_only).unwrap(), "disk-with-a-name-longer-than-20")
}

fn active(memory: &GuestMemoryMmap, features: u64) -> Active {
    Active { memory: memory.clone(), queues: vec![Ring::new(memory, 0).queue()], features }
}

/// One request by its data, at `DATA`; the status, and how many bytes came back.
fn asked(block: &mut Block, memory: &GuestMemoryMmap, kind: u32, sector: u64, data: &[(u64, u32, bool)]) -> (u8, u32) {
    let ring = Ring::new(memory, 0);
    memory.write_obj(kind, GuestAddress(HEADER)).unwrap();
    memory.write_obj(sector, GuestAddress(HEADER + 8)).unwrap();
    memory.write_obj(UNTOUCHED, GuestAddress(STATUS)).unwrap();
    ring.chain(0, &[&[(HEADER, 16, false)], data, &[(STATUS, 1, true)]].concat());
    memory.write_obj(0_u32, GuestAddress(USED)).unwrap();
    ring.offer(&[0]);
    assert!(block.serve(&mut active(memory, FLUSHES)).unwrap());
    let [(0, written)] = ring.used()[..] else { panic!("{:?}", ring.used()) };
    (memory.read_obj(GuestAddress(STATUS)).unwrap(), written)
}

#[test]
fn what_is_written_is_on_the_disk_and_is_read_again() {
    let (file, memory) = (image(), memory::create(MEMORY).unwrap());
    let mut block = block(&file, false);
    let mut read = vec![0; 1024];
    assert_eq!(asked(&mut block, &memory, IN, 62, &[(DATA, 100, true), (DATA + 100, 924, true)]), (OK, 1025));
    memory.read_slice(&mut read, GuestAddress(DATA)).unwrap();
    assert_eq!(read, std::fs::read(file.path()).unwrap()[62 * 512..]);
    memory.write_slice(&[7; 512], GuestAddress(DATA)).unwrap();
    assert_eq!(asked(&mut block, &memory, OUT, 1, &[(DATA, 512, false)]), (OK, 1));
    assert_eq!(asked(&mut block, &memory, FLUSH, 0, &[]), (OK, 1));
    let bytes = std::fs::read(file.path()).unwrap();
    assert_eq!(bytes[512..1024], [7; 512]);
    assert_eq!(bytes.len() as u64, SECTORS * 512);
    assert_eq!(asked(&mut block, &memory, GET_ID, 0, &[(DATA, 20, true)]), (OK, 21));
    let mut name = [0; 20];
    memory.read_slice(&mut name, GuestAddress(DATA)).unwrap();
    assert_eq!(&name, b"disk-with-a-name-lon");
}

#[test]
fn header_and_status_may_lie_in_any_descriptors() {
    let (file, memory) = (image(), memory::create(MEMORY).unwrap());
    let ring = Ring::new(&memory, 0);
    memory.write_obj(IN, GuestAddress(HEADER)).unwrap();
    memory.write_obj(3_u64, GuestAddress(HEADER + 8)).unwrap();
    // The status is the last byte of the data's descriptor.
    ring.chain(0, &[(HEADER, 5, false), (HEADER + 5, 11, false), (DATA, 513, true)]);
    ring.offer(&[0]);
    block(&file, true).serve(&mut active(&memory, FLUSHES)).unwrap();
    assert_eq!(ring.used(), [(0, 513)]);
    let mut read = [UNTOUCHED; 513];
    memory.read_slice(&mut read, GuestAddress(DATA)).unwrap();
    assert_eq!(read[..512], std::fs::read(file.path()).unwrap()[3 * 512..4 * 512]);
    assert_eq!(read[512], OK);
}

#[test]
fn what_the_disk_does_not_have_is_refused() {
    let (file, memory) = (image(), memory::create(MEMORY).unwrap());
    let before = std::fs::read(file.path()).unwrap();
    for read_only in [false, true] {
        let mut block = block(&file, read_only);
        let one = 512;
        for (kind, sector, length) in [
            (IN, SECTORS, one),
            (IN, SECTORS - 1, 1024),
            (IN, u64::MAX, one),
            (IN, u64::MAX, 0),
            (IN, u64::MAX / 512, one),
            (IN, u64::MAX / 512 + 1, 1024),
            (IN, 0, 511),
            (IN, 0, 513),
            (OUT, SECTORS, one),
            (OUT, SECTORS - 1, 1024),
            (OUT, u64::MAX, one),
            (OUT, u64::MAX - 1, 1024),
            (OUT, 0, 100),
        ] {
            let answer = asked(&mut block, &memory, kind, sector, &[(DATA, length, kind == IN)]);
            assert_eq!(answer, (ERROR, 1), "type {kind}, sector {sector}, {length} bytes");
        }
        for kind in [2, 3, 5, 11, 13, 14, 0x8000_0000, u32::MAX] {
            assert_eq!(asked(&mut block, &memory, kind, 0, &[(DATA, one, false)]), (UNSUPPORTED, 1), "type {kind}");
        }
    }
    assert_eq!(asked(&mut block(&file, true), &memory, OUT, 0, &[(DATA, 512, false)]), (ERROR, 1));
    assert_eq!(asked(&mut block(&file, true), &memory, OUT, 0, &[]), (ERROR, 1));
    assert_eq!(std::fs::read(file.path()).unwrap(), before);
}

#[test]
fn a_driver_is_told_what_the_disk_is() {
    let file = image();
    for read_only in [false, true] {
        let identity = block(&file, read_only).identity();
        assert_eq!((identity.device, identity.features & 1 << 5 != 0), (2, read_only));
        assert_eq!(identity.configuration[..8], SECTORS.to_le_bytes());
    }
}

#[test]
fn malformed_requests_come_back_and_the_rest_is_served() {
    let (file, memory) = (image(), memory::create(MEMORY).unwrap());
    let ring = Ring::new(&memory, 0);
    memory.write_obj(IN, GuestAddress(HEADER)).unwrap();
    let header = Descriptor { address: HEADER, length: 16, flags: NEXT, next: 15 };
    let bad = [
        // No status; a status in the wrong direction; a header in the wrong direction; a loop.
        Descriptor { flags: 0, ..header },
        Descriptor { next: 14, ..header },
        Descriptor { flags: WRITE | NEXT, next: 14, ..header },
        Descriptor { next: 3, ..header },
        // Outside memory, across its end, wrapping, too long, with more bytes than can be counted.
        Descriptor { address: MEMORY, ..header },
        Descriptor { address: MEMORY - 1, ..header },
        Descriptor { address: u64::MAX, ..header },
        Descriptor { length: u32::MAX, ..header },
        // Indirect tables outside memory, of an odd size, and beside a chain.
        Descriptor { address: MEMORY, length: 32, flags: INDIRECT, next: 0 },
        Descriptor { length: 17, flags: INDIRECT, ..header },
        Descriptor { length: 32, flags: INDIRECT | NEXT, ..header },
        // A next that is none.
        Descriptor { next: SIZE, ..header },
    ];
    for (index, wrong) in (0..).zip(bad) {
        ring.describe(index, wrong);
    }
    ring.describe(14, Descriptor { address: DATA, length: 512, flags: 0, next: 0 });
    ring.describe(15, Descriptor { address: STATUS, length: 1, flags: WRITE, next: 0 });
    // A short header with a status, which says so.
    let count = bad.len() as u16;
    ring.describe(count.into(), Descriptor { length: 15, ..header });
    let heads: Vec<u16> = (0..=count).collect();
    memory.write_obj(UNTOUCHED, GuestAddress(STATUS)).unwrap();
    ring.offer(&heads[..heads.len() - 1]);
    let (mut block, mut active) = (block(&file, false), active(&memory, FLUSHES));
    block.serve(&mut active).unwrap();
    assert_eq!(ring.used(), heads[..heads.len() - 1].iter().map(|head| (u32::from(*head), 0)).collect::<Vec<_>>());
    assert_eq!(memory.read_obj::<u8>(GuestAddress(STATUS)).unwrap(), UNTOUCHED);
    ring.offer(&heads);
    block.serve(&mut active).unwrap();
    assert_eq!(ring.used().last(), Some(&(u32::from(count), 1)));
    assert_eq!(memory.read_obj::<u8>(GuestAddress(STATUS)).unwrap(), ERROR);
}

/// V3: only an indirect table can have more descriptors than the queue.
#[test]
fn v03_a_chain_longer_than_the_queue_is_lost() {
    let (file, memory) = (image(), memory::create(MEMORY).unwrap());
    let ring = Ring::new(&memory, 0);
    let table = Ring { memory: &memory, base: BUFFER + 0x10000 - DESCRIPTORS, size: SIZE };
    memory.write_obj(GET_ID, GuestAddress(HEADER)).unwrap();
    for (count, status, written) in [(256, OK, 21), (257, UNTOUCHED, 0)] {
        memory.write_obj(UNTOUCHED, GuestAddress(STATUS)).unwrap();
        let data = vec![(DATA, 1, true); count - 2];
        table.chain(0, &[&[(HEADER, 16, false)], &*data, &[(STATUS, 1, true)]].concat());
        let address = table.base + DESCRIPTORS;
        ring.describe(0, Descriptor { address, length: count as u32 * 16, flags: INDIRECT, next: 0 });
        memory.write_obj(0_u32, GuestAddress(USED)).unwrap();
        ring.offer(&[0]);
        block(&file, true).serve(&mut active(&memory, 0)).unwrap();
        assert_eq!(ring.used(), [(0, written)]);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(STATUS)).unwrap(), status, "{count} descriptors");
    }
}

#[test]
fn a_head_or_index_out_of_range_stops_the_queue() {
    let (file, memory) = (image(), memory::create(MEMORY).unwrap());
    let ring = Ring::new(&memory, 0);
    ring.offer(&[SIZE]);
    assert!(block(&file, true).serve(&mut active(&memory, 0)).is_err());
    ring.offered(SIZE + 1);
    assert!(block(&file, true).serve(&mut active(&memory, 0)).is_err());
}

#[test]
fn a_disk_that_shrinks_or_vanishes_gives_errors_and_does_not_grow_again() {
    let (file, memory) = (image(), memory::create(MEMORY).unwrap());
    let mut block = block(&file, false);
    file.as_file().set_len(512 + 100).unwrap();
    assert_eq!(asked(&mut block, &memory, IN, 0, &[(DATA, 512, true)]), (OK, 513));
    for (kind, sector) in [(IN, 1), (IN, SECTORS - 1), (OUT, 1), (OUT, SECTORS - 1)] {
        let answer = asked(&mut block, &memory, kind, sector, &[(DATA, 512, kind == IN)]);
        assert_eq!(answer, (ERROR, 1), "type {kind}, sector {sector}");
    }
    assert_eq!(file.as_file().metadata().unwrap().len(), 612);
    // A file whose name is gone is a file all the same.
    let kept = file.as_file().try_clone().unwrap();
    drop(file);
    assert_eq!(asked(&mut block, &memory, OUT, 0, &[(DATA, 512, false)]), (OK, 1));
    kept.set_len(0).unwrap();
    assert_eq!(asked(&mut block, &memory, OUT, 0, &[(DATA, 512, false)]), (ERROR, 1));
    assert_eq!(asked(&mut block, &memory, FLUSH, 0, &[]), (OK, 1));
}

proptest! {
    #[test]
    fn any_queue_is_survived(anything in any_queue(), kind in prop_oneof![0_u32..16, any::<u32>()], sector in prop_oneof![0..SECTORS * 2, any::<u64>()], read_only: bool) {
        let (file, memory) = (image(), memory::create(MEMORY).unwrap());
        let before = std::fs::read(file.path()).unwrap();
        // Wherever a header begins, it asks for something.
        for at in (BUFFER..BUFFER + 0x10000).step_by(16) {
            memory.write_obj(kind, GuestAddress(at)).unwrap();
            memory.write_obj(sector, GuestAddress(at + 8)).unwrap();
        }
        Ring::new(&memory, 0).write(&anything);
        let (mut block, mut active) = (block(&file, read_only), active(&memory, 0));
        // The ring may overwrite itself, so that more than a queue's worth is done; a go is bounded all the same.
        for _ in 0..4 {
            let _ = block.serve(&mut active);
        }
        let after = std::fs::read(file.path()).unwrap();
        prop_assert_eq!(after.len(), before.len());
        prop_assert!(!read_only || after == before);
    }
}

/// A second vCPU rewrites descriptors, header and rings while requests are in flight.
#[test]
fn memory_that_changes_meanwhile_is_survived() {
    let (file, memory) = (image(), memory::create(MEMORY).unwrap());
    let before = std::fs::read(file.path()).unwrap();
    let (mut block, over) = (block(&file, true), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let ring = Ring::new(&memory, 0);
            let mut state = 88_172_645_463_325_252_u64;
            let mut random = || {
                // Marsaglia's xorshift.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            };
            while !over.load(Ordering::Relaxed) {
                let index = random() % u64::from(SIZE);
                let address = if random() % 8 == 0 { random() } else { BUFFER + random() % 0x8000 };
                let length = [0, 1, 16, 512, 4096, random() as u32][random() as usize % 6];
                let (flags, next) = ((random() % 8) as u16, (random() % 20) as u16);
                ring.describe(index, Descriptor { address, length, flags, next });
                let at = BUFFER + random() % 0x8000;
                memory.write_obj((random() % 10) as u32, GuestAddress(at)).unwrap();
                memory.write_obj(random() % (SECTORS + 8), GuestAddress(at + 8)).unwrap();
                let head = AVAILABLE + 4 + random() % u64::from(SIZE) * 2;
                memory.write_obj((random() % u64::from(SIZE)) as u16, GuestAddress(head)).unwrap();
            }
        });
        let mut active = active(&memory, FLUSHES);
        for round in 1..=20_000_u16 {
            Ring::new(&memory, 0).offered(round);
            assert!(block.serve(&mut active).is_ok());
        }
        over.store(true, Ordering::Relaxed);
    });
    // The heads are always in range, so every request came back.
    assert_eq!(memory.read_obj::<u16>(GuestAddress(USED + 2)).unwrap(), 20_000);
    assert_eq!(std::fs::read(file.path()).unwrap(), before);
}

fn write(device: &mut QueueDevice, offset: u64, value: u32) {
    device.write(offset, &value.to_le_bytes());
}

fn read(device: &mut QueueDevice, offset: u64) -> u32 {
    let mut word = [0; 4];
    device.read(offset, &mut word);
    u32::from_le_bytes(word)
}

/// Brings a device up as a driver does.
fn start(device: &mut QueueDevice) {
    write(device, register::STATUS, 0);
    write(device, register::STATUS, status::ACKNOWLEDGE);
    write(device, register::STATUS, status::ACKNOWLEDGE | status::DRIVER);
    write(device, register::DRIVER_FEATURES_SELECT, 1);
    write(device, register::DRIVER_FEATURES, 1);
    write(device, register::STATUS, 11);
    write(device, register::QUEUE_SELECT, 0);
    write(device, register::QUEUE_SIZE, SIZE.into());
    write(device, register::QUEUE_DESCRIPTOR_LOW, DESCRIPTORS as u32);
    write(device, register::QUEUE_DRIVER_LOW, AVAILABLE as u32);
    write(device, register::QUEUE_DEVICE_LOW, USED as u32);
    write(device, register::QUEUE_READY, 1);
    write(device, register::STATUS, 15);
}

fn await_true(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what} never came");
        std::thread::yield_now();
    }
}

/// From the registers to the file and back by a confined thread, through a broken queue and a reset.
#[test]
fn a_device_serves_again_after_a_broken_queue_and_a_reset() {
    let (file, memory) = (image(), memory::create(MEMORY).unwrap());
    let block = block(&file, false);
    let mut device = QueueDevice::new("block", block.identity(), block, Role::Block, memory.clone()).unwrap();
    let ring = Ring::new(&memory, 0);
    for round in 0..3_u8 {
        memory.write_slice(&[0; 8], GuestAddress(USED)).unwrap();
        memory.write_obj(OUT, GuestAddress(HEADER)).unwrap();
        memory.write_obj(u64::from(round), GuestAddress(HEADER + 8)).unwrap();
        memory.write_slice(&[round; 512], GuestAddress(DATA)).unwrap();
        memory.write_obj(UNTOUCHED, GuestAddress(STATUS)).unwrap();
        ring.chain(0, &[(HEADER, 16, false), (DATA, 512, false), (STATUS, 1, true)]);
        ring.offered(0);
        start(&mut device);
        assert_eq!(read(&mut device, register::STATUS), 15);
        ring.offer(&[0]);
        write(&mut device, register::QUEUE_NOTIFY, 0);
        await_true("the interrupt", || read(&mut device, register::INTERRUPT_STATUS) & 1 != 0);
        write(&mut device, register::INTERRUPT_ACKNOWLEDGE, 1);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(STATUS)).unwrap(), OK);
        let mut sector = [0; 512];
        file.as_file().read_exact_at(&mut sector, u64::from(round) * 512).unwrap();
        assert_eq!(sector, [round; 512]);
        ring.offered(1000);
        write(&mut device, register::QUEUE_NOTIFY, 0);
        await_true("the need of a reset", || read(&mut device, register::STATUS) & status::DEVICE_NEEDS_RESET != 0);
    }
}
