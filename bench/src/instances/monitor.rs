//! From what was asked for to a running virtual machine: its process is our monitor, `isobench-vmm`.

use super::attachment::Attachment;
use super::launching::{self, Running};
use super::machine::{self, Guest, Machine};
use super::request::{Execution, Request};
use super::rooted::{self, Account};
use super::task::{Ends, Task};
use super::{control_group, files, refuse};
use crate::programs;
use anyhow::Context;
use isobench_microvm::control;
use isobench_microvm::devices::virtio::balloon::BalloonState;
use isobench_microvm::linux::initramfs::{Archive, Tree};
use isobench_microvm::snapshot::open::Snapshot;
use isobench_runtime::cgroup::Cgroup;
use isobench_runtime::network::TapEndpoint;
use isobench_runtime::{Launched, Namespaces, Plan, Program, Specification, launch};
use isobench_workload::guest::{COMMAND, GuestCommand, ROOT, RUN};
use rustix::fs::{MemfdFlags, memfd_create};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The socket on which the monitor takes further programs.
const PROGRAMS: &str = "programs";

/// The socket on which the monitor takes requests.
const MONITOR: &str = "monitor";

/// The monitor's command line, and the descriptors that it is handed.
#[derive(Debug, Default)]
struct Line {
    words: Vec<String>,
    kept: Vec<OwnedFd>,
}

impl Line {
    fn option(&mut self, option: &str, value: impl ToString) {
        self.words.extend([option.to_owned(), value.to_string()]);
    }

    fn inherited(&mut self, option: &str, descriptor: OwnedFd) {
        self.option(option, format!("fd:{}", descriptor.as_raw_fd()));
        self.kept.push(descriptor);
    }

    fn descriptor(&mut self, option: &str, descriptor: OwnedFd) {
        self.option(option, descriptor.as_raw_fd());
        self.kept.push(descriptor);
    }
}

/// Launches a virtual machine; the working directory is its own.
pub(super) fn launch_machine(
    request: &Request,
    machine: &Machine,
    name: &str,
    size: (u16, u16),
) -> anyhow::Result<Running> {
    let monitor = programs::Program::vmm(Path::new("."))?;
    let (attachment, tap) = Attachment::make_tap(request, name)?;
    let mut line = Line { words: vec!["isobench-vmm".to_owned()], ..Line::default() };
    let linux = matches!(machine.guest, Guest::Linux(_));
    match (&machine.snapshot, &machine.guest) {
        (Some(directory), _) => restore(directory, &mut line)?,
        (None, Guest::Unikernel(workload)) => {
            line.option("unikernel", "--workload");
            line.words.push(workload.clone());
            line.option("--memory", machine.memory);
        }
        (None, Guest::Linux(kernel)) => {
            let agent = programs::Program::agent(Path::new("."))?;
            line.option("linux", "--kernel");
            line.words.push(kernel.display().to_string());
            let copy = agent.file().try_clone_to_owned().context("keep the agent's descriptor")?;
            line.descriptor("--agent-fd", copy);
            line.option("--argument", RUN);
            line.option("--cpus", machine.processors);
            line.descriptor("--archive-fd", archive(request, machine, &attachment, size)?);
            line.option("--balloon", "plain");
            line.option("--memory", machine.memory);
        }
    }
    if linux {
        line.option("--session", "yes");
        let _ = std::fs::remove_file(PROGRAMS);
        let programs = UnixListener::bind(PROGRAMS).context("make the socket for further programs")?;
        line.inherited("--exec", programs.into());
        if machine.snapshot.is_some() {
            line.option("--host-name", request.host_name());
            line.inherited("--files", own_files(request, &attachment)?);
        }
    }
    take_requests(&mut line)?;
    if let Some(tap) = tap {
        network(&attachment, tap, &mut line);
        if let Some(endpoint) = attachment.tap().filter(|_| linux) {
            beyond_ipv4(endpoint, &mut line);
        }
    }

    let program = monitor.file().try_clone_to_owned().context("keep the monitor's descriptor")?;
    let mut specification = Specification::bare(Program::Descriptor(Arc::new(program)), line.words);
    specification.environment = Vec::new();
    specification.no_new_privileges = true;
    specification.dies_with_parent = true;
    // The one part of the jail that the monitor cannot enter by itself.
    specification.namespaces = Namespaces { pid: true, ..Namespaces::NONE };
    specification.kept = line.kept;
    let cgroup = control_group::make(request)?;
    let control_group = cgroup.as_ref().map(|cgroup| cgroup.describe());
    specification.cgroup = cgroup.clone();
    let ends = Ends::prepare(&mut specification, request.terminal.then_some(size), request.input)?;
    let Launched { process, .. } = Plan::validate(specification).and_then(launch)?;
    Ok(Running { task: ends.task(process)?, cgroup, control_group, attachment })
}

