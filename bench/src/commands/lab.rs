//! `isobench lab`: the commands on lab sheets, one file each.

mod check;
mod collect;
mod list;
mod run;
mod show;
mod start;

use super::{BadInput, Status, output, run as measuring};
use crate::labs::{self, Lab};

/// Work through a lab sheet: predict, build by hand, measure, compare
///
/// A lab takes an hour on an ordinary machine without root. What a student does is kept in ./isobench-labs; `check` writes
/// the one file to hand in, and `collect` makes a table of a class's files.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  isobench lab list                         what there is, and how far you are
  isobench lab show bridge                  read the sheet
  isobench lab start bridge                 write down your prediction
  isobench lab run bridge                   measure on this machine
  isobench lab check bridge                 compare, and write the file to hand in
  isobench lab collect handed-in > class.csv";

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(list::Arguments),
    Show(show::Arguments),
    Start(start::Arguments),
    Run(run::Arguments),
    Check(check::Arguments),
    Collect(collect::Arguments),
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    match arguments.command {
        Command::List(arguments) => list::run(arguments),
        Command::Show(arguments) => show::run(arguments),
        Command::Start(arguments) => start::run(arguments),
        Command::Run(arguments) => run::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Collect(arguments) => collect::run(arguments),
    }
}

/// The lab of a name.
fn named(name: &str) -> anyhow::Result<&'static Lab> {
    labs::named(name).map_err(BadInput::from_error)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn every_command_and_option_has_a_text() {
        let mut root = super::super::Arguments::command();
        root.build();
        let lab = root.find_subcommand("lab").expect("the command is there");
        for command in lab.get_subcommands().filter(|command| command.get_name() != "help") {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }
}
