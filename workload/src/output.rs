//! The standard output of an instance, read line by line with a deadline.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Why no line could be read.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The system refused to read.
    #[error("read the output")]
    Read(#[source] rustix::io::Errno),
    /// No whole line came in time.
    #[error("no line of output within {0:?}")]
    Deadline(Duration),
    /// The output was closed; what came before is given.
    #[error("the output ended{}", if .0.is_empty() { String::new() } else { format!(" after `{}`", .0) })]
    Ended(String),
    /// A line is longer than [`Output::LONGEST_LINE`].
    #[error("a line of output is longer than {} bytes", Output::LONGEST_LINE)]
    TooLong,
}

/// The read end of an instance's standard output.
#[derive(Debug)]
pub struct Output {
    source: OwnedFd,
    pending: Vec<u8>,
}

impl Output {
    /// Longest line that is accepted, in bytes: what is inside may be hostile and must not fill our memory.
    pub const LONGEST_LINE: usize = 1 << 20;

    /// Reads from a pipe or socket.
    pub fn new(source: OwnedFd) -> Self {
        Self { source, pending: Vec::new() }
    }

    /// The next line without its newline.
    pub fn line(&mut self, deadline: Duration) -> Result<String, OutputError> {
        let end = Instant::now() + deadline;
        let mut buffer = [0_u8; 4096];
        loop {
            if let Some(length) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=length).collect();
                return Ok(String::from_utf8_lossy(&line[..length]).into_owned());
            }
            if self.pending.len() > Self::LONGEST_LINE {
                return Err(OutputError::TooLong);
            }
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let mut waited = [PollFd::new(&self.source, PollFlags::IN)];
            match poll(&mut waited, Some(&timeout)) {
                Ok(0) => return Err(OutputError::Deadline(deadline)),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(OutputError::Read(errno)),
            }
            match rustix::io::read(&self.source, &mut buffer) {
                Ok(0) => {
                    let rest = String::from_utf8_lossy(&self.pending).into_owned();
                    self.pending.clear();
                    return Err(OutputError::Ended(rest));
                }
                Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(OutputError::Read(errno)),
            }
        }
    }
}
