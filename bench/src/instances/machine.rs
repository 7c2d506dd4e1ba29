//! What makes an instance a virtual machine.

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