/// Where the monitor of an instance takes requests; the path is that of the instance's directory.
pub(crate) fn monitor_socket(directory: &Path) -> PathBuf {
    directory.join(MONITOR)
}

/// The monitor's words for the socket on which it takes requests, in the working directory.
fn take_requests(line: &mut Line) -> anyhow::Result<()> {
    let _ = std::fs::remove_file(MONITOR);
    let control = UnixListener::bind(MONITOR).context("make the monitor's control socket")?;
    line.inherited("--control", control.into());
    Ok(())
}

/// The monitor's words for a guest that goes on from a snapshot, all of which is verified here: the files that the monitor has are those that
/// were.
fn restore(directory: &Path, line: &mut Line) -> anyhow::Result<()> {
    let snapshot = Snapshot::open(directory)?;
    line.words.push("restore".into());
    for (option, file) in [("--memory-file", snapshot.memory()), ("--state-file", snapshot.state())] {
        let copy = file.try_clone().context("keep the descriptor of a snapshot's file")?;
        line.inherited(option, copy.into());
    }
    Ok(())
}

/// The monitor's words for a place in a network.
fn network(attachment: &Attachment, tap: OwnedFd, line: &mut Line) {
    let Some(place) = attachment.places().first() else { return };
    line.descriptor("--tap-fd", tap);
    line.option("--mac", &place.mac);
    line.option("--address", format!("{}/{}", place.address, place.prefix));
    if let Some(gateway) = place.gateway {
        line.option("--gateway", gateway);
    }
}

/// What a Linux guest is told of its place beyond its IPv4 address.
fn beyond_ipv4(endpoint: &TapEndpoint, line: &mut Line) {
    let settings = endpoint.network().settings();
    if let Some(mtu) = settings.mtu {
        line.option("--mtu", mtu);
    }
    if let Some((subnet, address)) = settings.ipv6.zip(endpoint.ipv6()) {
        line.option("--address6", format!("{address}/{}", subnet.prefix()));
        if let Some(gateway) = settings.ipv6_of(settings.gateway).filter(|_| !settings.internal) {
            line.option("--gateway6", gateway);
        }
    }
}

/// The part of the guest's initramfs that is its own: the root with the files that are written anew at each start, and the command.
/// It lies in memory until the monitor has taken it.
fn archive(request: &Request, machine: &Machine, attachment: &Attachment, size: (u16, u16)) -> anyhow::Result<OwnedFd> {
    let tree = Tree::look(&request.directory)?;
    machine::check_memory(machine.memory, tree.size(), &request.root)?;
    files::write(request, attachment.places(), attachment.resolver())?;
    let file = File::from(memfd_create("initramfs", MemfdFlags::CLOEXEC).context("make a file in memory")?);
    let mut output = BufWriter::with_capacity(1 << 20, &file);
    let mut above = Archive::new();
    above.directory("isobench");
    output.write_all(&above.unfinished()).context("write the guest's initramfs")?;
    tree.write(ROOT, &mut output)?;
    let mut own = Archive::new();
    own.directory(&format!("{ROOT}/etc"));
    for name in files::NAMES {
        let content = std::fs::read(name).with_context(|| format!("read the guest's /etc/{name}"))?;
        own.file(&format!("{ROOT}/etc/{name}"), &content);
    }
    own.file(COMMAND, &serde_json::to_vec(&command(request, size)?)?);
    output.write_all(&own.finish()).context("write the guest's initramfs")?;
    output.flush().context("write the guest's initramfs")?;
    drop(output);
    Ok(file.into())
}

