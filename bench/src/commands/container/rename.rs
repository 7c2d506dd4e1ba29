//! `isobench container rename`.

use crate::commands::Status;
use crate::instances::protocol::Order;
use crate::instances::{Kind, Store, attach, names};

/// Give a container another name
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Arguments {
    /// Its name or id
    #[arg(value_name = "CONTAINER", add = super::completer())]
    old: String,
    /// Its new name
    new: String,
}

pub(in crate::commands) fn run(arguments: Arguments, kind: Kind) -> anyhow::Result<Status> {
    names::check(kind, &arguments.new)?;
    let store = Store::of(kind)?;
    let container = store.find(&arguments.old)?;
    container.rename(&arguments.new)?;
    if container.state.status.is_alive() {
        // Names that lead to it on its networks follow; one that has just ended has none.
        let renamed = store.find(&arguments.new)?;
        if let Some(socket) = attach::connect(&renamed, &Order::Renamed)? {
            attach::answer(&socket)?;
        }
    }
    Ok(Status::Success)
}
