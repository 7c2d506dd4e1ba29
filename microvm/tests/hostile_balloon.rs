//! Hostile drivers of a balloon and of an entropy device: whatever pages are named, nothing but guest memory is given back, every
//! request comes back, and the monitor neither panics nor loops.

mod ring;

use isobench_microvm::bus::Device;
use isobench_microvm::control::{self, Asked, Control, ControlError, Server};
use isobench_microvm::devices::virtio::attendant::{Active, Service};
use isobench_microvm::devices::virtio::balloon::{self, Balloon};
use isobench_microvm::devices::virtio::device::QueueDevice;
use isobench_microvm::devices::virtio::entropy::Entropy;
use isobench_microvm::devices::virtio::mmio::{register, status};
use isobench_microvm::memory;
use proptest::prelude::*;
use ring::{APART, AVAILABLE, BUFFER, DESCRIPTORS, MEMORY, Ring, SIZE, USED, any_queue};
use serde_json::Value;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const PAGE: u64 = 4096;
const STATISTICS: u64 = 1 << 1;
const REPORTING: u64 = 1 << 5;
/// Pages from here on are the test's to fill.
const PAGES: u64 = 0x100000;

fn active(memory: &GuestMemoryMmap, features: u64) -> Active {
    let queues = (0..4).map(|number| Ring::new(memory, number).queue()).collect();
    Active { memory: memory.clone(), queues, features }
}

fn fill(memory: &GuestMemoryMmap) {
    memory.write_slice(&vec![0xaa; (MEMORY - PAGES) as usize], GuestAddress(PAGES)).unwrap();
}

/// Which of the test's pages are gone.
fn gone(memory: &GuestMemoryMmap) -> Vec<u64> {
    let byte = |page: &u64| memory.read_obj::<u8>(GuestAddress(*page)).unwrap();
    (PAGES..MEMORY).step_by(PAGE as usize).filter(|page| byte(page) == 0).collect()
}

/// Names pages on the inflate queue.
fn inflate(balloon: &mut Balloon, memory: &GuestMemoryMmap, pages: &[u32]) {
    let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
    memory.write_slice(&bytes, GuestAddress(BUFFER)).unwrap();
    let ring = Ring::new(memory, 0);
    ring.chain(0, &[(BUFFER, bytes.len() as u32, false)]);
    memory.write_obj(0_u32, GuestAddress(USED)).unwrap();
    ring.offer(&[0]);
    balloon.serve(&mut active(memory, 0)).unwrap();
    assert_eq!(ring.used(), [(0, 0)]);
}

#[test]
fn named_pages_are_given_back_and_no_others() {
    let memory = memory::create(MEMORY).unwrap();
    let mut balloon = Balloon::new();
    fill(&memory);
    let first = (PAGES / PAGE) as u32;
    // Neighbours in any order, one twice, and one alone.
    inflate(&mut balloon, &memory, &[first + 3, first + 1, first + 2, first + 2, first + 9]);
    assert_eq!(gone(&memory), [1, 2, 3, 9].map(|page| PAGES + page * PAGE));
    // Each may be used again at once: deflating needs no work of ours.
    fill(&memory);
    assert!(gone(&memory).is_empty());
}

#[test]
fn pages_beyond_memory_are_ignored_and_the_others_are_not() {
    let memory = memory::create(MEMORY).unwrap();
    fill(&memory);
    let last = (MEMORY / PAGE) as u32 - 1;
    inflate(&mut Balloon::new(), &memory, &[u32::MAX, last + 1, last, last + 2, u32::MAX - 1, 0x10_0000, 1 << 31]);
    assert_eq!(gone(&memory), [u64::from(last) * PAGE]);
    // A part of a number is none.
    let memory = memory::create(MEMORY).unwrap();
    fill(&memory);
    memory.write_slice(&[0, 1, 0], GuestAddress(BUFFER)).unwrap();
    Ring::new(&memory, 0).chain(0, &[(BUFFER, 3, false)]);
    Ring::new(&memory, 0).offer(&[0]);
    Balloon::new().serve(&mut active(&memory, 0)).unwrap();
    assert!(gone(&memory).is_empty());
}

#[test]
fn reported_ranges_lose_their_whole_pages() {
    // Without statistics, reporting is the third queue; with them, the fourth.
    for (features, number) in [(REPORTING, 2), (REPORTING | STATISTICS, 3)] {
        let memory = memory::create(MEMORY).unwrap();
        fill(&memory);
        let ring = Ring::new(&memory, number);
        ring.chain(
            0,
            &[
                (PAGES + 1, 3 * PAGE as u32, true),
                (PAGES + 8 * PAGE, 2 * PAGE as u32, true),
                (PAGES + 16 * PAGE + 1, PAGE as u32 - 2, true),
            ],
        );
        // Beyond memory.
        ring.chain(4, &[(MEMORY - PAGE, 2 * PAGE as u32, true)]);
        // Readable: not the device's to empty.
        ring.chain(6, &[(PAGES + 20 * PAGE, PAGE as u32, false)]);
        ring.offer(&[0, 4, 6]);
        Balloon::new().serve(&mut active(&memory, features)).unwrap();
        assert_eq!(ring.used(), [(0, 0), (4, 0), (6, 0)]);
        assert_eq!(gone(&memory), [1, 2, 8, 9].map(|page| PAGES + page * PAGE));
    }
}

