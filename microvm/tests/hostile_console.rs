//! Hostile drivers of a console: whatever its queues hold, the monitor takes no more than it was given, keeps no more than it has bounds
//! for, and neither panics nor loops.

mod ring;

use isobench_microvm::devices::virtio::attendant::{Active, Service};
use isobench_microvm::devices::virtio::console::{Console, Inbox, Sink};
use isobench_microvm::memory;
use proptest::prelude::*;
use ring::{BUFFER, MEMORY, Ring, any_queue};
use std::sync::{Arc, Mutex};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const RECEIVE: u64 = 0;
const TRANSMIT: u64 = 1;
const CONTROL_RECEIVE: u64 = 2;
const CONTROL_TRANSMIT: u64 = 3;

/// What the guest wrote.
#[derive(Clone, Debug, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Sink for Heard {
    fn take(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().extend(bytes);
    }
}

fn active(memory: &GuestMemoryMmap) -> Active {
    let queues = (0..4).map(|number| Ring::new(memory, number).queue()).collect();
    Active { memory: memory.clone(), queues, features: 0 }
}

fn console() -> (Console<Heard>, Inbox, Heard) {
    let (inbox, heard) = (Inbox::new().unwrap(), Heard::default());
    (Console::new(inbox.clone(), heard.clone()), inbox, heard)
}

#[test]
fn what_the_driver_may_not_say_is_given_back_unread_and_the_rest_is_heard() {
    let memory = memory::create(MEMORY).unwrap();
    let (mut console, _, heard) = console();
    memory.write_slice(b"hello", GuestAddress(BUFFER)).unwrap();
    let ring = Ring::new(&memory, TRANSMIT);
    // A buffer that ends beyond memory, one for the device to write, one after such a one, and a good one of two parts.
    ring.chain(0, &[(MEMORY - 1, 2, false)]);
    ring.chain(1, &[(BUFFER, 5, true)]);
    ring.chain(2, &[(BUFFER, 1, true), (BUFFER, 5, false)]);
    ring.chain(4, &[(BUFFER, 2, false), (BUFFER + 2, 3, false)]);
    ring.offer(&[0, 1, 2, 4]);
    console.serve(&mut active(&memory)).unwrap();
    assert_eq!(ring.used(), [(0, 0), (1, 0), (2, 0), (4, 0)]);
    assert_eq!(*heard.0.lock().unwrap(), b"hello");
    assert_eq!(memory.read_obj::<[u8; 5]>(GuestAddress(BUFFER)).unwrap(), *b"hello");
}

#[test]
fn a_chain_that_names_all_memory_many_times_is_no_work() {
    let memory = memory::create(MEMORY).unwrap();
    let (mut console, _, heard) = console();
    let ring = Ring::new(&memory, TRANSMIT);
    ring.chain(0, &[(0, MEMORY as u32, false); 16]);
    ring.offer(&[0; 16]);
    console.serve(&mut active(&memory)).unwrap();
    assert_eq!(ring.used().len(), 16);
    assert!(heard.0.lock().unwrap().is_empty());
}

#[test]
fn the_guest_gets_what_was_given_into_its_buffers_alone() {
    let memory = memory::create(MEMORY).unwrap();
    let (mut console, inbox, _) = console();
    inbox.give(b"0123456789");
    inbox.open();
    let ring = Ring::new(&memory, RECEIVE);
    // The first two can hold nothing; nothing is lost for that.
    ring.chain(0, &[(BUFFER, 4, false)]);
    ring.chain(1, &[(MEMORY, 4, true)]);
    ring.chain(2, &[(BUFFER + 100, 3, true)]);
    ring.chain(3, &[(BUFFER + 200, 3, true), (BUFFER + 300, 100, true)]);
    ring.offer(&[0, 1, 2, 3]);
    console.serve(&mut active(&memory)).unwrap();
    assert_eq!(ring.used(), [(0, 0), (1, 0), (2, 3), (3, 7)]);
    let at = |offset| memory.read_obj::<[u8; 4]>(GuestAddress(BUFFER + offset)).unwrap();
    assert_eq!([at(0), at(100), at(200), at(300)], [[0; 4], *b"012\0", *b"345\0", *b"6789"]);
}

#[test]
fn messages_are_answered_within_bounds() {
    let memory = memory::create(MEMORY).unwrap();
    let (mut console, ..) = console();
    // Half a message, none, and whole ones: DEVICE_READY, whatever port it names.
    memory.write_slice(&[9, 9, 9, 9, 0, 0, 1, 0], GuestAddress(BUFFER)).unwrap();
    let ring = Ring::new(&memory, CONTROL_TRANSMIT);
    ring.chain(0, &[(BUFFER, 4, false)]);
    ring.chain(1, &[(BUFFER, 8, true)]);
    ring.chain(2, &[(BUFFER, 8, false)]);
    let heads: Vec<u16> = (0..16).map(|number| [0, 1, 2][number % 3]).collect();
    ring.offer(&heads);
    let answers = Ring::new(&memory, CONTROL_RECEIVE);
    answers.chain(0, &[(BUFFER + 100, 8, true)]);
    answers.chain(1, &[(BUFFER + 200, 3, true)]);
    answers.offer(&[0, 1]);
    console.serve(&mut active(&memory)).unwrap();
    assert_eq!(ring.used().len(), 16);
    // PORT_ADD of port 0, and as much of the next one as there is room for.
    assert_eq!(answers.used(), [(0, 8), (1, 3)]);
    assert_eq!(memory.read_obj::<[u8; 8]>(GuestAddress(BUFFER + 100)).unwrap(), [0, 0, 0, 0, 1, 0, 1, 0]);
}

proptest! {
    #[test]
    fn no_queues_are_too_strange(queues in proptest::collection::vec(any_queue(), 4), given in 0_usize..100_000) {
        let memory = memory::create(MEMORY).unwrap();
        for (number, queue) in (0..).zip(&queues) {
            Ring::new(&memory, number).write(queue);
        }
        let (mut console, inbox, _) = console();
        inbox.give(&vec![0x55; given]);
        inbox.open();
        let mut active = active(&memory);
        for _ in 0..3 {
            // A ring that is broken is told of, and is left alone.
            if console.serve(&mut active).is_err() {
                break;
            }
        }
    }
}
