//! What other programs want to know of this one: shell completions, man pages, the records' schema.

use super::{BadInput, Status, output};
use anyhow::Context;
use std::path::PathBuf;

/// Print a completion script for a shell; names of containers complete too
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Example:\n  isobench completions bash > ~/.local/share/bash-completion/completions/isobench"
)]
pub(super) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

pub(super) fn completions(arguments: Completions) -> anyhow::Result<Status> {
    let mut script = Vec::new();
    // The script asks this program, which knows what there is now (`commands::complete`).
    let shells = clap_complete::env::Shells::builtins();
    let shell = shells.completer(&arguments.shell.to_string()).context("find the shell's kind of script")?;
    shell
        .write_registration("COMPLETE", "isobench", "isobench", "isobench", &mut script)
        .context("write the completion script")?;
    output::print(&String::from_utf8(script).context("write the completion script")?)?;
    Ok(Status::Success)
}

/// Print the man page, or write one page for each command into a directory
#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// Where to write `isobench.1`, `isobench-run.1` and so on
    directory: Option<PathBuf>,
}

pub(super) fn man(arguments: Man, command: clap::Command) -> anyhow::Result<Status> {
    match arguments.directory {
        Some(directory) => {
            if !directory.is_dir() {
                return Err(BadInput(format!("{} is no directory: make it first", directory.display())).into());
            }
            clap_mangen::generate_to(command, &directory)
                .with_context(|| format!("write man pages into {}", directory.display()))?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            output::print(&String::from_utf8(page).context("write the man page")?)?;
        }
    }
    Ok(Status::Success)
}

/// Print the JSON Schema of the records
#[derive(Debug, clap::Args)]
pub(super) struct Schema {
    /// Which file: `run` for run.json, `sample` for one line of samples.jsonl, `lab` for lab.json, `lab-check` for what a
    /// student hands in
    #[arg(value_parser = ["run", "sample", "lab", "lab-check"], default_value = "run")]
    file: String,
}

pub(super) fn schema(arguments: Schema) -> anyhow::Result<Status> {
    let schema = match arguments.file.as_str() {
        "sample" => isobench_reports::schema::sample_schema(),
        "lab" => crate::labs::schema::lab_schema(),
        "lab-check" => crate::labs::schema::check_schema(),
        _ => isobench_reports::schema::run_schema(),
    };
    output::print(&schema)?;
    Ok(Status::Success)
}
