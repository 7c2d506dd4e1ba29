//! `isobench container start`.

use super::each;
use super::run::finish;
use crate::commands::{Status, output};
use crate::instances::attach::{self, Part};
use crate::instances::protocol::{Answer, Order};
use crate::instances::{Container, Kind, Status as Stage, Store, refuse};
use anyhow::bail;
use std::os::unix::net::UnixStream;

/// Start containers that have been made or have ended
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Arguments {
    /// Wait for its end, show what it writes, and end as it does
    #[arg(short, long)]
    attach: bool,
    /// Hand the standard input on to it
    #[arg(short, long)]
    interactive: bool,
    /// Their names or ids
    #[arg(required = true, value_name = "CONTAINER", add = super::completer())]
    names: Vec<String>,
}

pub(in crate::commands) fn run(arguments: Arguments, kind: Kind) -> anyhow::Result<Status> {
    let store = Store::of(kind)?;
    let attended = arguments.attach || arguments.interactive;
    if attended && arguments.names.len() > 1 {
        return refuse("only one container at a time can be attached to");
    }
    let mut ended = Status::Success;
    each(&arguments.names, |name| {
        if !attended {
            return unattended(&store, name);
        }
        let container = store.find(name)?;
        let part = Part {
            terminal: container.request.terminal,
            input: arguments.interactive && container.request.input,
            signals: true,
        };
        attach::check_terminal(part.terminal, part.input)?;
        let order = Order::Attach { input: part.input, output: true, size: attach::size() };
        let runs = container.state.status == Stage::Running;
        let running = if runs { attach::connect(&container, &order)? } else { None };
        let socket = running.map_or_else(|| launch(&container, &order), Ok)?;
        ended = finish(attach::attend(socket, part)?)?;
        Ok(())
    })?;
    Ok(ended)
}

/// Has a supervisor launch it.
fn launch(container: &Container, order: &Order) -> anyhow::Result<UnixStream> {
    match container.state.status {
        Stage::Created => {}
        Stage::Paused => return refuse(format!("the {} is paused: unpause it", container.title())),
        // The supervisor of one that has just ended may still be giving things back.
        Stage::Running | Stage::Exited => drop(container.lock_after_end()?),
    }
    attach::start(container, order)
}

/// Starts one with nobody attached to it, and prints the name by which it was asked for when it runs. As with Docker, one that
/// runs is started already.
pub(super) fn unattended(store: &Store, name: &str) -> anyhow::Result<()> {
    let container = store.find(name)?;
    if container.state.status == Stage::Running {
        return output::print(&format!("{name}\n"));
    }
    let order = Order::Attach { input: false, output: false, size: attach::size() };
    match attach::answer(&launch(&container, &order)?)? {
        Some(Answer::Failed { message, .. }) => refuse(message),
        Some(_) => output::print(&format!("{name}\n")),
        None => bail!("the supervisor of the {} ended before it began", container.title()),
    }
}
