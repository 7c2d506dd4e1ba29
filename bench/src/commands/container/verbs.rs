//! The verbs that containers and virtual machines share.

use super::{attach, exec, inspect, logs, port, ps, remove, rename, signals, start, stats};
use crate::commands::Status;
use crate::instances::Kind;

/// What is done with instances that are there. `isobench vm` says *virtual machine* where this says *container*.
#[derive(Debug, clap::Subcommand)]
pub(in crate::commands) enum Verb {
    /// Start containers that have been made or have ended
    Start(start::Arguments),
    /// List containers
    #[command(visible_alias = "ls", alias = "list")]
    Ps(ps::Arguments),
    /// Show all that is known of containers, as JSON
    #[command(after_long_help = inspect::EXAMPLES)]
    Inspect(inspect::Arguments),
    /// Show what a container wrote
    Logs(logs::Arguments),
    /// Run a further command in a running container
    Exec(exec::Arguments),
    /// Take part in a running container's input and output; Ctrl-P Ctrl-Q leaves it running
    Attach(attach::Arguments),
    /// Show what containers use, renewed every second
    Stats(stats::Arguments),
    /// Stop containers: SIGTERM, and SIGKILL for those that do not end in time
    Stop(signals::Stop),
    /// Stop containers, and start them again
    Restart(signals::Stop),
    /// Send a signal to the first process of containers
    Kill(signals::Kill),
    /// Stop all processes of containers where they are
    Pause(signals::Names),
    /// Let all processes of paused containers go on
    Unpause(signals::Names),
    /// Wait until containers end, and print their exit codes
    Wait(signals::Names),
    /// Give a container another name
    Rename(rename::Arguments),
    /// Show the ports of the host that lead to a container
    Port(port::Arguments),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(remove::Arguments),
    /// Remove all containers that do not run; their names are printed
    Prune(remove::Prune),
}

impl Verb {
    /// Whether it ends as an instance's command does.
    pub(in crate::commands) fn stands_for_command(&self) -> bool {
        matches!(self, Self::Start(_) | Self::Exec(_) | Self::Attach(_))
    }

    /// Does it to instances of one kind.
    pub(in crate::commands) fn run(self, kind: Kind) -> anyhow::Result<Status> {
        match self {
            Self::Start(arguments) => start::run(arguments, kind),
            Self::Ps(arguments) => ps::run(arguments, kind),
            Self::Inspect(arguments) => inspect::run(arguments, kind),
            Self::Logs(arguments) => logs::run(arguments, kind),
            Self::Exec(arguments) => exec::run(arguments, kind),
            Self::Attach(arguments) => attach::run(arguments, kind),
            Self::Stats(arguments) => stats::run(arguments, kind),
            Self::Stop(arguments) => signals::stop(arguments, kind),
            Self::Restart(arguments) => signals::restart(arguments, kind),
            Self::Kill(arguments) => signals::kill(arguments, kind),
            Self::Pause(arguments) => signals::pause(arguments, kind),
            Self::Unpause(arguments) => signals::unpause(arguments, kind),
            Self::Wait(arguments) => signals::wait(arguments, kind),
            Self::Rename(arguments) => rename::run(arguments, kind),
            Self::Port(arguments) => port::run(arguments, kind),
            Self::Rm(arguments) => remove::run(arguments, kind),
            Self::Prune(_) => remove::prune(kind),
        }
    }
}
