//! A request's memory: what the driver's descriptors name, checked against guest memory and read once.

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

/// Most descriptors of a request: the vectors of preadv(2) and pwritev(2) are limited to 1024, and no driver needs as many.
const MOST_DESCRIPTORS: usize = 256;

/// A ring can't be read or written, or its index is absurd: the device can't go on before the driver resets it.
#[derive(Debug, thiserror::Error)]
#[error("the {queue} ring is broken")]
pub struct BrokenRing {
    queue: &'static str,
    #[source]
    source: virtio_queue::Error,
}

impl BrokenRing {
    /// An error of this queue.
    pub fn of(queue: &'static str) -> impl Fn(virtio_queue::Error) -> Self + Copy {
        move |source| Self { queue, source }
    }
}

/// The memory of one request: what the driver has filled in, and what the device is to fill in.
#[derive(Debug, Default)]
pub(super) struct Buffers<'m> {
    pub(super) readable: Vec<VolatileSlice<'m>>,
    pub(super) writable: Vec<VolatileSlice<'m>>,
}

impl<'m> Buffers<'m> {
    /// Gathers a chain's memory; `None` where a descriptor lies outside memory, a readable one follows a writable one (VIRTIO
    /// 1.2, 2.7.4.2), there are too many, or there are more bytes than the used ring can count.
    pub(super) fn gather(memory: &'m GuestMemoryMmap, chain: DescriptorChain<&'m GuestMemoryMmap>) -> Option<Self> {
        let mut buffers = Self::default();
        let mut length = 0_u32;
        for (count, descriptor) in chain.enumerate() {
            if count == MOST_DESCRIPTORS {
                return None;
            }
            length = length.checked_add(descriptor.len())?;
            if descriptor.len() == 0 {
                continue;
            }
            let slice = memory.get_slice(GuestAddress(descriptor.addr().0), descriptor.len() as usize).ok()?;
            match (descriptor.is_write_only(), buffers.writable.is_empty()) {
                (true, _) => buffers.writable.push(slice),
                (false, true) => buffers.readable.push(slice),
                (false, false) => return None,
            }
        }
        Some(buffers)
    }
}

/// How many bytes these slices have.
pub(super) fn length(slices: &[VolatileSlice<'_>]) -> usize {
    slices.iter().map(VolatileSlice::len).sum()
}

/// Drops the first bytes.
pub(super) fn advance(slices: &mut Vec<VolatileSlice<'_>>, mut count: usize) {
    let whole = slices.iter().take_while(|slice| {
        let covered = slice.len() <= count;
        count -= if covered { slice.len() } else { 0 };
        covered
    });
    let whole = whole.count();
    slices.drain(..whole);
    if let Some(first) = slices.first_mut()
        && let Ok(rest) = first.offset(count)
    {
        *first = rest;
    }
}

/// Takes the first bytes, as many as there are up to `into`'s length; gives their number.
pub(super) fn take(slices: &mut Vec<VolatileSlice<'_>>, into: &mut [u8]) -> usize {
    let mut done = 0;
    for slice in slices.iter() {
        done += slice.copy_to(&mut into[done..]);
    }
    advance(slices, done);
    done
}

/// Fills the first bytes, as far as there is room; gives their number.
pub(super) fn fill(slices: &[VolatileSlice<'_>], from: &[u8]) -> usize {
    let mut done = 0;
    for slice in slices {
        let part = &from[done..from.len().min(done + slice.len())];
        slice.copy_from(part);
        done += part.len();
    }
    done
}

/// Takes the last byte off.
pub(super) fn take_last<'m>(slices: &mut Vec<VolatileSlice<'m>>) -> Option<LastByte<'m>> {
    let last = slices.pop()?;
    let before = last.len().checked_sub(1)?;
    if let Ok(rest) = last.subslice(0, before)
        && before > 0
    {
        slices.push(rest);
    }
    Some(LastByte { slice: last, at: before })
}

/// The last byte of what the device fills in.
#[derive(Debug)]
pub(super) struct LastByte<'m> {
    slice: VolatileSlice<'m>,
    at: usize,
}

impl LastByte<'_> {
    pub(super) fn set(&self, value: u8) {
        // Within the slice, as it was made.
        let _ = self.slice.write_obj(value, self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_slices(lengths: &[usize], test: impl FnOnce(Vec<VolatileSlice<'_>>)) {
        let memory = crate::memory::create(2 << 20).unwrap();
        let bytes: Vec<u8> = (0..100).collect();
        memory.write_slice(&bytes, GuestAddress(0)).unwrap();
        let mut at = 0;
        let slice = |length: &usize| {
            let slice = memory.get_slice(GuestAddress(at), *length).unwrap();
            at += *length as u64;
            slice
        };
        test(lengths.iter().map(slice).collect());
    }

    #[test]
    fn bytes_are_taken_from_the_front_across_slices() {
        with_slices(&[3, 5, 10], |mut slices| {
            let mut header = [0; 5];
            assert_eq!(take(&mut slices, &mut header), 5);
            assert_eq!((header, length(&slices)), ([0, 1, 2, 3, 4], 13));
            advance(&mut slices, 3);
            assert_eq!((slices.len(), length(&slices)), (1, 10));
            let mut more = [0; 20];
            assert_eq!(take(&mut slices, &mut more), 10);
            assert_eq!((more[0], more[9], slices.len()), (8, 17, 0));
        });
    }

    #[test]
    fn the_last_byte_is_taken_even_where_it_is_alone() {
        with_slices(&[4, 1], |mut slices| {
            take_last(&mut slices).unwrap().set(0xff);
            assert_eq!(length(&slices), 4);
            let status = take_last(&mut slices).unwrap();
            status.set(0xee);
            assert_eq!(length(&slices), 3);
            assert!(take_last(&mut Vec::new()).is_none());
        });
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        with_slices(&[2, 3], |slices| {
            assert_eq!(fill(&slices, &[9; 20]), 5);
            assert_eq!(fill(&slices, &[7; 3]), 3);
            let mut bytes = [0; 5];
            take(&mut slices.clone(), &mut bytes);
            assert_eq!(bytes, [7, 7, 7, 9, 9]);
        });
    }
}
