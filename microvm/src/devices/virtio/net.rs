//! The network card's queue handler (VIRTIO 1.2, 5.1.6): pure queue logic, generic over where frames come from and go to,
//! so that it runs the same on a tap and on an in-memory list.

use smallvec::SmallVec;
use std::io;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

/// Size of the header before each frame: `struct virtio_net_hdr` with `num_buffers`, always there in VIRTIO 1 (5.1.6).
pub const HEADER: usize = 12;
/// Where `num_buffers` lies in the header.
const NUMBER_OF_BUFFERS: usize = 10;
/// The largest frame with its header: 65550 bytes of frame (VIRTIO 1.2, 5.1.6.3.1) and the header.
pub const LARGEST: usize = 65550 + HEADER;
/// Frames moved in one go before the other direction gets its turn.
const BATCH: usize = 64;
/// Most descriptors of a chain, and most chains that one merged frame may take: Linux uses up to 19 descriptors a frame, and
/// the vectors of readv(2) and writev(2) are limited to 1024.
const MOST_DESCRIPTORS: usize = 256;

/// What belongs to one frame, on the stack unless a driver divides its buffers more than Linux does. It is made anew in each move. An
/// allocator may map a page for it and unmap it again, and then every processor on which the process runs is interrupted to forget
/// that page, also the one that runs the guest, for which it is an exit.
type PerFrame<T> = SmallVec<[T; 32]>;

