//! Container runtimes as programs: the same bundle, from the start of the program to its end.

use crate::{Pair, both};
use anyhow::{Context, bail, ensure};
use isobench_workload::clock;
use std::path::Path;
use std::process::{Command, Stdio};

pub(crate) fn against_crun() -> anyhow::Result<Pair> {
    let runtime = std::env::var("ISOBENCH_RUNTIME")
        .context("ISOBENCH_RUNTIME does not name isobench-runtime; run scripts/figures")?;
    let bundle = Bundle::new(&runtime)?;
    let mut number = 0;
    Ok(Box::new(move || {
        number += 1;
        both(|| timed(&runtime, &bundle, number), || timed("crun", &bundle, number))
    }))
}

/// Nanoseconds from just before the program is started until it has ended.
fn timed(program: &str, bundle: &Bundle, number: u32) -> anyhow::Result<f64> {
    let mut command = Command::new(program);
    command.args(["run", "--bundle"]).arg(bundle.path()).arg(format!("figure-{}-{number}", std::process::id()));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let begun = clock::now();
    let status = command.status().with_context(|| format!("start {program}"))?;
    let ended = clock::now();
    if !status.success() {
        bail!("{program} ended with {status}");
    }
    Ok((ended - begun) as f64)
}

/// A bundle whose container runs `isobench-agent exit`, with what `isobench-runtime spec` puts into it: all namespaces but
/// that of users, Docker's capabilities less one, masked paths, Docker's system call filter, a cgroup without limits, and no
/// network.
pub(crate) struct Bundle(tempfile::TempDir);

impl Bundle {
    /// One whose agent serves on a port.
    pub(crate) fn serving(port: u16) -> anyhow::Result<Self> {
        let runtime = std::env::var("ISOBENCH_RUNTIME")
            .context("ISOBENCH_RUNTIME does not name isobench-runtime; run scripts/figures")?;
        Self::running(&runtime, &["/agent", "serve", &port.to_string()])
    }

    fn new(runtime: &str) -> anyhow::Result<Self> {
        Self::running(runtime, &["/agent", "exit"])
    }

    fn running(runtime: &str, command: &[&str]) -> anyhow::Result<Self> {
        let agent =
            std::env::var("ISOBENCH_AGENT").context("ISOBENCH_AGENT does not name the agent; run scripts/figures")?;
        let directory = tempfile::tempdir().context("make a directory for the bundle")?;
        let root = directory.path().join("rootfs");
        for folder in ["proc", "sys", "dev", "tmp"] {
            std::fs::create_dir_all(root.join(folder)).with_context(|| format!("make {folder} in the bundle"))?;
        }
        std::fs::copy(&agent, root.join("agent")).with_context(|| format!("copy {agent} into the bundle"))?;
        let output = Command::new(runtime).arg("spec").output().with_context(|| format!("start {runtime}"))?;
        ensure!(output.status.success(), "{runtime} spec ended with {}", output.status);
        let path = directory.path().join("config.json");
        let mut config: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("parse the configuration that spec printed")?;
        config["process"]["args"] = serde_json::json!(command);
        config["process"]["terminal"] = serde_json::json!(false);
        std::fs::write(&path, serde_json::to_vec(&config)?).context("write config.json")?;
        Ok(Self(directory))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}
