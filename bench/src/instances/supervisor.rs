//! The process that looks after one container: it launches it, keeps its log, carries streams, takes orders, and ends with it.
//!
//! It has one thread and waits in one place ([poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html)). It is a copy of its
//! starter, which says the first [`Order`] over a socket; its working directory is the container's, its name `isobench-keeper`.

use super::connection::{Connection, Role};
use super::execution::Executing;
use super::launching::{self, NotStarted, Running};
use super::log::{Log, Source};
use super::protocol::{Answer, Frame, Kind, Order};
use super::request::{Execution, Request};
use super::state::{State, Status, now};
use super::store::{self, CONTROL, LOCK, STATE};
use super::task::{Part, Task};
use super::{OWN_FAILURE, files, monitor, pause, refuse};
use crate::journal;
use anyhow::{Context, bail};
use isobench_runtime::cgroup::Cgroup;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal};
use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What the process is called in lists of processes.
const NAME: &CStr = c"isobench-keeper";

/// How long the kernel may take to remove a control group whose processes have ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// The supervisor of the container that lies in a directory, in a process of its own; gives the exit status. The socket is that
/// of its starter.
pub(super) fn main(directory: &Path, socket: UnixStream) -> i32 {
    match supervise(directory, socket) {
        Ok(()) => 0,
        // Whoever started it has been told, as far as anybody can be.
        Err(_) => 1,
    }
}

fn supervise(directory: &Path, socket: UnixStream) -> anyhow::Result<()> {
    // No terminal and no group of the starter's: Ctrl-C there is meant for the starter alone.
    rustix::process::setsid().context("begin a session")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::thread::set_name(NAME).context("take a name")?;
    // An ordinary user's first process has to map its user, by files that then would be root's.
    let root = rustix::process::geteuid().is_root();
    if root {
        refuse_looks()?;
    }
    std::env::set_current_dir(directory).context("enter the container's directory")?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").context("open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("detach the standard input")?;
    rustix::stdio::dup2_stdout(&null).context("detach the standard output")?;
    rustix::stdio::dup2_stderr(&null).context("detach the standard error")?;
    drop(null);
    let Some(frame) = Frame::receive(&socket)? else { return Ok(()) };
    let order: Order = frame.value()?;
    let mut first = Connection::new(socket)?;
    let (size, role) = match order {
        Order::Attach { input, output, size } => (size, Role::Attached { input, output }),
        _ => bail!("the first order must be to start"),
    };
    match Supervisor::start(size) {
        Ok(mut supervisor) => {
            if !root {
                refuse_looks()?;
            }
            first.role = role;
            first.answer(&Answer::Started);
            supervisor.connections.push(first);
            supervisor.run()
        }
        Err(error) => {
            first.answer(&failed(&error));
            Ok(())
        }
    }
}

/// What shares this memory until it is the container's program cannot be looked into from the container (CVE-2019-5736).
fn refuse_looks() -> anyhow::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).context("refuse to be looked into")
}

/// An error as an answer, with the exit status for it.
fn failed(error: &anyhow::Error) -> Answer {
    let code = error.downcast_ref::<NotStarted>().map_or(OWN_FAILURE, |error| error.code);
    Answer::Failed { message: format!("{error:#}"), code }
}

/// What a descriptor that is waited for stands for.
#[derive(Clone, Copy, Debug)]
enum Token {
    First(Part),
    Further(u64, Part),
    Listener,
    Connection(usize),
}

struct Supervisor {
    request: Request,
    state: State,
    lock: File,
    listener: UnixListener,
    log: Log,
    task: Task,
    cgroup: Option<Arc<Cgroup>>,
    attachment: super::attachment::Attachment,
    further: Vec<Executing>,
    next_further: u64,
    connections: Vec<Connection>,
    /// The exit code, once the container has ended.
    ended: Option<i32>,
}

