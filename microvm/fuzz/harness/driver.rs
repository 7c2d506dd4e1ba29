//! A driver that writes whatever it likes into its queues and has the device serve them, again and again.

use super::input::Input;
use isobench_microvm::devices::virtio::attendant::{Active, Service};
use isobench_microvm::devices::virtio::net::{FrameIo, Net};
use std::io;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, VolatileSlice};

/// The guest's memory, in bytes.
pub(super) const MEMORY: u64 = 2 << 20;

/// Where the parts of a queue are, and how far queues are apart.
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const APART: u64 = 0x10000;
/// Where most buffers are.
const BUFFER: u64 = 0x80000;
const SIZE: u16 = 16;

/// Steps of one case at most: what takes longer finds nothing new.
const STEPS: usize = 256;

/// The driver's side of a few queues.
#[derive(Debug)]
pub(super) struct Driver<'m>(&'m GuestMemoryMmap);

impl<'m> Driver<'m> {
    pub(super) fn new(memory: &'m GuestMemoryMmap) -> Self {
        Self(memory)
    }

    fn queue(number: usize, event_index: bool) -> Option<Queue> {
        let base = number as u64 * APART;
        let mut queue = Queue::new(SIZE).ok()?;
        queue.set_desc_table_address(Some((base + DESCRIPTORS) as u32), Some(0));
        queue.set_avail_ring_address(Some((base + AVAILABLE) as u32), Some(0));
        queue.set_used_ring_address(Some((base + USED) as u32), Some(0));
        queue.set_event_idx(event_index);
        queue.set_ready(true);
        Some(queue)
    }

    /// Writes, where memory is.
    fn write(&self, at: u64, bytes: &[u8]) {
        let _ = self.0.write_slice(bytes, GuestAddress(at));
    }

    /// One step of mischief in one of the queues: a descriptor, an offered head, an index, or any bytes anywhere.
    fn step(&self, queues: usize, input: &mut Input<'_>) {
        let base = input.below(queues) as u64 * APART;
        match input.byte() % 4 {
            0 => {
                let near = BUFFER + u64::from(input.half());
                let address = match input.byte() {
                    0..192 => near,
                    192..240 => u64::from(input.word()) % (MEMORY + 0x1000),
                    _ => u64::from(input.word()) << 32 | u64::from(input.word()),
                };
                let length = if input.bool() { u32::from(input.half()) % 4096 } else { input.word() };
                let flags = if input.byte() < 240 { input.half() % 8 } else { input.half() };
                let next = if input.byte() < 240 { input.half() % SIZE } else { input.half() };
                let at = base + DESCRIPTORS + input.below(usize::from(SIZE)) as u64 * 16;
                self.write(at, &address.to_le_bytes());
                self.write(at + 8, &length.to_le_bytes());
                self.write(at + 12, &flags.to_le_bytes());
                self.write(at + 14, &next.to_le_bytes());
            }
            1 => {
                let place = input.below(usize::from(SIZE)) as u64;
                let head = if input.byte() < 240 { input.half() % SIZE } else { input.half() };
                self.write(base + AVAILABLE + 4 + place * 2, &head.to_le_bytes());
            }
            2 => {
                let index = if input.byte() < 240 { input.half() % (SIZE + 1) } else { input.half() };
                self.write(base + AVAILABLE + 2, &index.to_le_bytes());
            }
            _ => {
                let at = if input.bool() { BUFFER + u64::from(input.half()) } else { u64::from(input.word()) % MEMORY };
                let length = input.below(64);
                self.write(at, &input.bytes(length));
            }
        }
    }

    /// Has a service serve this driver. A ring that is broken ends the case, as it ends the device.
    pub(super) fn use_service(&self, service: &mut impl Service, queues: usize, input: &mut Input<'_>) {
        let (event_index, features) = (input.bool(), u64::from(input.word()));
        let laid_out: Option<Vec<Queue>> = (0..queues).map(|number| Self::queue(number, event_index)).collect();
        let Some(queues_of_driver) = laid_out else { return };
        let mut active = Active { memory: self.0.clone(), queues: queues_of_driver, features };
        service.begin();
        for _ in 0..STEPS {
            if input.is_empty() {
                break;
            }
            if input.byte() < 64 {
                if service.serve(&mut active).is_err() {
                    return;
                }
            } else {
                self.step(queues, input);
            }
        }
        let _ = service.serve(&mut active);
    }

    /// Has a network card send and receive for this driver.
    pub(super) fn use_card(&self, input: &mut Input<'_>) {
        let (merged, event_index) = (input.bool(), input.bool());
        let (Some(transmit), Some(receive)) = (Self::queue(0, event_index), Self::queue(1, event_index)) else {
            return;
        };
        let mut card = Net::new(Frames::default(), self.0.clone(), receive, transmit, merged);
        for _ in 0..STEPS {
            if input.is_empty() {
                break;
            }
            let outcome = match input.byte() {
                0..32 => card.transmit().map(drop),
                32..64 => card.receive().map(drop),
                64..72 => card.request_notification().map(drop),
                72..80 => card.request_buffers().map(drop),
                _ => {
                    self.step(2, input);
                    Ok(())
                }
            };
            if outcome.is_err() {
                return;
            }
        }
        let _ = card.transmit();
    }
}

/// A wire that gives frames of growing length, and keeps nothing.
#[derive(Debug, Default)]
struct Frames {
    given: usize,
}

impl FrameIo for Frames {
    fn read_frame(&mut self, into: &[VolatileSlice<'_>]) -> io::Result<usize> {
        self.given += 1;
        if self.given.is_multiple_of(4) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let room: usize = into.iter().map(VolatileSlice::len).sum();
        Ok((12 + self.given * 977 % 65_000).min(room))
    }

    fn write_frame(&mut self, from: &[VolatileSlice<'_>]) -> io::Result<usize> {
        Ok(from.iter().map(VolatileSlice::len).sum())
    }
}
