//! `isobench gc`.

use super::{Status, output};
use crate::journal::{self, Kind, Leftover};
use crate::testbed::{on_host, record};
use anyhow::bail;

/// Remove what killed runs left on this machine (every run does so when it starts)
///
/// Whatever lives in the namespaces of a run goes with its last process. What does not, control groups and directories, is
/// found by the journals of runs that are dead, and by name. Live runs are left alone. So are live instances that were started
/// with --on-host; names and ports that dead ones held are free again afterwards.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only tell what would be removed
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let leftovers = journal::sweep(arguments.dry_run);
    let records = record::sweep(arguments.dry_run);
    for path in &records {
        let verb = if arguments.dry_run { "would remove" } else { "removed" };
        output::print(&format!("{verb} the record {} of a dead testbed\n", path.display()))?;
    }
    let groups = on_host::sweep(arguments.dry_run)?;
    for group in &groups {
        let verb = if arguments.dry_run { "would remove" } else { "removed" };
        output::print(&format!("{verb} the control group {} of a dead instance\n", group.display()))?;
    }
    if leftovers.is_empty() && records.is_empty() && groups.is_empty() {
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

/// What it is, of which run, and why it is still there.
pub(super) fn describe(leftover: &Leftover) -> String {
    let kind = match leftover.kind {
        Kind::Cgroup => "control group",
        Kind::Directory => "directory",
    };
    let reason = leftover.error.as_ref().and_then(std::error::Error::source).map(|cause| format!(": {cause}"));
    format!("{kind} {} of run {}{}", leftover.path.display(), leftover.run, reason.unwrap_or_default())
}
