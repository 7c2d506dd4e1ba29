//! One running sandbox.

use crate::{Exit, Output, OutputError, Process, ProcessError, Stage, Stages, announcement, client, clock};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

/// How long what was killed may take to be gone, with all that belongs to it, before that is an error. The longest that a claim asks
/// about is 60 s, and a time beyond it must still be a figure. A killed process ends by itself unless the kernel holds it.
pub const ENDS_WITHIN: Duration = Duration::from_secs(120);

/// Something on the machine that belongs to an instance and outlives its process: a cgroup, an address, a published port.
pub trait Resource: std::fmt::Debug {
    /// What it is, such as `cgroup /isobench/12`.
    fn describe(&self) -> String;

    /// Removes it and sees that it is absent.
    fn release(self: Box<Self>) -> Released;
}

/// How a resource was removed: what is left to wait for, where there is something, or why it could not be removed.
pub type Released = Result<Option<Aftermath>, Box<dyn std::error::Error + Send + Sync>>;

/// What went wrong while an instance was ended.
pub type Errors = Vec<Box<dyn std::error::Error + Send + Sync>>;

/// What the kernel still does for a resource that is absent already, such as giving back a link's memory when nobody can read it
/// any more. Dropped, it goes on by itself.
#[derive(Debug)]
pub struct Aftermath(JoinHandle<()>);

impl Aftermath {
    /// What is over when this thread has ended.
    pub fn of(thread: JoinHandle<()>) -> Self {
        Self(thread)
    }

    /// Waits until it is over.
    pub fn wait(self) {
        // A thread that panicked has ended as well.
        let _ = self.0.join();
    }
}

/// A resource that could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("release {resource}")]
pub struct ResourceError {
    /// What [`Resource::describe`] said.
    pub resource: String,
    /// The cause.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Where an instance is found whose process on the host is only the client of a peer.
#[derive(Debug)]
pub struct Located {
    /// The first process inside, in the host's numbers.
    pub pid: i32,
    /// The same, held by a pidfd.
    pub pidfd: OwnedFd,
    /// Where the host reaches its served port, if it has a network.
    pub server: Option<SocketAddr>,
}

type Locate = dyn FnOnce() -> Result<Located, Box<dyn std::error::Error + Send + Sync>>;

/// Finds an instance that a peer has made, once it has said that it runs: a peer chooses addresses by itself.
pub struct Locator(Box<Locate>);

impl Locator {
    /// A locator that does this.
    pub fn new(locate: impl FnOnce() -> Result<Located, Box<dyn std::error::Error + Send + Sync>> + 'static) -> Self {
        Self(Box::new(locate))
    }
}

impl std::fmt::Debug for Locator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Locator")
    }
}

