//! The process that looks after one container: it launches it, keeps its log, carries streams, takes orders, and ends with it.
//!
//! Once it has launched, it has one thread and waits in one place ([poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html)). It is a copy of its
//! starter, which says the first [`Order`] over a socket; its working directory is the container's, its name `isobench-keeper`.

mod ending;
mod orders;
mod streams;

use super::connection::{Connection, Role};
use super::execution::Executing;
use super::launching::{self, NotStarted, Running};
use super::log::Log;
use super::place::Place;
use super::protocol::{Answer, Frame, Order};
use super::request::Request;
use super::state::{State, Status, now};
use super::store::{self, CONTROL, Container, LOCK, STATE};
use super::task::{Part, Task};
use super::{OWN_FAILURE, monitor, refuse};
use crate::journal;
use crate::json_file;
use anyhow::{Context, bail};
use isobench_runtime::cgroup::Cgroup;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::DumpableBehavior;
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

/// The supervisor of a container, in a process of its own; gives the exit status. The socket is that of its starter.
pub(super) fn main(container: &Container, socket: UnixStream) -> i32 {
    match supervise(container, socket) {
        Ok(()) => 0,
        // Whoever started it has been told, as far as anybody can be.
        Err(_) => 1,
    }
}

fn supervise(container: &Container, socket: UnixStream) -> anyhow::Result<()> {
    // Of all that there is to do this takes longest.
    let place = Place::begin(&container.request, &container.name);
    // No terminal and no group of the starter's: Ctrl-C there is meant for the starter alone.
    rustix::process::setsid().context("begin a session")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::thread::set_name(NAME).context("take a name")?;
    // An ordinary user's first process has to map its user, by files that then would be root's.
    let root = rustix::process::geteuid().is_root();
    if root {
        refuse_looks()?;
    }
    std::env::set_current_dir(container.path()).context("enter the container's directory")?;
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
    match Supervisor::start(container.request.clone(), place, size) {
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
    fn start(request: Request, place: anyhow::Result<Option<Place>>, size: Option<(u16, u16)>) -> anyhow::Result<Self> {
        let name = own_name()?;
        let Some(lock) = store::lock(Path::new(LOCK))? else {
            return refuse(format!("{name} is running already"));
        };
        let mut state = State { started: Some(now()), ..State::default() };
        let begun = place.and_then(|place| Self::launch(&request, &name, place, size, &mut state));
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
                    json_file::write(Path::new(STATE), &state)?;
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
        place: Option<Place>,
        size: Option<(u16, u16)>,
        state: &mut State,
    ) -> anyhow::Result<(Running, UnixListener, Log)> {
        place.iter().for_each(Place::go_on);
        let log = Log::open().context("open the container's log")?;
        let _ = std::fs::remove_file(CONTROL);
        let listener = UnixListener::bind(CONTROL).context("make the container's control socket")?;
        listener.set_nonblocking(true).context("make the control socket non-blocking")?;
        let size = size.unwrap_or((24, 80));
        let running = match &request.machine {
            None => launching::launch_container(request, name, size, place)?,
            Some(machine) => monitor::launch_machine(request, machine, name, size)?,
        };
        state.status = Status::Running;
        state.process = journal::name_of(running.task.process.pid() as u32)?;
        state.control_group = running.control_group.clone();
        state.link = running.attachment.link().map(str::to_owned);
        state.places = running.attachment.places().to_vec();
        state.ports = running.attachment.ports();
        json_file::write(Path::new(STATE), state)?;
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
}

/// The container's name now: it may have been renamed.
fn own_name() -> anyhow::Result<String> {
    let directory = std::env::current_dir().context("find the container's directory")?;
    let name = directory.file_name().map(|name| name.to_string_lossy().into_owned());
    name.context("the container's directory is gone")
}
