//! The control group of an instance, which has its name for good: one that was left behind is in the way of the next.

use super::refuse;
use super::request::{Limits, Request};
use isobench_runtime::Error;
use isobench_runtime::cgroup::{self, Cgroup, Cgroups, end_tree};
use rustix::io::Errno;
use std::sync::Arc;
use std::time::Duration;

/// How long what was killed may take to leave its group.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes one, where this host has any to give. The instance is locked.
pub(super) fn make(request: &Request) -> anyhow::Result<Option<Arc<Cgroup>>> {
    let Limits { memory, cpu, pids } = request.limits;
    let limits = cgroup::Limits { memory, pids, cpu };
    let made = Cgroups::discover().and_then(|cgroups| make_anew(&cgroups, &request.control_group(), &limits));
    match made {
        Ok(cgroup) => Ok(Some(Arc::new(cgroup))),
        // An ordinary user may have none to give.
        Err(_) if request.limits == Limits::default() => Ok(None),
        Err(error) => refuse(format!(
            "limits need control groups, of which this host has none to give: {error}: {} (`isobench doctor` tells more)",
            std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
        )),
    }
}

fn make_anew(cgroups: &Cgroups, name: &str, limits: &cgroup::Limits) -> Result<Cgroup, Error> {
    match cgroups.create(name, limits) {
        // A supervisor that was killed has left it, and nobody else uses it while the instance is locked.
        Err(Error::System { source: Errno::EXIST, .. }) => {
            end(cgroups, name)?;
            cgroups.create(name, limits)
        }
        made => made,
    }
}

/// Ends what a supervisor that was killed has left in one, and removes it. The instance is locked.
pub(super) fn clear(request: &Request) -> Result<(), Error> {
    // Where none can be made there is none.
    Cgroups::discover().map_or(Ok(()), |cgroups| end(&cgroups, &request.control_group()))
}

fn end(cgroups: &Cgroups, name: &str) -> Result<(), Error> {
    cgroups.paths(name).iter().try_for_each(|path| end_tree(path, PATIENCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_left_behind_makes_way() {
        let name = format!("left-{}", std::process::id());
        let Ok(cgroups) = Cgroups::discover() else { return println!("skipped: no control group can be made here") };
        let Ok(left) = cgroups.create(&name, &cgroup::Limits::default()) else {
            return println!("skipped: no control group can be made here");
        };
        // As by a supervisor that was killed.
        std::mem::forget(left);
        let made = make_anew(&cgroups, &name, &cgroup::Limits::default()).unwrap();
        made.remove(PATIENCE).unwrap();
        for path in cgroups.paths(&name) {
            assert!(!path.exists());
            let _ = path.parent().map(std::fs::remove_dir);
        }
    }
}
