//! From what was asked for to a running container.

use super::attachment::{self, Attachment};
use super::capabilities;
use super::control_group;
use super::files;
use super::place::Place;
use super::request::{Execution, Network, Request};
use super::rooted::{self, Account};
use super::store::Store;
use super::task::{Ends, Task};
use super::{Refusal, refuse};
use anyhow::Context;
use isobench_runtime::cgroup::Cgroup;
use isobench_runtime::root::{Mount, MountKind};
use isobench_runtime::{Error, Launched, NetworkMode, Plan, Program, Root, Specification, Step, join, launch_while};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The search path of every container, as Docker has it.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A container that was launched.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) task: Task,
    pub(super) cgroup: Option<Arc<Cgroup>>,
    pub(super) control_group: Option<String>,
    pub(super) attachment: Attachment,
}

/// Launches a container; the working directory is its own.
pub(super) fn launch_container(
    request: &Request,
    name: &str,
    size: (u16, u16),
    place: Option<Place>,
) -> anyhow::Result<Running> {
    let own = std::env::current_dir().context("find the container's directory")?;
    let account = rooted::account(&request.directory, request.user.as_deref())?;
    let capabilities = capabilities::chosen(&request.added_capabilities, &request.dropped_capabilities)?;
    let mut specification = Specification::container(program(&request.command)?, request.command.clone());
    specification.environment = environment(request, &account);
    specification.working_directory = request.working_directory.clone();
    specification.root = Root::Layered {
        lower: request.directory.clone(),
        upper: own.join("upper"),
        work: own.join("work"),
        read_only: request.read_only,
    };
    specification.user = account.user;
    specification.host_name = Some(request.host_name().into());
    specification.parameters = parameters(request);
    specification.capabilities = Some(capabilities::sets(capabilities));
    specification.seccomp = Some(capabilities::filter(capabilities)?);
    specification.dies_with_parent = true;

    let cgroup = control_group::make(request)?;
    specification.cgroup = cgroup.clone();
    // What cannot be had of networks is known before anything runs.
    let further = request.further.iter().map(|further| attachment::take(further, name));
    let further: Vec<_> = further.collect::<anyhow::Result<_>>()?;
    let attachment = match place {
        Some(_) => Attachment::default(),
        None => Attachment::make(request, name, &mut specification)?,
    };
    match &request.network {
        // A container that joins another's network has its files too.
        Network::Container(other) => {
            let other = Store::open()?.find(other)?;
            specification.host_name = Some(other.request.host_name().into());
            files::share(other.path())?;
        }
        _ if place.is_some() => files::begin()?,
        _ => files::write(request, attachment.places(), attachment.resolver())?,
    }
    specification.mounts.extend(files::mounts(&own));
    specification.mounts.extend(request.volumes.iter().map(|volume| Mount {
        target: volume.target.clone(),
        kind: MountKind::Bind { source: volume.source.clone(), recursive: true },
        flags: MountFlags::empty(),
        read_only: volume.read_only,
    }));
    let ends = Ends::prepare(&mut specification, request.terminal.then_some(size), request.input)?;
    if let Some(place) = &place {
        specification.network = NetworkMode::Awaited(place.namespace()?);
    }
    let control_group = cgroup.as_ref().map(|cgroup| cgroup.describe());
    let launched = Plan::validate(specification)
        .map_err(anyhow::Error::from)
        .and_then(|plan| launch_while(plan, || place.as_ref().map_or(Ok(attachment), Place::attachment)));
    let (Launched { process, endpoint }, attachment) = launched.map_err(explain(request))?;
    let (task, mut attachment) = (ends.task(process)?, attachment.launched(endpoint));
    if !further.is_empty() {
        let first = task.process.pid();
        let connected = further.into_iter().try_for_each(|taken| attachment.connect(first, taken));
        // A brief one may have ended meanwhile.
        connected.or_else(|error| if runs(first) { Err(error) } else { Ok(()) })?;
        files::write(request, attachment.places(), attachment.resolver())?;
    }
    Ok(Running { task, cgroup, control_group, attachment })
}

/// What was asked for, beside what Docker sets: users other than root may use `ping`, and may serve low ports, in a network that
/// is the container's alone ([icmp(7)](https://man7.org/linux/man-pages/man7/icmp.7.html),
/// [ip(7)](https://man7.org/linux/man-pages/man7/ip.7.html)).
fn parameters(request: &Request) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    if matches!(request.network, Network::None | Network::Named(_)) {
        // The range's end must be a group that there is: in a host that was made without root there may be one alone.
        let last = rooted::last_group().min(i32::MAX as u32);
        parameters.push(("net.ipv4.ping_group_range".into(), format!("0 {last}")));
        parameters.push(("net.ipv4.ip_unprivileged_port_start".into(), "0".into()));
    }
    // In order: what was asked for stands.
    parameters.extend(request.parameters.iter().cloned());
    parameters
}

