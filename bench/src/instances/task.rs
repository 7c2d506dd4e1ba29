//! A process with its streams, as its supervisor sees it: the container's first one, or a further one.

use super::log::Source;
use anyhow::Context;
use isobench_runtime::terminal::{Console, Terminal};
use isobench_runtime::{Specification, Stream};
use isobench_workload::{Input, Process};
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::Winsize;

/// What of a task a descriptor that is waited for stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The process has ended.
    Process,
    /// Something can be read from its output of this number.
    Output(usize),
    /// Something can be written to its input.
    Input,
}

/// The supervisor's ends of a process's streams, before there is a process.
#[derive(Debug)]
pub(super) struct Ends {
    input: Input,
    outputs: Vec<(Source, OwnedFd)>,
    console: Option<Console>,
}

impl Ends {
    /// Gives a specification its streams: a terminal, or pipes; no input where none is wanted.
    pub(super) fn prepare(
        specification: &mut Specification,
        terminal: Option<(u16, u16)>,
        input: bool,
    ) -> anyhow::Result<Self> {
        let mut ends = Self { input: Input::default(), outputs: Vec::new(), console: None };
        if let Some((rows, columns)) = terminal {
            let (terminal, console) = Terminal::new(rows, columns)?;
            specification.terminal = Some(terminal);
            ends.console = Some(console);
            return Ok(ends);
        }
        let pipe = || pipe_with(PipeFlags::CLOEXEC).context("make a pipe");
        specification.input = Stream::Descriptor(if input {
            let (read, write) = pipe()?;
            ends.input = input_by(write)?;
            read
        } else {
            null(OFlags::RDONLY)?
        });
        for (source, stream) in
            [(Source::Stdout, &mut specification.output), (Source::Stderr, &mut specification.error)]
        {
            let (read, write) = pipe()?;
            ends.outputs.push((source, non_blocking(read)?));
            *stream = Stream::Descriptor(write);
        }
        Ok(ends)
    }

    /// Gives a specification streams that lead nowhere.
    pub(super) fn nowhere(specification: &mut Specification) -> anyhow::Result<Self> {
        specification.input = Stream::Descriptor(null(OFlags::RDONLY)?);
        specification.output = Stream::Descriptor(null(OFlags::WRONLY)?);
        specification.error = Stream::Descriptor(null(OFlags::WRONLY)?);
        Ok(Self { input: Input::default(), outputs: Vec::new(), console: None })
    }

    /// The task, once its process is launched.
    pub(super) fn task(mut self, process: Process) -> anyhow::Result<Task> {
        if let Some(console) = self.console.take() {
            let controlling = non_blocking(console.receive()?)?;
            self.input = input_by(controlling.try_clone().context("keep the terminal")?)?;
            self.outputs.push((Source::Stdout, controlling));
            return Ok(Task { is_terminal: true, ..Task::new(process, self) });
        }
        Ok(Task::new(process, self))
    }
}

fn null(flags: OFlags) -> anyhow::Result<OwnedFd> {
    rustix::fs::open("/dev/null", flags | OFlags::CLOEXEC, Mode::empty()).context("open /dev/null")
}

/// Only this end: a pipe's ends are opened apart, and so are a terminal's.
fn non_blocking(descriptor: OwnedFd) -> anyhow::Result<OwnedFd> {
    fcntl_setfl(&descriptor, OFlags::NONBLOCK).context("make a stream non-blocking")?;
    Ok(descriptor)
}

fn input_by(descriptor: OwnedFd) -> anyhow::Result<Input> {
    Input::new(descriptor).context("make a process's input non-blocking")
}

/// A process with its streams.
#[derive(Debug)]
pub(super) struct Task {
    /// The process.
    pub(super) process: Process,
    input: Input,
    /// Those that have ended are none any more.
    outputs: Vec<(Source, Option<OwnedFd>)>,
    is_terminal: bool,
}

impl Task {
    fn new(process: Process, ends: Ends) -> Self {
        let Ends { input, outputs, .. } = ends;
        let outputs = outputs.into_iter().map(|(source, output)| (source, Some(output))).collect();
        Self { process, input, outputs, is_terminal: false }
    }

    /// What is to be waited for; outputs only where somebody can take what is read.
    pub(super) fn interests(&self, read: bool) -> Vec<(Part, BorrowedFd<'_>, PollFlags)> {
        let mut all = vec![(Part::Process, self.process.pidfd(), PollFlags::IN)];
        if read {
            let outputs = self.outputs.iter().enumerate();
            all.extend(outputs.filter_map(|(number, (_, output))| {
                Some((Part::Output(number), output.as_ref()?.as_fd(), PollFlags::IN))
            }));
        }
        all.extend(self.input.blocked().map(|input| (Part::Input, input, PollFlags::OUT)));
        all
    }

    /// Whether more input can be taken.
    pub(super) fn takes_input(&self) -> bool {
        self.input.has_room()
    }

    /// Takes input for the process.
    pub(super) fn give(&mut self, bytes: &[u8]) {
        self.input.give(bytes);
    }

    /// The input ends once the process has taken all so far. A terminal's does not: it ends by a character.
    pub(super) fn end_input(&mut self) {
        if !self.is_terminal {
            self.input.end();
        }
    }

    /// Writes as much input as the process takes now.
    pub(super) fn write_input(&mut self) {
        self.input.write();
    }

    /// Reads from an output once; `None` where there is nothing now. An output that has ended is forgotten.
    pub(super) fn read(&mut self, number: usize, buffer: &mut [u8]) -> Option<(Source, usize)> {
        let (source, output) = self.outputs.get_mut(number)?;
        loop {
            match rustix::io::read(output.as_ref()?, &mut *buffer) {
                Ok(read) if read > 0 => return Some((*source, read)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                // A terminal whose other end nobody has any more gives EIO.
                Ok(_) | Err(_) => {
                    *output = None;
                    return None;
                }
            }
        }
    }

    /// How many outputs it has or had.
    pub(super) fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// Gives the terminal another size.
    pub(super) fn resize(&self, rows: u16, columns: u16) {
        if let Some((_, Some(terminal))) = self.outputs.first().filter(|_| self.is_terminal) {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = rustix::termios::tcsetwinsize(terminal, size);
        }
    }
}
