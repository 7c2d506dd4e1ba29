//! A further process in a container, and who takes part in it.

use super::task::Task;

/// A further process.
#[derive(Debug)]
pub(super) struct Executing {
    /// Its number.
    pub(super) number: u64,
    /// The process with its streams.
    pub(super) task: Task,
}
