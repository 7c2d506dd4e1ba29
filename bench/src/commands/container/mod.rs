//! `isobench container`: containers by Docker's words, without a daemon.

mod attach;
mod complete;
mod exec;
mod inspect;
mod listing;
mod logs;
mod options;
mod port;
mod ps;
mod remove;
mod rename;
mod run;
mod signals;
mod start;
mod stats;
mod template;
mod top;

use super::place::Place;
use super::{BadInput, Status, status};
use crate::instances::{OWN_FAILURE, Refusal};
use crate::networks;
use crate::roots;
use complete::completer;

/// Run containers and look after them, by Docker's words: no daemon, one small supervisor a container
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  isobench container run -it toolbox sh                        a shell in a container; Ctrl-P Ctrl-Q leaves it running
  isobench container run -d --name web -p 8080:80 toolbox httpd -f -h /www
  isobench container run --rm --network container:web toolbox wget -qO- http://127.0.0.1/
  isobench container exec web ip addr
  isobench container logs -f web
  isobench container rm -f web

Exit status of run, start -a and exec: the command's own; 125 if it is isobench that failed, 126 if the command cannot be
executed, 127 if there is none. All others: 0, 2 for something that is not there or cannot be, 3 for a failure.";

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run a command in a new container
    #[command(after_long_help = run::EXAMPLES)]
    Run(At<run::Arguments>),
    /// Make a container without starting it
    Create(At<options::Options>),
    /// Start containers that have been made or have ended
    Start(At<start::Arguments>),
    /// List containers
    #[command(visible_alias = "ls", alias = "list")]
    Ps(At<ps::Arguments>),
    /// Show all that is known of containers, as JSON
    #[command(after_long_help = inspect::EXAMPLES)]
    Inspect(At<inspect::Arguments>),
    /// Show what a container wrote
    Logs(At<logs::Arguments>),
    /// Run a further command in a running container
    Exec(At<exec::Arguments>),
    /// Take part in a running container's input and output; Ctrl-P Ctrl-Q leaves it running
    Attach(At<attach::Arguments>),
    /// Show what containers use, renewed every second
    Stats(At<stats::Arguments>),
    /// Show the processes of a container
    Top(At<top::Arguments>),
    /// Stop containers: SIGTERM, and SIGKILL for those that do not end in time
    Stop(At<signals::Stop>),
    /// Send a signal to the first process of containers
    Kill(At<signals::Kill>),
    /// Stop all processes of containers where they are
    Pause(At<signals::Names>),
    /// Let all processes of paused containers go on
    Unpause(At<signals::Names>),
    /// Wait until containers end, and print their exit codes
    Wait(At<signals::Names>),
    /// Give a container another name
    Rename(At<rename::Arguments>),
    /// Show the ports of the host that lead to a container
    Port(At<port::Arguments>),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(At<remove::Arguments>),
}

/// A verb's arguments and where it works.
#[derive(Debug, clap::Args)]
struct At<T: clap::Args> {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    arguments: T,
}

impl<T: clap::Args> At<T> {
    fn run(self, verb: impl FnOnce(T) -> anyhow::Result<Status>) -> anyhow::Result<Status> {
        let Self { place, arguments } = self;
        place.inside(|| verb(arguments).map_err(as_bad_input))
    }
}

/// For a verb that ends as a container's command does: 125 tells a failure of ours from one of the command's.
fn stand_for_command(result: anyhow::Result<Status>) -> anyhow::Result<Status> {
    result.or_else(|error| {
        status::say(&format!("{error:#}"));
        Ok(Status::Program(OWN_FAILURE as u8))
    })
}

/// Whoever asks for what is not there gave bad input.
fn as_bad_input(error: anyhow::Error) -> anyhow::Error {
    if error.is::<Refusal>() || networks::is_refusal(&error) { BadInput(format!("{error:#}")).into() } else { error }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    match arguments.command {
        Command::Run(arguments) => {
            // What a root needs may be had outside only.
            let prepared = roots::prepare(&arguments.arguments.options.root);
            stand_for_command(prepared.and_then(|()| arguments.run(run::run)))
        }
        Command::Create(arguments) => {
            roots::prepare(&arguments.arguments.root)?;
            arguments.run(run::create)
        }
        Command::Start(arguments) => stand_for_command(arguments.run(start::run)),
        Command::Ps(arguments) => arguments.run(ps::run),
        Command::Inspect(arguments) => arguments.run(inspect::run),
        Command::Logs(arguments) => arguments.run(logs::run),
        Command::Exec(arguments) => stand_for_command(arguments.run(exec::run)),
        Command::Attach(arguments) => stand_for_command(arguments.run(attach::run)),
        Command::Stats(arguments) => arguments.run(stats::run),
        Command::Top(arguments) => arguments.run(top::run),
        Command::Stop(arguments) => arguments.run(signals::stop),
        Command::Kill(arguments) => arguments.run(signals::kill),
        Command::Pause(arguments) => arguments.run(signals::pause),
        Command::Unpause(arguments) => arguments.run(signals::unpause),
        Command::Wait(arguments) => arguments.run(signals::wait),
        Command::Rename(arguments) => arguments.run(rename::run),
        Command::Port(arguments) => arguments.run(port::run),
        Command::Rm(arguments) => arguments.run(remove::run),
    }
}

/// Does something for each name; a refusal of one is said, and the others still have their turn.
fn each(names: &[String], mut verb: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<Status> {
    let mut refused = None;
    for name in names {
        let earlier = verb(name).err().and_then(|error| refused.replace(error));
        if let Some(earlier) = earlier {
            status::say(&format!("{earlier:#}"));
        }
    }
    refused.map_or(Ok(Status::Success), Err)
}
