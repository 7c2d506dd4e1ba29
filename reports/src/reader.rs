//! Reads and checks the two files of a run. What is read may come from anyone: whatever is wrong is an error that names
//! file, line and remedy, and nothing else comes of it.

use crate::metrics::{self, Kind};
use crate::record::{Outcome, Run, SCHEMA_VERSION, Sample, Value};
use crate::statistics::distribution;
use isobench_workload::Stage;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// File name of the run's description.
pub const RUN_FILE: &str = "run.json";
/// File name of the samples.
pub const SAMPLES_FILE: &str = "samples.jsonl";

/// Everything that a report is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Records {
    /// `run.json`.
    pub run: Run,
    /// `samples.jsonl`, in order.
    pub samples: Vec<Sample>,
}

/// The records of a run that may have been cut short.
#[derive(Clone, Debug, PartialEq)]
pub struct Interrupted {
    /// What is whole.
    pub records: Records,
    /// The line after it, where that was only half written.
    pub incomplete: Option<HalfLine>,
}

/// The half-written last line of a run that was cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfLine {
    /// Its number, from 1.
    pub line: usize,
    /// Bytes of the file before it.
    pub offset: usize,
}

/// Why records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system does not give the file.
    #[error("read {}: name a directory that `isobench run` wrote, with `run.json` and `samples.jsonl` in it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The record is of another version.
    #[error("{} has schema version {found}, and this program reads {SCHEMA_VERSION}: use the isobench that wrote it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version that it has, as it stands there.
        found: String,
    },
    /// The last line was not written to its end.
    #[error("{} line {line} is half written, because the run was cut short: finish it with `isobench run --resume`", path.display())]
    HalfLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A line is not what it must be.
    #[error("{} line {line}: {problem}: restore the file from a copy, or measure again", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: Problem,
    },
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Not JSON, or not with the fields of a record.
    #[error("it is no record of this version ({0})")]
    Json(serde_json::Error),
    /// A sample is missing, or there twice.
    #[error("sequence {found} stands where {expected} must")]
    Gap {
        /// The sequence expected.
        expected: u64,
        /// The sequence found.
        found: u64,
    },
    /// A name that this version, or this run, does not have.
    #[error("unknown {what} `{name}`")]
    Unknown {
        /// What it names.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A name stands twice.
    #[error("sandbox `{0}` stands twice")]
    Twice(String),
    /// A value of another kind than its metric's.
    #[error("metric `{metric}` has a value of kind {found} where {expected} is expected")]
    WrongKind {
        /// The metric.
        metric: String,
        /// The kind found.
        found: &'static str,
        /// The kind expected.
        expected: &'static str,
    },
    /// A metric with another unit or direction than this version's.
    #[error("metric `{0}` has another unit or direction than in this version")]
    OtherMeaning(String),
    /// A transfer that took no time.
    #[error("metric `{0}` has a transfer that took no time")]
    NoTime(String),
    /// A histogram that cannot be read.
    #[error("metric `{metric}`: {error}")]
    Histogram {
        /// The metric.
        metric: String,
        /// What is wrong with it.
        error: distribution::HistogramError,
    },
}

/// Reads the records of a finished run.
///
/// # Errors
/// Where a file cannot be read or is not what this version wrote to its end.
pub fn read(directory: &Path) -> Result<Records, ReadError> {
    let Interrupted { records, incomplete } = read_interrupted(directory)?;
    match incomplete {
        None => Ok(records),
        Some(HalfLine { line, .. }) => Err(ReadError::HalfLine { path: directory.join(SAMPLES_FILE), line }),
    }
}

/// Reads the records of a run that may have been cut short in the middle of its last line, which is left out and told of.
///
/// # Errors
/// Where a file cannot be read, or anything but the end of the last line is not what this version writes.
pub fn read_interrupted(directory: &Path) -> Result<Interrupted, ReadError> {
    let bytes = |name| {
        let path = directory.join(name);
        std::fs::read(&path).map_err(|source| ReadError::Open { path, source })
    };
    parse(directory, &bytes(RUN_FILE)?, &bytes(SAMPLES_FILE)?)
}

