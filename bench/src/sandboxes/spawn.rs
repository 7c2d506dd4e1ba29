//! The one way in which a program of the host's is started as an instance, so that t0 means the same for all of them.

use isobench_workload::{
    ENDS_WITHIN, Instance, LaunchError, Output, Process, Released, Resource, Stage, Stages, clock,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A command just started whose standard output carries the agent's.
#[derive(Debug)]
pub(crate) struct Spawned {
    name: String,
    process: Process,
    output: OwnedFd,
    stages: Stages,
}

/// Starts a command. [`Stage::Started`] is just before the spawn. Standard error is the testbed's, where a failed cell
/// finds what the program complained of.
pub(crate) fn spawn(name: String, command: &mut Command) -> Result<Spawned, LaunchError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|source| failed(&name, "make a pipe for its output", source))?;
    command.stdin(Stdio::null()).stdout(Stdio::from(writer));
    let mut stages = Stages::default();
    stages.stamp(Stage::Started, clock::now());
    let child = command.spawn();
    stages.stamp(Stage::Created, clock::now());
    // The command keeps the writer: without this the output would never end.
    command.stdout(Stdio::null());
    let child = child.map_err(|source| failed(&name, &format!("start {program}"), source))?;
    let process =
        Process::from_child(child.id()).map_err(|source| failed(&name, &format!("hold {program}"), source))?;
    Ok(Spawned { name, process, output: reader, stages })
}

impl Spawned {
    /// The instance. It is gone only when every process that holds its output is: a peer's own process may end before what
    /// it started.
    pub(crate) fn instance(self, server: Option<SocketAddr>) -> Result<Instance, LaunchError> {
        let Self { name, process, output, stages } = self;
        let holders = output.try_clone().map_err(|source| failed(&name, "keep its output", source))?;
        let mut instance = Instance::new(name.clone(), process, Output::new(output), server, stages);
        instance.own(Box::new(Holders { name, output: holders }));
        Ok(instance)
    }
}

/// A step of a launch that failed.
pub(super) fn failed<E>(instance: &str, step: &str, source: E) -> LaunchError
where
    E: std::error::Error + Send + Sync + 'static,
{
    LaunchError::Step { sandbox: instance.to_owned(), step: step.to_owned(), source: Box::new(source) }
}

/// Every process that can still write to an instance's output.
#[derive(Debug)]
struct Holders {
    name: String,
    output: OwnedFd,
}

impl Resource for Holders {
    fn describe(&self) -> String {
        format!("processes of {}", self.name)
    }

    fn release(self: Box<Self>) -> Released {
        // The kernel reports a hang-up when the last writer is closed, which ends with its last process (pipe(7)).
        let patience = Timespec { tv_sec: ENDS_WITHIN.as_secs() as i64, tv_nsec: 0 };
        match poll(&mut [PollFd::new(&self.output, PollFlags::empty())], Some(&patience))? {
            0 => Err(format!("one of them did not end within {ENDS_WITHIN:?}").into()),
            _ => Ok(None),
        }
    }
}

/// Finds a program in `PATH`, as execvp(3) would.
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// What a program says of its version: the first line of `PROGRAM --version`.
pub(super) fn version(program: &PathBuf) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned())
}
