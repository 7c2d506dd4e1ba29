//! `isobench vm`: virtual machines by the words of `isobench container`, of which they share the verbs.

mod balloon;
mod image;
mod kernel;
mod options;
mod restore;
mod run;
mod snapshot;

use super::container::complete::completer_of;
use super::container::{Verb, as_bad_input, stand_for_command};
use super::place::Place;
use super::{Status, output};
use crate::instances::{Kind, Store};
use crate::roots;
pub(super) use kernel::completer as kernel_completer;

const KIND: Kind = Kind::Machine;

/// Run virtual machines and look after them, by the words of `isobench container`
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, mut_subcommands(for_machines))]
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
  isobench vm exec -it guest sh        a further command in a running Linux guest
  isobench vm snapshot web --out warm  saves a running virtual machine
  isobench vm restore warm --clones 3  three more like it, each with an address of its own
  isobench vm ps
  isobench vm logs web
  isobench vm rm -f web

Exit status of run, start, attach and exec: the command's own, but
  101  the guest crashed
  125  isobench failed or was misused, or what was asked for is not there
  126  the command cannot be executed
  127  there is no such command
All others: 0, 2 for wrong usage and for what is not there or cannot be, 3 for a failure.";

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run a command in a new virtual machine
    #[command(after_long_help = run::EXAMPLES)]
    Run(run::Arguments),
    /// Make a virtual machine without starting it
    Create(options::Options),
    #[command(flatten)]
    Verb(Verb),
    Balloon(balloon::Arguments),
    Snapshot(snapshot::Arguments),
    Restore(restore::Arguments),
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
    let stands_for_command = match &command {
        Command::Run(_) => true,
        Command::Verb(verb) => verb.stands_for_command(),
        Command::Create(_) | Command::Balloon(_) | Command::Snapshot(_) | Command::Restore(_) => false,
        Command::Image(_) | Command::Kernel(_) => false,
    };
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
        Command::Verb(verb) => verb.run(KIND),
        Command::Balloon(arguments) => balloon::run(arguments),
        Command::Snapshot(arguments) => snapshot::run(arguments),
        Command::Restore(arguments) => restore::run(arguments),
        Command::Kernel(arguments) => kernel::run(arguments),
        Command::Image(arguments) => image::run(arguments),
    }
}

/// The help of a verb that is shared with `isobench container`, in words for virtual machines.
fn for_machines(verb: clap::Command) -> clap::Command {
    let about = match verb.get_name() {
        "kill" => Some("Send a signal to virtual machines".into()),
        "pause" => Some("Stop virtual machines where they are".into()),
        "unpause" => Some("Let paused virtual machines go on".into()),
        _ => verb.get_about().map(|text| text.to_string().replace("container", "virtual machine")),
    };
    let examples = verb.get_after_long_help().map(|text| text.to_string().replace("isobench container", "isobench vm"));
    let verb = verb.mut_args(|argument| match argument.get_value_names() {
        Some([name]) if name.as_str() == Kind::Container.label() => {
            argument.value_name(KIND.label()).add(completer_of(KIND))
        }
        _ => argument,
    });
    let verb = about.into_iter().fold(verb, clap::Command::about);
    examples.into_iter().fold(verb, clap::Command::after_long_help)
}