/// What went wrong with a running instance.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// It gave no ready line.
    #[error("{instance} did not become ready")]
    NotReady {
        /// The instance's name.
        instance: String,
        /// The cause.
        #[source]
        source: OutputError,
    },
    /// It runs and was not found.
    #[error("find the process and the address of {instance}")]
    NotFound {
        /// The instance's name.
        instance: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its server did not answer.
    #[error("{instance} did not answer at {server}")]
    NoAnswer {
        /// The instance's name.
        instance: String,
        /// Where it should have answered.
        server: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Its process could not be handled.
    #[error("{instance}")]
    Process {
        /// The instance's name.
        instance: String,
        /// The cause.
        #[source]
        source: ProcessError,
    },
}

/// One running sandbox: a process on the host, its output, its address and what belongs to it.
///
/// [`Instance::destroy`] is the checked end and reports every clean-up error; dropping an instance cleans up quietly.
#[derive(Debug)]
pub struct Instance {
    name: String,
    process: Process,
    output: Output,
    server: Option<SocketAddr>,
    stages: Stages,
    resources: Vec<Box<dyn Resource>>,
    other_clock: bool,
    locator: Option<Locator>,
    located: Option<(i32, OwnedFd)>,
}

impl Instance {
    /// An instance whose process was just created, with the stamps of [`Stage::Started`] and [`Stage::Created`] in
    /// `stages`. `server` is where the host reaches its served port, if it has a network.
    pub fn new(name: String, process: Process, output: Output, server: Option<SocketAddr>, stages: Stages) -> Self {
        let (resources, locator, located) = (Vec::new(), None, None);
        Self { name, process, output, server, stages, resources, other_clock: false, locator, located }
    }

    /// The same, for a guest whose ready line nobody on the host has written anew: its stamps are of a clock of its own, and are
    /// not taken.
    #[must_use]
    pub fn on_another_clock(self) -> Self {
        // A type that cleans up when it is dropped cannot be taken apart.
        let mut instance = self;
        instance.other_clock = true;
        instance
    }

    /// Lets [`Instance::await_ready`] find the instance as soon as it says that it runs.
    pub fn locate_by(&mut self, locator: Locator) {
        self.locator = Some(locator);
    }

    /// Adds something that is released when the instance is destroyed, last added first.
    pub fn own(&mut self, resource: Box<dyn Resource>) {
        self.resources.push(resource);
    }

    /// The instance's name, unique on the testbed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The instance's process on the host.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The process on the host whose namespaces are the sandbox's: the instance's own, or what a peer's client made it stand
    /// for.
    pub fn inside(&self) -> BorrowedFd<'_> {
        self.located.as_ref().map_or_else(|| self.process.pidfd(), |(_, pidfd)| pidfd.as_fd())
    }

    /// The number of that process.
    pub fn inside_pid(&self) -> i32 {
        self.located.as_ref().map_or_else(|| self.process.pid(), |(pid, _)| *pid)
    }

    /// The instance's standard output.
    pub fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// Where the host reaches its served port, if it has a network.
    pub fn server(&self) -> Option<SocketAddr> {
        self.server
    }

    /// The stages seen so far.
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// Waits for the ready line and, where there is a served port, for the first TCP answer; stamps
    /// [`Stage::Announced`] and [`Stage::Answered`].
    pub fn await_ready(&mut self, deadline: Duration) -> Result<(), InstanceError> {
        let line = self.output.line(deadline);
        let announced = clock::now();
        let line = line.map_err(|source| InstanceError::NotReady { instance: self.name.clone(), source })?;
        let stamps = announcement::parse(&line).filter(|_| !self.other_clock);
        for (stage, at) in stamps.unwrap_or_default().sorted() {
            self.stages.stamp(stage, at);
        }
        self.stages.stamp(Stage::Announced, announced);
        if let Some(Locator(locate)) = self.locator.take() {
            let located = locate();
            let located = located.map_err(|source| InstanceError::NotFound { instance: self.name.clone(), source })?;
            self.server = located.server;
            self.located = Some((located.pid, located.pidfd));
        }
        if let Some(server) = self.server {
            client::hello(server, deadline).map_err(|source| InstanceError::NoAnswer {
                instance: self.name.clone(),
                server,
                source,
            })?;
            self.stages.stamp(Stage::Answered, clock::now());
        }
        Ok(())
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, deadline: Duration) -> Result<Exit, InstanceError> {
        let name = &self.name;
        self.process.wait(deadline).map_err(|source| InstanceError::Process { instance: name.clone(), source })
    }

    /// Ends the instance as [`Self::end`] does, and waits for what the kernel does for it afterwards. Gives all stages back, or every
    /// error that occurred.
    pub fn destroy(self) -> Result<Stages, Errors> {
        self.end().settle()
    }

    /// Ends the instance: kills it, reaps it, and releases all that belongs to it. Stamps [`Stage::Ending`], [`Stage::Reaped`] and
    /// [`Stage::Gone`].
    pub fn end(mut self) -> Ended {
        let mut errors: Errors = Vec::new();
        self.stages.stamp(Stage::Ending, clock::now());
        if let Err(error) = self.process.signal(Signal::KILL) {
            errors.push(Box::new(error));
        }
        if let Err(error) = self.process.wait(ENDS_WITHIN) {
            errors.push(Box::new(error));
        }
        self.stages.stamp(Stage::Reaped, clock::now());
        let (aftermaths, unreleased) = self.release();
        for error in unreleased {
            errors.push(Box::new(error));
        }
        self.stages.stamp(Stage::Gone, clock::now());
        Ended { stages: std::mem::take(&mut self.stages), errors, aftermaths }
    }

    fn release(&mut self) -> (Vec<Aftermath>, Vec<ResourceError>) {
        let (mut aftermaths, mut errors) = (Vec::new(), Vec::new());
        while let Some(resource) = self.resources.pop() {
            let description = resource.describe();
            match resource.release() {
                Ok(aftermath) => aftermaths.extend(aftermath),
                Err(source) => errors.push(ResourceError { resource: description, source }),
            }
        }
        (aftermaths, errors)
    }
}

/// An instance that is gone.
#[derive(Debug)]
#[must_use = "it says whether anything went wrong"]
pub struct Ended {
    stages: Stages,
    errors: Errors,
    aftermaths: Vec<Aftermath>,
}

impl Ended {
    /// Waits for what the kernel does afterwards. Stamps [`Stage::Settled`] where there was something to wait for, and gives all
    /// stages back, or every error that occurred.
    pub fn settle(mut self) -> Result<Stages, Errors> {
        if !self.aftermaths.is_empty() {
            self.aftermaths.into_iter().for_each(Aftermath::wait);
            self.stages.stamp(Stage::Settled, clock::now());
        }
        if self.errors.is_empty() { Ok(self.stages) } else { Err(self.errors) }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.resources.is_empty() {
            return;
        }
        let _ = self.process.signal(Signal::KILL);
        let _ = self.process.wait(ENDS_WITHIN);
        let _ = self.release();
    }
}
