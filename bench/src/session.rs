//! The loop that measures: cell after cell, until all are done, the time is out or somebody says stop.

use crate::cell::{Cell, Measure, Measurement};
use crate::interrupt::Interrupt;
use crate::machine;
use crate::progress::Progress;
use crate::recorder::{CELL_LEAK, MACHINE_STEAL, Recorder};
use anyhow::Context;
use isobench_reports::record::{Outcome, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every cell was measured.
    Complete,
    /// The next block would have gone beyond the budget; this many cells were not measured.
    OutOfTime(usize),
    /// Somebody pressed Ctrl-C; this many cells were not measured.
    Interrupted(usize),
}

/// What a session measures with.
#[derive(Debug)]
pub struct Session<'a> {
    /// Where samples go.
    pub recorder: &'a mut Recorder,
    /// Where progress is shown.
    pub progress: &'a mut Progress,
    /// Whether somebody said stop.
    pub interrupt: &'a Interrupt,
    /// When the time is out, where it is limited.
    pub end: Option<Instant>,
}

/// Longest list of leaks that is recorded for one cell.
const MOST_LEAKS: usize = 16;

impl Session<'_> {
    /// Measures cells in order. The time is looked at between blocks alone, so that every block is whole; Ctrl-C between
    /// cells.
    ///
    /// # Errors
    /// Where the testbed is unusable or a sample cannot be written. A sandbox that fails is a sample.
    pub fn run(&mut self, cells: &[Cell], measure: &mut dyn Measure) -> anyhow::Result<Ending> {
        let mut there = measure.inventory().context("look at the testbed before the first cell")?;
        let mut took: BTreeMap<&str, Duration> = BTreeMap::new();
        let mut told: BTreeSet<(&str, &str)> = BTreeSet::new();
        let mut block_began = Instant::now();
        for (index, cell) in cells.iter().enumerate() {
            let previous = index.checked_sub(1).map(|previous| &cells[previous]);
            if previous.is_none_or(|previous| (&previous.experiment, previous.block) != (&cell.experiment, cell.block)) {
                if let Some(previous) = previous {
                    took.insert(&previous.experiment, block_began.elapsed());
                }
                block_began = Instant::now();
                let expected = took.get(cell.experiment.as_str()).copied().unwrap_or_default();
                if self.end.is_some_and(|end| Instant::now() + expected > end) {
                    return Ok(Ending::OutOfTime(cells.len() - index));
                }
            }
            if self.interrupt.requested() {
                return Ok(Ending::Interrupted(cells.len() - index));
            }
            self.progress.begin(cell, self.end.map(|end| end.saturating_duration_since(Instant::now())));
            let (began, steal) = (Instant::now(), machine::steal());
            let mut measured = measure.measure(cell).with_context(|| format!("measure {} in {}", cell.experiment, cell.sandbox))?;
            let after = measure.inventory().with_context(|| format!("look for what {} left", cell.sandbox))?;
            for leak in after.beyond(&there).into_iter().take(MOST_LEAKS) {
                measured.push(harness(CELL_LEAK, Outcome::Error(format!("{} left {leak} behind", cell.sandbox))));
            }
            there = after;
            if let Some(steal) = steal.zip(machine::steal()).map(|(before, after)| after.saturating_sub(before)) {
                measured.push(harness(MACHINE_STEAL, Outcome::Value(Value::Integer(steal))));
            }
            let errors = measured.iter().filter_map(|measurement| match &measurement.outcome {
                Outcome::Error(error) => Some(error),
                Outcome::Value(_) => None,
            });
            if let Some(error) = errors.into_iter().next()
                && told.insert((&cell.experiment, &cell.sandbox))
            {
                self.progress.note(&format!("{} in {} failed: {error}", cell.experiment, cell.sandbox));
            }
            let duration = began.elapsed();
            self.recorder.record(cell, measured, duration.as_nanos() as u64)?;
            self.progress.end(cell, duration);
        }
        Ok(Ending::Complete)
    }
}

/// A sample of the harness itself.
fn harness(metric: &str, outcome: Outcome) -> Measurement {
    Measurement { instance: 0, metric: metric.into(), parameters: BTreeMap::new(), outcome }
}
