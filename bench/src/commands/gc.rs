//! `isobench gc`.

use super::{Status, output};
use crate::journal::{self, Kind, Leftover};
use crate::testbed::{lost, on_host, record};
use anyhow::{Context, bail};
use std::fs;
use std::path::Path;

/// Remove what killed runs left on this machine (every run does so when it starts)
///
/// Whatever lives in the namespaces of a run goes with its last process. What does not, control groups and directories, is
/// found by the journals of runs that are dead, and by name. Live runs are left alone. So are live instances that were started
/// with --on-host; names and ports that dead ones held are free again afterwards. A testbed whose record is damaged or lost,
/// which nobody can name any more, is ended.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only tell what would be removed
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let (verb, ended) = if arguments.dry_run { ("would remove", "would end") } else { ("removed", "ended") };
    // First: what they leave is swept like that of others.
    let lost = lost::end(arguments.dry_run)?;
    for run in &lost {
        output::print(&format!("{ended} the testbed of run {run}, which has no record\n"))?;
    }
    let damaged = record::damaged();
    for path in &damaged {
        if !arguments.dry_run {
            remove(path)?;
        }
        output::print(&format!("{verb} the damaged record {}\n", path.display()))?;
    }
    let leftovers = journal::sweep(arguments.dry_run);
    let records = record::sweep(arguments.dry_run);
    for path in &records {
        output::print(&format!("{verb} the record {} of a dead testbed\n", path.display()))?;
    }
    let groups = on_host::sweep(arguments.dry_run)?;
    for group in &groups {
        output::print(&format!("{verb} the control group {} of a dead instance\n", group.display()))?;
    }
    let told = lost.len() + damaged.len() + records.len() + groups.len();
    if leftovers.is_empty() && told == 0 {
        output::print("nothing is left of any dead run\n")?;
        return Ok(Status::Success);
    }
    let mut failed = 0;
    for leftover in &leftovers {
        let verb = match (&leftover.error, arguments.dry_run) {
            (Some(_), _) => {
                failed += 1;
                "could not remove"
            }
            (None, true) => "would remove",
            (None, false) => "removed",
        };
        output::print(&format!("{verb} {}\n", describe(leftover)))?;
    }
    if failed > 0 {
        bail!("{failed} of {} leftovers could not be removed: try again as root", leftovers.len());
    }
    Ok(Status::Success)
}

/// Removes a damaged record, whatever is there in its place.
fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.with_context(|| format!("remove the damaged record {}", path.display()))
}

/// What it is, of which run, and why it is still there.
pub(super) fn describe(leftover: &Leftover) -> String {
    let kind = match leftover.kind {
        Kind::Cgroup => "control group",
        Kind::Directory => "directory",
    };
    let reason = leftover.error.as_ref().and_then(std::error::Error::source).map(|cause| format!(": {cause}"));
    format!("{kind} {} of run {}{}", leftover.path.display(), leftover.run, reason.unwrap_or_default())
}