#[test]
fn queues_of_features_that_were_not_accepted_are_left_alone() {
    let memory = memory::create(MEMORY).unwrap();
    for number in [2, 3] {
        Ring::new(&memory, number).chain(0, &[(PAGES, PAGE as u32, true)]);
        Ring::new(&memory, number).offer(&[0]);
    }
    fill(&memory);
    Balloon::new().serve(&mut active(&memory, 0)).unwrap();
    assert!(Ring::new(&memory, 2).used().is_empty() && Ring::new(&memory, 3).used().is_empty());
    assert!(gone(&memory).is_empty());
}

#[test]
fn a_driver_with_many_statistics_buffers_gets_the_older_ones_back() {
    let memory = memory::create(MEMORY).unwrap();
    let ring = Ring::new(&memory, 2);
    for head in 0..3 {
        ring.chain(head, &[(BUFFER, 10, false)]);
    }
    ring.offer(&[0, 1, 2]);
    let (mut balloon, mut active) = (Balloon::new(), active(&memory, STATISTICS));
    balloon.serve(&mut active).unwrap();
    assert_eq!(ring.used(), [(0, 0), (1, 0)]);
    balloon.serve(&mut active).unwrap();
    assert_eq!(ring.used().len(), 2);
}

#[test]
fn entropy_fills_what_the_driver_offers_and_no_more() {
    let memory = memory::create(MEMORY).unwrap();
    let ring = Ring::new(&memory, 0);
    ring.chain(0, &[(PAGES, 32, true), (PAGES + 100, 32, true)]);
    // Far more than it gives at once; outside memory; the wrong way; nothing.
    ring.chain(2, &[(PAGES + PAGE, 0x80000, true)]);
    ring.chain(3, &[(MEMORY, 32, true)]);
    ring.chain(4, &[(PAGES + 200, 32, false)]);
    ring.chain(5, &[(PAGES, 0, true)]);
    ring.offer(&[0, 2, 3, 4, 5]);
    Entropy.serve(&mut active(&memory, 0)).unwrap();
    assert_eq!(ring.used(), [(0, 64), (2, 4096), (3, 0), (4, 0), (5, 0)]);
    let mut bytes = [0; 232];
    memory.read_slice(&mut bytes, GuestAddress(PAGES)).unwrap();
    assert!(bytes[..32] != [0; 32] && bytes[100..132] != [0; 32]);
    assert!(bytes[32..100].iter().chain(&bytes[132..]).all(|byte| *byte == 0));
}

proptest! {
    #[test]
    fn any_queues_are_survived(queues in proptest::collection::vec(any_queue(), 4), features in 0..256_u64, factor: u32) {
        let memory = memory::create(MEMORY).unwrap();
        // Page numbers, of which some are memory's: those of the rings as well.
        for word in 0..0x4000_u32 {
            let page = word.wrapping_mul(factor) >> (word % 32);
            memory.write_obj(page, GuestAddress(BUFFER + u64::from(word) * 4)).unwrap();
        }
        for (number, queue) in (0..).zip(&queues) {
            Ring::new(&memory, number).write(queue);
        }
        let (mut balloon, mut all) = (Balloon::new(), active(&memory, features));
        // The rings may be given back themselves.
        for _ in 0..4 {
            let _ = balloon.serve(&mut all);
            let _ = Entropy.serve(&mut all);
        }
    }
}

fn write(device: &mut QueueDevice, offset: u64, value: u32) {
    device.write(offset, &value.to_le_bytes());
}

fn read(device: &mut QueueDevice, offset: u64) -> u32 {
    let mut word = [0; 4];
    device.read(offset, &mut word);
    u32::from_le_bytes(word)
}

/// Brings a balloon up with these features and so many queues.
fn start(device: &mut QueueDevice, features: u64, queues: u64) {
    for step in [0, status::ACKNOWLEDGE, status::ACKNOWLEDGE | status::DRIVER] {
        write(device, register::STATUS, step);
    }
    write(device, register::DRIVER_FEATURES, features as u32);
    write(device, register::DRIVER_FEATURES_SELECT, 1);
    write(device, register::DRIVER_FEATURES, 1);
    write(device, register::STATUS, 11);
    for number in 0..queues {
        let base = number * APART;
        for (offset, value) in [
            (register::QUEUE_SELECT, number),
            (register::QUEUE_SIZE, SIZE.into()),
            (register::QUEUE_DESCRIPTOR_LOW, base + DESCRIPTORS),
            (register::QUEUE_DRIVER_LOW, base + AVAILABLE),
            (register::QUEUE_DEVICE_LOW, base + USED),
            (register::QUEUE_READY, 1),
        ] {
            write(device, offset, value as u32);
        }
    }
    write(device, register::STATUS, 15);
}