/// [`read_interrupted`] from memory; the directory only stands in errors.
///
/// # Errors
/// As there.
pub fn parse(directory: &Path, run: &[u8], samples: &[u8]) -> Result<Interrupted, ReadError> {
    let run = parse_run(&directory.join(RUN_FILE), run)?;
    let path = directory.join(SAMPLES_FILE);
    let mut whole = Vec::new();
    let mut offset = 0;
    for (index, line) in samples.split_inclusive(|byte| *byte == b'\n').enumerate() {
        // The writer ends every line in the same call that writes it: without a newline it was cut short.
        let Some(text) = line.strip_suffix(b"\n") else {
            let incomplete = Some(HalfLine { line: index + 1, offset });
            return Ok(Interrupted { records: Records { run, samples: whole }, incomplete });
        };
        let sample = parse_sample(text, index as u64, &run).map_err(|problem| ReadError::Corrupt {
            path: path.clone(),
            line: index + 1,
            problem,
        })?;
        whole.push(sample);
        offset += line.len();
    }
    Ok(Interrupted { records: Records { run, samples: whole }, incomplete: None })
}

fn parse_run(path: &Path, text: &[u8]) -> Result<Run, ReadError> {
    let corrupt = |line, problem| ReadError::Corrupt { path: path.to_owned(), line, problem };
    let json = |error: serde_json::Error| corrupt(error.line(), Problem::Json(error));
    let value: serde_json::Value = serde_json::from_slice(text).map_err(json)?;
    match value.get("schema") {
        Some(version) if *version != SCHEMA_VERSION => {
            return Err(ReadError::Version { path: path.to_owned(), found: version.to_string() });
        }
        _ => {}
    }
    let run: Run = serde_json::from_slice(text).map_err(json)?;
    check_run(&run).map_err(|problem| corrupt(1, problem))?;
    Ok(run)
}

fn check_run(run: &Run) -> Result<(), Problem> {
    for (name, metric) in &run.metrics {
        let known = metrics::find(name).ok_or_else(|| unknown("metric", name))?;
        if metric.unit != known.unit || metric.better != known.better.name() {
            return Err(Problem::OtherMeaning(name.clone()));
        }
    }
    let mut names = BTreeSet::new();
    match run.sandboxes.iter().find(|sandbox| !names.insert(&sandbox.name)) {
        Some(sandbox) => Err(Problem::Twice(sandbox.name.clone())),
        None => Ok(()),
    }
}

fn parse_sample(text: &[u8], expected: u64, run: &Run) -> Result<Sample, Problem> {
    let sample: Sample = serde_json::from_slice(text).map_err(Problem::Json)?;
    if sample.sequence != expected {
        return Err(Problem::Gap { expected, found: sample.sequence });
    }
    if !run.sandboxes.iter().any(|sandbox| sandbox.name == sample.sandbox) {
        return Err(unknown("sandbox", &sample.sandbox));
    }
    if !run.plan.experiments.contains(&sample.experiment) {
        return Err(unknown("experiment", &sample.experiment));
    }
    let metric = metrics::find(&sample.metric)
        .filter(|metric| run.metrics.contains_key(metric.name))
        .ok_or_else(|| unknown("metric", &sample.metric))?;
    if let Outcome::Value(value) = &sample.outcome {
        check_value(metric.name, metric.kind, value)?;
    }
    Ok(sample)
}

fn check_value(metric: &str, expected: Kind, value: &Value) -> Result<(), Problem> {
    let found = Kind::of(value);
    if found != expected {
        return Err(Problem::WrongKind { metric: metric.to_owned(), found: found.name(), expected: expected.name() });
    }
    match value {
        Value::Transfer { nanoseconds: 0, .. } => Err(Problem::NoTime(metric.to_owned())),
        Value::Stages(stages) => {
            match stages.iter().find(|stage| !Stage::ALL.iter().any(|known| known.name() == stage.stage)) {
                Some(stage) => Err(unknown("stage", &stage.stage)),
                None => Ok(()),
            }
        }
        Value::Histogram(text) => match distribution::decode(text) {
            Ok(_) => Ok(()),
            Err(error) => Err(Problem::Histogram { metric: metric.to_owned(), error }),
        },
        _ => Ok(()),
    }
}

fn unknown(what: &'static str, name: &str) -> Problem {
    Problem::Unknown { what, name: name.to_owned() }
}
