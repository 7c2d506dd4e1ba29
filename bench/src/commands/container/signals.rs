//! `isobench container stop`, `restart`, `kill`, `pause`, `unpause` and `wait`.

use super::{each, start};
use crate::commands::{Status, output};
use crate::instances::protocol::Order;
use crate::instances::{Kind, Status as Stage, Store, attach, refuse};
use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Containers by name or id.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Names {
    /// Their names or ids
    #[arg(required = true, value_name = "CONTAINER", add = super::completer())]
    names: Vec<String>,
}

/// How containers are stopped
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Stop {
    /// How many seconds to wait before SIGKILL
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", default_value_t = 10)]
    time: u32,
    /// The signal that asks them to end
    #[arg(short, long, default_value = "TERM", value_parser = signal)]
    signal: Signal,
    #[command(flatten)]
    names: Names,
}

/// Send a signal
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Kill {
    /// The signal, by name or number
    #[arg(short, long, default_value = "KILL", value_parser = signal)]
    signal: Signal,
    #[command(flatten)]
    names: Names,
}

fn signal(text: &str) -> Result<Signal, String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = name.parse::<i32>().ok().or_else(|| {
        let named: nix::sys::signal::Signal = format!("SIG{name}").parse().ok()?;
        Some(named as i32)
    });
    number.and_then(Signal::from_named_raw).ok_or_else(|| "there is no such signal (signal(7) lists them)".into())
}

/// An order that is followed by the container's end.
const WATCH: Order = Order::Attach { input: false, output: false, size: None };

pub(in crate::commands) fn stop(arguments: Stop, kind: Kind) -> anyhow::Result<Status> {
    let store = Store::of(kind)?;
    stop_each(&store, &arguments, |name| output::print(&format!("{name}\n")))
}

pub(in crate::commands) fn restart(arguments: Stop, kind: Kind) -> anyhow::Result<Status> {
    let store = Store::of(kind)?;
    for name in &arguments.names.names {
        let found = store.find_if_any(name)?;
        if let Some(container) = found.filter(|container| container.request.remove) {
            return refuse(format!("the {} goes when it ends (--rm): it cannot be started again", container.title()));
        }
    }
    stop_each(&store, &arguments, |name| start::unattended(&store, name))
}

/// Asks all of them to end before it waits for the first: together they have the time that one has.
fn stop_each(store: &Store, arguments: &Stop, then: impl Fn(&str) -> anyhow::Result<()>) -> anyhow::Result<Status> {
    let names = &arguments.names.names;
    let mut asked: VecDeque<_> = names.iter().map(|name| ask_to_end(store, name, arguments.signal)).collect();
    let end = Instant::now() + Duration::from_secs(arguments.time.into());
    each(names, |name| {
        // One that does not run is stopped already.
        if let Some(socket) = asked.pop_front().transpose()?.flatten()
            && !ends_until(&socket, end)?
        {
            attach::signal(&socket, Signal::KILL)?;
            attach::await_end(&socket)?;
        }
        then(name)
    })
}

/// The connection on which its end is told; `None` where it does not run.
fn ask_to_end(store: &Store, name: &str, signal: Signal) -> anyhow::Result<Option<UnixStream>> {
    let container = store.find(name)?;
    let Some(socket) = attach::connect(&container, &WATCH)? else { return Ok(None) };
    if container.state.status == Stage::Paused {
        attach::ask(&container, &Order::Unpause)?;
    }
    attach::signal(&socket, signal)?;
    Ok(Some(socket))
}

/// Waits for the end, until then at most.
fn ends_until(socket: &UnixStream, end: Instant) -> anyhow::Result<bool> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno).context("wait for the container"),
        }
        use crate::instances::protocol::{Frame, Kind};
        match Frame::receive(socket) {
            Ok(Some(frame)) if frame.kind != Kind::Ended => {}
            Ok(_) => return Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return Ok(true);
            }
            Err(error) => return Err(error).context("wait for the container"),
        }
    }
}

pub(in crate::commands) fn kill(arguments: Kill, kind: Kind) -> anyhow::Result<Status> {
    let order = Order::Signal(arguments.signal.as_raw());
    order_each(&arguments.names, &order, kind)
}

pub(in crate::commands) fn pause(arguments: Names, kind: Kind) -> anyhow::Result<Status> {
    order_each(&arguments, &Order::Pause, kind)
}

pub(in crate::commands) fn unpause(arguments: Names, kind: Kind) -> anyhow::Result<Status> {
    order_each(&arguments, &Order::Unpause, kind)
}

fn order_each(names: &Names, order: &Order, kind: Kind) -> anyhow::Result<Status> {
    let store = Store::of(kind)?;
    each(&names.names, |name| {
        attach::ask(&store.find(name)?, order)?;
        output::print(&format!("{name}\n"))
    })
}

pub(in crate::commands) fn wait(arguments: Names, kind: Kind) -> anyhow::Result<Status> {
    let store = Store::of(kind)?;
    each(&arguments.names, |name| {
        let container = store.find(name)?;
        if container.state.status == Stage::Created {
            return refuse(format!("the {} has not been started", container.title()));
        }
        let told = match attach::connect(&container, &WATCH)? {
            Some(socket) => attach::await_end(&socket)?,
            None => None,
        };
        let code = match told {
            Some(code) => code,
            // It has ended already, or with its supervisor.
            None => store.find(&container.request.id)?.state.exit_code,
        };
        output::print(&format!("{code}\n"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(signal("TERM"), Ok(Signal::TERM));
        assert_eq!(signal("sigusr1"), Ok(Signal::USR1));
        assert_eq!(signal("9"), Ok(Signal::KILL));
        for bad in ["", "0", "x", "-9", "999"] {
            assert!(signal(bad).is_err(), "{bad}");
        }
    }
}
