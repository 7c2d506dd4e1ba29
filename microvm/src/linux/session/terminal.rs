//! The terminal that is the standard input of this process, while it is the terminal of a program in a guest.

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use std::io;

/// A terminal that is raw as long as this is there: what is typed is for the guest's, which does with it what terminals do.
#[derive(Debug)]
pub(in crate::linux) struct RawTerminal {
    /// What it was before, where there is one.
    before: Option<Termios>,
}

impl RawTerminal {
    pub(in crate::linux) fn begin() -> io::Result<Self> {
        let input = io::stdin();
        if !isatty(&input) {
            return Ok(Self { before: None });
        }
        let before = tcgetattr(&input)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&input, OptionalActions::Now, &raw)?;
        Ok(Self { before: Some(before) })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // It fails where the terminal is gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}
