//! Going into a testbed: this process joins the namespaces of one of its hosts, and starts a program there.
//!
//! A process can leave its pid namespace only through a child ([setns(2)](https://man7.org/linux/man-pages/man2/setns.2.html)),
//! so it is a copy of this process or another program that works inside, with the same standard streams, while this process
//! hands signals on and then ends as it did. A launch goes without the copy (`Inside::stay`): only what it forks is inside.

use super::kept::{CLIENT_NAMESPACE, second};
use super::namespaces;
use super::record::Record;
use super::view::{self, LinkView};
use crate::commands::{self, BadInput, Status};
use anyhow::{Context, anyhow, bail};
use isobench_runtime::launch::fork;
use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpgrp, getpid, kill_process, pidfd_open, set_parent_process_death_signal,
    waitpid,
};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::str::FromStr;

/// The hidden subcommand of what runs inside; [`main`] answers it.
pub const SUBCOMMAND: &str = "__inside";

/// Its argument where any program with its arguments follows.
const PROGRAM: &str = "program";

/// Its argument where the links of a testbed's parts are to be told.
const LINKS: &str = "links";

/// A place in a testbed: one of its hosts, or the outside client of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The testbed's name.
    pub testbed: String,
    /// Whether it is the second host.
    pub second: bool,
    /// Whether it is the host's outside client.
    pub client: bool,
}

/// Why a text names no place in a testbed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no place in a testbed: give NAME, NAME/two for its second host, NAME/client or NAME/two/client for an \
     outside client, where NAME is made of at most 40 letters, digits and `-`, `_`, `.`, and begins with a letter or digit"
)]
pub struct NoTarget(String);

impl Target {
    /// The host's name: `NAME` or `NAME/two`.
    pub fn host(&self) -> String {
        if self.second { format!("{}/two", self.testbed) } else { self.testbed.clone() }
    }
}

impl FromStr for Target {
    type Err = NoTarget;

    fn from_str(text: &str) -> Result<Self, NoTarget> {
        let mut parts = text.split('/');
        let name = parts.next().unwrap_or_default();
        let sound = (1..=40).contains(&name.len())
            && name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && name.chars().all(|character| character.is_ascii_alphanumeric() || "-_.".contains(character));
        let (second, client) = match parts.collect::<Vec<_>>()[..] {
            [] => (false, false),
            ["two"] => (true, false),
            ["client"] => (false, true),
            ["two", "client"] => (true, true),
            _ => return Err(NoTarget(text.into())),
        };
        if sound { Ok(Self { testbed: name.into(), second, client }) } else { Err(NoTarget(text.into())) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.host(), if self.client { "/client" } else { "" })
    }
}

/// This process after it has joined a place: what it starts now runs there.
///
/// It can do little else: `/proc` is now that of a pid namespace in which it is not.
#[derive(Debug)]
pub(crate) struct Inside {
    directory: PathBuf,
}

/// Joins a place. Must be called while this process has one thread.
///
/// # Errors
/// Where the host or the client is not there, or the kernel refuses.
pub(crate) fn join(target: &Target, record: &Record) -> anyhow::Result<Inside> {
    let name = target.host();
    let host = record.hosts.iter().find(|host| host.name == name).ok_or_else(|| {
        let remedy = "`isobench testbed create NAME --second-host` makes one that has";
        BadInput(format!("the testbed `{}` has no second host: {remedy}", record.name))
    })?;
    let ended = || format!("the first process of {name} has ended: `isobench testbed rm {}`", record.name);
    let (pidfd, pid) = host.open().zip(host.pid()).with_context(ended)?;
    let directory = std::env::current_dir().unwrap_or_else(|_| "/".into());
    if !record.groups.join(target.second.then_some(second::GROUP)) {
        let reason =
            "what is started from here has no limits: this shell is outside of the control groups that you were given";
        commands::note(reason);
    }
    enter(&pidfd, &format!("/proc/{}/ns/user", pid.as_raw_nonzero())).with_context(|| format!("enter {name}"))?;
    if target.client {
        let path = namespaces::named_network(CLIENT_NAMESPACE);
        let namespace = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("enter the network of {target}"))?;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS).context("make a namespace for the host name")?;
        let host_name = target.to_string().replace('/', "-");
        rustix::system::sethostname(host_name.as_bytes()).context("set the host name")?;
    }
    Ok(Inside { directory })
}

/// All namespaces of a process in one step, so that the rights that its user namespace gives count for the others.
fn enter(pidfd: &OwnedFd, its_user: &str) -> anyhow::Result<()> {
    let mut kinds = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP
        | ThreadNameSpaceType::PROCESS_ID;
    let user = |path: &str| std::fs::read_link(path).with_context(|| format!("look at {path}"));
    // The kernel refuses to enter the user namespace in which one is already.
    if user("/proc/self/ns/user")? != user(its_user)? {
        kinds |= ThreadNameSpaceType::USER;
    }
    Ok(move_into_thread_name_spaces(pidfd.as_fd(), kinds)?)
}

impl Inside {
    /// Goes on as this one process. What it forks is inside, but it is not seen there itself.
    pub(crate) fn stay(self) {
        // Another process of the testbed may have no such directory.
        let _ = std::env::set_current_dir(self.start());
    }

