//! The launch: the first half of the recipe on the crate's front page.
#![forbid(unsafe_code)]

use crate::child::Step;
use crate::error::Error;
use crate::network::{Endpoint, PeerNamespace};
use crate::parameters::Parameter;
use crate::plan::{Plan, ProgramPlan};
use crate::shared::{Failure, Shared};
use crate::specification::{Program, Specification, Stream};
use crate::{system, terminal};
use isobench_workload::{Output, Process};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::Signal;
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
pub fn launch(mut plan: Plan) -> Result<Launched, Error> {
    let (endpoint, ahead, _taken) = (plan.endpoint.take(), plan.ahead.take(), plan.taken.take());
    let waits = plan.start_order.is_some();
    let dumpable = plan.user.is_some().then(rustix::process::dumpable_behavior).and_then(Result::ok);
    let (plan, shared) = (Box::new(plan), Box::new(Shared::default()));

    // create: the child starts on its half of the recipe at once.
    let cloned = system::clone3(plan.clone_flags, plan.cgroup_at_clone(), &plan, &shared);
    let (pid, pidfd, running) = cloned.map_err(Error::system("create", "the process (clone3)"))?;
    let process = Process::from_pidfd(pid, pidfd);

    // attach, settle: what only this process can do for the child, while the child builds its root and limits itself.
    if let Some(endpoint) = endpoint.as_ref().filter(|_| plan.awaits_host()) {
        let connected = match ahead {
            // What is taken here must be gone when this returns: it would keep the namespace, and with it the link.
            Some(ahead) => endpoint.attach_ahead(&ahead),
            None => endpoint.attach(&PeerNamespace::Process(pid)).and_then(|()| {
                shared.attached();
                shared.await_configuration();
                if shared.failure().is_some() { Ok(()) } else { endpoint.await_carrier() }
            }),
        };
        if let Err(error) = connected {
            // A child that has failed takes its namespace along: then there was nothing to connect.
            let cause = shared.failure();
            shared.give_up();
            drop(running);
            return Err(reap(process, cause.map_or_else(|| error.into(), |failure| describe(&plan, failure))));
        }
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
            return Ok(Launched { process, endpoint });
        }
    }
    drop(running);
    // A change of user in the child has marked the memory that it shared with us as not dumpable (prctl(2)).
    if let Some(before) = dumpable {
        rustix::process::set_dumpable_behavior(before).map_err(Error::system("restore", "the dumpable attribute"))?;
    }
    if let Some(failure) = shared.failure() {
        return Err(reap(process, describe(&plan, failure)));
    }

    Ok(Launched { process, endpoint })
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

/// Sees a failed child off; the error is its own, or that it would not go.
fn reap(mut process: Process, error: Error) -> Error {
    let ended = process.signal(Signal::KILL).and_then(|()| process.wait(Duration::from_secs(10)));
    ended.map_or_else(Error::from, |_| error)
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
