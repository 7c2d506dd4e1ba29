//! Hostile drivers at a device's registers: whatever is written there, in whatever order, a device starts on valid queues alone, and the
//! monitor neither panics nor touches anything but guest memory.

mod frames;

use frames::Frames;
use isobench_microvm::devices::virtio::interrupt::Interrupt;
use isobench_microvm::devices::virtio::mmio::{self, Effect, Identity, Transport, register, status};
use isobench_microvm::devices::virtio::net::Net;
use isobench_microvm::memory;
use isobench_microvm::snapshot::devices::{StateError, TransportState};
use proptest::prelude::*;
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const MEMORY: u64 = 2 << 20;
const SIZE: u16 = 16;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
/// The receive queue lies this far above the transmit queue.
const RECEIVE: u64 = 0x10000;

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

// Of the checklist (hostile_network.rs), what concerns registers.

/// The steps of a good start with these put in before the last queue is made ready.
fn started_with(changes: &[(u64, u32)]) -> (GuestMemoryMmap, Transport, Effect) {
    let memory = memory::create(MEMORY).unwrap();
    let mut transport = transport();
    let mut steps = start();
    let at = steps.len() - 2;
    steps.splice(at..at, changes.iter().copied());
    let last = steps.into_iter().map(|step| write(&mut transport, &memory, step)).last();
    (memory, transport, last.unwrap())
}

#[test]
fn v11_rings_that_overlap_or_lie_oddly_or_outside_never_harm() {
    for (register, value) in [
        (register::QUEUE_DESCRIPTOR_LOW, MEMORY as u32 - 16),
        (register::QUEUE_DESCRIPTOR_HIGH, u32::MAX),
        (register::QUEUE_DRIVER_LOW, MEMORY as u32 - 2),
        (register::QUEUE_DRIVER_HIGH, 1),
        (register::QUEUE_DEVICE_LOW, MEMORY as u32),
        (register::QUEUE_DEVICE_HIGH, u32::MAX),
    ] {
        let (_, transport, last) = started_with(&[(register, value)]);
        assert_eq!(last, Effect::None, "{register:#x} = {value:#x}");
        assert_ne!(transport.status() & status::DEVICE_NEEDS_RESET, 0);
    }
    // An address that is not aligned is not taken (VIRTIO 1.2, 2.7).
    for (register, value) in [
        (register::QUEUE_DESCRIPTOR_LOW, DESCRIPTORS as u32 + 8),
        (register::QUEUE_DRIVER_LOW, AVAILABLE as u32 + 1),
        (register::QUEUE_DEVICE_LOW, USED as u32 + 2),
    ] {
        let (_, transport, _) = started_with(&[(register, value)]);
        let queue = &transport.queues()[1];
        assert_eq!([queue.desc_table() % 16, queue.avail_ring() % 2, queue.used_ring() % 4], [0, 0, 0]);
    }
    // All three at one place: the device and the driver overwrite each other's words, in the guest's own memory.
    let (memory, transport, last) = started_with(&[
        (register::QUEUE_DRIVER_LOW, DESCRIPTORS as u32),
        (register::QUEUE_DEVICE_LOW, DESCRIPTORS as u32),
    ]);
    assert_eq!(last, Effect::Activate);
    let mut queues = transport.queues().into_iter();
    let (receive, transmit) = (queues.next().unwrap(), queues.next().unwrap());
    let mut net = Net::new(Frames::default(), memory.clone(), receive, transmit, false);
    for index in 0..=SIZE {
        memory.write_obj(index, GuestAddress(DESCRIPTORS + 2)).unwrap();
        let sent = net.transmit();
        assert!(sent.is_err() || sent.unwrap().frames <= 64);
    }
}

#[test]
fn v12_sizes_that_are_none_are_not_taken_and_a_queue_that_is_not_ready_never_starts() {
    for size in [0, 3, u32::from(SIZE) + 1, u32::from(SIZE) * 2, 0x1_0010, u32::MAX] {
        let (_, transport, _) = started_with(&[(register::QUEUE_SIZE, size)]);
        let taken = transport.queues()[1].size();
        assert!(taken.is_power_of_two() && taken <= SIZE, "{size} became {taken}");
    }
    // Ready without addresses: at address 0, which is the guest's memory, all in one place.
    let memory = memory::create(MEMORY).unwrap();
    let mut card = transport();
    for (offset, value) in start() {
        if ![register::QUEUE_DESCRIPTOR_LOW, register::QUEUE_DRIVER_LOW, register::QUEUE_DEVICE_LOW].contains(&offset) {
            write(&mut card, &memory, (offset, value));
        }
    }
    let mut queues = card.queues().into_iter();
    let (receive, transmit) = (queues.next().unwrap(), queues.next().unwrap());
    let mut net = Net::new(Frames::default(), memory.clone(), receive, transmit, true);
    memory.write_obj(1_u16, GuestAddress(2)).unwrap();
    assert!(net.transmit().map_or(0, |progress| progress.frames) <= 64);
    assert!(net.receive().map_or(0, |progress| progress.frames) <= 64);
    assert!(net.frames().taken.is_empty());
    let mut card = transport();
    for (offset, value) in start() {
        write(&mut card, &memory, (offset, if offset == register::QUEUE_READY { 0 } else { value }));
    }
    assert_eq!(card.status() & status::DRIVER_OK, 0);
}