/// The files that are a clone's own, in memory.
fn own_files(request: &Request, attachment: &Attachment) -> anyhow::Result<OwnedFd> {
    files::write(request, attachment.places(), attachment.resolver())?;
    let read = |name: &str| std::fs::read_to_string(name).with_context(|| format!("read the guest's /etc/{name}"));
    let texts = files::NAMES.iter().map(|name| Ok((*name, read(name)?)));
    let texts = texts.collect::<anyhow::Result<BTreeMap<_, _>>>()?;
    let mut file = File::from(memfd_create("files", MemfdFlags::CLOEXEC).context("make a file in memory")?);
    file.write_all(&serde_json::to_vec(&texts)?).context("write the guest's files down")?;
    Ok(file.into())
}

fn command(request: &Request, size: (u16, u16)) -> anyhow::Result<GuestCommand> {
    let account = rooted::account(&request.directory, request.user.as_deref())?;
    let environment = launching::environment(request, &account);
    Ok(GuestCommand {
        command: request.command.clone(),
        directory: request.working_directory.clone(),
        terminal: request.terminal.then_some(size),
        ..of_account(request, &account, environment)
    })
}

/// What two commands in one guest have alike.
fn of_account(request: &Request, account: &Account, environment: Vec<String>) -> GuestCommand {
    let (user, group, groups) = match &account.user {
        Some(user) => (user.user, user.group, user.groups.clone()),
        None => (0, 0, Vec::new()),
    };
    GuestCommand {
        environment,
        user,
        group,
        groups,
        host_name: request.host_name().into(),
        root: request.root.clone(),
        ..GuestCommand::default()
    }
}

/// Asks the monitor of a virtual machine for the state of its balloon, after it was set where a target is given; the working directory
/// is the machine's own.
pub(super) fn balloon(machine: &Machine, target: Option<u64>) -> anyhow::Result<BalloonState> {
    if let Guest::Unikernel(_) = machine.guest {
        return refuse("the unikernel has no balloon: its memory is what it was given (-m)");
    }
    if let Some(target) = target.filter(|target| *target > machine.memory) {
        return refuse(format!(
            "the guest has {} MiB of memory and cannot leave {} MiB unused",
            machine.memory >> 20,
            target >> 20
        ));
    }
    let socket = Path::new(MONITOR);
    let state = target.map_or_else(|| control::balloon(socket), |target| control::set_balloon(socket, target));
    state.context("ask the machine's monitor")
}

/// Launches a further program in a virtual machine; the working directory is the machine's own. On this side it is a process that
/// carries the program's streams, takes its signals, and ends as it does; the program is killed with it.
pub(super) fn launch_further(
    request: &Request,
    machine: &Machine,
    cgroup: Option<&Arc<Cgroup>>,
    asked: &Execution,
) -> anyhow::Result<Task> {
    if let Guest::Unikernel(_) = machine.guest {
        return refuse("the unikernel is one program and has no exec: run Linux (`isobench vm run ROOT`) for that");
    }
    let account = rooted::account(&request.directory, asked.user.as_deref().or(request.user.as_deref()))?;
    let terminal = asked.terminal.then_some(asked.size);
    let command = GuestCommand {
        command: asked.command.clone(),
        directory: asked.working_directory.clone().unwrap_or(request.working_directory.clone()),
        terminal,
        ..of_account(request, &account, launching::further_environment(request, &account, asked))
    };
    let mut file = File::from(memfd_create("command", MemfdFlags::CLOEXEC).context("make a file in memory")?);
    file.write_all(&serde_json::to_vec(&command)?).context("write the command down")?;
    let socket = UnixStream::connect(PROGRAMS).context("reach the machine's monitor")?;
    let monitor = programs::Program::vmm(Path::new("."))?;
    let program = monitor.file().try_clone_to_owned().context("keep the monitor's descriptor")?;
    let mut line = Line { words: vec!["isobench-vmm".to_owned(), "exec".to_owned()], ..Line::default() };
    line.inherited("--socket", socket.into());
    line.inherited("--command", file.into());
    let mut specification = Specification::bare(Program::Descriptor(Arc::new(program)), line.words);
    specification.environment = Vec::new();
    specification.no_new_privileges = true;
    specification.dies_with_parent = true;
    specification.kept = line.kept;
    specification.cgroup = cgroup.cloned();
    let ends = match (asked.detached, terminal) {
        (true, None) => Ends::nowhere(&mut specification)?,
        _ => Ends::prepare(&mut specification, terminal, asked.input)?,
    };
    let Launched { process, .. } = Plan::validate(specification).and_then(launch)?;
    ends.task(process)
}
