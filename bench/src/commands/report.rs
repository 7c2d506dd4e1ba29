//! `isobench report`.

use super::{BadInput, Status, output};
use anyhow::Context;
use isobench_reports::messages::Language;
use isobench_reports::reader::{self, Records};
use isobench_reports::render;
use std::path::{Path, PathBuf};

/// Write the report of a run again, from its records alone
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  isobench report isobench-results/2026-01-31T0930-myhost\n  isobench report DIR --lang zh"
)]
pub(super) struct Arguments {
    /// The directory that `isobench run` wrote
    directory: PathBuf,
    /// Language of the report: en or zh; by default that of the locale
    #[arg(long, value_name = "LANGUAGE")]
    lang: Option<String>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let language = super::language(arguments.lang.as_deref())?;
    let directory = &arguments.directory;
    let shown = format!("cannot report on {}", directory.display());
    // A run that was cut short has a report too: of what is whole.
    let records = reader::read_interrupted(directory).map_err(|error| BadInput::because(&shown, error))?.records;
    let page = write(directory, &records, language)?;
    output::print(&format!("{}\n", page.display()))?;
    Ok(Status::Success)
}

/// Writes the report of some records into their directory and gives the path of its page.
pub(super) fn write(directory: &Path, records: &Records, language: Language) -> anyhow::Result<PathBuf> {
    let written = render::write(directory, records, language);
    Ok(written.with_context(|| format!("write the report into {}", directory.display()))?.page)
}
