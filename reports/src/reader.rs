//! Reads and checks the two files of a run.

use crate::record::{Run, Sample};

/// Everything that a report is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Records {
    /// `run.json`.
    pub run: Run,
    /// `samples.jsonl`, in order.
    pub samples: Vec<Sample>,
}
