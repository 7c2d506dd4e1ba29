//! The simulated host: the testbed's own process.
//!
//! Its life is one recipe: leave the machine's namespaces, become the first process of the new ones, furnish them, find the
//! sandboxes, then answer the parent's orders until it says stop or is gone.

use super::channel::Channel;
use super::{Order, Reply, SUBCOMMAND, Settings, Started, inventory::Inventory, machine, namespaces, network::Network};
use crate::cell::{Cell, Measurement};
use crate::experiments::{self, Ground};
use crate::programs::Program;
use crate::sandboxes::{self, Candidate};
use anyhow::{Context, bail};
use isobench_reports::record::SandboxRecord;
use rustix::process::{Signal, WaitId, WaitIdOptions, set_parent_process_death_signal, waitid};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};
use std::rc::Rc;

/// The argument of the process that is the first one in the testbed's pid namespace.
const INSIDE: &str = "inside";

/// The hidden subcommand. The parent's end of the conversation is the standard input.
pub fn main() -> ExitCode {
    let role = std::env::args().nth(2);
    let result = match role.as_deref() {
        None => leave(),
        Some(INSIDE) => serve().map(|()| ExitCode::SUCCESS),
        Some(other) => {
            Err(anyhow::anyhow!("`{SUBCOMMAND} {other}` is no part of a testbed; this is an internal command"))
        }
    };
    result.unwrap_or_else(|error| {
        tracing::error!("testbed: {error:#}");
        ExitCode::FAILURE
    })
}

/// The outer process: leaves the machine's namespaces, makes the first process inside the new ones and waits for it.
fn leave() -> anyhow::Result<ExitCode> {
    die_with_parent()?;
    if let Err(error) = namespaces::leave() {
        // Nobody inside can tell the parent.
        let mut channel = Channel::new(standard_input()?);
        channel.receive::<Order>()?;
        channel.send(&Reply::Failed(format!("{error:#}")))?;
        return Ok(ExitCode::FAILURE);
    }
    let status = Command::new("/proc/self/exe")
        .args([SUBCOMMAND, INSIDE])
        .status()
        .context("start the first process of the testbed")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// If the parent is killed the kernel kills this process, and with the first process of a pid namespace all others in it.
fn die_with_parent() -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("ask to die with the parent")
}

/// The conversation with the parent; children of this process must not inherit it.
fn standard_input() -> anyhow::Result<UnixStream> {
    let stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let null = std::fs::File::open("/dev/null").context("open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("detach the standard input")?;
    Ok(stream)
}

/// The inner process: answers orders until the parent says stop or is gone.
fn serve() -> anyhow::Result<()> {
    die_with_parent()?;
    let mut channel = Channel::new(standard_input()?);
    let Some(order) = channel.receive()? else { return Ok(()) };
    let Order::Start(settings) = order else { bail!("the first order must be to start") };
    let mut host = match Host::new(settings) {
        Ok(host) => host,
        Err(error) => return channel.send(&Reply::Failed(format!("{error:#}"))),
    };
    let sandboxes: Vec<SandboxRecord> = host.candidates.iter().map(Candidate::record).collect();
    let machine = machine::facts(host.rootless);
    channel.send(&Reply::Started(Box::new(Started { machine, sandboxes })))?;
    while let Some(order) = channel.receive()? {
        let reply = match order {
            Order::Measure(cell) => host.measure(&cell).map(Reply::Measured),
            Order::Inventory => Inventory::take().map(Reply::Inventory),
            Order::Stop => break,
            Order::Start(_) => Err(anyhow::anyhow!("the testbed has started already")),
        };
        channel.send(&reply.unwrap_or_else(|error| Reply::Failed(format!("{error:#}"))))?;
    }
    drop(host);
    channel.send(&Reply::Stopped)
}

/// The simulated host and all that it can launch.
struct Host {
    rootless: bool,
    ground: Ground,
    candidates: Vec<Candidate>,
}

impl Host {
    fn new(settings: Settings) -> anyhow::Result<Self> {
        let rootless = namespaces::is_rootless()?;
        namespaces::furnish()?;
        let network = Network::new()?;
        let agent = Rc::new(Program::agent(&namespaces::directory("programs")?)?);
        let candidates = sandboxes::find(&agent);
        Ok(Self { rootless, ground: Ground { settings, agent, network }, candidates })
    }

    fn measure(&mut self, cell: &Cell) -> anyhow::Result<Vec<Measurement>> {
        let experiment = experiments::named(&cell.experiment)
            .with_context(|| format!("there is no experiment named `{}`", cell.experiment))?;
        let candidate = self
            .candidates
            .iter_mut()
            .find(|candidate| candidate.kind.name == cell.sandbox)
            .with_context(|| format!("there is no sandbox named `{}`", cell.sandbox))?;
        let measurements = experiment.measure(&mut self.ground, candidate, cell);
        reap_orphans();
        Ok(measurements)
    }
}

/// The first process of a pid namespace inherits every orphan in it; unreaped, they would stay in the process table.
fn reap_orphans() {
    while let Ok(Some(_)) = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {}
}
