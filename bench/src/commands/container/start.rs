//! `isobench container start`.

use super::each;
use super::run::finish;
use crate::commands::{Status, output};
use crate::instances::attach::{self, Part};
use crate::instances::protocol::{Answer, Order};
use crate::instances::{Kind, Status as Stage, Store, refuse};
use anyhow::bail;

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
        let container = store.find(name)?;
        if container.state.status.is_alive() {
            return refuse(format!("the {} is {} already", container.title(), container.state.status.name()));
        }
        // The supervisor of one that has just ended may still be giving things back.
        if container.state.status == Stage::Exited {
            drop(container.lock(true)?);
        }
        let part = Part {
            terminal: container.request.terminal,
            input: arguments.interactive && container.request.input,
            signals: true,
        };
        attach::check_terminal(part.terminal, part.input)?;
        let order = Order::Attach { input: part.input, output: attended, size: attach::size() };
        let socket = attach::start(&container, &order)?;
        if attended {
            ended = finish(attach::attend(socket, part)?)?;
            return Ok(());
        }
        match attach::answer(&socket)? {
            Some(Answer::Failed { message, .. }) => refuse(message),
            Some(_) => output::print(&format!("{name}\n")),
            None => bail!("the supervisor of the {} ended before it began", container.title()),
        }
    })?;
    Ok(ended)
}
