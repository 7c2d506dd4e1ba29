//! Containers by the whole program, as a user starts them: `isobench container run` beside another runtime's `run`.

use crate::programs::Bundle;
use crate::{Pair, both, cells, settle};
use anyhow::{Context, ensure};
use isobench_runtime::network::Namespace;
use isobench_workload::{client, clock};
use rustix::process::Pid;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where the agent serves inside.
const PORT: u16 = 7000;

/// Where that is reached on the simulated host.
const PUBLISHED: u16 = 8000;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A container on the bridge with one published port, from the start of the program to the first answer through the port,
/// beside crun's container without a network, from the start of the program until the agent inside says that it is ready.
///
/// With version 1 of control groups crun takes one of two times, some 8 or some 20 ms on one machine. It moves its container by
/// its number in `cgroup.procs`, for which the kernel first takes a lock that stops all forks (`cgroup_threadgroup_rwsem`).
/// Whoever takes that lock waits for grace periods of RCU, unless somebody else took it so shortly before that the kernel has
/// not yet left that state (`rcu_sync_enter` in kernel/rcu/sync.c). So it is fast right after another move, and slow 50 ms
/// later, as whoever starts one container finds it; ours moves itself, which needs no lock, and takes one time.
pub(crate) fn published_against_crun() -> anyhow::Result<Pair> {
    let bundle = Bundle::serving(PORT)?;
    let lab = Lab::new()?;
    let mut number = 0;
    Ok(Box::new(move || {
        number += 1;
        both(|| ours(&lab, &bundle).map(|times| times.ready), || crun(&bundle, number))
    }))
}

/// The same beside docker's container on its bridge with a published port, from the client's start to the agent's first answer.
pub(crate) fn published_against_docker() -> anyhow::Result<Pair> {
    against_docker("publishing.ready", |times| times.ready)
}

/// From the order to kill until both programs and the container are gone.
pub(crate) fn gone_against_docker() -> anyhow::Result<Pair> {
    against_docker("publishing.gone", |times| times.gone)
}

fn against_docker(metric: &'static str, which: fn(Times) -> f64) -> anyhow::Result<Pair> {
    let bundle = Bundle::serving(PORT)?;
    let lab = Lab::new()?;
    let mut docker = cells::docker(metric)?;
    Ok(Box::new(move || both(|| ours(&lab, &bundle).map(which), &mut docker)))
}

/// Nanoseconds of one life.
struct Times {
    /// From the start of the program to the first answer.
    ready: f64,
    /// From the start of the program that kills it to the end of the one that ran it, with which everything has gone.
    gone: f64,
}

fn ours(lab: &Lab, bundle: &Bundle) -> anyhow::Result<Times> {
    settle();
    let root = bundle.path().join("rootfs");
    let mut command = lab.command(&["container", "run", "--rm", "--name", "figure", "-p"]);
    command.arg(format!("{PUBLISHED}:{PORT}")).arg(root).args(["/agent", "serve", &PORT.to_string()]);
    let taken = lab.network.enter(|| -> anyhow::Result<Times> {
        let begun = clock::now();
        let mut child = Ready::wait(&mut command)?;
        let published = SocketAddr::from((Ipv4Addr::new(198, 51, 100, 1), PUBLISHED));
        client::hello(published, PATIENCE).context("get an answer through the published port")?;
        let ready = (clock::now() - begun) as f64;
        let begun = clock::now();
        lab.well(&["container", "kill", "figure"])?;
        child.0.wait().context("wait for isobench")?;
        Ok(Times { ready, gone: (clock::now() - begun) as f64 })
    });
    taken?
}

fn crun(bundle: &Bundle, number: u32) -> anyhow::Result<f64> {
    settle();
    let name = format!("figure-{}-{number}", std::process::id());
    let begun = clock::now();
    let mut child = Ready::wait(Command::new("crun").args(["run", "--bundle"]).arg(bundle.path()).arg(&name))?;
    let taken = (clock::now() - begun) as f64;
    // It removes the container itself when that has ended: a delete would race with it.
    let killed = Command::new("crun").args(["kill", &name, "KILL"]).status().context("start crun kill")?;
    ensure!(killed.success(), "crun kill ended with {killed}");
    child.0.wait().context("wait for crun")?;
    Ok(taken)
}

/// A program whose container has said that it is ready.
struct Ready(Child);

impl Ready {
    fn wait(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start a runtime")?;
        let output = child.stdout.take().context("the runtime has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("read the agent's line")?;
        ensure!(!line.is_empty(), "the container ended without a word");
        Ok(Self(child))
    }
}

/// A testbed of this figure's own, kept while this lives.
struct Lab {
    home: tempfile::TempDir,
    network: Namespace,
}

impl Lab {
    fn new() -> anyhow::Result<Self> {
        let home = tempfile::tempdir().context("make a directory for the testbed's record")?;
        let output = run(home.path(), &["testbed", "create"]);
        let shown = output.and_then(|_| run(home.path(), &["testbed", "inspect", "--json"]))?;
        let shown: serde_json::Value =
            serde_json::from_slice(&shown).context("understand the testbed's description")?;
        let number = shown["parts"][0]["pid"].as_i64().and_then(|number| Pid::from_raw(number as i32));
        let network = Namespace::of_process(number.context("the testbed has no process")?)?;
        Ok(Self { home, network })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        program(self.home.path(), arguments)
    }

    fn well(&self, arguments: &[&str]) -> anyhow::Result<()> {
        run(self.home.path(), arguments).map(drop)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.well(&["testbed", "rm"]);
    }
}

fn program(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
    command.args(arguments).env("ISOBENCH_HOME", home.join("isobench")).env_remove("ISOBENCH_TESTBED");
    command
}

fn run(home: &Path, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = program(home, arguments).output().context("start isobench")?;
    ensure!(output.status.success(), "isobench {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}
