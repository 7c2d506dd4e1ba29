//! The network card as smoltcp's device.

use crate::contract::QUEUE_SIZE;
use crate::frame::{self, BUFFER, HEADER};
use crate::virtio::buffers::{Arena, Buffers};
use crate::virtio::ring::{DriverQueue, Ring};
use crate::virtio::start::QUEUE_NOTIFY;
use core::num::NonZeroU16;
use smoltcp::phy::{Device, DeviceCapabilities, PacketMeta};
use smoltcp::time::Instant;

/// The card's queues, in the order of VIRTIO 1.2, 5.1.2.
const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;

/// A running card.
#[derive(Debug)]
pub struct NetworkCard<'a> {
    receive: Receive<'a>,
    transmit: Transmit<'a>,
    segmentation: bool,
}

#[derive(Debug)]
struct Receive<'a> {
    queue: DriverQueue<'a>,
    buffers: Buffers<'a>,
    /// Bytes that have come since [`NetworkCard::take_moved`].
    received: usize,
}

#[derive(Debug)]
struct Transmit<'a> {
    queue: DriverQueue<'a>,
    buffers: Buffers<'a>,
    /// Buffers that are the driver's: a stack, so that a quiet guest touches few of them.
    free: [u16; QUEUE_SIZE],
    free_count: usize,
    /// Bytes that were handed to the device since [`NetworkCard::take_moved`].
    sent: usize,
}

impl<'a> NetworkCard<'a> {
    /// Takes over a card that was started ([`crate::virtio::start()`]) with these rings, with or without
    /// segmentation; `None` where there is too little memory for its buffers.
    pub fn new(receive: &'a Ring, transmit: &'a Ring, arena: &mut Arena<'a>, segmentation: bool) -> Option<Self> {
        let mut receive = Receive { queue: DriverQueue::new(receive), buffers: arena.cut_buffers()?, received: 0 };
        for buffer in 0..QUEUE_SIZE as u16 {
            receive.offer(buffer);
        }
        // The highest at the bottom, so that the lowest is used first.
        let free = core::array::from_fn(|index| (QUEUE_SIZE - 1 - index) as u16);
        let queue = DriverQueue::new(transmit);
        let transmit = Transmit { queue, buffers: arena.cut_buffers()?, free, free_count: QUEUE_SIZE, sent: 0 };
        Some(Self { receive, transmit, segmentation })
    }

    /// The offset and value of the register write that tells the device of new buffers, for each queue of which it wants to be
    /// told.
    pub fn flush(&mut self, mut write: impl FnMut(u64, u32)) {
        if self.transmit.queue.must_tell() {
            write(QUEUE_NOTIFY, TRANSMIT);
        }
        if self.receive.queue.must_tell() {
            write(QUEUE_NOTIFY, RECEIVE);
        }
    }

    /// Whether a frame has come.
    pub fn has_frame(&self) -> bool {
        self.receive.queue.has_used()
    }

    /// How many bytes of frames, their headers included, were moved both ways since the last call.
    pub fn take_moved(&mut self) -> usize {
        core::mem::take(&mut self.receive.received) + core::mem::take(&mut self.transmit.sent)
    }

    /// Whether there is room for a frame to send.
    pub fn has_room(&mut self) -> bool {
        self.transmit.has_room()
    }

    /// Asks to be told of the next frame; says whether one has come already.
    pub fn ask_to_be_told(&mut self) -> bool {
        self.receive.queue.ask_to_be_told()
    }
}

impl Receive<'_> {
    fn offer(&mut self, buffer: u16) {
        self.queue.offer(buffer, self.buffers.address(buffer), BUFFER as u32, true);
    }
}

impl Transmit<'_> {
    fn has_room(&mut self) -> bool {
        while self.free_count < QUEUE_SIZE
            && let Some((buffer, _)) = self.queue.take()
        {
            self.free[self.free_count] = buffer;
            self.free_count += 1;
        }
        self.free_count > 0
    }
}

impl<'a> Device for NetworkCard<'a> {
    type RxToken<'t>
        = RxToken<'t, 'a>
    where
        Self: 't;
    type TxToken<'t>
        = TxToken<'t, 'a>
    where
        Self: 't;

    fn receive(&mut self, _now: Instant) -> Option<(RxToken<'_, 'a>, TxToken<'_, 'a>)> {
        // Each frame may be answered, so none is taken in without room for the answer.
        if !self.transmit.has_room() {
            return None;
        }
        let (buffer, length) = self.receive.queue.take()?;
        Some((
            RxToken { receive: &mut self.receive, buffer, length: (length as usize).clamp(HEADER, BUFFER) },
            TxToken { transmit: &mut self.transmit, segment: None },
        ))
    }

    fn transmit(&mut self, _now: Instant) -> Option<TxToken<'_, 'a>> {
        self.transmit.has_room().then_some(TxToken { transmit: &mut self.transmit, segment: None })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        frame::capabilities(self.segmentation)
    }
}

/// A frame that has come.
#[derive(Debug)]
pub struct RxToken<'t, 'a> {
    receive: &'t mut Receive<'a>,
    buffer: u16,
    length: usize,
}

impl smoltcp::phy::RxToken for RxToken<'_, '_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        let result = read(&self.receive.buffers.bytes(self.buffer)[HEADER..self.length]);
        self.receive.received += self.length;
        self.receive.offer(self.buffer);
        result
    }
}

/// Room for a frame.
#[derive(Debug)]
pub struct TxToken<'t, 'a> {
    transmit: &'t mut Transmit<'a>,
    segment: Option<NonZeroU16>,
}

impl smoltcp::phy::TxToken for TxToken<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let transmit = self.transmit;
        transmit.free_count -= 1;
        let buffer = transmit.free[transmit.free_count];
        let bytes = transmit.buffers.bytes(buffer);
        let result = write(&mut bytes[HEADER..HEADER + length]);
        if let (Some(header), frame) = split_header(&mut bytes[..HEADER + length]) {
            frame::finish(header, frame, self.segment);
        }
        let address = transmit.buffers.address(buffer);
        transmit.queue.offer(buffer, address, (HEADER + length) as u32, false);
        transmit.sent += HEADER + length;
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size;
    }
}

fn split_header(bytes: &mut [u8]) -> (Option<&mut [u8; HEADER]>, &mut [u8]) {
    match bytes.split_first_chunk_mut() {
        Some((header, frame)) => (Some(header), frame),
        None => (None, &mut []),
    }
}
