//! A testbed that is kept: the same simulated host that a run makes, without anybody who waits for it.
//!
//! Two small processes keep it. The outer one has left the machine's namespaces for the testbed's and holds the journal that
//! names its control groups; the inner one is process 1 of the testbed, holds the outside client's network, and reaps
//! orphans. Their maker talks to the inner one by a socket: where the maker dies before it has said that the testbed is to
//! be kept, both end. Afterwards the end of either ends the other, and the kernel ends and frees all else.

pub(super) mod second;

use super::cgroups::Branches;
use super::channel::Channel;
use super::failure::Failure;
use super::host::{die_with_parent, isolate, reap_orphans, standard_input};
use super::network::{CLIENT, HOST};
use super::record::{self, Host, Record};
use super::second_host::SecondHost;
use super::uplink::{Addresses, Uplink};
use super::{SUBCOMMAND, namespaces};
use crate::{home, journal};
use anyhow::{Context, anyhow, bail};
use isobench_microvm::system::close_inherited;
use isobench_runtime::network::Namespace;
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal, setsid};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGCHLD, SIGTERM};
use signal_hook::iterator::Signals;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime};

/// The argument of the process that leaves the machine's namespaces.
pub(super) const OUTER: &str = "keep";

/// The argument of process 1 of the testbed; where its control groups are follows.
pub(super) const INSIDE: &str = "kept";

/// The name of a host's outside client's network namespace, on that host.
pub(crate) const CLIENT_NAMESPACE: &str = "client";

/// How long the making or the end of a testbed may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a testbed is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Its name, a checked one.
    pub(crate) name: String,
    /// Whether it gets a second host.
    pub(crate) second: bool,
}

/// What the maker says.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Make(Request),
    Keep,
}

/// What the testbed answers.
#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Made { rootless: bool, groups: Branches },
    Kept,
    Failed(Failure),
}

/// Makes a testbed and keeps it, or gives the one of this name that is there already; whether it was made is told too.
///
/// # Errors
/// Where the machine refuses one of its parts, in one sentence with the remedy; nothing is left then.
pub(crate) fn make(request: &Request) -> anyhow::Result<(Record, bool)> {
    let home = home::home()?;
    let _lock = record::lock(&home)?;
    if let Some(record) = record::find(&request.name) {
        return Ok((record, false));
    }
    record::check(&home, &request.name)?;
    // What a dead one left: its record would be replaced, but its control groups would stay.
    record::sweep(false);
    let (ours, theirs) = UnixStream::pair().context("make a socket pair for the testbed")?;
    let child = Command::new("/proc/self/exe")
        .args([SUBCOMMAND, OUTER])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()
        .context("start the testbed from /proc/self/exe")?;
    let outer = child.id();
    let mut channel = Channel::new(ours);
    channel.wait_at_most(Some(PATIENCE))?;
    channel.send(&Order::Make(request.clone()))?;
    let (rootless, groups) = match answer(&mut channel)? {
        Reply::Made { rootless, groups } => (rootless, groups),
        other => bail!("the testbed answered something else: {other:?}"),
    };
    let first = only_child(outer)?;
    let mut hosts = vec![Host { name: request.name.clone(), process: journal::name_of(first)? }];
    if request.second {
        let process = journal::name_of(only_child(only_child(first)?)?)?;
        hosts.push(Host { name: format!("{}/two", request.name), process });
    }
    let record = Record {
        name: request.name.clone(),
        created: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        run: journal::name_of(outer)?,
        rootless,
        groups,
        hosts,
    };
    record.write(&home)?;
    let kept = channel.send(&Order::Keep).and_then(|()| answer(&mut channel));
    match kept {
        Ok(Reply::Kept) => Ok((record, true)),
        other => {
            record.remove(&home)?;
            Err(other.map_or_else(|error| error, |reply| anyhow!("the testbed answered something else: {reply:?}")))
        }
    }
}

/// Ends the testbed of a name with all that runs in it, and sees it gone; `false` where there is none.
pub(crate) fn remove(name: &str) -> anyhow::Result<bool> {
    let Some((home, _)) = record::locate(name) else { return Ok(false) };
    let _lock = record::lock(&home)?;
    // Somebody else may have removed it while this waited.
    let Some((_, record)) = record::locate(name) else { return Ok(false) };
    let outer = Host { name: record.name.clone(), process: record.run.clone() };
    let kill = || record.hosts.first().into_iter().chain([&outer]).try_for_each(kill);
    if kill().and_then(|()| record.groups.remove()).is_err() {
        // A command that was given to the testbed ends by itself, and with it what it has inside; but not while it is stopped, or
        // nobody reads what it writes.
        record.groups.end()?;
        kill()?;
    }
    record.remove(&home)?;
    // Its journal, which names nothing any more.
    journal::sweep(false);
    Ok(true)
}