    /// Goes on as two processes, of which the new one is inside: `None` there, and its exit status here, once it has ended.
    /// Must be called while this process has one thread.
    pub(crate) fn divide(self) -> anyhow::Result<Option<Status>> {
        let outside = pidfd_open(getpid(), PidfdFlags::empty()).context("open this process")?;
        // From before the child is there until this process can hand on what it gets.
        let blocked = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).context("hold signals back")?;
        let child = fork().context("go on as a process inside");
        let free = || blocked.thread_set_mask().context("take signals again");
        match child {
            Ok(None) => {
                ties_to_outside()?;
                // It may have been killed before this one was tied to it, of which no signal tells any more.
                let mut ended = [PollFd::new(&outside, PollFlags::IN)];
                if poll(&mut ended, Some(&Timespec::default())).context("look for the process outside")? > 0 {
                    bail!("the process outside has ended");
                }
                free()?;
                self.stay();
                Ok(None)
            }
            Ok(Some(child)) => attend(child, free).map(Some),
            Err(error) => free().and(Err(error)),
        }
    }

    /// Runs a program inside; gives its status, or 126 and 127 as shells do where it is none or not there. It is looked for in
    /// these directories too, after those of the caller.
    pub(crate) fn program(self, words: Vec<OsString>, directories: &[PathBuf]) -> anyhow::Result<Status> {
        let own = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        let path = std::env::join_paths(std::env::split_paths(&own).chain(directories.iter().cloned()));
        let mut command = self.command(PROGRAM);
        command.args(words).env("PATH", path.unwrap_or(own));
        run(command)
    }

    /// The links of every part of the testbed, by what follows its name. This process has joined the first host.
    pub(crate) fn links(&self) -> anyhow::Result<BTreeMap<String, Vec<LinkView>>> {
        let output = self.command(LINKS).stderr(Stdio::inherit()).output().context("start this program inside")?;
        if !output.status.success() {
            bail!("the testbed's links cannot be seen");
        }
        serde_json::from_slice(&output.stdout).context("read the testbed's links")
    }

    fn command(&self, kind: &str) -> Command {
        // The child looks the path up, in its own /proc.
        let mut command = Command::new("/proc/self/exe");
        command.args([SUBCOMMAND, kind]).current_dir(self.start());
        command
    }

    /// Where to begin: in the caller's working directory where it is seen here.
    fn start(&self) -> &Path {
        if self.directory.is_dir() { &self.directory } else { Path::new("/") }
    }
}

/// Runs what runs inside to its end; gives its status.
fn run(mut command: Command) -> anyhow::Result<Status> {
    // From before the child is there, so that its end is never missed.
    let signals = watch()?;
    let child = command.spawn().context("start this program inside")?;
    await_end(Pid::from_child(&child), signals)
}

/// Waits for the end of a child that was made while signals were held back; gives its status.
fn attend(child: Pid, free: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Status> {
    let signals = watch()?;
    free()?;
    await_end(child, signals)
}

fn watch() -> anyhow::Result<Signals> {
    Signals::new([SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2]).context("watch for signals")
}

fn await_end(child: Pid, mut signals: Signals) -> anyhow::Result<Status> {
    loop {
        if let Some((_, status)) = waitpid(Some(child), WaitOptions::NOHANG).context("wait for what runs inside")? {
            let signal = status.terminating_signal().unwrap_or(0);
            return Ok(Status::Program(status.exit_status().unwrap_or(128 + signal) as u8));
        }
        signals.wait().filter(|signal| *signal != SIGCHLD).for_each(|signal| hand_on(signal, child));
    }
}

/// Hands a signal on, but for what the terminal has sent to both, as it does to a whole group.
fn hand_on(signal: i32, child: Pid) {
    let own = rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == getpgrp());
    if own && matches!(signal, SIGINT | SIGQUIT) {
        return;
    }
    if let Some(signal) = Signal::from_named_raw(signal) {
        let _ = kill_process(child, signal);
    }
}

/// What runs inside ends with the process that waits for it outside.
fn ties_to_outside() -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("ask to die with the process outside")
}

/// The hidden subcommand.
pub fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let kind = words.nth(2).unwrap_or_default();
    if let Err(error) = ties_to_outside() {
        return commands::fail(&error);
    }
    if kind == LINKS {
        let told = view::links().and_then(|links| Ok(serde_json::to_writer(std::io::stdout(), &links)?));
        return told.map_or_else(|error| commands::fail(&error), |()| ExitCode::SUCCESS);
    }
    let Some(program) = words.next() else {
        return commands::fail(&anyhow!("`{SUBCOMMAND}` is a part of `isobench testbed enter` and no command"));
    };
    let error = Command::new(&program).args(words).exec();
    let status = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
    commands::fail(&anyhow!(error).context(format!("start {} in the testbed", program.display())));
    ExitCode::from(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_shown_alike() {
        for text in ["default", "default/two", "a.b-c_1/client", "7/two/client"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        let long = "x".repeat(41);
        for text in
            ["", "/two", "a/", "a/three", "a/client/two", "a//client", "..", "-a", "a b", "ä", &long, "a/two/client/x"]
        {
            assert_eq!(text.parse::<Target>(), Err(NoTarget(text.into())), "{text}");
        }
    }

    #[test]
    fn a_host_is_named_without_its_client() {
        assert_eq!("lab/two/client".parse::<Target>().unwrap().host(), "lab/two");
    }
}
