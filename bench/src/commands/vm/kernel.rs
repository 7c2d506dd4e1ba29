//! `isobench vm kernel`.

use crate::commands::{Status, output};
use crate::kernels::{self, AUTOMATIC, GuestKernel, script};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use std::ffi::OsStr;
use std::path::PathBuf;

/// List, get, build and choose the kernels of Linux guests
///
/// A Linux guest boots the first of these that there is: the one given by --kernel, the one chosen by `use`, ours (`build`), the
/// distribution's cloud kernel (`fetch`), this machine's own in /boot. Nothing is installed and root is not needed: kernels lie
/// in ~/.cache/isobench/kernels.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  isobench vm kernel fetch             in a minute: the distribution's cloud kernel, a bzImage with modules
  isobench vm kernel build             in five minutes: ours, small, one processor, everything built in
  isobench vm kernel build --smp       the same for several processors
  isobench vm kernel ls
  isobench vm kernel use host          guests run on this machine's own kernel from now on
  isobench vm kernel use auto          and on the best one that there is again";

#[derive(Debug, clap::Subcommand)]
enum Command {
    Ls(List),
    Fetch(Fetch),
    Build(Build),
    Use(Use),
}

/// List the kernels, what they are, and which one is used
#[derive(Debug, clap::Args)]
#[command(visible_alias = "list")]
struct List {
    /// Print JSON: also the build's banner, the digest and the path of each
    #[arg(long)]
    json: bool,
}

/// Get the distribution's cloud kernel, unpacked and not installed, and print its path
///
/// Its drivers for our devices are modules; the guest's first program loads them.
#[derive(Debug, clap::Args)]
struct Fetch {
    /// Another kernel package than linux-image-cloud-amd64, such as linux-image-virtual on Ubuntu
    package: Option<String>,
}

/// Build our kernel from the distribution's kernel source, and print its path
///
/// The same source gives the same bytes, and is not built twice. It needs a compiler; what is missing is named.
#[derive(Debug, clap::Args)]
struct Build {
    /// The image for several processors, `microvm-smp`, beside the one for one
    #[arg(long)]
    smp: bool,
    /// A kernel source tarball [default: what the distribution's package linux-source stands for]
    tarball: Option<PathBuf>,
}

/// Choose the kernel that guests boot where none is named
#[derive(Debug, clap::Args)]
struct Use {
    /// A name that `ls` shows, a file, or `auto` for the best one that there is
    #[arg(value_name = "KERNEL", add = completer())]
    name: String,
}

/// Completes the name of a guest kernel.
pub(in crate::commands) fn completer() -> ArgValueCompleter {
    ArgValueCompleter::new(|begun: &OsStr| {
        let begun = begun.to_string_lossy();
        let names = kernels::named().into_iter().map(|(name, _)| name);
        names.filter(|name| name.starts_with(&*begun)).map(CompletionCandidate::new).collect()
    })
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    match arguments.command {
        Command::Ls(List { json }) => {
            let all = kernels::list();
            if json { output::print_json(&all)? } else { output::print(&table(&all))? }
        }
        Command::Fetch(Fetch { package }) => {
            let words: Vec<&str> = std::iter::once("fetch").chain(package.as_deref()).collect();
            got(&script::run(&words)?)?;
        }
        Command::Build(Build { smp, tarball }) => {
            let tarball = tarball.map(|path| path.to_string_lossy().into_owned());
            let words = [Some("build"), smp.then_some("--smp"), tarball.as_deref()];
            got(&script::run(&words.into_iter().flatten().collect::<Vec<_>>())?)?;
        }
        Command::Use(Use { name }) => {
            kernels::choose(&name)?;
            if name == AUTOMATIC && kernels::list().iter().all(|kernel| !kernel.default) {
                super::super::note("there is no guest kernel yet: `isobench vm kernel fetch` gets one");
            }
        }
    }
    Ok(Status::Success)
}

fn got(path: &std::path::Path) -> anyhow::Result<()> {
    output::print(&format!("{}\n", path.display()))
}

fn table(all: &[GuestKernel]) -> String {
    if all.is_empty() {
        return "  there is no guest kernel yet: `isobench vm kernel fetch` gets one\n".into();
    }
    let head = ["", "NAME", "KIND", "RELEASE", "CPUS", "SIZE", "SHA-256"].map(String::from);
    let rows = all.iter().map(|kernel| {
        let mark = if kernel.default { "*" } else { "" };
        let name = [mark.to_owned(), kernel.name.clone()];
        let rest = match (&kernel.facts, &kernel.problem) {
            (Some(facts), _) => vec![
                facts.compression.map_or(facts.kind.to_owned(), |packed| format!("{} ({packed})", facts.kind)),
                facts.release.clone().unwrap_or_else(|| "unknown".into()),
                match facts.smp {
                    Some(true) => "several".into(),
                    Some(false) => "one".into(),
                    None => "unknown".into(),
                },
                format!("{:.1} MB", facts.size as f64 / 1e6),
                facts.sha256[..12].to_owned(),
            ],
            (None, problem) => vec![problem.clone().unwrap_or_default()],
        };
        name.into_iter().chain(rest).collect()
    });
    output::table(&std::iter::once(head.to_vec()).chain(rows).collect::<Vec<Vec<String>>>())
}
