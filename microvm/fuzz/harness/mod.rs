//! What a hostile guest may do, spelled in bytes: each function takes any bytes and must come back. The fuzz targets feed it what a
//! fuzzer thinks up, and the test `fuzz` of the crate what proptest does, so that the same code runs on stable Rust in every test.

mod driver;
mod input;
mod kernel;

use driver::Driver;
use input::Input;
use isobench_microvm::devices::virtio::attendant::Service;
use isobench_microvm::devices::virtio::balloon::Balloon;
use isobench_microvm::devices::virtio::block::Block;
use isobench_microvm::devices::virtio::console::{Console, Inbox, Sink};
use isobench_microvm::devices::virtio::disk::Disk;
use isobench_microvm::devices::virtio::entropy::{self, Entropy};
use isobench_microvm::devices::virtio::interrupt::Interrupt;
use isobench_microvm::devices::virtio::mmio::Transport;
use isobench_microvm::memory;
use std::fs;

pub use kernel::kernel;

/// What takes any bytes and comes back.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 7] = [
    ("registers", registers),
    ("network", network),
    ("block", block),
    ("balloon", balloon),
    ("console", console),
    ("entropy", entropy),
    ("kernel", kernel),
];

/// Any accesses to the registers of a device.
pub fn registers(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let Ok(memory) = memory::create(driver::MEMORY) else { return };
    let Ok(interrupt) = Interrupt::new() else { return };
    let identity = if input.bool() { entropy::identity() } else { Console::<Nowhere>::identity() };
    let sizes: Vec<u16> = identity.queues.clone();
    let mut transport = Transport::new(identity, interrupt);
    while !input.is_empty() {
        let (offset, width, value) = (u64::from(input.word()) % 0x200, input.below(9), input.word());
        let mut word = [value.to_le_bytes(), value.to_le_bytes(), [0; 4]].concat();
        word.truncate(width);
        if input.bool() {
            let _ = transport.write(offset, &word, &memory);
        } else {
            transport.read(offset, &mut word);
        }
        // A queue that is valid is one that its device said it had.
        for (queue, most) in transport.queues().iter().zip(&sizes) {
            assert!(virtio_queue::QueueT::size(queue) <= *most, "a queue is larger than its device's");
        }
    }
}

/// Any use of a network card's two queues.
pub fn network(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let Ok(memory) = memory::create(driver::MEMORY) else { return };
    Driver::new(&memory).use_card(&mut input);
}

/// Any use of a disk: it keeps its size, whatever is written.
pub fn block(bytes: &[u8]) {
    const SIZE: u64 = 64 << 9;
    let mut input = Input::new(bytes);
    let Ok(file) = tempfile::NamedTempFile::new() else { return };
    if file.as_file().set_len(SIZE).is_err() {
        return;
    }
    let read_only = input.bool();
    let Ok(disk) = Disk::open(file.path(), read_only) else { return };
    serve(Block::new(disk, "fuzz"), 1, &mut input);
    let after = fs::read(file.path()).unwrap_or_default();
    assert_eq!(after.len() as u64, SIZE, "the disk's size changed");
    assert!(!read_only || after.iter().all(|byte| *byte == 0), "a disk that is only read was written");
}

/// Any use of a balloon.
pub fn balloon(bytes: &[u8]) {
    serve(Balloon::new(), 4, &mut Input::new(bytes));
}

/// Any use of a console that has something for the guest, too.
pub fn console(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let Ok(inbox) = Inbox::new() else { return };
    inbox.give(&input.bytes(64));
    if input.bool() {
        inbox.open();
    }
    serve(Console::new(inbox, Nowhere), 4, &mut input);
}

/// Any use of an entropy device.
pub fn entropy(bytes: &[u8]) {
    serve(Entropy, 1, &mut Input::new(bytes));
}

/// Takes bytes and forgets them.
#[derive(Debug)]
struct Nowhere;

impl Sink for Nowhere {
    fn take(&mut self, _: &[u8]) {}
}

fn serve(mut service: impl Service, queues: usize, input: &mut Input<'_>) {
    let Ok(memory) = memory::create(driver::MEMORY) else { return };
    Driver::new(&memory).use_service(&mut service, queues, input);
}
