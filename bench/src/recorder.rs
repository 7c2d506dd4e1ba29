//! The writer of `run.json` and `samples.jsonl`.
//!
//! `run.json` is there, whole, before the first sample. `samples.jsonl` gets one line for each raw sample, handed to the
//! system at once, so that a run that ends in any way leaves valid files. The last sample of every cell is
//! [`CELL_DURATION`]: a cell without it was cut short, and is measured again when the run is resumed.

use crate::cell::{Cell, Measurement};
use isobench_reports::reader::{RUN_FILE, SAMPLES_FILE};
use isobench_reports::record::{Outcome, Run, Sample, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The metric that ends every cell: how long the cell took, set-up and clean-up included, in nanoseconds.
pub const CELL_DURATION: &str = "cell.duration";
/// The metric of whatever a cell left behind: always an error.
pub const CELL_LEAK: &str = "cell.leak";
/// Time that a hypervisor took from this machine's CPUs during a cell, in nanoseconds.
pub const MACHINE_STEAL: &str = "machine.steal";
/// Name of the fact in [`isobench_reports::record::Machine::facts`] that holds the monotonic clock at the run's begin, in
/// nanoseconds: a resumed run counts its time from there.
pub const MONOTONIC_START: &str = "monotonic-start";

/// Why records could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// The system refused.
    #[error("{operation} {}", path.display())]
    System {
        /// The operation.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The run still goes on.
    #[error("{} is still being written: wait until that run has ended", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A record is not what this program writes.
    #[error("read {} line {line}: it is no sample of this version; the run cannot be resumed", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The samples are not numbered without gaps.
    #[error("{} line {line} has sequence {found}, not {}; the run cannot be resumed", path.display(), line - 1)]
    Gap {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The sequence that stands there.
        found: u64,
    },
}

/// What tells one cell of a run from all others.
pub type CellKey = (String, u32, u32, String);

/// The key of a cell: experiment, block, position, sandbox.
pub fn key(cell: &Cell) -> CellKey {
    (cell.experiment.clone(), cell.block, cell.position, cell.sandbox.clone())
}

/// The open record of one run.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    samples: File,
    sequence: u64,
    started: u64,
}

impl Recorder {
    /// Writes `run.json` into a directory and opens a new `samples.jsonl` beside it. `started` is the monotonic clock at
    /// the run's begin.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn create(directory: &Path, run: &Run, started: u64) -> Result<Self, RecorderError> {
        write_whole(&directory.join(RUN_FILE), &pretty(run))?;
        let path = directory.join(SAMPLES_FILE);
        let samples = system("create", &path, OpenOptions::new().append(true).create_new(true).open(&path))?;
        lock(&path, &samples)?;
        Ok(Self { path, samples, sequence: 0, started })
    }

    /// Opens the samples of a run that was cut short, drops what a half-measured cell left at their end, and says which
    /// cells are done.
    ///
    /// # Errors
    /// Where the file cannot be read or written, holds what this program did not write, or the run still goes on.
    pub fn resume(directory: &Path, started: u64) -> Result<(Self, BTreeSet<CellKey>), RecorderError> {
        let path = directory.join(SAMPLES_FILE);
        let mut samples = system("open", &path, OpenOptions::new().read(true).append(true).open(&path))?;
        lock(&path, &samples)?;
        let mut text = Vec::new();
        system("read", &path, samples.read_to_end(&mut text))?;
        let whole = whole_cells(&path, &text)?;
        system("truncate", &path, samples.set_len(whole.length))?;
        system("seek in", &path, samples.seek(SeekFrom::End(0)))?;
        Ok((Self { path, samples, sequence: whole.sequence, started }, whole.done))
    }

    /// Writes the samples of one cell, the last of which is [`CELL_DURATION`].
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn record(&mut self, cell: &Cell, measured: Vec<Measurement>, duration: u64) -> Result<(), RecorderError> {
        for measurement in measured {
            self.write(cell, measurement)?;
        }
        self.write(
            cell,
            Measurement {
                instance: 0,
                metric: CELL_DURATION.into(),
                parameters: BTreeMap::new(),
                outcome: Outcome::Value(Value::Integer(duration)),
            },
        )
    }

    /// Hands all samples to the disk.
    ///
    /// # Errors
    /// Where the system cannot.
    pub fn finish(self) -> Result<(), RecorderError> {
        system("write", &self.path, self.samples.sync_all())
    }

    fn write(&mut self, cell: &Cell, measurement: Measurement) -> Result<(), RecorderError> {
        let sample = Sample {
            sequence: self.sequence,
            time: isobench_workload::clock::now().saturating_sub(self.started),
            experiment: cell.experiment.clone(),
            block: cell.block,
            position: cell.position,
            instance: measurement.instance,
            sandbox: cell.sandbox.clone(),
            metric: measurement.metric,
            parameters: measurement.parameters,
            warm_up: cell.warm_up,
            outcome: measurement.outcome,
        };
        let mut line = serde_json::to_vec(&sample).map_err(|error| RecorderError::System {
            operation: "write",
            path: self.path.clone(),
            source: error.into(),
        })?;
        line.push(b'\n');
        // One call for each line: no buffer of ours holds a sample that was taken.
        system("write", &self.path, self.samples.write_all(&line))?;
        self.sequence += 1;
        Ok(())
    }
}