impl Supervisor {
    /// Launches the container whose directory is the working directory.
    fn start(size: Option<(u16, u16)>) -> anyhow::Result<Self> {
        let name = own_name()?;
        let Some(lock) = store::lock(Path::new(LOCK), false)? else {
            return refuse(format!("{name} is running already"));
        };
        let request = store::own_request()?;
        let mut state = State { started: Some(now()), ..State::default() };
        let begun = Self::launch(&request, &name, size, &mut state);
        let (running, listener, log) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                if request.remove {
                    store::remove_directory(&std::env::current_dir()?)?;
                } else {
                    state.status = Status::Exited;
                    state.finished = Some(now());
                    state.exit_code = error.downcast_ref::<NotStarted>().map_or(OWN_FAILURE, |error| error.code);
                    state.error = Some(format!("{error:#}"));
                    state.control_group = None;
                    store::write(Path::new(STATE), &state)?;
                }
                return Err(error);
            }
        };
        let Running { task, cgroup, attachment, .. } = running;
        let (further, connections) = (Vec::new(), Vec::new());
        let (next_further, ended) = (1, None);
        Ok(Self {
            request,
            state,
            lock,
            listener,
            log,
            task,
            cgroup,
            attachment,
            further,
            next_further,
            connections,
            ended,
        })
    }

    fn launch(
        request: &Request,
        name: &str,
        size: Option<(u16, u16)>,
        state: &mut State,
    ) -> anyhow::Result<(Running, UnixListener, Log)> {
        let log = Log::open().context("open the container's log")?;
        let _ = std::fs::remove_file(CONTROL);
        let listener = UnixListener::bind(CONTROL).context("make the container's control socket")?;
        listener.set_nonblocking(true).context("make the control socket non-blocking")?;
        let size = size.unwrap_or((24, 80));
        let running = match &request.machine {
            None => launching::launch_container(request, name, size)?,
            Some(machine) => monitor::launch_machine(request, machine, name, size)?,
        };
        state.status = Status::Running;
        state.process = journal::name_of(running.task.process.pid() as u32)?;
        state.control_group = running.control_group.clone();
        state.link = running.attachment.link().map(str::to_owned);
        state.places = running.attachment.places().to_vec();
        state.ports = running.attachment.ports();
        store::write(Path::new(STATE), state)?;
        Ok((running, listener, log))
    }

    /// Looks after the container until it has ended and everybody knows.
    fn run(mut self) -> anyhow::Result<()> {
        while self.ended.is_none() {
            self.turn()?;
        }
        self.finish()
    }

    /// Waits until something is to be done, and does it.
    fn turn(&mut self) -> anyhow::Result<()> {
        for (token, flags) in self.wait()? {
            match token {
                Token::Listener => self.accept(),
                Token::First(part) => self.serve_first(part)?,
                Token::Further(number, part) => self.serve_further(number, part)?,
                Token::Connection(index) => self.serve_connection(index, flags)?,
            }
        }
        self.forget_gone();
        Ok(())
    }

    fn wait(&self) -> anyhow::Result<Vec<(Token, PollFlags)>> {
        let mut interests: Vec<(Token, BorrowedFd<'_>, PollFlags)> = Vec::new();
        if self.ended.is_none() {
            interests.push((Token::Listener, self.listener.as_fd(), PollFlags::IN));
            let first =
                self.task.interests(self.all_keep_up(|role| matches!(role, Role::Attached { output: true, .. })));
            interests
                .extend(first.into_iter().map(|(part, descriptor, flags)| (Token::First(part), descriptor, flags)));
            for Executing { number, task } in &self.further {
                let further = task.interests(self.all_keep_up(|role| *role == Role::Executing(*number)));
                interests.extend(
                    further
                        .into_iter()
                        .map(|(part, descriptor, flags)| (Token::Further(*number, part), descriptor, flags)),
                );
            }
        }
        for (index, connection) in self.connections.iter().enumerate() {
            let takes = match connection.role {
                Role::Attached { input: true, .. } => self.task.takes_input(),
                Role::Executing(number) => self.further(number).is_none_or(|further| further.task.takes_input()),
                _ => true,
            };
            interests.push((Token::Connection(index), connection.socket().as_fd(), connection.interest(takes)));
        }
        let mut polled: Vec<_> =
            interests.iter().map(|(_, descriptor, flags)| PollFd::from_borrowed_fd(*descriptor, *flags)).collect();
        loop {
            match poll(&mut polled, None) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("wait for something to do"),
            }
        }
        let ready = interests.iter().zip(&polled).filter(|(_, polled)| !polled.revents().is_empty());
        Ok(ready.map(|((token, ..), polled)| (*token, polled.revents())).collect())
    }

    fn all_keep_up(&self, concerned: impl Fn(&Role) -> bool) -> bool {
        self.connections.iter().filter(|connection| concerned(&connection.role)).all(Connection::keeps_up)
    }

    fn further(&self, number: u64) -> Option<&Executing> {
        self.further.iter().find(|further| further.number == number)
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            if let Ok(connection) = Connection::new(socket) {
                self.connections.push(connection);
            }
        }
    }

    fn serve_first(&mut self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Input => self.task.write_input(),
            Part::Output(number) => {
                self.carry_first(number);
            }
            Part::Process => self.ended = Some(self.task.process.wait(PATIENCE)?.code()),
        }
        Ok(())
    }

    /// Carries what is there on an output to the log and to those who are attached; whether there was anything.
    fn carry_first(&mut self, number: usize) -> bool {
        let mut buffer = [0_u8; 32 << 10];
        let Some((source, length)) = self.task.read(number, &mut buffer) else { return false };
        // A log that cannot be written must not stop the container.
        let _ = self.log.write(source, &buffer[..length]);
        let attached = |connection: &&mut Connection| matches!(connection.role, Role::Attached { output: true, .. });
        for connection in self.connections.iter_mut().filter(attached) {
            connection.send(kind(source), &buffer[..length]);
        }
        true
    }

    fn serve_further(&mut self, number: u64, part: Part) -> anyhow::Result<()> {
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

    fn carry_further(&mut self, index: usize, output: usize) -> bool {
        let mut buffer = [0_u8; 32 << 10];
        let further = &mut self.further[index];
        let Some((source, length)) = further.task.read(output, &mut buffer) else { return false };
        let role = Role::Executing(further.number);
        for connection in self.connections.iter_mut().filter(|connection| connection.role == role) {
            connection.send(kind(source), &buffer[..length]);
        }
        true
    }

    /// A further process has ended: what it wrote is still carried. What its own children write from now on is lost.
    fn end_further(&mut self, index: usize) -> anyhow::Result<()> {
        for output in (0..self.further[index].task.outputs()).rev() {
            while self.carry_further(index, output) {}
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

    fn serve_connection(&mut self, index: usize, flags: PollFlags) -> anyhow::Result<()> {
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

    /// Does what is asked; no answer where it comes later.
    fn obey(&mut self, index: usize, order: Order) -> anyhow::Result<Option<Answer>> {
        self.connections[index].role = Role::Answered;
        match order {
            Order::Attach { input, output, .. } => {
                self.connections[index].role = Role::Attached { input, output };
                return Ok(Some(Answer::Started));
            }
            Order::Execute(asked) => return self.execute(index, &asked).map(Some),
            Order::Signal(number) => {
                let signal = Signal::from_named_raw(number).with_context(|| format!("there is no signal {number}"))?;
                self.task.process.signal(signal)?;
            }
            Order::Pause | Order::Unpause => self.pause(order == Order::Pause)?,
            Order::Statistics => {
                let used = self.cgroup.as_ref().map(|cgroup| cgroup.statistics()).unwrap_or_default();
                return Ok(Some(Answer::Statistics { memory: used.memory, cpu: used.cpu, pids: used.pids }));
            }
            Order::Connect { .. } | Order::Disconnect { .. } if self.request.machine.is_some() => {
                return refuse(format!(
                    "the {} keeps the network that it began with: give --network when it is made",
                    self.title()?
                ));
            }
            Order::Connect { network, aliases, address } => {
                let first = self.task.process.pid();
                self.attachment.connect(&own_name()?, first, &network, &aliases, address)?;
                // In place, so that what is mounted inside has it at once.
                files::write(&self.request, self.attachment.places(), self.attachment.resolver())?;
                self.note_networks()?;
            }
            Order::Disconnect { network } => {
                self.attachment.disconnect(&own_name()?, &network)?;
                self.note_networks()?;
            }
            Order::Renamed => self.attachment.rename(&own_name()?)?,
        }
        Ok(Some(Answer::Done))
    }

    /// What it is and its name now.
    fn title(&self) -> anyhow::Result<String> {
        Ok(format!("{} {}", self.request.kind().noun(), own_name()?))
    }

    fn note_networks(&mut self) -> anyhow::Result<()> {
        self.state.places = self.attachment.places().to_vec();
        self.state.ports = self.attachment.ports();
        store::write(Path::new(STATE), &self.state)
    }

    fn execute(&mut self, index: usize, asked: &Execution) -> anyhow::Result<Answer> {
        if self.state.status == Status::Paused {
            return refuse(format!("the {} is paused: unpause it first", self.title()?));
        }
        if self.request.machine.is_some() {
            return refuse(format!("nothing more can be run in the {}", self.title()?));
        }
        let task = launching::launch_further(&self.request, self.task.process.pid(), self.cgroup.as_ref(), asked)?;
        let number = self.next_further;
        self.next_further += 1;
        self.further.push(Executing { number, task });
        if !asked.detached {
            self.connections[index].role = Role::Executing(number);
        }
        Ok(Answer::Started)
    }

    fn pause(&mut self, pause: bool) -> anyhow::Result<()> {
        let (from, to) = if pause { (Status::Running, Status::Paused) } else { (Status::Paused, Status::Running) };
        if self.state.status != from {
            let word = if pause { "is paused already" } else { "is not paused" };
            return refuse(format!("the {} {word}", self.title()?));
        }
        match &self.request.machine {
            // The monitor is one process among others of its namespace.
            Some(_) => self.task.process.signal(if pause { Signal::STOP } else { Signal::CONT })?,
            None => {
                let (first, cgroup) = (self.task.process.pid(), self.cgroup.as_deref());
                if pause { pause::pause(first, cgroup) } else { pause::resume(first, cgroup) }?;
            }
        }
        self.state.status = to;
        store::write(Path::new(STATE), &self.state)
    }

    /// Forgets connections that are gone; the input that they alone gave ends.
    fn forget_gone(&mut self) {
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

    /// The container has ended: everything is given back, and everybody told.
    fn finish(mut self) -> anyhow::Result<()> {
        let code = self.ended.unwrap_or(OWN_FAILURE);
        for output in (0..self.task.outputs()).rev() {
            while self.carry_first(output) {}
        }
        let _ = self.log.finish();
        // With the first process of their namespace all others have been killed.
        while !self.further.is_empty() {
            self.end_further(0)?;
        }
        self.attachment.close();
        if let Some(cgroup) = self.cgroup.take().and_then(Arc::into_inner) {
            cgroup.remove(PATIENCE)?;
        }
        // Before the socket goes: whoever finds none looks here.
        if self.request.remove {
            store::remove_directory(&std::env::current_dir().context("find the container's directory")?)?;
        } else {
            let ended = State {
                status: Status::Exited,
                process: String::new(),
                finished: Some(now()),
                exit_code: code,
                control_group: None,
                link: None,
                places: Vec::new(),
                ports: Vec::new(),
                ..self.state.clone()
            };
            store::write(Path::new(STATE), &ended)?;
            let _ = std::fs::remove_file(CONTROL);
        }
        // Who connected in the last moment is told too.
        self.accept();
        let concerned = |connection: &&mut Connection| connection.role != Role::Answered;
        self.connections.iter_mut().filter(concerned).for_each(|connection| connection.end(code));
        // From here on the container may be started again or removed.
        flock(&self.lock, FlockOperation::Unlock).context("give the container's lock back")?;
        self.attachment.release()?;
        self.connections.retain(|connection| !connection.is_flushed());
        while !self.connections.is_empty() {
            self.turn()?;
        }
        Ok(())
    }
}

/// The container's name now: it may have been renamed.
fn own_name() -> anyhow::Result<String> {
    let directory = std::env::current_dir().context("find the container's directory")?;
    let name = directory.file_name().map(|name| name.to_string_lossy().into_owned());
    name.context("the container's directory is gone")
}

fn kind(source: Source) -> Kind {
    match source {
        Source::Stdout => Kind::Output,
        Source::Stderr => Kind::Error,
    }
}
