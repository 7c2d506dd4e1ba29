//! From what was asked for to a running virtual machine: its process is our monitor, `isobench-vmm`.

use super::attachment::Attachment;
use super::launching::{self, Running};
use super::machine::{self, Guest, Machine};
use super::request::Request;
use super::task::Ends;
use super::{files, rooted};
use crate::programs;
use anyhow::Context;
use isobench_microvm::linux::initramfs::{Archive, Tree};
use isobench_runtime::{Launched, Namespaces, Plan, Program, Specification, launch};
use isobench_workload::guest::{COMMAND, GuestCommand, ROOT, RUN};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

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
    match &machine.guest {
        Guest::Unikernel(workload) => {
            line.option("unikernel", "--workload");
            line.words.push(workload.clone());
        }
        Guest::Linux(kernel) => {
            let agent = programs::Program::agent(Path::new("."))?;
            line.option("linux", "--kernel");
            line.words.push(kernel.display().to_string());
            let copy = agent.file().try_clone_to_owned().context("keep the agent's descriptor")?;
            line.descriptor("--agent-fd", copy);
            line.option("--argument", RUN);
            line.option("--session", "yes");
            line.option("--cpus", machine.processors);
            line.descriptor("--archive-fd", archive(request, machine, &attachment, size)?);
        }
    }
    line.option("--memory", machine.memory);
    if let Some(tap) = tap {
        network(&attachment, tap, &mut line);
    }

    let program = monitor.file().try_clone_to_owned().context("keep the monitor's descriptor")?;
    let mut specification = Specification::bare(Program::Descriptor(Arc::new(program)), line.words);
    specification.environment = Vec::new();
    specification.no_new_privileges = true;
    specification.dies_with_parent = true;
    // The one part of the jail that the monitor cannot enter by itself.
    specification.namespaces = Namespaces { pid: true, ..Namespaces::NONE };
    specification.kept = line.kept;
    let cgroup = launching::make_cgroup(request)?;
    let control_group = cgroup.as_ref().map(|cgroup| cgroup.describe());
    specification.cgroup = cgroup.clone();
    let ends = Ends::prepare(&mut specification, request.terminal.then_some(size), request.input)?;
    let Launched { process, .. } = Plan::validate(specification).and_then(launch)?;
    Ok(Running { task: ends.task(process)?, cgroup, control_group, attachment })
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

fn command(request: &Request, size: (u16, u16)) -> anyhow::Result<GuestCommand> {
    let account = rooted::account(&request.directory, request.user.as_deref())?;
    let (user, group, groups) = match &account.user {
        Some(user) => (user.user, user.group, user.groups.clone()),
        None => (0, 0, Vec::new()),
    };
    Ok(GuestCommand {
        command: request.command.clone(),
        environment: launching::environment(request, &account),
        directory: request.working_directory.clone(),
        user,
        group,
        groups,
        host_name: request.host_name().into(),
        terminal: request.terminal.then_some(size),
        root: request.root.clone(),
    })
}