/// Whoever could change them afterwards could accept what was not offered.
#[test]
fn v12_features_stay_as_they_were_agreed_upon() {
    let memory = memory::create(MEMORY).unwrap();
    let mut card = transport();
    let mut agreed = None;
    for step in start() {
        write(&mut card, &memory, step);
        if card.status() & status::FEATURES_OK != 0 {
            let before = *agreed.get_or_insert(card.features());
            for (half, features) in [(0, u32::MAX), (1, 0)] {
                write(&mut card, &memory, (register::DRIVER_FEATURES_SELECT, half));
                write(&mut card, &memory, (register::DRIVER_FEATURES, features));
                assert_eq!(card.features(), before);
            }
        }
    }
    assert!(agreed.is_some() && card.status() & status::DRIVER_OK != 0);
}

/// A ready queue is changed no more, whether the driver is ready or not; a reset forgets all.
#[test]
fn v12_a_ready_queue_never_changes_and_a_reset_forgets_it() {
    let memory = memory::create(MEMORY).unwrap();
    let mut card = transport();
    for step in start() {
        write(&mut card, &memory, step);
        if step == (register::QUEUE_READY, 1) {
            let before = card.state().queues;
            for offset in (register::QUEUE_DESCRIPTOR_LOW..=register::QUEUE_DEVICE_HIGH).step_by(4) {
                write(&mut card, &memory, (offset, 0x40));
            }
            write(&mut card, &memory, (register::QUEUE_SIZE, 2));
            assert_eq!(card.state().queues, before);
        }
    }
    card.needs_reset();
    assert_ne!(card.state().interrupt, 0);
    write(&mut card, &memory, (register::STATUS, 0));
    assert_eq!(card.state(), transport().state());
}

/// What a snapshot says of the registers is taken where a driver can have brought such a device there.
#[test]
fn v20_registers_that_no_driver_can_have_written_are_refused() {
    let (memory, card, _) = started_with(&[]);
    let state = card.state();
    let restored = |change: &dyn Fn(&mut TransportState)| {
        let mut changed = state.clone();
        change(&mut changed);
        transport().restore(&changed, false, &memory)
    };
    assert_eq!(restored(&|_| ()), Ok(()));
    assert_eq!(restored(&|state| state.status |= status::DEVICE_NEEDS_RESET), Ok(()));
    type Change = dyn Fn(&mut TransportState);
    let refused: [(&Change, StateError); 8] = [
        (&|state| state.status = 9, StateError::Registers),
        (&|state| state.status |= 16, StateError::Registers),
        (&|state| state.driver_features |= 1 << 7, StateError::Registers),
        (&|state| state.configuration.push(0), StateError::Registers),
        (&|state| state.queues[0].descriptors = MEMORY, StateError::Queues),
        (&|state| state.queues[0].max_size *= 2, StateError::Queues),
        (&|state| state.queues.truncate(1), StateError::Queues),
        (&|state| state.queues.push(state.queues[0]), StateError::Queues),
    ];
    for (number, (change, error)) in refused.into_iter().enumerate() {
        assert_eq!(restored(change), Err(error), "number {number}");
    }
}

#[test]
fn v13_accesses_that_make_no_sense_change_nothing() {
    let (memory, mut transport, last) = started_with(&[]);
    assert_eq!(last, Effect::Activate);
    // Of another width, beside a register, and to what can only be read.
    for offset in (0..mmio::WINDOW).filter(|offset| *offset != register::STATUS) {
        for width in [0, 1, 2, 3, 8] {
            assert_eq!(transport.write(offset, &[0xff; 8][..width], &memory), Effect::None);
        }
        if offset % 4 != 0 || [register::MAGIC_VALUE, register::DEVICE_ID, register::QUEUE_SIZE_MAX].contains(&offset) {
            assert_eq!(transport.write(offset, &[0xff; 4], &memory), Effect::None, "{offset:#x}");
        }
    }
    for value in [16, 32, 0x100, u32::MAX, 1, 3, 7] {
        assert_eq!(write(&mut transport, &memory, (register::STATUS, value)), Effect::None);
    }
    // Queues and halves of features that there are not.
    for (select, read) in [
        (register::QUEUE_SELECT, register::QUEUE_SIZE_MAX),
        (register::DEVICE_FEATURES_SELECT, register::DEVICE_FEATURES),
    ] {
        write(&mut transport, &memory, (select, u32::MAX));
        let mut word = [0xff; 4];
        transport.read(read, &mut word);
        assert_eq!(word, [0; 4]);
    }
    assert_eq!(transport.status(), 15);
}

#[test]
fn v14_kicks_count_only_while_the_driver_is_ready() {
    let memory = memory::create(MEMORY).unwrap();
    let mut transport = transport();
    let kick = (register::QUEUE_NOTIFY, 1);
    for step in start() {
        assert_eq!(write(&mut transport, &memory, kick), Effect::None);
        write(&mut transport, &memory, step);
    }
    for _ in 0..100_000 {
        assert_eq!(write(&mut transport, &memory, kick), Effect::Notify(1));
    }
    for queue in [2, 0xffff, 0x1_0001, u32::MAX] {
        assert_eq!(write(&mut transport, &memory, (register::QUEUE_NOTIFY, queue)), Effect::None);
    }
    assert_eq!(write(&mut transport, &memory, (register::STATUS, 0)), Effect::Reset);
    assert_eq!(write(&mut transport, &memory, kick), Effect::None);
    // And it can be started again.
    let last = start().into_iter().map(|step| write(&mut transport, &memory, step)).last();
    assert_eq!(last, Some(Effect::Activate));
}
