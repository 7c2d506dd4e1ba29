//! Where a guest's lines go. The thread of a vCPU writes them: whoever does not read them holds the guest up, but neither a pause nor
//! its end nor its deadline.

use crate::system::DeadlineGuard;
use crate::vcpu::Crew;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;

/// So much is written at once to what is said to be ready, so that a pipe takes it all (pipe(7), PIPE_BUF).
const WRITTEN_AT_ONCE: usize = 4096;
/// How long it takes at most until whoever waits for a reader sees that the guest is to end or to stand still.
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
    /// Whose guest it is.
    crew: Arc<Crew>,
    /// What is not written yet.
    rest: VecDeque<u8>,
}

impl<W: Write> Lines<W> {
    pub(crate) fn new(output: W) -> Self {
        Self { output, crew: Arc::default(), rest: VecDeque::new() }
    }

    /// Has the lines given up once this crew is dismissed, and put off while it is paused.
    pub(crate) fn heed(&mut self, crew: Arc<Crew>) {
        self.crew = crew;
    }

    /// Writes a line, or what of it is taken before the guest is to end. Where it is to stand still first, the rest is kept for
    /// [`Lines::go_on`].
    pub(crate) fn say(&mut self, line: &str) {
        self.rest.extend(line.as_bytes());
        self.go_on();
    }

    /// Writes the rest of what was said before the guest stood still, in the same way.
    pub(crate) fn go_on(&mut self) {
        while !self.rest.is_empty() {
            match self.output.write(self.rest.as_slices().0) {
                Ok(written) if written > 0 => drop(self.rest.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted && !self.is_ending() => {
                    if self.crew.is_paused() {
                        return;
                    }
                }
                // Who started us may have closed the pipe; the guest runs all the same.
                Ok(_) | Err(_) => self.rest.clear(),
            }
        }
        let _ = self.output.flush();
    }

    fn is_ending(&self) -> bool {
        self.crew.is_over() || DeadlineGuard::expired()
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
        crew: Arc<Crew>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.tries += 1;
            if self.tries == 100 {
                self.crew.dismiss();
            }
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
            let crew = Arc::<Crew>::default();
            let mut lines = Lines::new(Slow { taken: Vec::new(), room, tries: 0, crew: Arc::clone(&crew) });
            lines.heed(crew);
            lines.say("a line\n");
            assert_eq!(lines.output.taken, wanted.as_bytes());
            assert!(lines.rest.is_empty());
        }
    }
}
