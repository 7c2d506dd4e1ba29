//! `isobench container rm`.

use super::each;
use crate::commands::{Status, output};
use crate::instances::protocol::Order;
use crate::instances::{Kind, Store, attach};
use rustix::process::Signal;

/// Remove containers
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Arguments {
    /// Kill those that run
    #[arg(short, long)]
    force: bool,
    /// Their names or ids
    #[arg(required = true, value_name = "CONTAINER", add = super::completer())]
    names: Vec<String>,
}

pub(in crate::commands) fn run(arguments: Arguments, kind: Kind) -> anyhow::Result<Status> {
    let store = Store::of(kind)?;
    each(&arguments.names, |name| {
        let mut container = match store.find(name) {
            Err(_) if arguments.force && store.discard(name)? => return output::print(&format!("{name}\n")),
            found => found?,
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
