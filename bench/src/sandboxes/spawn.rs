//! The one way in which a program of the host's is started as an instance, so that t0 means the same for all of them.

use isobench_workload::{Instance, LaunchError, Output, Process, Stage, Stages, clock};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

/// Starts a command whose standard output carries the agent's. [`Stage::Started`] is just before the spawn.
///
/// Its standard error is the testbed's own, so that what a peer complains of is seen.
pub(super) fn spawn(
    sandbox: &str,
    number: u64,
    command: &mut Command,
    server: Option<SocketAddr>,
) -> Result<Instance, LaunchError> {
    let failed = |step: String, source: Box<dyn std::error::Error + Send + Sync>| LaunchError::Step {
        sandbox: sandbox.to_owned(),
        step,
        source,
    };
    let program = command.get_program().to_string_lossy().into_owned();
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|source| failed("make a pipe for its output".into(), Box::new(source)))?;
    command.stdin(Stdio::null()).stdout(Stdio::from(writer));
    let mut stages = Stages::default();
    stages.stamp(Stage::Started, clock::now());
    let child = command.spawn();
    stages.stamp(Stage::Created, clock::now());
    // The command keeps the writer: without this the output would never end.
    command.stdout(Stdio::null());
    let child = child.map_err(|source| failed(format!("start {program}"), Box::new(source)))?;
    let process =
        Process::from_child(child.id()).map_err(|source| failed(format!("hold {program}"), Box::new(source)))?;
    Ok(Instance::new(format!("{sandbox}-{number}"), process, Output::new(OwnedFd::from(reader)), server, stages))
}
