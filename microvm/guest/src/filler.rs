//! What a source sends, written no more often than it must be.

/// The byte that [`Operation::Source`](isobench_workload::protocol::Operation::Source) repeats.
const FILLER: u8 = 0x5a;

/// What of a connection's transmit buffer, which is a ring, holds filler already: a source sends the same bytes again and again, and
/// as a program that sends the same memory each time it need not write them again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filler {
    /// Address of the ring's first byte, once it is known.
    start: Option<usize>,
    /// So many bytes from there are filled.
    filled: usize,
}

impl Filler {
    /// Fills a part of the ring that is about to be sent.
    pub(crate) fn fill(&mut self, part: &mut [u8], capacity: usize) {
        // An empty ring begins at its start (smoltcp's RingBuffer), and a source begins with an empty one.
        let start = *self.start.get_or_insert(part.as_ptr().addr());
        let offset = part.as_ptr().addr().wrapping_sub(start);
        if offset > self.filled || offset + part.len() > capacity {
            // Not as it was thought to be.
            part.fill(FILLER);
            return;
        }
        let known = (self.filled - offset).min(part.len());
        part[known..].fill(FILLER);
        self.filled = self.filled.max(offset + part.len());
    }
}
