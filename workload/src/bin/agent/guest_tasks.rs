//! The programs of a Linux guest with their streams: the first one, with which the guest ends, and those that are begun beside it.

use crate::Failure;
use crate::guest_command::{BECOME, OWN_FAILURE, reap, send, tell};
use isobench_workload::Input;
use isobench_workload::guest::{Decoder, FIRST, GuestCommand, Kind, MOST_PROGRAMS, TOLD_AT_ONCE, WINDOW, encode};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};
use std::process::{Command, Stdio};

/// A program with its streams.
pub(crate) struct Task {
    stream: u32,
    pid: i32,
    input: Input,
    /// Bytes of input that came and of which the other side has not been told that they were taken.
    untold: usize,
    outputs: Vec<(Kind, OwnedFd)>,
    /// So many bytes of output may still be sent.
    window: usize,
    terminal: Option<OwnedFd>,
    /// Its exit status, once it has ended.
    status: Option<u8>,
}

impl Task {
    /// Starts a command, in a process that becomes it.
    pub(crate) fn start(stream: u32, command: &GuestCommand) -> Result<Self, Failure> {
        // Everybody else's process goes by this one, so a program of its own sets what a fork would have to.
        let mut program = Command::new("/proc/self/exe");
        program.arg(BECOME).arg(serde_json::to_string(command)?).env_clear();
        Self::spawn(stream, program, command.terminal)
    }

