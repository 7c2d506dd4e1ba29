//! A class's files in one table.

use super::check::{self, CheckRecord, Evidence, SUFFIX};
use super::prediction::digits;
use super::record::{LabError, system};
use isobench_reports::csv::harmless;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One file that was handed in.
#[derive(Debug)]
pub struct HandedIn {
    /// The file.
    pub path: PathBuf,
    /// What it holds, or why it cannot be used.
    pub check: Result<CheckRecord, LabError>,
}

/// Reads what was handed in: files as named, and of directories every file below whose name ends in `.check.json`.
///
/// # Errors
/// Where a directory cannot be read. A file that cannot be used is in the list, with the reason.
pub fn read(paths: &[PathBuf]) -> Result<Vec<HandedIn>, LabError> {
    let mut files = Vec::new();
    for path in paths {
        if system("read", path, fs::metadata(path))?.is_dir() {
            find(path, &mut files)?;
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    files.dedup();
    Ok(files.into_iter().map(|path| HandedIn { check: check::read(&path), path }).collect())
}

fn find(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), LabError> {
    for entry in system("read", directory, fs::read_dir(directory))? {
        let entry = system("read", directory, entry)?;
        let path = entry.path();
        // A link is not followed: it could lead round in a circle.
        let kind = system("look at", &path, entry.file_type())?;
        if kind.is_dir() {
            find(&path, files)?;
        } else if kind.is_file() && entry.file_name().to_string_lossy().ends_with(SUFFIX) {
            files.push(path);
        }
    }
    Ok(())
}

/// The columns of the table.
const COLUMNS: [&str; 19] = [
    "student",
    "lab",
    "seed",
    "prediction",
    "measured",
    "low",
    "high",
    "unit",
    "hit",
    "supported",
    "contradicted",
    "undecided",
    "missing",
    "verdicts",
    "times_measured",
    "samples_digest",
    "machine",
    "same_samples_as",
    "problem",
];

/// The table as CSV (RFC 4180), one row for each file.
pub fn table(files: &[HandedIn]) -> String {
    let owners = owners(files);
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut row = |cells: &[String]| {
        let cells = cells.iter().map(|cell| harmless(cell).into_owned());
        writer.write_record(cells).expect("writing to memory cannot fail, and every row has as many cells");
    };
    row(&COLUMNS.map(str::to_owned));
    for file in files {
        match &file.check {
            Ok(check) => row(&cells(check, &owners)),
            Err(error) => {
                let mut cells = vec![String::new(); COLUMNS.len()];
                cells[COLUMNS.len() - 1] = error.to_string();
                row(&cells);
            }
        }
    }
    let bytes = writer.into_inner().expect("writing to memory cannot fail");
    String::from_utf8(bytes).expect("every cell was text")
}

/// Who handed in which samples.
fn owners(files: &[HandedIn]) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut owners: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for check in files.iter().filter_map(|file| file.check.as_ref().ok()) {
        owners.entry(&check.digests.samples).or_default().insert(&check.student);
    }
    owners
}

/// Files whose samples another student handed in as well.
pub fn duplicates(files: &[HandedIn]) -> usize {
    let owners = owners(files);
    let checks = files.iter().filter_map(|file| file.check.as_ref().ok());
    checks.filter(|check| owners[check.digests.samples.as_str()].len() > 1).count()
}

fn cells(check: &CheckRecord, owners: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<String> {
    let (prediction, unit) = parts(&check.prediction);
    let measured = check.measured.as_ref();
    let bound = |bound: fn((f64, f64)) -> f64| {
        measured.and_then(|measured| measured.interval).map(|interval| digits(bound(interval))).unwrap_or_default()
    };
    let count = |sought: Evidence| {
        check.observations.iter().filter(|observation| observation.evidence == sought).count().to_string()
    };
    let verdicts: Vec<String> =
        check.verdicts.iter().map(|verdict| format!("{}={}", verdict.claim, verdict.answer)).collect();
    let others = owners[check.digests.samples.as_str()].iter().filter(|student| **student != check.student);
    vec![
        check.student.clone(),
        check.lab.clone(),
        check.seed.to_string(),
        prediction,
        measured.map(|measured| parts(&measured.answer).0).unwrap_or_default(),
        bound(|interval| interval.0),
        bound(|interval| interval.1),
        unit,
        check.comparison.as_ref().map(|comparison| yes(comparison.hit)).unwrap_or_default(),
        count(Evidence::Supported),
        count(Evidence::Contradicted),
        count(Evidence::Undecided),
        count(Evidence::Missing),
        verdicts.join(" "),
        check.times.to_string(),
        check.digests.samples.clone(),
        check.machine.id.clone().unwrap_or_default(),
        others.copied().collect::<Vec<_>>().join("; "),
        String::new(),
    ]
}

fn yes(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

/// Value and unit in cells of their own.
fn parts(prediction: &super::prediction::Prediction) -> (String, String) {
    use super::prediction::Prediction;
    match prediction {
        Prediction::Yes(truth) => (yes(*truth), String::new()),
        Prediction::Number { value, unit } => (digits(*value), unit.clone()),
    }
}
