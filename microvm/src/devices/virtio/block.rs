//! The block device (VIRTIO 1.2, 5.2): reads, writes and flushes of one [`Disk`].

use crate::devices::virtio::attendant::{Active, Service};
use crate::devices::virtio::chain::{self, BrokenRing, Buffers};
use crate::devices::virtio::disk::{Disk, SECTOR};
use crate::devices::virtio::mmio::{self, Identity};
use virtio_bindings::virtio_blk;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{GuestMemoryMmap, VolatileSlice};

/// Size of the request queue.
const QUEUE_SIZE: u16 = 256;
/// Requests done in one go before it is seen whether the device is to stop.
const BATCH: usize = 64;
/// Size of a request's header: type, reserved, first sector (5.2.6).
const HEADER: usize = 16;
/// Most data segments of a request: with header and status they fill a queue.
const MOST_SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;
/// Length of the name that the device tells (5.2.6.1).
const NAME: usize = virtio_blk::VIRTIO_BLK_ID_BYTES as usize;

const FLUSH: u64 = 1 << virtio_blk::VIRTIO_BLK_F_FLUSH;

/// What went wrong with a request (5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// The disk, or what was asked of it.
    Error,
    /// The device has no such request.
    Unsupported,
}

/// A disk as a service.
#[derive(Debug)]
pub struct Block {
    disk: Disk,
    name: [u8; NAME],
}

impl Block {
    /// A disk, with a name that the guest may ask for, of which 20 bytes are used.
    pub fn new(disk: Disk, name: &str) -> Self {
        let mut bytes = [0; NAME];
        for (place, byte) in bytes.iter_mut().zip(name.bytes()) {
            *place = byte;
        }
        Self { disk, name: bytes }
    }

    /// What the driver is told of the device: its features and its size.
    pub fn identity(&self) -> Identity {
        let read_only = if self.disk.is_read_only() { 1 << virtio_blk::VIRTIO_BLK_F_RO } else { 0 };
        // `struct virtio_blk_config` (5.2.4): capacity, largest segment (not offered), most segments.
        let mut configuration = self.disk.sectors().to_le_bytes().to_vec();
        configuration.extend(0_u32.to_le_bytes());
        configuration.extend(MOST_SEGMENTS.to_le_bytes());
        Identity {
            device: VIRTIO_ID_BLOCK,
            features: mmio::VERSION_1
                | mmio::EVENT_INDEX
                | mmio::INDIRECT_DESCRIPTORS
                | FLUSH
                | 1 << virtio_blk::VIRTIO_BLK_F_SEG_MAX
                | read_only,
            configuration,
            queues: vec![QUEUE_SIZE],
        }
    }

    /// Carries out a request; gives how many bytes were written to the driver's memory. A request without a place for its status
    /// is only given back.
    fn request(&self, mut buffers: Buffers<'_>, flushed_by_driver: bool) -> u32 {
        let Some(status) = chain::take_last(&mut buffers.writable) else { return 0 };
        let mut header = [0; HEADER];
        let whole = chain::take(&mut buffers.readable, &mut header) == HEADER;
        let [a, b, c, d, _, _, _, _, sector @ ..] = header;
        let (kind, sector) = (u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(sector));
        let result = match kind {
            _ if !whole => Err(Refusal::Error),
            virtio_blk::VIRTIO_BLK_T_IN => self.read(buffers.writable, sector),
            virtio_blk::VIRTIO_BLK_T_OUT => self.write(buffers.readable, sector, flushed_by_driver),
            virtio_blk::VIRTIO_BLK_T_FLUSH => self.disk.flush().map(|()| 0).map_err(|_| Refusal::Error),
            virtio_blk::VIRTIO_BLK_T_GET_ID => Ok(chain::fill(&buffers.writable, &self.name)),
            _ => Err(Refusal::Unsupported),
        };
        status.set(match result {
            Ok(_) => virtio_blk::VIRTIO_BLK_S_OK,
            Err(Refusal::Error) => virtio_blk::VIRTIO_BLK_S_IOERR,
            Err(Refusal::Unsupported) => virtio_blk::VIRTIO_BLK_S_UNSUPP,
        } as u8);
        // The sum of a chain's lengths fits 32 bits.
        result.unwrap_or(0) as u32 + 1
    }

    fn read(&self, into: Vec<VolatileSlice<'_>>, sector: u64) -> Result<usize, Refusal> {
        let length = chain::length(&into);
        let offset = self.offset(sector, length)?;
        self.disk.read(into, offset).map_err(|_| Refusal::Error)?;
        Ok(length)
    }

    /// A driver that does not flush expects that what is written stays written (5.2.5.1).
    fn write(&self, from: Vec<VolatileSlice<'_>>, sector: u64, flushed_by_driver: bool) -> Result<usize, Refusal> {
        let offset = self.offset(sector, chain::length(&from))?;
        if self.disk.is_read_only() {
            return Err(Refusal::Error);
        }
        self.disk.write(from, offset).map_err(|_| Refusal::Error)?;
        if !flushed_by_driver {
            self.disk.flush().map_err(|_| Refusal::Error)?;
        }
        Ok(0)
    }

    /// Where whole sectors of this many bytes begin in the file, if all of them lie on the disk.
    fn offset(&self, sector: u64, length: usize) -> Result<u64, Refusal> {
        let length = length as u64;
        let end = sector.checked_add(length / SECTOR).filter(|end| *end <= self.disk.sectors());
        match end {
            // The disk's last sector has an offset, and so have those before it.
            Some(_) if length.is_multiple_of(SECTOR) => Ok(sector * SECTOR),
            _ => Err(Refusal::Error),
        }
    }
}

impl Service for Block {
    fn serve(&mut self, active: &mut Active) -> Result<bool, BrokenRing> {
        let broken = BrokenRing::of("request");
        let flushed_by_driver = active.features & FLUSH != 0;
        let memory: &GuestMemoryMmap = &active.memory;
        let Some(queue) = active.queues.first_mut() else { return Ok(false) };
        let mut done = 0;
        while done < BATCH {
            let Some(request) = queue.iter(memory).map_err(broken)?.next() else { break };
            let head = request.head_index();
            let written =
                Buffers::gather(memory, request).map_or(0, |buffers| self.request(buffers, flushed_by_driver));
            queue.add_used(memory, head, written).map_err(broken)?;
            done += 1;
        }
        Ok(done > 0 && queue.needs_notification(memory).map_err(broken)?)
    }
}
