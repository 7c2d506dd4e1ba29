//! What makes an instance a virtual machine.

use super::refuse;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A virtual machine as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// What runs in it.
    pub(crate) guest: Guest,
    /// Its memory, in bytes.
    pub(crate) memory: u64,
    /// How many processors it has.
    pub(crate) processors: u32,
    /// The snapshot's directory from which it goes on, where it does not boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) snapshot: Option<PathBuf>,
}

/// What runs in a virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Guest {
    /// The unikernel, with what it does in the monitor's words: `exit`, `idle` or `serve:PORT`.
    Unikernel(String),
    /// Linux with this kernel; the command runs in the root.
    Linux(PathBuf),
}

/// What a guest's kernel, the agent and a program need beside the root.
const BESIDE_ROOT: u64 = 96 << 20;

/// Memory of a Linux guest whose root needs no more.
const USUAL: u64 = 128 << 20;

/// The least memory for a Linux guest with so many bytes of files: they lie in it twice while it begins, packed and unpacked.
fn least_memory(files: u64) -> u64 {
    (2 * files + BESIDE_ROOT).next_multiple_of(2 << 20)
}

/// Memory of a Linux guest for which none is given.
pub(crate) fn usual_memory(files: u64) -> u64 {
    least_memory(files).max(USUAL)
}

/// Refuses memory that the root would not leave enough of.
pub(crate) fn check_memory(memory: u64, files: u64, root: &str) -> anyhow::Result<()> {
    let least = least_memory(files);
    if memory >= least {
        return Ok(());
    }
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    refuse(format!(
        "the root {root} has {} MiB, for which {} MiB of memory are too little: give the guest -m {}m",
        mebibytes(files),
        mebibytes(memory),
        mebibytes(least)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_follows_the_root() {
        assert_eq!(usual_memory(0), 128 << 20);
        assert_eq!(usual_memory(100 << 20), 296 << 20);
        check_memory(128 << 20, 16 << 20, "toolbox").unwrap();
        let refused = check_memory(128 << 20, 100 << 20, "toolbox").unwrap_err().to_string();
        assert!(refused.contains("the root toolbox has 100 MiB") && refused.contains("-m 296m"), "{refused}");
    }
}
