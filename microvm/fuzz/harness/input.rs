//! Bytes as a source of decisions. One that has ended gives zeros.

/// What is left of the bytes.
#[derive(Debug)]
pub(super) struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let length = N.min(self.0.len());
        let (now, later) = self.0.split_at(length);
        taken[..length].copy_from_slice(now);
        self.0 = later;
        taken
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    pub(super) fn bool(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(super) fn half(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    pub(super) fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    /// A number below this one.
    pub(super) fn below(&mut self, most: usize) -> usize {
        usize::from(self.half()) % most
    }

    /// So many bytes, or those that are left.
    pub(super) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let (now, later) = self.0.split_at(length.min(self.0.len()));
        self.0 = later;
        now.to_vec()
    }
}
