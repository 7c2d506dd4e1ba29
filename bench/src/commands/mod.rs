//! The command line: what it takes, one file a command, and how each outcome becomes an exit status.

mod compare;
mod container;
mod deferred;
mod doctor;
mod gc;
mod instance_options;
mod lab;
mod list;
mod network;
mod output;
pub mod place;
mod report;
mod run;
mod selftest;
mod shell;
mod status;
mod summary;
mod template;
mod testbed;
mod toolbox;
mod vm;

pub use status::{BadInput, Status};

use crate::instances::OWN_FAILURE;
use crate::journal;
use clap::{CommandFactory, Parser, Subcommand};
use deferred::Deferred;
use isobench_reports::messages::Language;
use std::io::Write;
use std::process::ExitCode;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Puts one workload into every kind of isolation that this machine offers, measures it and explains the result
#[derive(Debug, Parser)]
#[command(name = "isobench", version = crate::machine::version(), propagate_version = true, max_term_width = 100)]
#[command(after_help = "`isobench run` alone measures everything and writes a report. Start there.")]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  isobench run                                   measure everything in about three minutes, write a report
  isobench run --only startup --sandbox process --sandbox container-bridge --reps 30
  isobench run --only startup -- /usr/bin/python3 -c 'print(1)'     your own program's start
  isobench doctor                                what this machine can do, and how to mend what it cannot
  isobench compare OLD NEW --fail-above 1.1      for CI: status 1 where something became 10 % slower

Exit status:
  0    done
  1    a comparison found a regression, or a sandbox given to --require cannot be measured here
  2    wrong usage or bad input
  3    measuring failed
  130  interrupted by Ctrl-C; the records so far are valid, and `isobench run --resume DIR` goes on";

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure, then write the report
    Run(Deferred<run::Arguments>),
    Report(report::Arguments),
    Compare(compare::Arguments),
    List(list::Arguments),
    Doctor(doctor::Arguments),
    /// Work through a lab sheet: predict, build by hand, measure, compare
    Lab(Deferred<lab::Arguments>),
    Selftest(selftest::Arguments),
    /// Run containers and look after them, by Docker's words: no daemon, one small supervisor a container
    Container(Deferred<container::Arguments>),
    /// Run virtual machines and look after them, by the words of `isobench container`
    Vm(Deferred<vm::Arguments>),
    /// Make, show, enter and remove a simulated host with its outside client
    Testbed(Deferred<testbed::Arguments>),
    Toolbox(toolbox::Arguments),
    /// Make, list, show and remove networks for containers and virtual machines
    Network(Deferred<network::Arguments>),
    Gc(gc::Arguments),
    Completions(shell::Completions),
    Man(shell::Man),
    Schema(shell::Schema),
}

impl Arguments {
    /// Reads the command line.
    ///
    /// # Errors
    /// What is wrong with it, or the help, has been said; the exit status is to be this.
    pub fn read() -> Result<Self, ExitCode> {
        let words = || std::env::args_os().skip(1);
        let whole = || {
            Self::try_parse().map_err(|error| {
                // Nobody can be told that the standard error is closed.
                let _ = error.print();
                // The help is no failure.
                let failed = error.use_stderr() && container::stands_for_command(words());
                ExitCode::from(if failed { OWN_FAILURE } else { error.exit_code() } as u8)
            })
        };
        container::Direct::read(words()).map_or_else(whole, Ok)
    }
}

/// Answers a shell that asks what could stand where the cursor is, and ends; else nothing.
pub fn complete() {
    clap_complete::CompleteEnv::with_factory(Arguments::command).complete();
}

/// Runs a command, says what went wrong once, and gives the exit status.
pub fn main(arguments: Arguments) -> ExitCode {
    log_to_stderr();
    let status = journal::check_home().map_err(BadInput::from_error).and_then(|()| work(arguments.command));
    status.unwrap_or_else(|error| Status::tell(&error)).into()
}

fn work(command: Command) -> anyhow::Result<Status> {
    match command {
        Command::Run(arguments) => run::run(*arguments.0),
        Command::Report(arguments) => report::run(arguments),
        Command::Compare(arguments) => compare::run(arguments),
        Command::List(arguments) => list::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Lab(arguments) => lab::run(*arguments.0),
        Command::Selftest(arguments) => selftest::run(arguments),
        Command::Container(arguments) => container::run(*arguments.0),
        Command::Vm(arguments) => vm::run(*arguments.0),
        Command::Testbed(arguments) => testbed::run(*arguments.0),
        Command::Toolbox(arguments) => toolbox::run(arguments),
        Command::Network(arguments) => network::run(*arguments.0),
        Command::Gc(arguments) => gc::run(arguments),
        Command::Completions(arguments) => shell::completions(arguments),
        Command::Man(arguments) => shell::man(arguments, self::Arguments::command()),
        Command::Schema(arguments) => shell::schema(arguments),
    }
}

/// What is logged is said by `ISOBENCH_LOG`, such as `debug` or `warn,isobench_runtime=trace`; warnings where it says nothing.
fn log_to_stderr() {
    let asked = std::env::var("ISOBENCH_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let targets = asked.unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).without_time();
    tracing_subscriber::registry().with(lines.with_filter(targets)).init();
}

/// Says what went wrong, and gives the exit status for it.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    Status::tell(error).into()
}

/// Says something beside the result.
pub(crate) fn note(sentence: &str) {
    // Nobody can be told that the standard error is closed.
    let _ = writeln!(anstream::stderr(), "{}", status::plain(sentence));
}

/// The report's language: as asked for, else as the locale says.
fn language(asked: Option<&str>) -> anyhow::Result<Language> {
    match asked {
        Some(tag) => tag.parse().map_err(|error| BadInput::because("--lang", error)),
        None => {
            let mut set = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().filter_map(|name| std::env::var(name).ok());
            Ok(Language::of_locale(&set.find(|value| !value.is_empty()).unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_list_of_commands_says_what_each_says_of_itself() {
        let listed: Vec<_> = Arguments::command().get_subcommands().map(|one| one.get_about().cloned()).collect();
        let mut root = Arguments::command();
        root.build();
        for (command, listed) in root.get_subcommands().zip(listed) {
            assert_eq!(command.get_about().map(ToString::to_string), listed.map(|text| text.to_string()));
        }
    }

    #[test]
    fn every_command_and_option_has_a_text() {
        let mut root = Arguments::command();
        root.build();
        for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }
}
