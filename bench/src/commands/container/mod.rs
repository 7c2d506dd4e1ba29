//! `isobench container`: containers by Docker's words, without a daemon.

mod attach;
pub(super) mod complete;
mod exec;
mod filter;
mod inspect;
mod listing;
mod logs;
mod options;
mod port;
mod ps;
mod remove;
mod rename;
pub(super) mod run;
mod signals;
mod start;
mod stats;
mod top;
mod verbs;

use super::deferred::Deferred;
use super::place::Place;
use super::{BadInput, Status, status};
use crate::instances::{Kind, OWN_FAILURE};
use crate::networks;
use crate::roots;
use clap::Parser;
use complete::completer;
pub(super) use listing::table;
use std::ffi::OsString;
pub(super) use verbs::Verb;

const KIND: Kind = Kind::Container;

/// Run containers and look after them, by Docker's words: no daemon, one small supervisor a container
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(in crate::commands) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    place: Place,
}

const EXAMPLES: &str = "\
Examples:
  isobench container run -it toolbox sh      a shell; Ctrl-P Ctrl-Q leaves it running
  isobench container run -d --name web -p 8080:80 toolbox httpd -f -h /www
  isobench container run --rm --network container:web toolbox wget -qO- http://127.0.0.1/
  isobench container exec web ip addr
  isobench container logs -f web
  isobench container rm -f web

Exit status of run, start, attach and exec: the command's own, but
  125  isobench failed or was misused, or what was asked for is not there
  126  the command cannot be executed
  127  there is no such command
All others: 0, 2 for wrong usage and for what is not there or cannot be, 3 for a failure.";

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run a command in a new container
    #[command(after_long_help = run::EXAMPLES)]
    Run(Deferred<run::Arguments>),
    /// Make a container without starting it
    Create(Deferred<options::Options>),
    #[command(flatten)]
    Verb(Verb),
    /// Show the processes of a container
    Top(top::Arguments),
}

/// `isobench container run` without a description of any other command: that takes a third of a millisecond, on the way of each
/// container that is started.
#[derive(Debug, clap::Parser)]
pub(in crate::commands) struct Direct {
    #[command(flatten)]
    arguments: run::Arguments,
    #[command(flatten)]
    place: Place,
}

impl Direct {
    /// Reads the command line where it is of that form and nothing is wrong with it: whatever there is to be said, the whole
    /// description says.
    pub(in crate::commands) fn read(mut words: impl Iterator<Item = OsString>) -> Option<super::Arguments> {
        if words.next()? != KIND.command() || words.next()? != "run" {
            return None;
        }
        let Self { arguments, place } = Self::try_parse_from(std::iter::once("run".into()).chain(words)).ok()?;
        let command = Command::Run(Deferred(Box::new(arguments)));
        Some(super::Arguments { command: super::Command::Container(Deferred(Box::new(Arguments { command, place }))) })
    }
}

/// Whether the words of a command line that cannot be understood begin a verb that ends as its command does.
pub(in crate::commands) fn stands_for_command(mut words: impl Iterator<Item = OsString>) -> bool {
    let group = words.next();
    if !group.is_some_and(|group| [Kind::Container, Kind::Machine].iter().any(|kind| group == kind.command())) {
        return false;
    }
    while let Some(word) = words.next() {
        if word == "--testbed" {
            words.next();
        } else if !word.as_encoded_bytes().starts_with(b"-") {
            return ["run", "start", "exec", "attach"].iter().any(|verb| word == *verb);
        }
    }
    false
}

/// For a verb that ends as a container's command does: 125 tells a failure of ours from one of the command's.
pub(super) fn stand_for_command(result: anyhow::Result<Status>) -> anyhow::Result<Status> {
    result.or_else(|error| {
        status::say(&format!("{error:#}"));
        Ok(Status::Program(OWN_FAILURE as u8))
    })
}

/// Whoever asks for what is not there gave bad input.
pub(super) fn as_bad_input(error: anyhow::Error) -> anyhow::Error {
    if networks::is_refusal(&error) { BadInput(format!("{error:#}")).into() } else { error }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let Arguments { command, place } = arguments;
    let stands_for_command = match &command {
        Command::Run(_) => true,
        Command::Verb(verb) => verb.stands_for_command(),
        Command::Create(_) | Command::Top(_) => false,
    };
    // What a root needs may be had outside the testbed only.
    let prepared = match &command {
        Command::Run(arguments) => roots::prepare(&arguments.0.options.root),
        Command::Create(arguments) => roots::prepare(&arguments.0.root),
        _ => Ok(()),
    };
    // It leaves all that looks at processes to what it forks.
    let launches = matches!(command, Command::Run(_));
    let work = || work(command).map_err(as_bad_input);
    let result = prepared.and_then(|()| if launches { place.joined(work) } else { place.inside(work) });
    if stands_for_command { stand_for_command(result) } else { result }
}

fn work(command: Command) -> anyhow::Result<Status> {
    match command {
        Command::Run(arguments) => run::run(*arguments.0),
        Command::Create(arguments) => run::create(*arguments.0),
        Command::Verb(verb) => verb.run(KIND),
        Command::Top(arguments) => top::run(arguments, KIND),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_command_line_ends_as_its_verb_does() {
        let stands = |line: &str| stands_for_command(line.split_whitespace().map(OsString::from));
        for line in ["container run --no", "vm --testbed ps exec", "container --on-host start", "vm attach"] {
            assert!(stands(line), "{line}");
        }
        for line in ["container ps run", "run --no", "network run", "container", "vm --testbed run", ""] {
            assert!(!stands(line), "{line}");
        }
    }

    #[test]
    fn what_is_read_directly_is_what_the_whole_description_reads() {
        let lines = [
            "container run --rm -p 80:8080 -e A=b --testbed lab root sh -c -x",
            "container run -it --network none --on-host root",
            "container --testbed lab run root",
            "container ps -a",
            "container run --help",
            "container run --no-such-option root",
            "container run",
            "container",
            "",
        ];
        let mut read = 0;
        for line in lines {
            let words = || line.split_whitespace().map(OsString::from);
            if let Some(direct) = Direct::read(words()) {
                let whole =
                    crate::commands::Arguments::try_parse_from(std::iter::once("isobench".into()).chain(words()));
                assert_eq!(format!("{direct:?}"), format!("{:?}", whole.unwrap()), "{line}");
                read += 1;
            }
        }
        assert_eq!(read, 2);
    }
}
