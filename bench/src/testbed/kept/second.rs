//! The second host of a testbed that is kept: its links are the first host's work, its processes are here.

use super::{CLIENT_NAMESPACE, PATIENCE, Reply, answer, keep, reap};
use crate::testbed::cgroups::Branches;
use crate::testbed::channel::Channel;
use crate::testbed::failure::Failure;
use crate::testbed::host::{die_with_parent, standard_input};
use crate::testbed::second_host::SecondHost;
use crate::testbed::{SUBCOMMAND, cgroups, namespaces};
use anyhow::{Context, bail};
use isobench_runtime::network::Namespace;
use signal_hook::consts::{SIGCHLD, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};

/// The argument of the process that leaves the first host's namespaces; the host's name follows.
pub(in crate::testbed) const OUTER: &str = "keep-second";

/// The argument of the second host's process 1; the host's name and where its control groups are follow.
pub(in crate::testbed) const INSIDE: &str = "kept-second";

/// The name of the second host's network namespace on the first one.
pub(in crate::testbed) const NAMESPACE: &str = "two";

/// The name of its outside client's network namespace on the first one.
pub(in crate::testbed) const OUTSIDE: &str = "two-client";

/// Its control groups, below the first host's.
pub(in crate::testbed) const GROUP: &str = "second-host";

/// Makes the second host, and a first process of it in namespaces of its own.
///
/// Its processes are children of the first host's, so that they end with it.
pub(super) fn make(testbed: &str) -> anyhow::Result<SecondHost> {
    let second = SecondHost::create(&Namespace::current()?)?;
    namespaces::name_network(NAMESPACE, second.namespace())?;
    namespaces::name_network(OUTSIDE, second.outside())?;
    let (ours, theirs) = UnixStream::pair().context("make a socket pair for the second host")?;
    let mut command = Command::new("/proc/self/exe");
    command.args([SUBCOMMAND, OUTER, &format!("{testbed}/two")]).stdin(Stdio::from(OwnedFd::from(theirs)));
    second.namespace().enter(|| command.spawn())?.context("start the second host")?;
    // Nobody holds the other end now but the second host.
    drop(command);
    let mut channel = Channel::new(ours);
    channel.wait_at_most(Some(PATIENCE))?;
    match answer(&mut channel).context("make the second host")? {
        Reply::Kept => Ok(second),
        other => bail!("the second host answered something else: {other:?}"),
    }
}

/// The second host's outer process, in its network already.
pub(in crate::testbed) fn leave(host: &str) -> anyhow::Result<ExitCode> {
    let left = || -> anyhow::Result<String> {
        let groups = cgroups::enter(GROUP)?;
        namespaces::leave_for_second()?;
        groups.step_aside()?;
        groups.word()
    };
    match left() {
        Ok(groups) => keep(&[INSIDE, host, &groups]),
        Err(error) => {
            Channel::new(standard_input()?).send(&Reply::Failed(Failure::of(&error)))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Process 1 of the second host: furnishes it and reaps orphans until it is killed.
pub(in crate::testbed) fn serve(host: &str, groups: &str) -> anyhow::Result<()> {
    die_with_parent()?;
    let mut channel = Channel::new(standard_input()?);
    let mut signals = Signals::new([SIGCHLD, SIGTERM]).context("watch for ended children")?;
    let furnished = || -> anyhow::Result<()> {
        // The first host's /run is covered in a moment.
        let path = namespaces::named_network(OUTSIDE);
        let outside = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        namespaces::furnish(host, true)?;
        Branches::from_word(groups)?.show()?;
        namespaces::name_network(CLIENT_NAMESPACE, outside)
    };
    channel.send(&match furnished() {
        Ok(()) => Reply::Kept,
        Err(error) => Reply::Failed(Failure::of(&error)),
    })?;
    drop(channel);
    reap(&mut signals);
    Ok(())
}
