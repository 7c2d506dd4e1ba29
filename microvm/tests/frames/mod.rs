//! A tap of a test's own.

use isobench_microvm::devices::virtio::net::FrameIo;
use std::io;
use vm_memory::VolatileSlice;

/// Frames in memory: gives those that it holds and keeps those that it is given.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    pub(crate) give: Vec<Vec<u8>>,
    pub(crate) taken: Vec<Vec<u8>>,
}

impl FrameIo for Frames {
    fn read_frame(&mut self, into: &[VolatileSlice<'_>]) -> io::Result<usize> {
        let frame = self.give.pop().ok_or(io::ErrorKind::WouldBlock)?;
        let mut rest = frame.as_slice();
        for slice in into {
            let (now, later) = rest.split_at(rest.len().min(slice.len()));
            slice.copy_from(now);
            rest = later;
        }
        Ok(frame.len() - rest.len())
    }

    fn write_frame(&mut self, from: &[VolatileSlice<'_>]) -> io::Result<usize> {
        let mut frame = Vec::new();
        for slice in from {
            let mut part = vec![0; slice.len()];
            slice.copy_to(&mut part[..]);
            frame.extend(part);
        }
        let length = frame.len();
        self.taken.push(frame);
        Ok(length)
    }
}