/// The part of a `samples.jsonl` that consists of whole cells.
#[derive(Debug, Default, PartialEq)]
struct WholeCells {
    /// Bytes.
    length: u64,
    /// The sequence that comes next.
    sequence: u64,
    /// Which cells they are.
    done: BTreeSet<CellKey>,
}

fn whole_cells(path: &Path, text: &[u8]) -> Result<WholeCells, RecorderError> {
    let mut whole = WholeCells::default();
    let mut read = 0;
    for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        // The last line may be half written; then it has no newline.
        let Some(line) = line.strip_suffix(b"\n") else { break };
        read += line.len() as u64 + 1;
        let sample: Sample = serde_json::from_slice(line).map_err(|source| RecorderError::Corrupt {
            path: path.to_owned(),
            line: index + 1,
            source,
        })?;
        if sample.sequence != index as u64 {
            return Err(RecorderError::Gap { path: path.to_owned(), line: index + 1, found: sample.sequence });
        }
        if sample.metric == CELL_DURATION {
            whole.length = read;
            whole.sequence = index as u64 + 1;
            whole.done.insert((sample.experiment, sample.block, sample.position, sample.sandbox));
        }
    }
    Ok(whole)
}

/// Writes a file so that it is there whole or not at all.
fn write_whole(path: &Path, text: &[u8]) -> Result<(), RecorderError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = system("write in", directory, tempfile::NamedTempFile::new_in(directory))?;
    system("write", path, file.write_all(text).and_then(|()| file.as_file().sync_all()))?;
    // A temporary file is for its owner alone; a record is for everyone whom the umask lets in.
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    system("set the mode of", path, file.as_file().set_permissions(permissions))?;
    system("write", path, file.persist(path).map_err(|error| error.error).map(drop))
}

