//! Stopping all processes of a container where they are, and letting them go on.

use super::processes;
use anyhow::{Context, bail};
use isobench_runtime::cgroup::Cgroup;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::PathBuf;

/// So often new processes may appear while the others are being stopped.
const ROUNDS: usize = 1000;

/// Stops all. With version 2 of the control groups the kernel does it by one order
/// ([cgroup.freeze](https://docs.kernel.org/admin-guide/cgroup-v2.html)); elsewhere each is sent SIGSTOP, until a look at them
/// finds none that runs.
pub(super) fn pause(first: i32, cgroup: Option<&Cgroup>) -> anyhow::Result<()> {
    if let Some(file) = freezer(cgroup) {
        return fs::write(&file, "1").with_context(|| format!("write {}", file.display()));
    }
    for _ in 0..ROUNDS {
        let all = processes::of_container(first);
        let running: Vec<_> = all.iter().filter(|entry| !matches!(entry.state, 'T' | 't' | 'Z' | 'X')).collect();
        if running.is_empty() {
            return Ok(());
        }
        running.iter().for_each(|entry| send(entry.pid, Signal::STOP));
    }
    resume(first, cgroup)?;
    bail!("it makes processes faster than they can be stopped")
}

/// Lets all go on.
pub(super) fn resume(first: i32, cgroup: Option<&Cgroup>) -> anyhow::Result<()> {
    if let Some(file) = freezer(cgroup) {
        return fs::write(&file, "0").with_context(|| format!("write {}", file.display()));
    }
    // The first process last: it is told that its children have gone on when all have.
    processes::of_container(first).iter().rev().for_each(|entry| send(entry.pid, Signal::CONT));
    Ok(())
}

fn freezer(cgroup: Option<&Cgroup>) -> Option<PathBuf> {
    cgroup?.paths().map(|path| path.join("cgroup.freeze")).find(|file| file.exists())
}

/// A process that has ended meanwhile needs no signal; numbers are not given again that fast.
fn send(process: i32, signal: Signal) {
    if let Some(process) = Pid::from_raw(process) {
        let _ = kill_process(process, signal);
    }
}
