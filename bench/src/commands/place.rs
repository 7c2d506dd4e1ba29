//! Where a command works: in a testbed, or on the machine itself. Shared by all commands that can do both.

use super::{BadInput, Status};
use crate::home;
use crate::testbed::enter::{self, Inside, Target};
use crate::testbed::{kept, record};

/// The testbed that commands work in where none is named.
pub(super) const DEFAULT: &str = "default";

/// To be flattened into the arguments of a command that works in a testbed or on the machine.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Place {
    /// Work in this testbed, or with NAME/two on its second host [default: the testbed `default`, made on first use]
    #[arg(long, global = true, value_name = "NAME", env = "ISOBENCH_TESTBED", hide_env_values = true)]
    testbed: Option<Target>,
    /// Work on this machine itself, not in a testbed
    #[arg(long, global = true, conflicts_with = "testbed")]
    on_host: bool,
}

impl Place {
    /// Runs a command's work at the place: at once where this process is there already, else by a copy of it that goes inside,
    /// for whose end it waits. In `work`, [`home::state`] is the right state directory, and the working directory is the
    /// caller's where it is seen there.
    ///
    /// Call it while this process has one thread.
    ///
    /// # Errors
    /// Where there is no such place, or as `work` fails.
    pub fn inside(&self, work: impl FnOnce() -> anyhow::Result<Status>) -> anyhow::Result<Status> {
        match self.join()? {
            Some(inside) => inside.divide()?.map_or_else(work, Ok),
            None => work(),
        }
    }

    /// The same for work that this process can do itself, since it looks at no processes but leaves that to what it forks.
    /// A launch is spared half a millisecond of copying this process.
    ///
    /// # Errors
    /// As [`Place::inside`].
    pub fn joined(&self, work: impl FnOnce() -> anyhow::Result<Status>) -> anyhow::Result<Status> {
        if let Some(inside) = self.join()? {
            inside.stay();
        }
        work()
    }

    /// Joins the place, where this process is not there already.
    fn join(&self) -> anyhow::Result<Option<Inside>> {
        if let Some(here) = home::inside() {
            self.check_here(&here)?;
            return Ok(None);
        }
        if self.on_host {
            return Ok(None);
        }
        let target = self.target();
        if target.client {
            let sentence =
                format!("{target} is an outside client, which runs no containers: only `testbed enter` goes there");
            return Err(BadInput(sentence).into());
        }
        enter::join(&target, &there(&target, self.testbed.is_none())?).map(Some)
    }

    /// The testbed that is asked for.
    fn target(&self) -> Target {
        let default = || Target { testbed: DEFAULT.into(), second: false, client: false };
        self.testbed.clone().unwrap_or_else(default)
    }

    /// Inside a testbed nothing but that one can be meant.
    fn check_here(&self, here: &str) -> anyhow::Result<()> {
        if self.on_host {
            let sentence = format!("--on-host: this is inside the testbed {here} already; leave it first");
            return Err(BadInput(sentence).into());
        }
        match &self.testbed {
            Some(target) if target.to_string() != here => {
                let sentence = format!("--testbed {target}: this is inside the testbed {here} already; leave it first");
                Err(BadInput(sentence).into())
            }
            _ => Ok(()),
        }
    }
}

/// The record of a testbed, which is made now where it may be.
pub(super) fn there(target: &Target, make: bool) -> anyhow::Result<record::Record> {
    if let Some(record) = record::find(&target.testbed) {
        return Ok(record);
    }
    let name = target.testbed.clone();
    if !make {
        let sentence = format!("there is no testbed `{name}`: make it with `isobench testbed create {name}`");
        return Err(BadInput(sentence).into());
    }
    let (record, made) = kept::make(&kept::Request { name, second: false })?;
    if made {
        super::note(&format!("made the testbed `{0}` (`isobench testbed rm {0}` removes it)", record.name));
    }
    Ok(record)
}