/// Launches a further process in a container.
pub(super) fn launch_further(
    request: &Request,
    first: i32,
    cgroup: Option<&Arc<Cgroup>>,
    asked: &Execution,
) -> anyhow::Result<Task> {
    // Who was added in the container is known there alone.
    let root = PathBuf::from(format!("/proc/{first}/root"));
    let account = rooted::account(&root, asked.user.as_deref().or(request.user.as_deref()));
    let account = account.map_err(|error| or_ended(first, error))?;
    let capabilities = capabilities::chosen(&request.added_capabilities, &request.dropped_capabilities)?;
    let mut specification = Specification::container(program(&asked.command)?, asked.command.clone());
    specification.environment = further_environment(request, &account, asked);
    specification.working_directory = asked.working_directory.clone().unwrap_or(request.working_directory.clone());
    specification.user = account.user;
    specification.capabilities = Some(capabilities::sets(capabilities));
    specification.seccomp = Some(capabilities::filter(capabilities)?);
    specification.cgroup = cgroup.cloned();
    let terminal = asked.terminal.then_some(asked.size);
    let ends = match (asked.detached, terminal) {
        (true, None) => Ends::nowhere(&mut specification)?,
        _ => Ends::prepare(&mut specification, terminal, asked.input)?,
    };
    let launched = join(first, specification);
    let launched = launched.map_err(|error| or_ended(first, failure(error, &asked.command, &request.root)))?;
    ends.task(launched.process)
}

/// What failed because the container's first process had ended is told so: what has ended is in no namespace any more.
fn or_ended(first: i32, error: anyhow::Error) -> anyhow::Error {
    if runs(first) { error } else { Refusal("the container is not running: it has just ended".into()).into() }
}

fn runs(first: i32) -> bool {
    Path::new(&format!("/proc/{first}/ns/ipc")).exists()
}

fn program(command: &[String]) -> anyhow::Result<Program> {
    match command.first() {
        Some(first) if !first.is_empty() => Ok(Program::Path(first.clone())),
        _ => refuse("no command is given: name one after the root"),
    }
}

/// As Docker: the search path, the host name, the terminal's kind and the home, each of which may be given anew.
pub(super) fn environment(request: &Request, account: &Account) -> Vec<String> {
    let mut environment = vec![PATH.to_owned(), format!("HOSTNAME={}", request.host_name())];
    if request.terminal {
        environment.push("TERM=xterm".into());
    }
    request.environment.iter().for_each(|variable| set(&mut environment, variable, true));
    set(&mut environment, &format!("HOME={}", account.home), false);
    environment
}

/// The same for a further process.
pub(super) fn further_environment(request: &Request, account: &Account, asked: &Execution) -> Vec<String> {
    let mut environment = environment(request, account);
    if asked.terminal {
        set(&mut environment, "TERM=xterm", false);
    }
    asked.environment.iter().for_each(|variable| set(&mut environment, variable, true));
    environment
}

/// Sets a variable; one that is there already only where it is to be replaced.
fn set(environment: &mut Vec<String>, variable: &str, replace: bool) {
    let name = |text: &str| text.split_once('=').map_or(text.len(), |(name, _)| name.len());
    let same = |other: &&mut String| other[..name(other)] == variable[..name(variable)];
    match environment.iter_mut().find(same) {
        Some(other) if replace => variable.clone_into(other),
        Some(_) => {}
        None => environment.push(variable.to_owned()),
    }
}

/// Opens the network namespace of a container's first process; one that has ended has none, be it reaped yet or not.
pub(super) fn network_of(process: i32) -> anyhow::Result<Option<NetworkMode>> {
    let path = format!("/proc/{process}/ns/net");
    match rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(namespace) => Ok(Some(NetworkMode::Container(Arc::new(namespace)))),
        Err(Errno::NOENT | Errno::SRCH) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("open {path}")),
    }
}

fn explain(request: &Request) -> impl FnOnce(anyhow::Error) -> anyhow::Error + use<'_> {
    |error| error.downcast().map_or_else(|other| other, |error| failure(error, &request.command, &request.root))
}

/// A command that is not there, or is none, is the user's concern: it has an exit status of its own.
fn failure(error: Error, command: &[String], root: &str) -> anyhow::Error {
    let name = command.first().cloned().unwrap_or_default();
    match &error {
        Error::Child { step: Step::Execute, source: Errno::NOENT | Errno::NOTDIR, .. } => {
            NotStarted { code: 127, message: format!("there is no command `{name}` in the root {root}") }.into()
        }
        Error::Child { step: Step::Execute, source, .. } => {
            NotStarted { code: 126, message: format!("`{name}` in the root {root} cannot be executed: {source}") }
                .into()
        }
        _ => error.into(),
    }
}

/// The command could not be executed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct NotStarted {
    /// The exit status for it.
    pub(super) code: i32,
    message: String,
}

/// Where a volume's source is; a directory that is not there is made, as Docker makes it.
pub(crate) fn volume_source(path: &Path) -> anyhow::Result<PathBuf> {
    if !path.exists() {
        std::fs::create_dir_all(path).with_context(|| format!("make the directory {}", path.display()))?;
    }
    path.canonicalize().with_context(|| format!("find {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_told_to_have_ended() {
        let told = |process: u32| or_ended(process as i32, anyhow::anyhow!("open namespace")).to_string();
        assert_eq!(told(std::process::id()), "open namespace");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        // Until it is reaped, its number stays its own.
        while Path::new(&format!("/proc/{}/ns/ipc", child.id())).exists() {
            std::thread::yield_now();
        }
        assert!(told(child.id()).contains("has just ended"));
        child.wait().unwrap();
    }

    #[test]
    fn a_variable_is_set_once() {
        let mut environment = vec!["A=1".to_owned(), "B=2".to_owned()];
        set(&mut environment, "A=3", true);
        set(&mut environment, "B=4", false);
        set(&mut environment, "AB=5", false);
        assert_eq!(environment, ["A=3", "B=2", "AB=5"]);
    }
}
