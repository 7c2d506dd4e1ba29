//! The plug for Docker: its daemon with a state of its own.

use super::client::Client;
use super::engine::Started;
use super::shield;
use super::spawn::find_program;
use crate::testbed::directory;
use anyhow::{Context, anyhow, bail};
use isobench_workload::{Process, ProcessError};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the daemon keeps while it runs. It is short, as the path of a socket must be (unix(7)).
const STATE: &str = "/run/docker";
const SOCKET: &str = "/run/docker.sock";

/// Whether its client and daemon are there.
pub(super) fn installed() -> Result<(), String> {
    match (find_program("docker"), find_program("dockerd")) {
        (None, _) => Err("docker is not installed: apt-get install docker.io".into()),
        (_, None) => Err("dockerd, the daemon behind docker, is not installed: apt-get install docker.io".into()),
        _ => Ok(()),
    }
}

/// Where the number of a container's first process is written down, before it starts.
pub(super) fn process_file(id: &str) -> PathBuf {
    Path::new(STATE).join("containerd/daemon/io.containerd.runtime.v2.task/moby").join(id).join("init.pid")
}

/// Starts the daemon as the distribution has it: every setting that is not about where its state lies is its own default.
pub(super) fn start(data: &Path, deadline: Duration) -> anyhow::Result<Started> {
    shield::files(data)?;
    let home = directory("home")?;
    let configuration = home.join("daemon.json");
    let settings = json!({
        "data-root": data.join("docker"),
        "exec-root": STATE,
        "pidfile": "/run/docker.pid",
        "hosts": [format!("unix://{SOCKET}")],
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
    });
    fs::write(&configuration, settings.to_string()).with_context(|| format!("write {}", configuration.display()))?;
    let log = home.join("dockerd.log");
    let mut daemon = run_daemon(&configuration, &home, &log)?;
    await_socket(&mut daemon, &log, deadline)?;
    let program = find_program("docker").context("docker has gone")?;
    let client = Client::new(program, &home, deadline)
        .environment("DOCKER_HOST", format!("unix://{SOCKET}"))
        .environment("DOCKER_CONFIG", home.join("docker"));
    let versions = client.ask(&["version", "--format", "{{.Server.Version}} {{.Client.Version}}"], None)?;
    let (server, own) = versions.trim().split_once(' ').context("docker tells no version")?;
    let facts = client.ask(&["info", "--format", "{{.Driver}} {{.DefaultRuntime}} {{.CgroupDriver}}"], None)?;
    let facts = ["storage", "runtime", "cgroup-driver"].into_iter().zip(facts.split_whitespace().map(str::to_owned));
    let mut facts: BTreeMap<&'static str, String> = facts.collect();
    // Nobody asks to change it; where it is on, one more process a published port answers connections from the host to lo.
    facts.insert("userland-proxy", "as the distribution has it".into());
    let version = format!("Docker {server}, client {own}");
    Ok(Started { client, daemon: Some(daemon), version, facts, nameless: None, default_network: "bridge" })
}

fn run_daemon(configuration: &Path, home: &Path, log: &Path) -> anyhow::Result<Process> {
    let output = File::create(log).with_context(|| format!("make {}", log.display()))?;
    let child = Command::new("dockerd")
        .arg("--config-file")
        .arg(configuration)
        .env("HOME", home)
        .env_remove("DOCKER_HOST")
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("hand on its log")?)
        .stderr(output)
        .spawn()
        .context("start dockerd")?;
    Ok(Process::from_child(child.id())?)
}

/// The daemon listens before it answers; the first question to it then waits for the answer.
fn await_socket(daemon: &mut Process, log: &Path, deadline: Duration) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        if UnixStream::connect(SOCKET).is_ok() {
            return Ok(());
        }
        match daemon.wait(Duration::from_millis(10)) {
            Err(ProcessError::Deadline { .. }) => {}
            Ok(exit) => return Err(anyhow!("dockerd ended with status {} at once: {}", exit.code(), last_line(log))),
            Err(error) => return Err(error.into()),
        }
        if begun.elapsed() > deadline {
            bail!("dockerd did not listen within {deadline:?}: {}", last_line(log));
        }
    }
}

/// What a daemon said last.
fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.map_or("it said nothing".into(), |line| line.trim().chars().take(300).collect())
}