/// Where frames, each with its header, come from and go to.
pub trait FrameIo {
    /// Reads one frame; [`io::ErrorKind::WouldBlock`] where there is none now.
    fn read_frame(&mut self, into: &[VolatileSlice<'_>]) -> io::Result<usize>;

    /// Writes one frame.
    fn write_frame(&mut self, from: &[VolatileSlice<'_>]) -> io::Result<usize>;
}

/// Why a device can't go on with the queues that it was given.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// A ring can't be read or written, or its index is absurd.
    #[error("the {queue} ring is broken")]
    Ring {
        /// Which.
        queue: &'static str,
        /// The cause.
        #[source]
        source: virtio_queue::Error,
    },
    /// A receive buffer can't take a frame.
    #[error("a receive buffer of {0} bytes is too small for a frame, or not writable memory")]
    Buffer(usize),
    /// The frame source failed.
    #[error("read a frame")]
    Read(#[source] io::Error),
}

/// How far one go went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Frames moved.
    pub frames: usize,
    /// The guest wants to be told.
    pub notify: bool,
    /// The driver has no buffers left in the queue.
    pub starved: bool,
}

/// The two queues of an active card.
#[derive(Debug)]
pub struct Net<F> {
    frames: F,
    memory: GuestMemoryMmap,
    receive: Queue,
    transmit: Queue,
    merged: bool,
    /// The Ethernet address that frames must be from, where that is checked.
    source: Option<[u8; 6]>,
    dropped: u64,
}

impl<F: FrameIo> Net<F> {
    /// Runs on queues that the transport has validated. `merged`: the driver accepted `VIRTIO_NET_F_MRG_RXBUF`, so a frame
    /// may be spread over several buffers.
    pub fn new(frames: F, memory: GuestMemoryMmap, receive: Queue, transmit: Queue, merged: bool) -> Self {
        Self { frames, memory, receive, transmit, merged, source: None, dropped: 0 }
    }

    /// The same, where the driver's frames must be from this Ethernet address; others are dropped.
    #[must_use]
    pub fn with_source(self, source: Option<[u8; 6]>) -> Self {
        Self { source, ..self }
    }

    /// Where frames come from and go to.
    pub fn frames(&self) -> &F {
        &self.frames
    }

    /// Gives back where frames come from and go to.
    pub fn into_frames(self) -> F {
        self.frames
    }

    /// The receive and the transmit queue, as far as they are worked off.
    pub fn queues(&self) -> [&Queue; 2] {
        [&self.receive, &self.transmit]
    }

    /// Frames of the driver that were malformed or refused by the host, and were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Moves frames from the driver to the host (VIRTIO 1.2, 5.1.6.2).
    pub fn transmit(&mut self) -> Result<Progress, QueueError> {
        let broken = |source| QueueError::Ring { queue: "transmit", source };
        let memory = self.memory.clone();
        let mut slices = PerFrame::new();
        let mut progress = Progress::default();
        while progress.frames < BATCH {
            let Some(chain) = self.transmit.iter(&memory).map_err(broken)?.next() else {
                progress.starved = true;
                break;
            };
            let head = chain.head_index();
            slices.clear();
            let length = gather(&memory, chain, Direction::FromDriver, &mut slices);
            // What is malformed, or what the host refuses (a header that it can't make sense of), is a lost frame.
            let sent = length.is_some_and(|length| (HEADER + 1..=LARGEST).contains(&length))
                && self.source.is_none_or(|source| source_of(&slices) == Some(source))
                && self.frames.write_frame(&slices).is_ok();
            self.dropped += u64::from(!sent);
            self.transmit.add_used(&memory, head, 0).map_err(broken)?;
            progress.frames += 1;
        }
        if progress.frames > 0 {
            progress.notify = self.transmit.needs_notification(&memory).map_err(broken)?;
        }
        Ok(progress)
    }

    /// Moves frames from the host to the driver (VIRTIO 1.2, 5.1.6.4).
    pub fn receive(&mut self) -> Result<Progress, QueueError> {
        let broken = |source| QueueError::Ring { queue: "receive", source };
        let memory = self.memory.clone();
        let mut slices = PerFrame::new();
        // Head and capacity of each buffer that the next frame may use.
        let mut buffers = PerFrame::<(u16, usize)>::new();
        let mut progress = Progress::default();
        while progress.frames < BATCH {
            slices.clear();
            buffers.clear();
            let mut capacity = 0;
            // One buffer, or with merged buffers as many as the largest frame may need.
            while capacity < LARGEST && (buffers.is_empty() || self.merged) && buffers.len() < MOST_DESCRIPTORS {
                let Some(chain) = self.receive.iter(&memory).map_err(broken)?.next() else { break };
                let head = chain.head_index();
                let size = gather(&memory, chain, Direction::FromDevice, &mut slices).unwrap_or(0);
                if size <= HEADER {
                    return Err(QueueError::Buffer(size));
                }
                buffers.push((head, size));
                capacity += size;
            }
            let first = buffers.first().map_or(0, |(_, size)| *size);
            if buffers.is_empty() || (self.merged && capacity < LARGEST) {
                self.give_back(buffers.len());
                progress.starved = true;
                break;
            }
            if !self.merged && first < HEADER + 1514 {
                return Err(QueueError::Buffer(first));
            }
            let length = match self.frames.read_frame(&slices) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.give_back(buffers.len());
                    break;
                }
                Err(error) => return Err(QueueError::Read(error)),
            };
            let used = self.complete(&memory, &slices, &buffers, length)?;
            self.give_back(buffers.len() - used);
            progress.frames += 1;
        }
        if progress.frames > 0 {
            progress.notify = self.receive.needs_notification(&memory).map_err(broken)?;
        }
        Ok(progress)
    }

    /// Hands the first buffers, as many as `length` bytes fill, back to the driver; gives their number.
    fn complete(
        &mut self,
        memory: &GuestMemoryMmap,
        slices: &[VolatileSlice<'_>],
        buffers: &[(u16, usize)],
        length: usize,
    ) -> Result<usize, QueueError> {
        let mut parts = PerFrame::new();
        let mut left = length;
        for (head, size) in buffers {
            let part = left.min(*size);
            parts.push((*head, part as u32));
            left -= part;
            if left == 0 {
                break;
            }
        }
        write_header_field(slices, NUMBER_OF_BUFFERS, parts.len() as u16);
        for (head, part) in &parts {
            self.receive
                .add_used(memory, *head, *part)
                .map_err(|source| QueueError::Ring { queue: "receive", source })?;
        }
        Ok(parts.len())
    }

    /// Leaves the last buffers taken for the next frame.
    fn give_back(&mut self, count: usize) {
        let next = self.receive.next_avail().wrapping_sub(count as u16);
        self.receive.set_next_avail(next);
    }

    /// Asks the driver to tell when it adds frames to send; says whether it has added some already.
    pub fn request_notification(&mut self) -> Result<bool, QueueError> {
        let memory = self.memory.clone();
        self.transmit.enable_notification(&memory).map_err(|source| QueueError::Ring { queue: "transmit", source })
    }

    /// Asks the driver to tell when it adds receive buffers; says whether it has added some already.
    pub fn request_buffers(&mut self) -> Result<bool, QueueError> {
        let memory = self.memory.clone();
        self.receive.enable_notification(&memory).map_err(|source| QueueError::Ring { queue: "receive", source })
    }
}

/// Whose bytes a descriptor holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    FromDriver,
    FromDevice,
}

/// Adds a chain's memory to `slices` and gives its length; `None` where a descriptor lies outside memory, goes the wrong way
/// or where there are too many.
fn gather<'a>(
    memory: &'a GuestMemoryMmap,
    chain: DescriptorChain<&'a GuestMemoryMmap>,
    direction: Direction,
    slices: &mut PerFrame<VolatileSlice<'a>>,
) -> Option<usize> {
    let mut length = 0_usize;
    for (count, descriptor) in chain.enumerate() {
        if count == MOST_DESCRIPTORS || descriptor.is_write_only() != (direction == Direction::FromDevice) {
            return None;
        }
        if descriptor.len() == 0 {
            continue;
        }
        let slice = memory.get_slice(GuestAddress(descriptor.addr().0), descriptor.len() as usize).ok()?;
        length = length.checked_add(slice.len())?;
        slices.push(slice);
    }
    Some(length)
}

/// The Ethernet address that a frame is from, behind the header and the address that it is for.
fn source_of(slices: &[VolatileSlice<'_>]) -> Option<[u8; 6]> {
    let mut source = [0; 6];
    for (index, byte) in source.iter_mut().enumerate() {
        let mut at = HEADER + 6 + index;
        let slice = slices.iter().find(|slice| {
            let here = at < slice.len();
            at -= if here { 0 } else { slice.len() };
            here
        })?;
        *byte = slice.read_obj(at).ok()?;
    }
    Some(source)
}

/// Writes a 16-bit little-endian field of the header, which may itself be split over slices.
fn write_header_field(slices: &[VolatileSlice<'_>], offset: usize, value: u16) {
    for (index, byte) in value.to_le_bytes().into_iter().enumerate() {
        let mut at = offset + index;
        for slice in slices {
            if at < slice.len() {
                // Within the slice, as just checked.
                let _ = slice.write_obj(byte, at);
                break;
            }
            at -= slice.len();
        }
    }
}