/// Kills a host, and sees it gone.
pub(super) fn kill(host: &Host) -> anyhow::Result<()> {
    let Some(pidfd) = host.open() else { return Ok(()) };
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        // It has ended by itself.
        Ok(()) | Err(Errno::SRCH) => wait(&pidfd),
        Err(errno) => Err(errno).with_context(|| format!("end the testbed {}", host.name)),
    }
}

/// Waits for the end of a process that may be no child of ours.
fn wait(pidfd: &OwnedFd) -> anyhow::Result<()> {
    let timeout = rustix::event::Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let mut polled = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
    match rustix::event::poll(&mut polled, Some(&timeout)).context("wait for the testbed's end")? {
        0 => bail!("the testbed does not end within {} s", PATIENCE.as_secs()),
        _ => Ok(()),
    }
}

fn answer(channel: &mut Channel) -> anyhow::Result<Reply> {
    match channel.receive().context("the testbed gave no answer")? {
        Some(Reply::Failed(failure)) => Err(failure.into()),
        Some(reply) => Ok(reply),
        None => Err(anyhow!("the testbed ended unexpectedly")),
    }
}

/// The one process that another started, as this process's pid namespace numbers it.
fn only_child(process: u32) -> anyhow::Result<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let children = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    children
        .split_ascii_whitespace()
        .next()
        .and_then(|child| child.parse().ok())
        .with_context(|| format!("process {process}, which keeps the testbed, has no child"))
}

/// The outer process: leaves the machine's namespaces, makes process 1 of the testbed and waits for its end.
pub(super) fn leave() -> anyhow::Result<ExitCode> {
    // What a script has open, such as a file that it has locked, must not stay open as long as the testbed is kept.
    close_inherited(&[]).context("close what the maker has open")?;
    // No terminal, no group of the maker's: Ctrl-C there is not meant for the testbed.
    setsid().context("begin a session")?;
    let left = || -> anyhow::Result<(journal::Journal, String)> {
        let journal = journal::Journal::open().context("begin the journal of what outlives a kill")?;
        journal.note_control_groups().context("write down the testbed's control groups")?;
        let groups = isolate(journal.run())?.word()?;
        Ok((journal, groups))
    };
    // The journal is this process's for as long as it lives.
    let (_journal, groups) = match left() {
        Ok(left) => left,
        Err(error) => {
            let mut channel = Channel::new(standard_input()?);
            channel.receive::<Order>()?;
            channel.send(&Reply::Failed(Failure::of(&error)))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    keep(&[INSIDE, &groups])
}

/// Process 1 of the testbed: makes it, and keeps it until it is killed.
pub(super) fn serve(groups: &str) -> anyhow::Result<()> {
    die_with_parent()?;
    let mut channel = Channel::new(standard_input()?);
    let Some(Order::Make(request)) = channel.receive()? else { return Ok(()) };
    let groups = Branches::from_word(groups)?;
    let kept = match furnish(&groups, &request) {
        Ok(kept) => kept,
        Err(error) => return channel.send(&Reply::Failed(Failure::of(&error))),
    };
    // From before the first child can end.
    let mut signals = Signals::new([SIGCHLD, SIGTERM]).context("watch for ended children")?;
    channel.send(&Reply::Made { rootless: namespaces::is_rootless()?, groups })?;
    // The maker may have died before it wrote the record.
    let Some(Order::Keep) = channel.receive()? else { return Ok(()) };
    channel.send(&Reply::Kept)?;
    drop(channel);
    reap(&mut signals);
    drop(kept);
    Ok(())
}

/// What process 1 of the testbed holds: dropped with it, by the kernel.
#[derive(Debug)]
struct Kept {
    _uplink: Uplink,
    _second: Option<SecondHost>,
}

fn furnish(groups: &Branches, request: &Request) -> anyhow::Result<Kept> {
    namespaces::furnish(&request.name, true)?;
    groups.show()?;
    let uplink = Uplink::create_in(&Namespace::current()?, Addresses { host: HOST, client: CLIENT })?;
    namespaces::name_network(CLIENT_NAMESPACE, uplink.outside())?;
    let second = if request.second { Some(second::make(&request.name)?) } else { None };
    Ok(Kept { _uplink: uplink, _second: second })
}

/// Starts the first process of a host in the new pid namespace and waits for its end.
fn keep(words: &[&str]) -> anyhow::Result<ExitCode> {
    let mut child = Command::new("/proc/self/exe")
        .arg(SUBCOMMAND)
        .args(words)
        .spawn()
        .context("start the first process of the host")?;
    // Only the inner process holds the maker's socket from now on: the maker sees its end by it.
    drop(standard_input()?);
    let status = child.wait().context("wait for the first process of the host")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Until SIGTERM comes.
fn reap(signals: &mut Signals) {
    for signal in signals.forever() {
        match signal {
            SIGTERM => return,
            _ => reap_orphans(),
        }
    }
}
