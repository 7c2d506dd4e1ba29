//! The loop that measures: cell after cell, until all are done, the time is out or somebody says stop.

use crate::cell::{Cell, Measure, Measured, Measurement};
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
        let mut took: BTreeMap<&str, Duration> = BTreeMap::new();
        let mut told: BTreeSet<(&str, &str)> = BTreeSet::new();
        let mut block_began = Instant::now();
        for (index, cell) in cells.iter().enumerate() {
            let previous = index.checked_sub(1).map(|previous| &cells[previous]);
            if previous.is_none_or(|previous| (&previous.experiment, previous.block) != (&cell.experiment, cell.block))
            {
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
            let Measured { measurements: mut measured, left } =
                measure.measure(cell).with_context(|| format!("measure {} in {}", cell.experiment, cell.sandbox))?;
            for leak in left.into_iter().take(MOST_LEAKS) {
                measured.push(harness(CELL_LEAK, Outcome::Error(format!("{} left {leak} behind", cell.sandbox))));
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::{CELL_DURATION, CellKey, key};
    use crate::schedule;
    use isobench_reports::metrics;
    use isobench_reports::reader::{self, SAMPLES_FILE};
    use isobench_reports::record::{Machine, Plan, Run, SCHEMA_VERSION, Sample, SandboxRecord};
    use isobench_workload::Family;
    use std::path::Path;

    /// A testbed that takes its time, leaves things behind, fails and gets signals as told.
    #[derive(Default)]
    struct Fake {
        cells: usize,
        takes: Duration,
        leak_at: Option<usize>,
        fail_at: Option<usize>,
        interrupt_at: Option<(usize, Interrupt)>,
    }

    impl Measure for Fake {
        fn measure(&mut self, cell: &Cell) -> anyhow::Result<Measured> {
            self.cells += 1;
            std::thread::sleep(self.takes);
            let left = (self.leak_at == Some(self.cells)).then(|| "link v7".to_owned()).into_iter().collect();
            if let Some((at, interrupt)) = &self.interrupt_at
                && *at == self.cells
            {
                interrupt.request();
            }
            let outcome = match self.fail_at == Some(self.cells) {
                true => Outcome::Error("it did not start".into()),
                false => Outcome::Value(Value::Integer(u64::from(cell.block) + 1)),
            };
            let stages = Outcome::Value(Value::Stages(Vec::new()));
            let measurements = vec![harness("start.ready", outcome), harness("start.stages", stages)];
            Ok(Measured { measurements, left })
        }
    }

    const SANDBOXES: [&str; 3] = ["process", "container-none", "container-bridge"];

    fn run() -> Run {
        let sandbox = |name: &&str| SandboxRecord {
            name: (*name).into(),
            family: Family::Process,
            version: None,
            unavailable: None,
            emulation: None,
            gaps: BTreeMap::new(),
        };
        Run {
            schema: SCHEMA_VERSION,
            program: "isobench 0".into(),
            program_digest: "00".into(),
            started: "2026-01-01T00:00:00Z".into(),
            machine: Machine::default(),
            plan: Plan {
                suite: "custom".into(),
                seed: 5,
                blocks: [("startup".to_owned(), 6), ("memory".to_owned(), 2)].into(),
                experiments: vec!["startup".into(), "memory".into()],
                ..Plan::default()
            },
            sandboxes: SANDBOXES.iter().map(sandbox).collect(),
            metrics: metrics::table(),
        }
    }

    fn cells() -> Vec<Cell> {
        schedule::cells(&run().plan, |_| SANDBOXES.map(str::to_owned).to_vec())
    }

    fn measure(
        recorder: &mut Recorder,
        cells: &[Cell],
        fake: &mut Fake,
        end: Option<Instant>,
    ) -> anyhow::Result<Ending> {
        let interrupt = fake.interrupt_at.as_ref().map(|(_, interrupt)| interrupt.clone()).unwrap_or_default();
        let mut progress = Progress::new(cells, true);
        Session { recorder, progress: &mut progress, interrupt: &interrupt, end }.run(cells, fake)
    }

    fn samples(directory: &Path) -> Vec<Sample> {
        reader::read(directory).expect("valid records").samples
    }

    fn measured(samples: &[Sample]) -> Vec<CellKey> {
        let ends = samples.iter().filter(|sample| sample.metric == CELL_DURATION);
        ends.map(|end| (end.experiment.clone(), end.block, end.position, end.sandbox.clone())).collect()
    }

    #[test]
    fn interrupted_and_resumed_gives_the_same_cells_as_in_one_go() {
        let keys: Vec<CellKey> = cells().iter().map(key).collect();
        for at in [1, 2, 7, keys.len() - 1, keys.len()] {
            let directory = tempfile::tempdir().unwrap();
            let mut recorder = Recorder::create(directory.path(), &run(), 0).unwrap();
            let mut fake = Fake { interrupt_at: Some((at, Interrupt::default())), ..Fake::default() };
            let ending = measure(&mut recorder, &cells(), &mut fake, None).unwrap();
            recorder.finish().unwrap();
            let expected = match keys.len() - at {
                0 => Ending::Complete,
                left => Ending::Interrupted(left),
            };
            assert_eq!(ending, expected, "the cell in hand is finished, and no other is begun");
            assert_eq!(measured(&samples(directory.path())), keys[..at]);

            let path = directory.path().join(SAMPLES_FILE);
            let mut text = std::fs::read(&path).unwrap();
            // A kill instead: the next cell's first sample, and half of its second.
            let sample = text.split_inclusive(|byte| *byte == b'\n').next().unwrap().to_vec();
            let count = samples(directory.path()).len();
            let sample = String::from_utf8(sample).unwrap().replace("\"sequence\":0", &format!("\"sequence\":{count}"));
            text.extend_from_slice(sample.as_bytes());
            text.extend_from_slice(&sample.as_bytes()[..20]);
            std::fs::write(&path, text).unwrap();

            let (mut recorder, done) = Recorder::resume(directory.path(), 0).unwrap();
            let rest: Vec<Cell> = cells().into_iter().filter(|cell| !done.contains(&key(cell))).collect();
            let ending = measure(&mut recorder, &rest, &mut Fake::default(), None).unwrap();
            assert_eq!(ending, Ending::Complete);
            assert_eq!(measured(&samples(directory.path())), keys, "interrupted after {at}");
        }
    }

    #[test]
    fn the_time_is_out_between_blocks_alone() {
        let directory = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::create(directory.path(), &run(), 0).unwrap();
        let mut fake = Fake { takes: Duration::from_millis(20), ..Fake::default() };
        // Five blocks of three cells fit, with room for the sixth's first two cells.
        let end = Instant::now() + Duration::from_millis(20 * 3 * 5 + 45);
        let ending = measure(&mut recorder, &cells(), &mut fake, Some(end)).unwrap();
        let blocks = measured(&samples(directory.path())).len();
        assert_eq!(blocks % SANDBOXES.len(), 0, "only whole blocks");
        assert!((SANDBOXES.len()..=5 * SANDBOXES.len()).contains(&blocks), "{blocks}");
        assert_eq!(ending, Ending::OutOfTime(cells().len() - blocks));
    }

    #[test]
    fn a_leak_and_a_failure_are_samples() {
        let directory = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::create(directory.path(), &run(), 0).unwrap();
        let mut fake = Fake { leak_at: Some(4), fail_at: Some(5), ..Fake::default() };
        assert_eq!(measure(&mut recorder, &cells(), &mut fake, None).unwrap(), Ending::Complete);
        let samples = samples(directory.path());
        let errors: Vec<&Sample> =
            samples.iter().filter(|sample| matches!(sample.outcome, Outcome::Error(_))).collect();
        let [leak, failure] = errors.as_slice() else { panic!("{errors:?}") };
        let fourth = &cells()[3];
        assert_eq!((leak.metric.as_str(), &leak.sandbox), (CELL_LEAK, &fourth.sandbox));
        assert_eq!(leak.outcome, Outcome::Error(format!("{} left link v7 behind", fourth.sandbox)));
        assert_eq!(failure.outcome, Outcome::Error("it did not start".into()));
        assert_eq!(measured(&samples).len(), cells().len(), "neither stops the run");
    }

    #[test]
    fn warm_ups_come_first_and_are_marked() {
        let directory = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::create(directory.path(), &run(), 0).unwrap();
        measure(&mut recorder, &cells(), &mut Fake::default(), None).unwrap();
        let samples = samples(directory.path());
        let first_measured = samples.iter().position(|sample| !sample.warm_up).unwrap();
        assert!(samples[first_measured..].iter().all(|sample| !sample.warm_up));
        assert!(samples[..first_measured].iter().all(|sample| sample.block == 0));
    }
}
