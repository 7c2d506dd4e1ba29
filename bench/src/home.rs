//! Where the state lies that outlives one command.
//!
//! On the machine it is a *home*: the first of `$XDG_RUNTIME_DIR/isobench`, `/run/isobench` and `/tmp/isobench-UID` that is
//! ours alone; where `$ISOBENCH_HOME` names one, that and no other. There lie the journals, the records of the testbeds (`testbeds/`), and the state of what was started with
//! `--on-host` (`host/`). Inside a testbed it is `/run/isobench` of the testbed's private tmpfs, which goes with it.
//!
//! Whether a process is inside a testbed does not depend on how it was started: the testbed's `/run/isobench/inside` tells.

use crate::journal::{self, JournalError};
use anyhow::Context;
use std::fs;
use std::path::{Path, PathBuf};

/// The state directory of a testbed, seen from inside.
pub(crate) const INSIDE: &str = "/run/isobench";

/// The file that tells which testbed this is; its text is the host's name, such as `default` or `default/two`.
const MARKER: &str = "/run/isobench/inside";

/// The host of a testbed in which this process is, such as `default/two`; `None` on the machine itself.
///
/// Nobody but the machine's own root could put the file there on the machine, as nobody else may write in `/run`.
pub(crate) fn inside() -> Option<String> {
    fs::read_to_string(MARKER).ok().map(|name| name.trim().to_owned())
}

/// Writes down which host of which testbed this is; called once its private tmpfs is mounted.
pub(crate) fn mark(name: &str) -> anyhow::Result<()> {
    fs::create_dir_all(INSIDE).with_context(|| format!("make {INSIDE}"))?;
    fs::write(MARKER, format!("{name}\n")).with_context(|| format!("write {MARKER}"))
}

/// The directory of state for what runs here: the testbed's own inside one, else `host` in the home. It is there.
///
/// `containers/NAME/` and `networks/NAME/` lie below it.
///
/// # Errors
/// Where it cannot be made.
pub fn state() -> anyhow::Result<PathBuf> {
    let path = match inside() {
        Some(_) => PathBuf::from(INSIDE),
        None => home()?.join("host"),
    };
    fs::create_dir_all(&path).with_context(|| format!("make the state directory {}", path.display()))?;
    Ok(path)
}

/// The first home that can hold state; it is made for its owner alone.
///
/// # Errors
/// Where none of them can.
pub fn home() -> Result<PathBuf, JournalError> {
    let mut refused = None;
    for home in journal::homes() {
        match journal::private_directory(&home) {
            Ok(()) => return Ok(home),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| unreachable!("there is always a candidate in /tmp")))
}

/// Every home that is there and ours, best first: what was begun with another `$XDG_RUNTIME_DIR` is found too, as long as it
/// lies in one of the others.
pub(crate) fn existing() -> Vec<PathBuf> {
    journal::homes().into_iter().filter(|home| journal::check_private(home).is_ok()).collect()
}

/// The directory of the testbeds' records in a home.
pub(crate) fn testbeds(home: &Path) -> PathBuf {
    home.join("testbeds")
}
