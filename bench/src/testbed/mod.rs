//! The testbed: a simulated host with its bridges and address translation, and an outside client beside it.
//!
//! It is one small process, made from this same program, in network, mount, pid, ipc, uts and cgroup namespaces of its own
//! (and a user namespace for an ordinary user). Sandboxes are launched from it and samples are kept by its parent, because
//! the cost of a fork follows the memory of the process that forks. The machine's own links and firewall are never touched;
//! when the testbed ends, even by SIGKILL, its pid namespace ends all that runs in it and the kernel frees the rest.

pub(crate) mod affinity;
pub(crate) mod cgroups;
mod channel;
pub mod enter;
mod failure;
pub mod host;
mod inventory;
pub(crate) mod kept;
pub(crate) mod lost;
mod machine;
pub(crate) mod memory;
mod namespaces;
pub(crate) mod network;
pub(crate) mod on_host;
pub(crate) mod record;
pub(crate) mod second_host;
pub(crate) mod uplink;
pub(crate) mod view;

pub use cgroups::remove as remove_groups;
pub(crate) use inventory::Inventory;
pub use memory::host_memory;
pub(crate) use namespaces::{directory, is_rootless, own};

use crate::cell::{Cell, Measure, Measured};
use crate::journal;
use crate::sandboxes::Engine;
use anyhow::{Context, anyhow, bail};
use channel::Channel;
use failure::Failure;
pub(crate) use failure::Forbidden;
use isobench_reports::record::{Machine, SandboxRecord};
use isobench_workload::{Exit, Process};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The hidden subcommand that makes this program a part of a testbed; [`host::main`] answers it.
pub const SUBCOMMAND: &str = "__testbed";

/// What a testbed is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// How long each step of a sandbox's life may take before it counts as failed.
    pub deadline: Duration,
    /// The kernel for `vm-linux`, where one was given or found.
    pub kernel: Option<PathBuf>,
    /// The run's name: control groups are made below `isobench/RUN` in each hierarchy, where `gc` finds them.
    pub run: String,
    /// Whether cells are kept short, as in the quick suite.
    pub quick: bool,
    /// The engine whose sandboxes this testbed is for; our own and the other peers' where there is none.
    pub engine: Option<EngineSettings>,
}

/// An engine that a testbed is to be made for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineSettings {
    /// Which one.
    pub engine: Engine,
    /// Where it keeps its images and the layers of its containers: a directory that is removed after the testbed.
    pub data: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // A virtual machine in an emulated one boots a hundred times more slowly.
            deadline: Duration::from_secs(if machine::is_emulated() { 120 } else { 10 }),
            kernel: None,
            run: journal::own_name().unwrap_or_else(|_| format!("{}-0", std::process::id())),
            quick: true,
            engine: None,
        }
    }
}

/// What the parent asks of the testbed.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Start(Settings),
    Measure(Cell),
    Stop,
}

/// What the testbed answers.
#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Started(Box<Started>),
    Measured(Measured),
    Stopped,
    Failed(Failure),
}

/// What a started testbed says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Started {
    machine: Machine,
    sandboxes: Vec<SandboxRecord>,
}

/// A running testbed, seen from its parent. Dropping it ends all that runs in it.
#[derive(Debug)]
pub struct Testbed {
    run: String,
    process: Process,
    channel: Channel,
    machine: Machine,
    sandboxes: Vec<SandboxRecord>,
}

impl Testbed {
    /// Longest time for one answer: a cell has deadlines of its own for each of its steps, so this one means that the
    /// testbed itself hangs. The longest start (240 s) and the longest end (120 s) of one instance lie within.
    const LONGEST_ANSWER: Duration = Duration::from_secs(420);

    /// Makes a testbed and finds out which sandboxes it offers.
    ///
    /// Call it in the thread that lives as long as the testbed: the testbed is killed when that thread ends.
    ///
    /// # Errors
    /// Where the machine refuses one of its parts, in one sentence with the remedy.
    pub fn start(settings: &Settings) -> anyhow::Result<Self> {
        Self::begin(settings)?.await_started()
    }

    /// Begins to make a testbed, so that several can be made at once.
    pub(crate) fn begin(settings: &Settings) -> anyhow::Result<Starting> {
        let (ours, theirs) = UnixStream::pair().context("make a socket pair for the testbed")?;
        let process = Command::new("/proc/self/exe")
            .args([SUBCOMMAND, host::OUTER, &settings.run])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // Ctrl-C is for the parent to answer: it lets the cell in hand end and stops the testbed.
            .process_group(0)
            .spawn()
            .context("start the testbed from /proc/self/exe")?;
        let process = Process::from_child(process.id())?;
        let channel = Channel::new(ours);
        channel.wait_at_most(Some(Self::LONGEST_ANSWER))?;
        let run = settings.run.clone();
        let mut testbed = Self { run, process, channel, machine: Machine::default(), sandboxes: Vec::new() };
        testbed.tell(&Order::Start(settings.clone()))?;
        Ok(Starting(testbed))
    }

    /// Every sandbox that this program knows, in the order of every table; one that cannot run here says why.
    pub fn sandboxes(&self) -> &[SandboxRecord] {
        &self.sandboxes
    }

    /// Facts of the machine and of the testbed that bear on a figure.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The testbed's outermost process, for tests that end it the hard way.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Ends the testbed in good order and sees it gone.
    ///
    /// # Errors
    /// Where it reported something that it could not remove, or had to be killed.
    pub fn stop(mut self) -> anyhow::Result<()> {
        match self.ask(&Order::Stop)? {
            Reply::Stopped => {}
            other => return Err(unexpected(&other)),
        }
        match self.process.wait(Duration::from_secs(10)).context("wait for the testbed to end")? {
            Exit::Status(0) => cgroups::remove(&self.run),
            exit => bail!("the testbed ended with {exit:?}"),
        }
    }

    fn tell(&mut self, order: &Order) -> anyhow::Result<()> {
        self.channel.send(order).context("the testbed does not listen")
    }

    fn ask(&mut self, order: &Order) -> anyhow::Result<Reply> {
        self.tell(order)?;
        self.hear()
    }

    fn hear(&mut self) -> anyhow::Result<Reply> {
        match self.channel.receive().context("the testbed gave no answer")? {
            Some(Reply::Failed(failure)) => Err(failure.into()),
            Some(reply) => Ok(reply),
            None => Err(anyhow!("the testbed ended unexpectedly")),
        }
    }
}

/// A testbed that is being made.
#[derive(Debug)]
pub(crate) struct Starting(Testbed);

impl Starting {
    /// Waits until it is there.
    pub(crate) fn await_started(self) -> anyhow::Result<Testbed> {
        let mut testbed = self.0;
        match testbed.hear()? {
            Reply::Started(started) => {
                testbed.machine = started.machine;
                testbed.sandboxes = started.sandboxes;
                Ok(testbed)
            }
            other => Err(unexpected(&other)),
        }
    }
}

impl Measure for Testbed {
    fn measure(&mut self, cell: &Cell) -> anyhow::Result<Measured> {
        match self.ask(&Order::Measure(cell.clone()))? {
            Reply::Measured(measured) => Ok(measured),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(reply: &Reply) -> anyhow::Error {
    anyhow!("the testbed answered something else: {reply:?}")
}