proptest! {
    // Each case starts a thread.
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is done to a device's registers and queues while its thread runs, it can be reset and serves again.
    #[test]
    fn a_device_is_usable_after_anything(
        accesses in proptest::collection::vec((0..0x120_u64, any::<u32>(), 0..9_usize, any::<bool>()), 0..40),
        queues in proptest::collection::vec(any_queue(), 4),
        started: bool,
    ) {
        let memory = memory::create(MEMORY).unwrap();
        let (mut device, control) = balloon::create(memory.clone(), true).unwrap();
        for (number, queue) in (0..).zip(&queues) {
            Ring::new(&memory, number).write(queue);
        }
        if started {
            start(&mut device, STATISTICS | REPORTING, 4);
        }
        for (offset, value, width, is_write) in accesses {
            let mut data = [value.to_le_bytes(), value.to_le_bytes()].concat();
            data.truncate(width);
            match is_write {
                true => _ = device.write(offset, &data),
                false => device.read(offset, &mut data),
            }
            control.set_target(value.into());
            write(&mut device, register::QUEUE_NOTIFY, value % 4);
        }
        // A reset takes the thread off the old queues, so that new ones can be laid in the same place.
        write(&mut device, register::STATUS, 0);
        memory.write_slice(&[0; 4 * APART as usize], GuestAddress(0)).unwrap();
        fill(&memory);
        let ring = Ring::new(&memory, 0);
        memory.write_obj((PAGES / PAGE) as u32, GuestAddress(BUFFER)).unwrap();
        ring.chain(0, &[(BUFFER, 4, false)]);
        start(&mut device, 0, 2);
        ring.offer(&[0]);
        write(&mut device, register::QUEUE_NOTIFY, 0);
        let began = Instant::now();
        while ring.used().is_empty() {
            prop_assert!(began.elapsed() < Duration::from_secs(60), "the page never came back");
            std::thread::yield_now();
        }
        prop_assert_eq!(gone(&memory), [PAGES]);
    }
}

#[test]
fn optional_queues_may_be_left_out_and_the_others_may_not() {
    let memory = memory::create(MEMORY).unwrap();
    for (queues, starts) in [(1, false), (2, true), (3, true), (4, true)] {
        let (mut device, _control) = balloon::create(memory.clone(), true).unwrap();
        start(&mut device, STATISTICS | REPORTING, queues);
        assert_eq!(read(&mut device, register::STATUS) & status::DRIVER_OK != 0, starts, "{queues} queues");
    }
}

/// From the socket to the driver and back.
#[test]
fn a_target_reaches_the_driver_and_its_statistics_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control");
    let memory = memory::create(MEMORY).unwrap();
    let (mut device, control) = balloon::create(memory.clone(), false).unwrap();
    let listening = Control::new(UnixListener::bind(&socket).unwrap(), Value::Null).unwrap();
    let server = Server::start(listening, Asked { balloon: Some(control), keeper: None }).unwrap();
    start(&mut device, STATISTICS, 3);
    let generation = read(&mut device, register::CONFIGURATION_GENERATION);
    let state = control::set_balloon(&socket, 5 * PAGE + 17).unwrap();
    assert_eq!((state.target, state.actual, state.statistics.total), (5 * PAGE, 0, None));
    assert_ne!(read(&mut device, register::CONFIGURATION_GENERATION), generation);
    assert_eq!(read(&mut device, register::CONFIGURATION), 5);
    assert_eq!(read(&mut device, register::INTERRUPT_STATUS) & 2, 2);
    // The driver says how far it is, and can't set its own target.
    write(&mut device, register::CONFIGURATION + 4, 3);
    write(&mut device, register::CONFIGURATION, 77);
    // Total (5) and free (4) memory, and a tag that nobody knows.
    let statistic = |tag: u16, value: u64| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat();
    let bytes = [statistic(5, 1 << 30), statistic(4, 1 << 20), statistic(999, 1)].concat();
    memory.write_slice(&bytes, GuestAddress(BUFFER)).unwrap();
    let ring = Ring::new(&memory, 2);
    ring.chain(0, &[(BUFFER, bytes.len() as u32, false)]);
    ring.offer(&[0]);
    write(&mut device, register::QUEUE_NOTIFY, 2);
    let began = Instant::now();
    let state = loop {
        let state = control::balloon(&socket).unwrap();
        if state.statistics.total.is_some() {
            break state;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "statistics never came");
    };
    assert_eq!((state.target, state.actual), (5 * PAGE, 3 * PAGE));
    assert_eq!((state.statistics.total, state.statistics.free), (Some(1 << 30), Some(1 << 20)));
    // More than there is.
    assert_eq!(control::set_balloon(&socket, u64::MAX).unwrap().target, MEMORY);
    drop(server);
    assert!(matches!(control::balloon(&socket), Err(ControlError::Reach { .. })));
}