    fn spawn(stream: u32, mut program: Command, terminal: Option<(u16, u16)>) -> Result<Self, Failure> {
        let (mut input, mut outputs, mut controlling) = (Input::default(), Vec::new(), None);
        if let Some((rows, columns)) = terminal {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let master = rustix::pty::openpt(flags).map_err(|error| format!("make a terminal: {error}"))?;
            rustix::pty::unlockpt(&master)?;
            resize(&master, rows, columns);
            let name = rustix::pty::ptsname(&master, Vec::new())?;
            let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
            program.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
            input = Input::new(master.try_clone()?)?;
            outputs.push((Kind::Output, non_blocking(master.try_clone()?)?));
            controlling = Some(master);
        } else {
            program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = program.spawn().map_err(|error| format!("start the program: {error}"))?;
        // Its ends of the terminal must not stay open here.
        drop(program);
        if let Some(pipe) = child.stdin.take() {
            input = Input::new(pipe.into())?;
        }
        if let (Some(output), Some(error)) = (child.stdout.take(), child.stderr.take()) {
            outputs.push((Kind::Output, non_blocking(output.into())?));
            outputs.push((Kind::Error, non_blocking(error.into())?));
        }
        let pid = child.id() as i32;
        Ok(Self { stream, pid, input, untold: 0, outputs, window: WINDOW, terminal: controlling, status: None })
    }

    /// Does what a frame asks for.
    fn obey(&mut self, kind: Kind, payload: &[u8]) {
        match (kind, payload) {
            (Kind::Input, bytes) => {
                self.untold += bytes.len();
                self.input.give(bytes);
            }
            // A terminal's input ends by a character.
            (Kind::EndOfInput, _) if self.terminal.is_none() => self.input.end(),
            (Kind::Credit, &[a, b, c, d]) => {
                self.window = (self.window + u32::from_le_bytes([a, b, c, d]) as usize).min(WINDOW);
            }
            (Kind::Resize, &[rows, more_rows, columns, more_columns]) => {
                if let Some(terminal) = &self.terminal {
                    let (rows, columns) = ([rows, more_rows], [columns, more_columns]);
                    resize(terminal, u16::from_le_bytes(rows), u16::from_le_bytes(columns));
                }
            }
            (Kind::Signal, &[number]) => {
                // One that has been reaped may be anybody's number by now.
                if let Some(signal) = Signal::try_from(i32::from(number)).ok().filter(|_| self.status.is_none()) {
                    let _ = nix::sys::signal::kill(Pid::from_raw(self.pid), signal);
                }
            }
            _ => {}
        }
    }

    /// Writes what the program takes, and tells the other side of it from time to time.
    fn feed(&mut self, channel: &OwnedFd) -> Result<(), Failure> {
        self.input.write();
        let taken = self.untold.saturating_sub(self.input.waiting());
        if taken >= TOLD_AT_ONCE {
            self.untold -= taken;
            tell(channel, Kind::Credit, self.stream, &(taken as u32).to_le_bytes())?;
        }
        Ok(())
    }

    /// Sends what is there on an output, as far as it may; whether there was anything. An output that has ended is forgotten.
    fn carry(&mut self, number: usize, channel: &OwnedFd) -> Result<bool, Failure> {
        let mut buffer = [0; 16 << 10];
        let most = self.window.min(buffer.len());
        let Some((kind, output)) = self.outputs.get(number).filter(|_| most > 0) else { return Ok(false) };
        match rustix::io::read(output, &mut buffer[..most]) {
            Ok(length) if length > 0 => {
                self.window -= length;
                let mut bytes = Vec::with_capacity(length + 16);
                encode(*kind, self.stream, &buffer[..length], &mut bytes);
                send(channel, &bytes)?;
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            // A terminal whose other end nobody has any more gives EIO.
            Ok(_) | Err(_) => {
                self.outputs.remove(number);
                Ok(false)
            }
        }
    }

    /// Sends what a program that has ended has left in its outputs; its status, once that is all. What its own children write from
    /// then on is lost.
    fn last(&mut self, channel: &OwnedFd) -> Result<Option<u8>, Failure> {
        let Some(status) = self.status else { return Ok(None) };
        for number in (0..self.outputs.len()).rev() {
            while self.carry(number, channel)? {}
        }
        Ok((self.window > 0 || self.outputs.is_empty()).then_some(status))
    }
}

/// Carries the streams of all programs until the first has ended; gives its exit status.
pub(crate) fn carry(channel: &OwnedFd, decoder: &mut Decoder, children: &SignalFd, first: Task) -> Result<u8, Failure> {
    let mut tasks = vec![first];
    loop {
        let ready = wait(channel, children, &tasks)?;
        for task in &mut tasks {
            // From the last one on, since one that has ended is forgotten.
            for number in (0..task.outputs.len()).rev() {
                task.carry(number, channel)?;
            }
        }
        if ready.channel {
            let mut buffer = [0; 4096];
            let length = rustix::io::read(channel, &mut buffer).unwrap_or(0);
            let mut frames = Vec::new();
            decoder.take(&buffer[..length], |kind, stream, payload| frames.push((kind, stream, payload.to_vec())))?;
            for (kind, stream, payload) in frames {
                match tasks.iter_mut().find(|task| task.stream == stream) {
                    Some(task) => task.obey(kind, &payload),
                    None if kind == Kind::Start => tasks.extend(begin(channel, stream, &payload, tasks.len())?),
                    // For one that has ended meanwhile.
                    None => {}
                }
            }
        }
        if ready.children {
            while let Ok(Some(_)) = children.read_signal() {}
            reap(|pid, status| {
                if let Some(task) = tasks.iter_mut().find(|task| task.pid == pid && task.status.is_none()) {
                    task.status = Some(status);
                }
            })?;
        }
        let mut index = 0;
        while let Some(task) = tasks.get_mut(index) {
            task.feed(channel)?;
            match task.last(channel)? {
                Some(status) if task.stream == FIRST => return Ok(status),
                Some(status) => {
                    tell(channel, Kind::Exited, task.stream, &[status])?;
                    tasks.remove(index);
                }
                None => index += 1,
            }
        }
    }
}

/// Begins a program beside the first one. One that cannot be begun is told of as one that has ended.
fn begin(channel: &OwnedFd, stream: u32, text: &[u8], running: usize) -> Result<Option<Task>, Failure> {
    let started = match serde_json::from_slice(text) {
        Ok(_) if running >= MOST_PROGRAMS => Err("too many programs run in the guest".into()),
        Ok(command) => Task::start(stream, &command),
        Err(error) => Err(error.into()),
    };
    match started {
        Ok(task) => Ok(Some(task)),
        Err(error) => {
            tell(channel, Kind::Error, stream, format!("isobench: {error}\n").as_bytes())?;
            tell(channel, Kind::Exited, stream, &[OWN_FAILURE])?;
            Ok(None)
        }
    }
}

/// What there is to be done, beside outputs and inputs, which are tried.
struct Ready {
    children: bool,
    channel: bool,
}

/// Waits until there is something to be done.
fn wait(channel: &OwnedFd, children: &SignalFd, tasks: &[Task]) -> Result<Ready, Failure> {
    let mut waited = vec![PollFd::new(children, PollFlags::IN), PollFd::new(channel, PollFlags::IN)];
    for task in tasks {
        if task.window > 0 {
            waited.extend(task.outputs.iter().map(|(_, output)| PollFd::new(output, PollFlags::IN)));
        }
        waited.extend(task.input.blocked().map(|input| PollFd::from_borrowed_fd(input, PollFlags::OUT)));
    }
    match poll(&mut waited, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(format!("wait for the program: {error}").into()),
    }
    Ok(Ready { children: !waited[0].revents().is_empty(), channel: !waited[1].revents().is_empty() })
}

fn non_blocking(descriptor: OwnedFd) -> Result<OwnedFd, Failure> {
    fcntl_setfl(&descriptor, OFlags::NONBLOCK)?;
    Ok(descriptor)
}

fn resize(terminal: &OwnedFd, rows: u16, columns: u16) {
    let _ = tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 });
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};

    fn shell(script: &str) -> Task {
        let mut program = Command::new("/bin/sh");
        program.args(["-c", script]);
        Task::spawn(5, program, None).unwrap()
    }

    #[test]
    fn a_task_takes_input_and_gives_output_and_its_end() {
        let mut task = shell("read line; echo \"$line\"; echo error >&2; exit 7");
        task.obey(Kind::Input, b"typed\n");
        task.obey(Kind::EndOfInput, &[]);
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut frames = Vec::new();
        let mut decoder = Decoder::default();
        while !task.outputs.is_empty() {
            for number in (0..task.outputs.len()).rev() {
                if task.carry(number, &write).unwrap() {
                    let mut buffer = [0; 4096];
                    let length = rustix::io::read(&read, &mut buffer).unwrap();
                    let taken = decoder.take(&buffer[..length], |kind, stream, payload| {
                        assert_eq!(stream, 5);
                        frames.push((kind, payload.to_vec()));
                    });
                    taken.unwrap();
                }
            }
            std::thread::yield_now();
        }
        frames.sort_by_key(|(kind, _)| *kind as u8);
        assert_eq!(frames, [(Kind::Output, b"typed\n".to_vec()), (Kind::Error, b"error\n".to_vec())]);
        let status = waitpid(Pid::from_raw(task.pid), None).unwrap();
        assert_eq!(status, WaitStatus::Exited(Pid::from_raw(task.pid), 7));
    }

    #[test]
    fn no_more_is_sent_than_may_be_under_way() {
        let mut task = shell("exec head -c 1000000 /dev/zero");
        let null = OwnedFd::from(std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap());
        while task.window > 0 {
            task.carry(0, &null).unwrap();
            std::thread::yield_now();
        }
        assert!(!task.carry(0, &null).unwrap());
        task.status = Some(0);
        assert_eq!(task.last(&null).unwrap(), None);
        task.obey(Kind::Credit, &10_u32.to_le_bytes());
        assert_eq!(task.window, 10);
        // More than there is under way is never given back.
        task.obey(Kind::Credit, &u32::MAX.to_le_bytes());
        assert_eq!(task.window, WINDOW);
        nix::sys::signal::kill(Pid::from_raw(task.pid), Signal::SIGKILL).unwrap();
        waitpid(Pid::from_raw(task.pid), None).unwrap();
    }
}
