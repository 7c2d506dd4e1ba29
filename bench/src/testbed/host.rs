//! The simulated host: the testbed's own process.
//!
//! Its life is one recipe: leave the machine's namespaces, become the first process of the new ones, furnish them, find the
//! sandboxes, then answer the parent's orders until it says stop or is gone.

use super::affinity::Affinity;
use super::cgroups::Branches;
use super::channel::Channel;
use super::failure::Failure;
use super::{
    Order, Reply, SUBCOMMAND, Settings, Started, cgroups,
    inventory::Inventory,
    kept, machine, namespaces,
    network::{HostNetwork, OwnNetworks},
};
use crate::cell::{Cell, Measured};
use crate::experiments::{self, Ground, Patience};
use crate::programs::Program;
use crate::sandboxes::{self, Candidate, Networks, RunningEngine};
use anyhow::{Context, bail};
use isobench_microvm::linux::Frames;
use isobench_reports::record::{Outcome, SandboxRecord};
use rustix::fs::{MemfdFlags, OFlags, fcntl_setfl, memfd_create};
use rustix::process::{Signal, WaitId, WaitIdOptions, set_parent_process_death_signal, waitid};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};
use std::rc::Rc;

/// The argument of the process that leaves the machine's namespaces; the run's name follows.
pub(super) const OUTER: &str = "outer";

/// The argument of the process that is the first one in the testbed's pid namespace; where its control groups are follows.
const INSIDE: &str = "inside";

/// The hidden subcommand. The parent's end of the conversation is the standard input.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [OUTER, run] => leave(run),
        [INSIDE, groups] => serve(groups).map(|()| ExitCode::SUCCESS),
        [kept::OUTER] => kept::leave(),
        [kept::second::OUTER, host] => kept::second::leave(host),
        [kept::second::INSIDE, host, groups] => kept::second::serve(host, groups).map(|()| ExitCode::SUCCESS),
        [kept::INSIDE, groups] => kept::serve(groups).map(|()| ExitCode::SUCCESS),
        _ => Err(anyhow::anyhow!("`{SUBCOMMAND}` is a part of the testbed and no command")),
    };
    result.unwrap_or_else(|error| {
        tracing::error!("testbed: {error:#}");
        ExitCode::FAILURE
    })
}

