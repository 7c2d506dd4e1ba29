//! `isobench vm`: virtual machines by the words of `isobench container`, of which they share the verbs.

mod image;
mod kernel;
mod options;
mod run;

use super::container::complete::completer_of;
use super::container::{
    as_bad_input, attach, inspect, logs, port, ps, remove, rename, signals, stand_for_command, start, stats,
};
use super::place::Place;
use super::{Status, output};
use crate::instances::{Kind, Store};
use crate::roots;
pub(super) use kernel::completer as kernel_completer;

const KIND: Kind = Kind::Machine;

/// Run virtual machines and look after them, by the words of `isobench container`
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    place: Place,
}

const EXAMPLES: &str = "\
Examples:
  isobench vm kernel fetch             once: a kernel for Linux guests; nothing is installed
  isobench vm run -it toolbox sh       a shell in a machine of its own
  isobench vm run -d --name web -p 8080:7000 --unikernel serve     a server without an operating system
  isobench vm ps
  isobench vm logs web
  isobench vm rm -f web

Exit status of run, start -a and attach: the command's own, but
  101  the guest crashed
  125  isobench failed, or what was asked for is not there
  126  the command cannot be executed
  127  there is no such command
All others: 0, 2 for something that is not there or cannot be, 3 for a failure.";

/// For an argument that names one or more virtual machines.
fn machines(argument: clap::Arg) -> clap::Arg {
    argument.value_name(KIND.label()).add(completer_of(KIND))
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run a command in a new virtual machine
    #[command(after_long_help = run::EXAMPLES)]
    Run(run::Arguments),
    /// Make a virtual machine without starting it
    Create(options::Options),
    /// Start virtual machines that have been made or have ended
    #[command(mut_arg("names", machines))]
    Start(start::Arguments),
    /// List virtual machines
    #[command(visible_alias = "ls", alias = "list")]
    Ps(ps::Arguments),
    /// Show all that is known of virtual machines, as JSON
    #[command(mut_arg("names", machines))]
    Inspect(inspect::Arguments),
    /// Show what a virtual machine wrote
    #[command(mut_arg("name", machines))]
    Logs(logs::Arguments),
    /// Take part in a running virtual machine's input and output; Ctrl-P Ctrl-Q leaves it running
    #[command(mut_arg("name", machines))]
    Attach(attach::Arguments),
    /// Show what virtual machines use, renewed every second
    #[command(mut_arg("names", machines))]
    Stats(stats::Arguments),
    /// Stop virtual machines: SIGTERM, and SIGKILL for those that do not end in time
    #[command(mut_arg("names", machines))]
    Stop(signals::Stop),
    /// Send a signal to virtual machines
    #[command(mut_arg("names", machines))]
    Kill(signals::Kill),
    /// Stop virtual machines where they are
    #[command(mut_arg("names", machines))]
    Pause(signals::Names),
    /// Let paused virtual machines go on
    #[command(mut_arg("names", machines))]
    Unpause(signals::Names),
    /// Wait until virtual machines end, and print their exit codes
    #[command(mut_arg("names", machines))]
    Wait(signals::Names),
    /// Give a virtual machine another name
    #[command(mut_arg("old", |argument| machines(argument).index(1)), mut_arg("new", |argument| argument.index(2)))]
    Rename(rename::Arguments),
    /// Show the ports of the host that lead to a virtual machine
    #[command(mut_arg("name", |argument| machines(argument).index(1)), mut_arg("port", |argument| argument.index(2)))]
    Port(port::Arguments),
    /// Remove virtual machines
    #[command(visible_alias = "remove", mut_arg("names", machines))]
    Rm(remove::Arguments),
    Kernel(kernel::Arguments),
    Image(image::Arguments),
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let Arguments { command, place } = arguments;
    let command = match command {
        // The cache is the same everywhere.
        Command::Kernel(arguments) => return kernel::run(arguments),
        Command::Image(arguments) => return image::run(arguments),
        other => other,
    };
    let stands_for_command = matches!(command, Command::Run(_) | Command::Start(_) | Command::Attach(_));
    // What a root needs may be had outside the testbed only.
    let root = match &command {
        Command::Run(run::Arguments { options, .. }) | Command::Create(options) => options.root.as_deref(),
        _ => None,
    };
    let prepared = root.map_or(Ok(()), roots::prepare);
    let result = prepared.and_then(|()| place.inside(|| work(command).map_err(as_bad_input)));
    if stands_for_command { stand_for_command(result) } else { result }
}

fn work(command: Command) -> anyhow::Result<Status> {
    match command {
        Command::Run(arguments) => run::run(arguments),
        Command::Create(options) => {
            let (name, request) = options.request(false)?;
            let machine = Store::of(KIND)?.create(&name, &request)?;
            output::print(&format!("{}\n", machine.request.id))?;
            Ok(Status::Success)
        }
        Command::Start(arguments) => start::run(arguments, KIND),
        Command::Ps(arguments) => ps::run(arguments, KIND),
        Command::Inspect(arguments) => inspect::run(arguments, KIND),
        Command::Logs(arguments) => logs::run(arguments, KIND),
        Command::Attach(arguments) => attach::run(arguments, KIND),
        Command::Stats(arguments) => stats::run(arguments, KIND),
        Command::Stop(arguments) => signals::stop(arguments, KIND),
        Command::Kill(arguments) => signals::kill(arguments, KIND),
        Command::Pause(arguments) => signals::pause(arguments, KIND),
        Command::Unpause(arguments) => signals::unpause(arguments, KIND),
        Command::Wait(arguments) => signals::wait(arguments, KIND),
        Command::Rename(arguments) => rename::run(arguments, KIND),
        Command::Port(arguments) => port::run(arguments, KIND),
        Command::Rm(arguments) => remove::run(arguments, KIND),
        Command::Kernel(arguments) => kernel::run(arguments),
        Command::Image(arguments) => image::run(arguments),
    }
}
