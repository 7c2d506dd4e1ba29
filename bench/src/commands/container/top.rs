//! `isobench container top`.

use super::listing;
use crate::commands::{Status, output};
use crate::instances::processes::{self, Entry};
use crate::instances::{Kind, Store, refuse};
use std::time::Duration;

/// Show the processes of a container
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Arguments {
    /// Its name or id
    #[arg(value_name = "CONTAINER", add = super::completer())]
    name: String,
}

pub(in crate::commands) fn run(arguments: Arguments, kind: Kind) -> anyhow::Result<Status> {
    let container = Store::of(kind)?.find(&arguments.name)?;
    if !container.state.status.is_alive() {
        return refuse(format!("the {} is not running", container.title()));
    }
    let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let now = Duration::new(since_boot.tv_sec.unsigned_abs(), since_boot.tv_nsec as u32);
    let head = ["UID", "PID", "PPID", "THREADS", "ELAPSED", "TTY", "TIME", "CMD"].map(String::from).to_vec();
    let rows = processes::of_container(container.state.pid()).into_iter().map(|entry| row(&entry, now));
    output::print(&listing::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()))?;
    Ok(Status::Success)
}

/// Numbers are the host's, as in Docker's `top`.
fn row(entry: &Entry, now: Duration) -> Vec<String> {
    let elapsed = now.saturating_sub(Duration::from_nanos(entry.begun)).as_secs();
    let used = Duration::from_nanos(entry.used).as_secs();
    // Minor numbers of /dev/pts are those of the terminals (proc_pid_stat(5)).
    let terminal = match (entry.terminal >> 8 & 0xfff, entry.terminal & 0xff) {
        (136..=143, minor) => format!("pts/{minor}"),
        _ => "?".into(),
    };
    vec![
        entry.user.to_string(),
        entry.pid.to_string(),
        entry.parent.to_string(),
        entry.threads.to_string(),
        format!("{:02}:{:02}:{:02}", elapsed / 3600, elapsed / 60 % 60, elapsed % 60),
        terminal,
        format!("{:02}:{:02}:{:02}", used / 3600, used / 60 % 60, used % 60),
        entry.command.clone(),
    ]
}
