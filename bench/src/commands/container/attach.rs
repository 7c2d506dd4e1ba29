//! `isobench container attach`.

use super::run::finish;
use crate::commands::Status;
use crate::instances::attach::{self, Part};
use crate::instances::protocol::Order;
use crate::instances::{Kind, Store, refuse};

/// Take part in a running container's input and output
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Arguments {
    /// Hand no input on
    #[arg(long)]
    no_stdin: bool,
    /// Its name or id
    #[arg(value_name = "CONTAINER", add = super::completer())]
    name: String,
}

pub(in crate::commands) fn run(arguments: Arguments, kind: Kind) -> anyhow::Result<Status> {
    let container = Store::of(kind)?.find(&arguments.name)?;
    let (terminal, input) = (container.request.terminal, container.request.input && !arguments.no_stdin);
    attach::check_terminal(terminal, input)?;
    match attach::connect(&container, &Order::Attach { input, output: true, size: None })? {
        Some(socket) => finish(attach::attend(socket, Part { terminal, input, signals: true })?),
        None => refuse(format!("the {} is not running", container.title())),
    }
}
