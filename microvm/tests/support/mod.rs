//! What the tests with real guests share.

use isobench_microvm::sandbox::AttachError;
use libtest_mimic::Failed;
use std::process::Command;

/// A failure in these words where something does not hold.
pub(crate) fn check(holds: bool, what: impl Into<String>) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what.into().into()) }
}

/// Why no test can have a network namespace of its own here, where none can.
pub(crate) fn no_network() -> Option<String> {
    match Command::new("ip").arg("-V").output() {
        _ if !nix::unistd::geteuid().is_root() => Some("needs root for a network namespace".to_owned()),
        Err(_) => Some("needs the program ip".to_owned()),
        Ok(_) => None,
    }
}

/// Runs the program ip with these words.
pub(crate) fn ip(words: &str) -> Result<(), AttachError> {
    let status = Command::new("ip").args(words.split(' ')).status()?;
    if status.success() { Ok(()) } else { Err(format!("ip {words}: {status}").into()) }
}
