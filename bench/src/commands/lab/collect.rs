//! `isobench lab collect`.

use super::{BadInput, Status, output};
use crate::labs::collect;
use std::path::PathBuf;

/// Make one CSV table of a class's files
///
/// Takes files that `check` wrote, and directories, which are searched for names that end in `.check.json`. Where two
/// students hand in the same samples, each row names the other. A file that was cut short or changed has a row with the
/// reason, and the status is 2.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  isobench lab collect handed-in/ > class.csv")]
pub(super) struct Arguments {
    /// Files and directories that were handed in
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let files = collect::read(&arguments.paths).map_err(BadInput::from_error)?;
    if files.is_empty() {
        return Err(BadInput(
            "there is no file whose name ends in `.check.json`: `isobench lab check` writes them".into(),
        )
        .into());
    }
    output::print(&collect::table(&files))?;
    let broken: Vec<String> = files.iter().filter_map(|file| Some(file.check.as_ref().err()?.to_string())).collect();
    let copied = collect::duplicates(&files);
    if copied > 0 {
        super::super::note(&format!("{copied} files hold samples that another student handed in as well"));
    }
    match broken.as_slice() {
        [] => Ok(Status::Success),
        [problem] => Err(BadInput(problem.clone()).into()),
        [first, rest @ ..] => Err(BadInput(format!("{first}; and {} more: see the last column", rest.len())).into()),
    }
}
