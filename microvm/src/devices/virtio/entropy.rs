//! The entropy device (VIRTIO 1.2, 5.4): random bytes of the host's kernel.

use crate::devices::virtio::attendant::{Active, Service};
use crate::devices::virtio::chain::{self, BrokenRing, Buffers};
use crate::devices::virtio::mmio::{self, Identity};
use rustix::rand::{GetRandomFlags, getrandom};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;

/// Size of the request queue.
const QUEUE_SIZE: u16 = 64;
/// Requests done in one go before it is seen whether the device is to stop.
const BATCH: usize = 64;
/// Most bytes for one request: fewer than were asked for may come (5.4.6.1).
const MOST_BYTES: usize = 4096;

/// What the driver is told of the device.
pub fn identity() -> Identity {
    Identity {
        device: VIRTIO_ID_RNG,
        features: mmio::VERSION_1 | mmio::EVENT_INDEX | mmio::INDIRECT_DESCRIPTORS,
        configuration: Vec::new(),
        queues: vec![QUEUE_SIZE],
    }
}

/// The kernel's random numbers as a service.
#[derive(Debug, Default)]
pub struct Entropy;

impl Entropy {
    /// Fills a request's memory; gives the number of bytes.
    fn request(buffers: &Buffers<'_>) -> u32 {
        let mut bytes = [0; MOST_BYTES];
        let wanted = chain::length(&buffers.writable).min(MOST_BYTES);
        // A kernel that has none to give, which is so for a moment after boot, gives none.
        let count = getrandom(&mut bytes[..wanted], GetRandomFlags::empty()).unwrap_or(0);
        chain::fill(&buffers.writable, &bytes[..count]) as u32
    }
}

impl Service for Entropy {
    fn serve(&mut self, active: &mut Active) -> Result<bool, BrokenRing> {
        let broken = BrokenRing::of("request");
        let memory: &GuestMemoryMmap = &active.memory;
        let Some(queue) = active.queues.first_mut() else { return Ok(false) };
        let mut done = 0;
        while done < BATCH {
            let Some(request) = queue.iter(memory).map_err(broken)?.next() else { break };
            let head = request.head_index();
            let written = Buffers::gather(memory, request).map_or(0, |buffers| Self::request(&buffers));
            queue.add_used(memory, head, written).map_err(broken)?;
            done += 1;
        }
        Ok(done > 0 && queue.needs_notification(memory).map_err(broken)?)
    }
}
