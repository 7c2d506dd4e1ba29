//! `isobench container rm` and `prune`.

use super::each;
use crate::commands::{Status, note, output};
use crate::instances::protocol::Order;
use crate::instances::{Kind, Store, attach, refuse};
use rustix::process::Signal;

/// Remove containers
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Arguments {
    /// Kill those that run; one that is not there is no failure
    #[arg(short, long)]
    force: bool,
    /// For scripts that give it: whatever belongs to it alone goes with it anyway
    #[arg(short, long)]
    volumes: bool,
    /// Their names or ids
    #[arg(required = true, value_name = "CONTAINER", add = super::completer())]
    names: Vec<String>,
}

pub(in crate::commands) fn run(arguments: Arguments, kind: Kind) -> anyhow::Result<Status> {
    let store = Store::of(kind)?;
    each(&arguments.names, |name| {
        let mut container = match store.find_if_any(name) {
            Ok(Some(container)) => container,
            _ if arguments.force && store.discard(name)? => return output::print(&format!("{name}\n")),
            // A script that cleans up need not look first.
            Ok(None) if arguments.force => {
                note(&store.absent(name));
                return Ok(());
            }
            Ok(None) => return refuse(store.absent(name)),
            Err(error) => return Err(error),
        };
        let mut killed = false;
        if arguments.force {
            let order = Order::Attach { input: false, output: false, size: None };
            if let Some(socket) = attach::reach(&container, &order)? {
                attach::signal(&socket, Signal::KILL)?;
                attach::await_end(&socket)?;
                killed = true;
            }
            match store.find(&container.request.id) {
                Ok(ended) => container = ended,
                // It was to be removed when it ended.
                Err(_) => return output::print(&format!("{name}\n")),
            }
        }
        container.remove(killed)?;
        output::print(&format!("{name}\n"))
    })
}

/// Remove containers that do not run
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Prune {
    /// For scripts that give it: there is no question to be asked
    #[arg(short, long)]
    force: bool,
}

pub(in crate::commands) fn prune(kind: Kind) -> anyhow::Result<Status> {
    let mut all = Store::of(kind)?.list()?;
    all.retain(|container| !container.state.status.is_alive());
    for container in all {
        container.remove(false)?;
        output::print(&format!("{}\n", container.name))?;
    }
    Ok(Status::Success)
}
