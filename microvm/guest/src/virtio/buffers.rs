//! Memory that is handed out once, and buffers that a device writes to. All `unsafe` code of this library is here.
#![allow(unsafe_code)]

use crate::contract::QUEUE_SIZE;
use crate::frame::BUFFER;
use core::marker::PhantomData;

/// A range of memory from which pieces are cut off, never to come back.
#[derive(Debug)]
pub struct Arena<'a> {
    next: *mut u8,
    left: usize,
    lifetime: PhantomData<&'a mut [u8]>,
}

impl<'a> Arena<'a> {
    /// An arena over memory of its own.
    pub fn new(memory: &'a mut [u8]) -> Self {
        Self { next: memory.as_mut_ptr(), left: memory.len(), lifetime: PhantomData }
    }

    /// How much is left, in bytes.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Cuts off a piece; `None` where there is too little left.
    pub fn cut(&mut self, length: usize) -> Option<&'a mut [u8]> {
        let piece = self.cut_raw(length)?;
        // SAFETY: `length` bytes of the range that `new` was given for 'a, which no other piece overlaps.
        Some(unsafe { core::slice::from_raw_parts_mut(piece, length) })
    }

    /// Cuts off all that is left, as numbers, of which the first begins a cache line.
    pub fn cut_numbers(&mut self) -> &'a mut [u64] {
        let Some(rest) = self.cut(self.left) else { return &mut [] };
        let begin = rest.as_ptr().align_offset(64).min(rest.len());
        // SAFETY: every eight bytes are a number.
        unsafe { rest[begin..].align_to_mut().1 }
    }

    /// Cuts off the buffers of one queue.
    pub fn cut_buffers(&mut self) -> Option<Buffers<'a>> {
        let base = self.cut_raw(QUEUE_SIZE * BUFFER)?;
        Some(Buffers { base, lifetime: PhantomData })
    }

    fn cut_raw(&mut self, length: usize) -> Option<*mut u8> {
        if length > self.left {
            return None;
        }
        let piece = self.next;
        // SAFETY: at most one past the end of the range, as just checked.
        self.next = unsafe { piece.add(length) };
        self.left -= length;
        Some(piece)
    }
}

/// The buffers of one queue. A pointer rather than slices, since while a buffer is the device's, the device writes to it.
#[derive(Debug)]
pub struct Buffers<'a> {
    base: *mut u8,
    lifetime: PhantomData<&'a mut [u8]>,
}

impl Buffers<'_> {
    /// Where a buffer lies.
    pub(super) fn address(&self, buffer: u16) -> u64 {
        self.base.addr() as u64 + u64::from(buffer) * BUFFER as u64
    }

    /// The bytes of a buffer that is the driver's at present.
    pub(super) fn bytes(&mut self, buffer: u16) -> &mut [u8] {
        assert!(usize::from(buffer) < QUEUE_SIZE);
        // SAFETY: within the range that was cut off for this value alone. The card offers a buffer to the device only after
        // it has let go of the slice, and asks for it only after the device has given it back (`DriverQueue::take`, whose
        // acquire load orders the device's writes before these reads).
        unsafe { core::slice::from_raw_parts_mut(self.base.add(usize::from(buffer) * BUFFER), BUFFER) }
    }
}
