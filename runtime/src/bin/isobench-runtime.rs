//! `isobench-runtime`: containers by the command line of the Open Container Initiative.

use clap::{Parser, Subcommand};
use isobench_runtime::Error;
use isobench_runtime::oci::{commands, template};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs containers from bundles (a directory with config.json and a root file system).
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create, start and await a container; the exit code is that of its program.
    Run {
        /// The bundle's directory.
        #[arg(short, long, default_value = ".")]
        bundle: PathBuf,
        /// The container's name.
        id: String,
    },
    /// Create a container, which then waits to be started.
    Create {
        /// The bundle's directory.
        #[arg(short, long, default_value = ".")]
        bundle: PathBuf,
        /// Where to write the number of its process.
        #[arg(long)]
        pid_file: Option<PathBuf>,
        /// The container's name.
        id: String,
    },
    /// Start a container that was created.
    Start {
        /// The container's name.
        id: String,
    },
    /// Print a container's state as JSON.
    State {
        /// The container's name.
        id: String,
    },
    /// Send a signal to a container.
    Kill {
        /// The container's name.
        id: String,
        /// The signal, by name or number.
        #[arg(default_value = "TERM")]
        signal: String,
    },
    /// Remove what is left of a container.
    Delete {
        /// Kill it first.
        #[arg(short, long)]
        force: bool,
        /// The container's name.
        id: String,
    },
    /// Print a configuration to begin with.
    Spec,
}

fn main() -> ExitCode {
    match carry_out(Arguments::parse().command) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(error) => {
            let mut line = format!("isobench-runtime: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                line += &format!(": {cause}");
                source = cause.source();
            }
            // A closed standard error must not turn the message into a panic.
            let _ = writeln!(std::io::stderr(), "{line}");
            ExitCode::from(125)
        }
    }
}

fn carry_out(command: Command) -> Result<i32, Error> {
    match command {
        Command::Run { bundle, id } => return commands::run(&id, &bundle),
        Command::Create { bundle, pid_file, id } => commands::create(&id, &bundle, pid_file.as_deref())?,
        Command::Start { id } => commands::start(&id)?,
        Command::State { id } => print(&commands::state(&id)?),
        Command::Kill { id, signal } => commands::kill(&id, &signal)?,
        Command::Delete { force, id } => commands::delete(&id, force)?,
        Command::Spec => print(&template()?),
    }
    Ok(0)
}

fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
