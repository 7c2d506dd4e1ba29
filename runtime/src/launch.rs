//! The launch: the first half of the recipe on the crate's front page.
#![forbid(unsafe_code)]

use crate::child::Step;
use crate::elsewhere::Kept;
use crate::error::Error;
use crate::network::{Endpoint, PeerNamespace};
use crate::parameters::Parameter;
use crate::plan::{NetworkPlan, Plan, ProgramPlan};
use crate::shared::{Failure, Shared};
use crate::specification::{Program, Specification, Stream};
use crate::{system, terminal};
use isobench_workload::{Output, Process};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal};
use std::sync::Arc;
use std::time::Duration;

pub use crate::system::{fork, fork_apart};

/// A launched container: its process, and its place in a network, which is to be released after the process has ended.
#[derive(Debug)]
pub struct Launched {
    /// The process.
    pub process: Process,
    /// Its place in a network, in [`crate::NetworkMode::Attached`].
    pub endpoint: Option<Endpoint>,
}

/// Launches a validated plan. When this returns, the program runs (or, with a start order, all but that is done); on any
/// error the process is gone.
pub fn launch(plan: Plan) -> Result<Launched, Error> {
    launch_while(plan, || Ok(())).map(|(launched, ())| launched)
}

/// The same, with something to do while the child builds its root. In [`NetworkMode::Awaited`](crate::NetworkMode::Awaited) that
/// is all of its network, and the program waits for it. Where it fails the process is gone too.
pub fn launch_while<T, E: From<Error>>(
    mut plan: Plan,
    meanwhile: impl FnOnce() -> Result<T, E>,
) -> Result<(Launched, T), E> {
    let (endpoint, _taken) = (plan.endpoint.take(), plan.taken.take());
    let waits = plan.start_order.is_some();
    let dumpable = plan.user.is_some().then(rustix::process::dumpable_behavior).and_then(Result::ok);
    let kept = matches!(plan.network, NetworkPlan::Awaited).then(Kept::here).flatten();
    plan.processors = kept.as_ref().map(|kept| kept.before);
    let (plan, shared) = (Box::new(plan), Box::new(Shared::default()));

    // create: the child starts on its half of the recipe at once; where others get its network ready, on the processor of this
    // thread, which has nothing to do but wait for them.
    let cloned = system::clone3(plan.clone_flags, plan.cgroup_at_clone(), &plan, &shared);
    drop(kept);
    let (pid, pidfd, running) = cloned.map_err(Error::system("create", "the process (clone3)"))?;
    let process = Process::from_pidfd(pid, pidfd);

    // attach, settle: what only this process can do for the child, while the child builds its root and limits itself.
    let connected = meanwhile().and_then(|done| match &plan.network {
        NetworkPlan::Attached(_) => connect(&plan, endpoint.as_ref(), pid, &shared).map(|()| done).map_err(E::from),
        _ => Ok(done),
    });
    let done = match connected {
        Ok(done) => done,
        Err(error) => {
            shared.give_up();
            drop(running);
            return end(process).map_err(E::from).and(Err(error));
        }
    };
    if plan.awaits_host() {
        shared.settled();
    }

    // watch: the shared word says when the child has become the program, and the shared block why it has not.
    if waits {
        shared.await_set_up();
        if shared.failure().is_none() {
            // The child uses this memory until it is told to start: it is never freed.
            std::mem::forget(running);
            Box::leak(plan);
            Box::leak(shared);
            return Ok((Launched { process, endpoint }, done));
        }
    }
    drop(running);
    // A change of user in the child has marked the memory that it shared with us as not dumpable (prctl(2)).
    if let Some(before) = dumpable {
        rustix::process::set_dumpable_behavior(before).map_err(Error::system("restore", "the dumpable attribute"))?;
    }
    if let Some(failure) = shared.failure() {
        return end(process).and(Err(describe(&plan, failure))).map_err(E::from);
    }

    Ok((Launched { process, endpoint }, done))
}

/// Connects the child to its network, lets it configure its side, and waits until that carries packets.
fn connect(plan: &Plan, endpoint: Option<&Endpoint>, child: Pid, shared: &Shared) -> Result<(), Error> {
    let Some(endpoint) = endpoint else { return Ok(()) };
    let connected = endpoint.attach(&PeerNamespace::Process(child)).and_then(|()| {
        shared.attached();
        shared.await_configuration();
        if shared.failure().is_some() { Ok(()) } else { endpoint.await_carrier() }
    });
    // A child that has failed takes its namespace along: then there was nothing to connect.
    connected.map_err(|error| shared.failure().map_or_else(|| error.into(), |failure| describe(plan, failure)))
}

/// Launches a process with no isolation at all, by the same clone3; its standard output is a pipe.
pub fn bare(program: Arc<OwnedFd>, arguments: Vec<String>) -> Result<(Process, Output), Error> {
    let mut specification = Specification::bare(Program::Descriptor(program), arguments);
    let output = capture_output(&mut specification)?;
    Ok((launch(Plan::validate(specification)?)?.process, output))
}

/// Gives a specification a pipe as its standard output and nothing as its standard input; the result is the pipe's other
/// end.
pub fn capture_output(specification: &mut Specification) -> Result<Output, Error> {
    let (read, write) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(Error::system("create", "the output pipe"))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let null = rustix::fs::open(c"/dev/null", flags, Mode::empty()).map_err(Error::system("open", "/dev/null"))?;
    specification.input = Stream::Descriptor(null);
    specification.output = Stream::Descriptor(write);
    Ok(Output::new(read))
}

/// Sees a failed child off.
fn end(mut process: Process) -> Result<(), Error> {
    process.signal(Signal::KILL).and_then(|()| process.wait(Duration::from_secs(10)))?;
    Ok(())
}

fn describe(plan: &Plan, failure: Failure) -> Error {
    let Failure { step, item, errno } = failure;
    let cgroup = |item| plan.cgroup.as_ref()?.paths().nth(item).map(|path| path.display().to_string());
    let object = match step {
        Step::JoinCgroups => cgroup(item),
        Step::MapUser => plan.user_map.get(item).map(|(path, _)| path.to_string_lossy().into_owned()),
        Step::SetParameters => plan.parameters.get(item).map(Parameter::describe),
        Step::ChangeRoot => plan.root.as_ref().map(|root| root.describe(item)),
        Step::JoinNamespaces if item == plan.joined_namespaces.len() => Some("of its own for cgroups".into()),
        Step::JoinNamespaces if item > plan.joined_namespaces.len() => {
            plan.joined_directory.as_ref().map(|path| format!("and enter {}", path.to_string_lossy()))
        }
        Step::JoinNamespaces => Some(format!("number {item}")),
        Step::OpenTerminal => Some(terminal::STEPS.get(item).copied().unwrap_or_default().into()),
        Step::ConfigureNetwork => Some(format!("(message {item})")),
        Step::Execute => Some(match &plan.program {
            ProgramPlan::Descriptor(_) => "the program's descriptor".into(),
            ProgramPlan::Paths(paths) => {
                paths.first().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
            }
        }),
        _ => None,
    };
    Error::Child { step, object: object.unwrap_or_default(), source: errno }
}