/// The outer process: leaves the machine's namespaces, makes the first process inside the new ones and waits for it.
fn leave(run: &str) -> anyhow::Result<ExitCode> {
    die_with_parent()?;
    let groups = match isolate(run).and_then(|groups| groups.word()) {
        Ok(groups) => groups,
        Err(error) => {
            // Nobody inside can tell the parent.
            let mut channel = Channel::new(standard_input()?);
            channel.receive::<Order>()?;
            channel.send(&Reply::Failed(Failure::of(&error)))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let complaints = complaints()?;
    let status = Command::new("/proc/self/exe")
        .args([SUBCOMMAND, INSIDE, &groups])
        .stderr(complaints.try_clone().context("hand on the standard error")?)
        .status()
        .context("start the first process of the testbed")?;
    if status.success() {
        return Ok(ExitCode::SUCCESS);
    }
    tracing::error!("the testbed ended with {status}: {}", tail(&complaints));
    Ok(ExitCode::FAILURE)
}

/// Leaves the machine's namespaces and control groups for ones of a run's own.
pub(super) fn isolate(run: &str) -> anyhow::Result<Branches> {
    let branches = cgroups::enter(run)?;
    namespaces::leave()?;
    branches.step_aside()?;
    Ok(branches)
}

/// The standard error of the testbed and of all that it launches: a file in memory, so that a failed cell can say what a
/// program complained of, and a good one says nothing.
fn complaints() -> anyhow::Result<File> {
    let file = memfd_create("complaints", MemfdFlags::CLOEXEC).context("make a file for the standard error")?;
    fcntl_setfl(&file, OFlags::APPEND).context("make the standard error append")?;
    Ok(File::from(file))
}

/// The end of what was written to a file of complaints.
fn tail(complaints: &File) -> String {
    const LONGEST: u64 = 500;
    let mut bytes = vec![0; LONGEST as usize];
    let length = complaints.metadata().map_or(0, |metadata| metadata.len());
    let begin = length.saturating_sub(LONGEST);
    let read = complaints.read_at(&mut bytes, begin).unwrap_or(0);
    sentence(&String::from_utf8_lossy(&bytes[..read]), begin > 0)
}

/// What was complained of, on one line. Where its beginning is cut off, half a word is no part of it, and where to read how a
/// program is used says nothing of what happened.
fn sentence(complaint: &str, cut: bool) -> String {
    let whole =
        if cut { complaint.split_once(char::is_whitespace).map_or(complaint, |(_, rest)| rest) } else { complaint };
    let lines = whole.lines().filter(|line| !line.contains("--help'"));
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

/// If the parent is killed the kernel kills this process, and with the first process of a pid namespace all others in it.
pub(super) fn die_with_parent() -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("ask to die with the parent")
}

/// The conversation with the parent; children of this process must not inherit it.
pub(super) fn standard_input() -> anyhow::Result<UnixStream> {
    let stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let null = std::fs::File::open("/dev/null").context("open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("detach the standard input")?;
    Ok(stream)
}

/// The inner process: answers orders until the parent says stop or is gone.
fn serve(groups: &str) -> anyhow::Result<()> {
    die_with_parent()?;
    let mut channel = Channel::new(standard_input()?);
    let Some(order) = channel.receive()? else { return Ok(()) };
    let Order::Start(settings) = order else { bail!("the first order must be to start") };
    let mut host = match Branches::from_word(groups).and_then(|groups| Host::new(settings, &groups)) {
        Ok(host) => host,
        Err(error) => return channel.send(&Reply::Failed(Failure::of(&error))),
    };
    let sandboxes: Vec<SandboxRecord> = host.candidates.iter().map(Candidate::record).collect();
    let mut machine = machine::facts(host.rootless);
    // No launch pays for the copy: it is made once for the whole testbed, and so it is told.
    machine.facts.insert("agent-copied-once-ns".into(), host.ground.agent.copied().as_nanos().to_string());
    let filtered = if host.ground.network.filters_bridged_packets() { "filtered" } else { "not filtered" };
    machine.facts.insert("bridged-packets".into(), filtered.into());
    if sandboxes.iter().any(|sandbox| sandbox.name == "vm-linux" && sandbox.unavailable.is_none()) {
        let mover = if sandboxes::frames() == Frames::Kernel { "the kernel (vhost-net)" } else { "the monitor" };
        machine.facts.insert("vm-linux-frames-moved-by".into(), mover.into());
    }
    if let Some(engine) = host.ground.networks.engine() {
        machine.facts.extend(engine.facts());
    }
    channel.send(&Reply::Started(Box::new(Started { machine, sandboxes })))?;
    while let Some(order) = channel.receive()? {
        let reply = match order {
            Order::Measure(cell) => host.measure(&cell).map(Reply::Measured),
            Order::Stop => break,
            Order::Start(_) => Err(anyhow::anyhow!("the testbed has started already")),
        };
        channel.send(&reply.unwrap_or_else(|error| Reply::Failed(Failure::of(&error))))?;
    }
    let ended = host.ground.networks.engine().map_or(Ok(()), |engine| engine.end());
    drop(host);
    channel.send(&ended.map_or_else(|error| Reply::Failed(Failure::of(&error)), |()| Reply::Stopped))
}

/// The simulated host and all that it can launch.
struct Host {
    rootless: bool,
    ground: Ground,
    candidates: Vec<Candidate>,
    /// What there was after the last cell; nothing happens between cells.
    there: Option<Inventory>,
    complaints: File,
}

impl Host {
    fn new(settings: Settings, groups: &Branches) -> anyhow::Result<Self> {
        let complaints = File::from(std::io::stderr().as_fd().try_clone_to_owned()?);
        let rootless = namespaces::is_rootless()?;
        namespaces::furnish("isobench", false)?;
        groups.show()?;
        let network = HostNetwork::new()?;
        let programs = namespaces::directory("programs")?;
        let (agent, vmm) = (Rc::new(Program::agent(&programs)?), Rc::new(Program::vmm(&programs)?));
        let (networks, candidates) = match &settings.engine {
            None => {
                let networks = OwnNetworks::create(&network)?;
                let candidates = sandboxes::find(&agent, &vmm, &networks, &settings)?;
                (Networks::Own(networks), candidates)
            }
            Some(wanted) => {
                let engine = RunningEngine::start(wanted, &settings, &agent, &network)?;
                let candidates = engine.candidates();
                (Networks::Engine(engine), candidates)
            }
        };
        Ok(Self {
            rootless,
            ground: Ground {
                patience: Patience::new(settings.deadline, settings.quick),
                settings,
                agent,
                vmm,
                network,
                networks,
                affinity: Affinity::choose(),
                calibration: None,
            },
            candidates,
            there: None,
            complaints,
        })
    }

    fn measure(&mut self, cell: &Cell) -> anyhow::Result<Measured> {
        let experiment = experiments::named(&cell.experiment)
            .with_context(|| format!("there is no experiment named `{}`", cell.experiment))?;
        let candidate = self
            .candidates
            .iter_mut()
            .find(|candidate| candidate.kind.name == cell.sandbox)
            .with_context(|| format!("there is no sandbox named `{}`", cell.sandbox))?;
        let before = self.there.take().map_or_else(Inventory::take, Ok)?;
        rustix::fs::ftruncate(&self.complaints, 0).context("empty the standard error")?;
        let mut measurements = experiment.measure(&mut self.ground, candidate, cell);
        // The kernel removes the links of a network namespace some 40 ms after its last process, and the next cell must not pay.
        let (there, left) = Inventory::settled(&before)?;
        self.there = Some(there);
        if self.ground.networks.engine().is_some() {
            // An engine leaves in the kernel's memory where a container's connections were led (ours does not). A client that
            // comes from the same port of its own within ten seconds would be led to a container of an earlier cell.
            isobench_runtime::network::forget_connections()?;
        }
        let complaint = tail(&self.complaints);
        if !complaint.is_empty() {
            for measurement in &mut measurements {
                if let Outcome::Error(error) = &mut measurement.outcome {
                    error.push_str(&format!(" (standard error: {complaint})"));
                }
            }
        }
        Ok(Measured { measurements, left })
    }
}

/// The first process of a pid namespace inherits every orphan in it; unreaped, they would stay in the process table.
pub(super) fn reap_orphans() {
    while let Ok(Some(_)) = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_one_line_of_what_happened() {
        let said = "docker: Error response from daemon: no\n  space.\nSee 'docker run --help'.\n";
        assert_eq!(sentence(said, false), "docker: Error response from daemon: no space.");
        assert_eq!(sentence(said, true), "Error response from daemon: no space.");
        assert_eq!(sentence("", false), "");
    }
}
