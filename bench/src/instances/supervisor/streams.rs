//! What a supervisor carries between its processes and those who take part in them.

use super::{PATIENCE, Supervisor, failed};
use crate::instances::connection::{Connection, Role};
use crate::instances::log::Source;
use crate::instances::protocol::{Frame, Kind, Order};
use crate::instances::task::Part;
use rustix::event::PollFlags;
use rustix::process::Signal;

/// The most that a pipe holds where nobody raised it (/proc/sys/fs/pipe-max-size,
/// [pipe(7)](https://man7.org/linux/man-pages/man7/pipe.7.html)).
const FULL_PIPE: usize = 1 << 20;

impl Supervisor {
    pub(super) fn serve_first(&mut self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Input => self.task.write_input(),
            Part::Output(number) => {
                self.carry_first(number);
            }
            Part::Process => self.ended = Some(self.task.process.wait(PATIENCE)?.code()),
        }
        Ok(())
    }

    /// Carries what is there on an output to the log and to those who are attached; how many bytes that was.
    pub(super) fn carry_first(&mut self, number: usize) -> usize {
        let mut buffer = [0_u8; 32 << 10];
        let Some((source, length)) = self.task.read(number, &mut buffer) else { return 0 };
        // A log that cannot be written must not stop the container.
        let _ = self.log.write(source, &buffer[..length]);
        let attached = |connection: &&mut Connection| matches!(connection.role, Role::Attached { output: true, .. });
        for connection in self.connections.iter_mut().filter(attached) {
            connection.send(kind(source), &buffer[..length]);
        }
        length
    }

    pub(super) fn serve_further(&mut self, number: u64, part: Part) -> anyhow::Result<()> {
        let Some(index) = self.further.iter().position(|further| further.number == number) else { return Ok(()) };
        match part {
            Part::Input => self.further[index].task.write_input(),
            Part::Output(output) => {
                self.carry_further(index, output);
            }
            Part::Process => self.end_further(index)?,
        }
        Ok(())
    }

    fn carry_further(&mut self, index: usize, output: usize) -> usize {
        let mut buffer = [0_u8; 32 << 10];
        let further = &mut self.further[index];
        let Some((source, length)) = further.task.read(output, &mut buffer) else { return 0 };
        let role = Role::Executing(further.number);
        for connection in self.connections.iter_mut().filter(|connection| connection.role == role) {
            connection.send(kind(source), &buffer[..length]);
        }
        length
    }

    /// A further process has ended: what it wrote is still carried. What its own children write from now on is lost.
    pub(super) fn end_further(&mut self, index: usize) -> anyhow::Result<()> {
        // Its output first: what is said of it, such as how long it took, mostly follows.
        for output in 0..self.further[index].task.outputs() {
            drain(|| self.carry_further(index, output));
        }
        let mut further = self.further.remove(index);
        let code = further.task.process.wait(PATIENCE)?.code();
        let role = Role::Executing(further.number);
        self.connections
            .iter_mut()
            .filter(|connection| connection.role == role)
            .for_each(|connection| connection.end(code));
        Ok(())
    }

    pub(super) fn serve_connection(&mut self, index: usize, flags: PollFlags) -> anyhow::Result<()> {
        let connection = &mut self.connections[index];
        if flags.contains(PollFlags::OUT) {
            connection.flush();
        }
        if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            for frame in connection.receive() {
                // Whoever sends nonsense is heard no more.
                if self.take(index, &frame).is_err() {
                    self.connections[index].gone = true;
                    break;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, index: usize, frame: &Frame) -> std::io::Result<()> {
        let role = self.connections[index].role;
        if frame.kind == Kind::Detach {
            self.connections[index].detached = true;
            return Ok(());
        }
        if role == Role::New {
            let order: Order = frame.value()?;
            let answer = self.obey(index, order).unwrap_or_else(|error| Some(failed(&error)));
            if let Some(answer) = answer {
                self.connections[index].answer(&answer);
            }
            return Ok(());
        }
        let task = match role {
            Role::Attached { .. } => &mut self.task,
            Role::Executing(number) => match self.further.iter_mut().find(|further| further.number == number) {
                Some(further) => &mut further.task,
                None => return Ok(()),
            },
            Role::New | Role::Answered => return Ok(()),
        };
        let may_write = !matches!(role, Role::Attached { input: false, .. });
        match frame.kind {
            Kind::Input if may_write => task.give(&frame.payload),
            Kind::EndOfInput if may_write => task.end_input(),
            Kind::Resize => {
                if let [rows, more_rows, columns, more_columns] = frame.payload[..] {
                    task.resize(u16::from_le_bytes([rows, more_rows]), u16::from_le_bytes([columns, more_columns]));
                }
            }
            Kind::Signal => {
                if let Some(signal) = Signal::from_named_raw(frame.as_number()?) {
                    let _ = task.process.signal(signal);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Forgets connections that are gone; the input that they alone gave ends.
    pub(super) fn forget_gone(&mut self) {
        for connection in self.connections.iter().filter(|connection| connection.gone && !connection.detached) {
            match connection.role {
                Role::Attached { input: true, .. } if self.request.input_once => self.task.end_input(),
                Role::Executing(number) => {
                    if let Some(further) = self.further.iter_mut().find(|further| further.number == number) {
                        further.task.end_input();
                    }
                }
                _ => {}
            }
        }
        self.connections
            .retain(|connection| !(connection.gone || connection.role == Role::Answered && connection.is_flushed()));
    }
}

/// Carries what a process has left in an output, and no more than it can have left: its children may still write to it, faster
/// than it is read.
pub(super) fn drain(mut carry: impl FnMut() -> usize) {
    let mut left = FULL_PIPE;
    while left > 0 {
        match carry() {
            0 => return,
            carried => left = left.saturating_sub(carried),
        }
    }
}

fn kind(source: Source) -> Kind {
    match source {
        Source::Stdout => Kind::Output,
        Source::Stderr => Kind::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_is_always_full_is_left() {
        let mut carried = 0;
        drain(|| {
            carried += 32 << 10;
            assert!(carried <= FULL_PIPE);
            32 << 10
        });
        assert_eq!(carried, FULL_PIPE);
        let mut parts = [3, 2, 0].into_iter();
        drain(|| parts.next().unwrap());
        assert_eq!(parts.len(), 0);
    }
}