/// Two that append to one file would number their samples by themselves. The lock goes with the file's last descriptor, so that
/// a run that was killed holds none.
fn lock(path: &Path, samples: &File) -> Result<(), RecorderError> {
    match samples.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(RecorderError::Busy { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => system("lock", path, Err(error)),
    }
}

fn pretty(run: &Run) -> Vec<u8> {
    // Serialising these types to memory cannot fail: all map keys are strings.
    let mut text = serde_json::to_vec_pretty(run).unwrap_or_default();
    text.push(b'\n');
    text
}

fn system<T>(operation: &'static str, path: &Path, result: std::io::Result<T>) -> Result<T, RecorderError> {
    result.map_err(|source| RecorderError::System { operation, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use isobench_reports::record::{Machine, Plan, SCHEMA_VERSION};
    use proptest::prelude::*;

    fn run() -> Run {
        Run {
            schema: SCHEMA_VERSION,
            program: "isobench 0".into(),
            program_digest: "00".into(),
            started: "2026-01-01T00:00:00Z".into(),
            machine: Machine::default(),
            plan: Plan::default(),
            sandboxes: Vec::new(),
            metrics: BTreeMap::new(),
        }
    }

    fn cell(block: u32) -> Cell {
        Cell {
            experiment: "startup".into(),
            sandbox: "process".into(),
            block,
            position: 0,
            warm_up: block == 0,
            program: None,
        }
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            any::<u64>().prop_map(|value| Outcome::Value(Value::Integer(value))),
            any::<String>().prop_map(Outcome::Error),
            prop::collection::vec(any::<String>(), 0..4).prop_map(|texts| Outcome::Value(Value::Texts(texts))),
            any::<bool>().prop_map(|value| Outcome::Value(Value::Boolean(value))),
        ]
    }

    fn measurement() -> impl Strategy<Value = Measurement> {
        (0..5_u32, "[a-z.]{1,12}", prop::collection::btree_map("[a-z]{1,5}", ".*", 0..3), outcome())
            .prop_map(|(instance, metric, parameters, outcome)| Measurement { instance, metric, parameters, outcome })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Whatever is recorded reads back, in sequence; and wherever the file is cut, exactly the whole cells survive
        /// and the run goes on without a gap.
        #[test]
        fn a_cut_record_resumes_at_the_last_whole_cell(
            cells in prop::collection::vec(prop::collection::vec(measurement(), 0..4), 1..6),
            cut in 0.0..=1.0_f64,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(SAMPLES_FILE);
            let mut recorder = Recorder::create(directory.path(), &run(), 0).unwrap();
            let mut ends = Vec::new();
            for (block, measured) in cells.iter().enumerate() {
                recorder.record(&cell(block as u32), measured.clone(), 7).unwrap();
                ends.push(std::fs::metadata(&path).unwrap().len());
            }
            recorder.finish().unwrap();
            let length = *ends.last().unwrap();
            let cut = (length as f64 * cut) as u64;
            OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();

            let (mut recorder, done) = Recorder::resume(directory.path(), 0).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut).count();
            prop_assert_eq!(&done, &(0..whole as u32).map(|block| key(&cell(block))).collect());
            for (block, measured) in cells.iter().enumerate().skip(whole) {
                recorder.record(&cell(block as u32), measured.clone(), 7).unwrap();
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let samples: Vec<Sample> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let expected: Vec<&Measurement> = cells.iter().flatten().collect();
            let kept: Vec<&Sample> = samples.iter().filter(|sample| sample.metric != CELL_DURATION).collect();
            prop_assert_eq!(kept.len(), expected.len());
            for (sample, measurement) in kept.iter().zip(expected) {
                prop_assert_eq!(&sample.outcome, &measurement.outcome);
                prop_assert_eq!(&sample.parameters, &measurement.parameters);
            }
            for (index, sample) in samples.iter().enumerate() {
                prop_assert_eq!(sample.sequence, index as u64);
            }
        }
    }

    #[test]
    fn a_run_that_still_goes_on_is_not_resumed() {
        let directory = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::create(directory.path(), &run(), 0).unwrap();
        recorder.record(&cell(1), Vec::new(), 7).unwrap();
        let error = Recorder::resume(directory.path(), 0).unwrap_err();
        assert!(matches!(&error, RecorderError::Busy { path } if path.ends_with(SAMPLES_FILE)), "{error}");
        recorder.record(&cell(2), Vec::new(), 7).unwrap();
        recorder.finish().unwrap();
        assert_eq!(Recorder::resume(directory.path(), 0).unwrap().1.len(), 2, "nothing was taken from it");
    }

    #[test]
    fn the_description_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        Recorder::create(directory.path(), &run(), 0).unwrap();
        let text = std::fs::read(directory.path().join(RUN_FILE)).unwrap();
        assert_eq!(serde_json::from_slice::<Run>(&text).unwrap(), run());
        let names: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "no temporary file is left: {names:?}");
    }

    #[test]
    fn a_record_of_something_else_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(SAMPLES_FILE);
        std::fs::write(&path, "{\"hello\":1}\n").unwrap();
        let error = Recorder::resume(directory.path(), 0).unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"hello\":1}\n");
    }
}
