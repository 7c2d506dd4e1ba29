//! The ports of a PC that a kernel asks for even where it was told that they are not there. An answer costs nothing; none costs
//! seconds of waiting.

use super::console::Shared;
use super::layout;
use crate::bus::{Bus, Device, Overlap, Reaction};
use isobench_workload::Stage;
use std::fmt::Debug;
use std::io::Write;

/// Command and status port of the keyboard controller, which on a PC also pulls the reset line.
const KEYBOARD: u64 = 0x64;
/// Its command to pulse the reset line, bit 0 of its output port (IBM PC AT Technical Reference).
const RESET: u8 = 0xfe;
/// Ports of the real-time clock: number and value.
const CLOCK: u64 = 0x70;

/// Puts the ports on the bus.
pub(super) fn attach<W: Write + Debug + Send + 'static>(bus: &mut Bus, transcript: Shared<W>) -> Result<(), Overlap> {
    bus.insert(KEYBOARD..KEYBOARD + 1, Box::new(Keyboard))?;
    bus.insert(CLOCK..CLOCK + 2, Box::new(Clock))?;
    let begin = u64::from(layout::BEGIN_PORT);
    bus.insert(begin..begin + 1, Box::new(Begin(transcript)))
}

/// The keyboard controller: always ready, never with a key, and able to reset the machine.
#[derive(Debug)]
struct Keyboard;

impl Device for Keyboard {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Reaction {
        // The console holds the status with which the agent took leave.
        if data == [RESET] { Reaction::Exit(0) } else { Reaction::Continue }
    }
}

/// The real-time clock: no update is ever in progress.
#[derive(Debug)]
struct Clock;

impl Device for Clock {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) -> Reaction {
        Reaction::Continue
    }
}

/// The guest's first instruction.
#[derive(Debug)]
struct Begin<W>(Shared<W>);

impl<W: Write + Debug + Send> Device for Begin<W> {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, _offset: u64, _data: &[u8]) -> Reaction {
        self.0.with(|transcript| transcript.stamp(Stage::GuestEntered));
        Reaction::Continue
    }
}
