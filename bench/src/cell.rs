//! One cell of a run: one experiment in one sandbox in one block. It is what the schedule hands to the testbed, and
//! measurements are what comes back.

use isobench_reports::record::Outcome;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One experiment in one sandbox in one block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// The experiment's name.
    pub experiment: String,
    /// The sandbox's name.
    pub sandbox: String,
    /// The randomised block.
    pub block: u32,
    /// Position within the block.
    pub position: u32,
    /// Whether its samples are kept but never used.
    pub warm_up: bool,
    /// The user's own program instead of the experiment's workload, where one is given.
    pub program: Option<Vec<String>>,
}

/// One thing that a cell measured: what a sample says, less what the schedule already knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Instance within the cell, 0 where there is one.
    pub instance: u32,
    /// The metric's name.
    pub metric: String,
    /// Parameters that tell samples of one metric apart.
    pub parameters: BTreeMap<String, String>,
    /// The value, or the error that stands in its place.
    pub outcome: Outcome,
}

/// All that came of a cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What it measured.
    pub measurements: Vec<Measurement>,
    /// What it left behind in the testbed, as `kind name`: a leak each.
    pub left: Vec<String>,
}

/// Whatever can measure cells: the testbed, or a fake in tests of the schedule.
pub trait Measure {
    /// Measures one cell, and says what of it is not gone afterwards.
    ///
    /// # Errors
    /// Where the testbed itself is unusable. A sandbox that fails is no error here: its measurements say so.
    fn measure(&mut self, cell: &Cell) -> anyhow::Result<Measured>;
}
