//! `isobench toolbox`.

use super::{BadInput, Status, note, output};
use crate::roots::toolbox::{self, Origin};

/// Put together the toolbox, a root directory with a shell and the usual commands
///
/// It has sh (bash) and the usual commands (busybox), ip, ss, nft, nsenter, ping, wget, httpd and tcpdump, with all libraries that
/// they need. Nothing is installed: it lies in ~/.cache/isobench. Containers whose root is `toolbox` run in it, and
/// `isobench testbed enter` finds its programs where the machine has none of their own.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  isobench toolbox build                     once; the first container that needs it would do the same
  isobench toolbox build --again             after the distribution's packages were updated
  ls $(isobench toolbox path)/bin";

#[derive(Debug, clap::Subcommand)]
enum Command {
    Build(Build),
    Path(Path),
}

/// Put it together where there is none, and print its path
#[derive(Debug, clap::Args)]
struct Build {
    /// Put a new one together in any case; containers that run go on in the old one
    #[arg(long)]
    again: bool,
    /// From where [default: packages where they can be had, else this machine's own programs]
    #[arg(long, value_enum)]
    from: Option<Origin>,
}

/// Print the path of the toolbox in use
#[derive(Debug, clap::Args)]
struct Path {
    /// Print JSON: its path, its programs, and where they come from
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    match arguments.command {
        Command::Build(arguments) => build(&arguments)?,
        Command::Path(arguments) => path(&arguments)?,
    }
    Ok(Status::Success)
}

fn build(arguments: &Build) -> anyhow::Result<()> {
    let path = match toolbox::find() {
        Some(path) if !arguments.again && arguments.from.is_none() => path,
        _ => toolbox::build(arguments.from)?,
    };
    let missing = toolbox::describe(&path)?.missing;
    if !missing.is_empty() {
        note(&format!(
            "the toolbox has no {}: install them, then `isobench toolbox build --again`",
            missing.join(", ")
        ));
    }
    output::print(&format!("{}\n", path.display()))
}

fn path(arguments: &Path) -> anyhow::Result<()> {
    let none = "there is no toolbox yet: `isobench toolbox build` puts it together";
    let path = toolbox::find().ok_or_else(|| BadInput(none.into()))?;
    if arguments.json {
        let mut value = serde_json::to_value(toolbox::describe(&path)?)?;
        value["path"] = path.display().to_string().into();
        return output::print_json(&value);
    }
    output::print(&format!("{}\n", path.display()))
}
