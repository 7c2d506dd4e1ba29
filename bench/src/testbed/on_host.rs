//! What was started with `--on-host`: its state lies in the home, and what dead instances left of it is taken away here.
//!
//! The links of a container go with its network namespace, its lease and its ports' locks with its supervisor. What stays are
//! published ports in our table, names, and control groups.

use crate::home;
use crate::networks;
use anyhow::Context;
use isobench_runtime::cgroup::PARENT;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// How the name of an instance's control group begins.
const INSTANCE: &str = "container-";

/// A group without processes belongs to a dead instance when it has been so for that long: one that is being launched is
/// empty for a moment.
const EMPTY: Duration = Duration::from_secs(60);

/// Takes away what dead instances have left on this machine itself; gives the control groups that were removed, or would be
/// where `dry`.
pub(crate) fn sweep(dry: bool) -> anyhow::Result<Vec<PathBuf>> {
    for state in
        home::existing().into_iter().map(|home| home.join("host")).filter(|state| state.join("networks").is_dir())
    {
        if !dry {
            let swept = networks::Store::open(&state).and_then(|store| store.sweep());
            swept.with_context(|| format!("sweep the networks of {}", state.display()))?;
        }
    }
    let groups = super::cgroups::mounted().into_iter().flat_map(|hierarchy| fs::read_dir(hierarchy.join(PARENT)));
    let groups = groups.flatten().flatten().map(|entry| entry.path()).filter(|path| is_left(path));
    // The kernel refuses to remove one that has processes after all.
    Ok(groups.filter(|path| dry || fs::remove_dir(path).is_ok()).collect())
}

fn is_left(group: &std::path::Path) -> bool {
    let named = group.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(INSTANCE));
    let age = group.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|time| time.elapsed().ok());
    let empty = fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|processes| processes.is_empty());
    named && empty && age.is_some_and(|age| age > EMPTY)
}
