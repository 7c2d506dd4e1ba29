//! A device's configuration space (VIRTIO 1.2, 2.5): the driver reads it, the device may change it meanwhile, and a few devices let
//! the driver write a part of it.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A handle on one device's configuration space, which its registers and whoever controls the device share.
#[derive(Clone, Debug)]
pub struct Configuration(Arc<Mutex<Space>>);

#[derive(Debug)]
struct Space {
    bytes: Vec<u8>,
    writable: Range<usize>,
    generation: u32,
}

impl Configuration {
    /// A space with this content, of which the driver may write a part.
    pub fn new(bytes: Vec<u8>, writable: Range<usize>) -> Self {
        Self(Arc::new(Mutex::new(Space { bytes, writable, generation: 0 })))
    }

    /// A field of 32 bits; 0 where there is none.
    pub fn word(&self, at: usize) -> u32 {
        let mut word = [0; 4];
        self.read(at, &mut word);
        u32::from_le_bytes(word)
    }

    /// Changes a field of 32 bits; the driver must be told by an interrupt.
    pub fn set_word(&self, at: usize, value: u32) {
        let mut space = self.space();
        if let Some(place) = space.bytes.get_mut(at..at.saturating_add(4)) {
            place.copy_from_slice(&value.to_le_bytes());
            space.generation = space.generation.wrapping_add(1);
        }
    }

    /// What the driver reads; beyond the end, zeros.
    pub(super) fn read(&self, at: usize, data: &mut [u8]) {
        let space = self.space();
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = at.checked_add(index).and_then(|at| space.bytes.get(at).copied()).unwrap_or(0);
        }
    }

    /// What the driver writes; beyond the part that is its own, nothing.
    pub(super) fn write(&self, at: usize, data: &[u8]) {
        let mut space = self.space();
        let end = at.saturating_add(data.len());
        if space.writable.start <= at && end <= space.writable.end {
            // The writable part lies within the space, or there is nothing at its place.
            if let Some(place) = space.bytes.get_mut(at..end) {
                place.copy_from_slice(data);
            }
        }
    }

    /// The whole content.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.space().bytes.clone()
    }

    /// Sets the whole content; whether it has the length of this space's.
    pub(super) fn set_bytes(&self, bytes: &[u8]) -> bool {
        let mut space = self.space();
        let fits = space.bytes.len() == bytes.len();
        if fits {
            space.bytes.copy_from_slice(bytes);
            space.generation = space.generation.wrapping_add(1);
        }
        fits
    }

    /// A number that is another after each change by the device.
    pub(super) fn generation(&self) -> u32 {
        self.space().generation
    }

    fn space(&self) -> MutexGuard<'_, Space> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_writes_its_own_part_alone() {
        let configuration = Configuration::new(vec![1; 12], 4..8);
        for (at, length) in [(0, 4), (2, 4), (6, 4), (8, 4), (usize::MAX, 4), (4, 8)] {
            configuration.write(at, &vec![9; length]);
        }
        assert_eq!([0, 4, 8].map(|at| configuration.word(at)), [0x0101_0101; 3]);
        configuration.write(4, &[2, 0, 0, 0]);
        assert_eq!((configuration.word(4), configuration.generation()), (2, 0));
        let mut beyond = [7; 4];
        configuration.read(10, &mut beyond);
        assert_eq!(beyond, [1, 1, 0, 0]);
    }

    #[test]
    fn each_change_by_the_device_shows() {
        let configuration = Configuration::new(vec![0; 4], 0..0);
        configuration.set_word(0, 5);
        configuration.set_word(1, 6);
        assert_eq!((configuration.word(0), configuration.generation()), (5, 1));
    }
}
