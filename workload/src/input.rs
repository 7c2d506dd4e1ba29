//! A program's standard input from this side: bytes that come faster than the program takes them wait here.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;

/// The writing end of a program's input.
#[derive(Debug, Default)]
pub struct Input {
    descriptor: Option<OwnedFd>,
    /// What the program has not taken yet.
    waiting: Vec<u8>,
    /// Whether nothing follows what waits.
    ends: bool,
}

impl Input {
    /// So many bytes may wait before no more should be given.
    pub const ENOUGH: usize = 64 << 10;

    /// An input by this end, which is made non-blocking. Of a pipe or a terminal that is this end alone.
    ///
    /// # Errors
    /// Where fcntl(2) fails.
    pub fn new(descriptor: OwnedFd) -> Result<Self, Errno> {
        fcntl_setfl(&descriptor, OFlags::NONBLOCK)?;
        Ok(Self { descriptor: Some(descriptor), ..Self::default() })
    }

    /// Whether more should be given now.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < Self::ENOUGH
    }

    /// How many bytes the program has not taken yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// What to wait for until something can be written, where something is to be written.
    pub fn blocked(&self) -> Option<BorrowedFd<'_>> {
        self.descriptor.as_ref().filter(|_| !self.waiting.is_empty()).map(AsFd::as_fd)
    }

    /// Takes bytes for the program. What comes after the end, or after the program has closed its input, is lost.
    pub fn give(&mut self, bytes: &[u8]) {
        if self.descriptor.is_some() && !self.ends {
            self.waiting.extend_from_slice(bytes);
            self.write();
        }
    }

    /// Lets the program's input end once it has taken all so far.
    pub fn end(&mut self) {
        self.ends = true;
        self.write();
    }

    /// Writes as much as the program takes now.
    pub fn write(&mut self) {
        while let Some(descriptor) = self.descriptor.as_ref().filter(|_| !self.waiting.is_empty()) {
            match rustix::io::write(descriptor, &self.waiting) {
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                // The program has closed it: nobody will ever read the rest.
                Err(_) => {
                    self.waiting.clear();
                    self.descriptor = None;
                }
            }
        }
        if self.ends {
            self.descriptor = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_waits_and_the_end_comes_last() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut input = Input::new(write).unwrap();
        let sent = vec![7; 200_000];
        input.give(&sent);
        assert!(!input.has_room() && input.blocked().is_some());
        input.end();
        input.give(b"too late");
        let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match rustix::io::read(&read, &mut buffer).unwrap() {
                0 => break,
                length => received.extend_from_slice(&buffer[..length]),
            }
            input.write();
        }
        assert_eq!(received, sent);
    }

    #[test]
    fn an_input_that_the_program_has_closed_takes_everything_and_keeps_nothing() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        drop(read);
        let mut input = Input::new(write).unwrap();
        input.give(&[7; 100_000]);
        assert!(input.has_room() && input.blocked().is_none());
    }
}
