//! `isobench container attach`.

use super::run::finish;
use crate::commands::Status;
use crate::instances::attach::{self, Part};
use crate::instances::protocol::Order;
use crate::instances::{Store, refuse};

/// Take part in a running container's input and output
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Hand no input on
    #[arg(long)]
    no_stdin: bool,
    /// Its name or id
    #[arg(value_name = "CONTAINER", add = super::completer())]
    name: String,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let container = Store::open()?.find(&arguments.name)?;
    let (terminal, input) = (container.request.terminal, container.request.input && !arguments.no_stdin);
    attach::check_terminal(terminal, input)?;
    match attach::connect(&container, &Order::Attach { input, output: true, size: None })? {
        Some(socket) => finish(attach::attend(socket, Part { terminal, input, signals: true })?),
        None => refuse(format!("the container {} is not running", container.name)),
    }
}
