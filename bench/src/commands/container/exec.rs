//! `isobench container exec`.

use super::run::{fail, finish};
use crate::commands::Status;
use crate::commands::instance_options::{VariableOptions, absolute};
use crate::instances::attach::{self, Part};
use crate::instances::protocol::{Answer, Order};
use crate::instances::{Execution, Kind, Status as Stage, Store, refuse};

/// Run a further command in a running container
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Arguments {
    /// Do not wait for its end
    #[arg(short, long)]
    detach: bool,
    /// Keep the standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    #[command(flatten)]
    variables: VariableOptions,
    /// Where the command begins
    #[arg(short, long, value_name = "DIRECTORY", value_parser = absolute)]
    workdir: Option<String>,
    /// The user and group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Its name or id
    #[arg(value_name = "CONTAINER", add = super::completer())]
    name: String,
    /// The command with its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(in crate::commands) fn run(arguments: Arguments, kind: Kind) -> anyhow::Result<Status> {
    let container = Store::of(kind)?.find(&arguments.name)?;
    let part = Part { terminal: arguments.tty, input: arguments.interactive && !arguments.detach, signals: true };
    attach::check_terminal(part.terminal, part.input)?;
    let order = Order::Execute(Execution {
        command: arguments.command,
        environment: arguments.variables.all(),
        user: arguments.user,
        working_directory: arguments.workdir,
        terminal: arguments.tty,
        input: part.input,
        detached: arguments.detach,
        size: attach::size().unwrap_or((24, 80)),
    });
    let Some(socket) = attach::connect(&container, &order)? else {
        let word = if container.state.status == Stage::Created { "has not been started" } else { "is not running" };
        return refuse(format!("the {} {word}", container.title()));
    };
    if !arguments.detach {
        return finish(attach::attend(socket, part)?);
    }
    match attach::answer(&socket)? {
        Some(Answer::Failed { message, code }) => fail(&message, code),
        Some(_) => Ok(Status::Success),
        None => refuse(format!("the {} has ended", container.title())),
    }
}
