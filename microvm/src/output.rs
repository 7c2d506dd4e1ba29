//! Where a guest's lines go. The thread of a vCPU writes them: whoever does not read them holds the guest up, but neither its end nor
//! its deadline.

use crate::system::DeadlineGuard;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// So much is written at once to what is said to be ready, so that a pipe takes it all (pipe(7), PIPE_BUF).
const WRITTEN_AT_ONCE: usize = 4096;
/// How long it takes at most until whoever waits for a reader sees that the guest is to end.
const AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// The standard output. Unlike the standard library's, it gives up with [`ErrorKind::Interrupted`] after a while in which nothing can
/// be written, so that the writer can look round.
#[derive(Debug)]
pub struct StandardOutput;

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let output = rustix::stdio::stdout();
        if poll(&mut [PollFd::from_borrowed_fd(output, PollFlags::OUT)], Some(&AGAIN))? == 0 {
            return Err(ErrorKind::Interrupted.into());
        }
        Ok(rustix::io::write(output, &bytes[..bytes.len().min(WRITTEN_AT_ONCE)])?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An output to which lines are written until the guest is to end.
#[derive(Debug)]
pub(crate) struct Lines<W> {
    pub(crate) output: W,
    /// Whether the guest was dismissed.
    over: Arc<AtomicBool>,
}

impl<W: Write> Lines<W> {
    pub(crate) fn new(output: W) -> Self {
        Self { output, over: Arc::default() }
    }

    /// Has the lines given up once this is true.
    pub(crate) fn end_with(&mut self, over: Arc<AtomicBool>) {
        self.over = over;
    }

    /// Writes a line, or what of it is taken before the guest is to end.
    pub(crate) fn say(&mut self, line: &str) {
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            match self.output.write(rest) {
                Ok(written) if written > 0 => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted && !self.is_ending() => {}
                // Who started us may have closed the pipe; the guest runs all the same.
                Ok(_) | Err(_) => return,
            }
        }
        let _ = self.output.flush();
    }

    fn is_ending(&self) -> bool {
        self.over.load(Ordering::SeqCst) || DeadlineGuard::expired()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::ONE_DEADLINE;

    /// Takes so many bytes, one at a time and each at the second try, and then none; after so many tries the guest is to end.
    struct Slow {
        taken: Vec<u8>,
        room: usize,
        tries: usize,
        over: Arc<AtomicBool>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.tries += 1;
            self.over.fetch_or(self.tries == 100, Ordering::SeqCst);
            if self.tries.is_multiple_of(2) || self.taken.len() == self.room {
                return Err(ErrorKind::Interrupted.into());
            }
            self.taken.push(bytes[0]);
            Ok(1)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_waited_for_until_the_guest_is_to_end() {
        let _one = ONE_DEADLINE.lock().unwrap();
        for (room, wanted) in [(100, "a line\n"), (3, "a l")] {
            let over = Arc::new(AtomicBool::new(false));
            let mut lines = Lines::new(Slow { taken: Vec::new(), room, tries: 0, over: Arc::clone(&over) });
            lines.end_with(over);
            lines.say("a line\n");
            assert_eq!(lines.output.taken, wanted.as_bytes());
        }
    }
}
