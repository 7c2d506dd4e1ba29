//! What a student's directory holds: `lab.json`, and the records of the run beside it.

use super::prediction::Prediction;
use super::{Lab, seal};
use crate::machine;
use isobench_reports::reader::{RUN_FILE, SAMPLES_FILE};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The version of the records of labs that this program writes. Readers refuse any other.
pub const SCHEMA_VERSION: u32 = 1;

/// Where the labs of one student are kept, below the working directory.
pub const DIRECTORY: &str = "isobench-labs";
/// File name of [`LabRecord`].
const FILE: &str = "lab.json";
/// Directory of the records of the run.
const RUN: &str = "records";

/// Who predicted what and when, and what was measured after that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabRecord {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema: u32,
    /// The lab's name.
    pub lab: String,
    /// The student, as typed.
    pub student: String,
    /// The seed of the order of measurements.
    pub seed: u32,
    /// The prediction as typed.
    pub typed: String,
    /// The prediction.
    pub prediction: Prediction,
    /// When it was made, RFC 3339, UTC.
    pub predicted: String,
    /// Where.
    pub machine: MachineMark,
    /// Version of the program.
    pub program: String,
    /// What was measured, once it was.
    pub measured: Option<MeasuredRun>,
    /// SHA-256 of all other fields.
    pub seal: String,
}

/// What tells machines apart without naming them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineMark {
    /// A digest of `/etc/machine-id` that only this program makes, as machine-id(5) asks for; absent where there is none.
    pub id: Option<String>,
    /// Kernel release.
    pub kernel: String,
}

/// The records of a finished run, by their digests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeasuredRun {
    /// How many times it was measured: only the last one is kept.
    pub times: u32,
    /// When the last one ended, RFC 3339, UTC.
    pub ended: String,
    /// Digests of the records.
    pub digests: Digests,
}

/// SHA-256 of the files of a run, hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Digests {
    /// Of `run.json`.
    pub run: String,
    /// Of `samples.jsonl`.
    pub samples: String,
}

/// Why a lab cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// It was started before.
    #[error("the lab `{lab}` was started before, and a prediction stands: go on with `isobench lab run {lab}`, or remove {} and lose its records", path.display())]
    StartedBefore {
        /// The lab.
        lab: String,
        /// Its directory.
        path: PathBuf,
    },
    /// It was not started.
    #[error("the lab `{0}` was not started here: predict first, with `isobench lab start {0}`")]
    NotStarted(String),
    /// It was not measured.
    #[error("the lab `{0}` has not been measured: do that with `isobench lab run {0}`")]
    NotMeasured(String),
    /// It was measured before.
    #[error(
        "the lab `{0}` has been measured: compare with `isobench lab check {0}`, or measure it anew with `isobench lab run {0} --again`"
    )]
    MeasuredBefore(String),
    /// A file is not what this program writes.
    #[error("{} is no record of a lab: {problem}; get it from whoever wrote it again, or do the lab anew", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file was changed after it was written.
    #[error("{} was changed after isobench wrote it: its digest does not fit; do the lab anew", .0.display())]
    Changed(PathBuf),
    /// A file belongs to another lab or run.
    #[error("{} does not belong to this lab: {problem}; do the lab anew", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// The system refused.
    #[error("{operation} {}: {source}", path.display())]
    System {
        /// The operation.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A record that carries its own seal.
pub(super) trait Sealed: Serialize + DeserializeOwned {
    /// The seal that it carries.
    fn seal(&mut self) -> &mut String;
}

impl Sealed for LabRecord {
    fn seal(&mut self) -> &mut String {
        &mut self.seal
    }
}

/// The directory of one lab.
#[derive(Clone, Debug)]
pub struct Place {
    lab: &'static Lab,
    directory: PathBuf,
}

impl Place {
    /// The directory of a lab below the working directory.
    pub fn of(lab: &'static Lab) -> Self {
        Self::below(Path::new(DIRECTORY), lab)
    }

    /// The directory of a lab below another one.
    pub fn below(parent: &Path, lab: &'static Lab) -> Self {
        Self { lab, directory: parent.join(lab.id()) }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the records of the run are.
    pub fn run(&self) -> PathBuf {
        self.directory.join(RUN)
    }

    fn file(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// Whether there are records of a run, finished or not.
    pub fn has_run(&self) -> bool {
        self.run().join(RUN_FILE).exists()
    }

    /// Removes the records of the run, to measure anew.
    ///
    /// # Errors
    /// Where they cannot be removed.
    pub fn forget_run(&self) -> Result<(), LabError> {
        match self.run().try_exists() {
            Ok(false) => Ok(()),
            _ => system("remove", &self.run(), fs::remove_dir_all(self.run())),
        }
    }

    /// Sees that the lab may be started.
    ///
    /// # Errors
    /// Where it was.
    pub fn expect_not_started(&self) -> Result<(), LabError> {
        match self.directory.try_exists() {
            Ok(false) => Ok(()),
            Ok(true) => Err(LabError::StartedBefore { lab: self.lab.id().to_owned(), path: self.directory.clone() }),
            Err(source) => Err(LabError::System { operation: "look for", path: self.directory.clone(), source }),
        }
    }

    /// Makes the directory with the prediction in it.
    ///
    /// # Errors
    /// Where there is one, or it cannot be written.
    pub fn start(&self, student: &str, seed: u32, typed: &str, prediction: Prediction) -> Result<LabRecord, LabError> {
        self.expect_not_started()?;
        let mut record = LabRecord {
            schema: SCHEMA_VERSION,
            lab: self.lab.id().to_owned(),
            student: student.to_owned(),
            seed,
            typed: typed.trim().to_owned(),
            prediction,
            predicted: now(),
            machine: machine_mark(),
            program: format!("isobench {}", machine::version()),
            measured: None,
            seal: String::new(),
        };
        system("make", &self.directory, fs::create_dir_all(&self.directory))?;
        write(&self.file(), &mut record)?;
        Ok(record)
    }

    /// Reads who predicted what.
    ///
    /// # Errors
    /// Where the lab was not started, or the file is not as it was written.
    pub fn read(&self) -> Result<LabRecord, LabError> {
        let path = self.file();
        if matches!(path.try_exists(), Ok(false)) {
            return Err(LabError::NotStarted(self.lab.id().to_owned()));
        }
        let record: LabRecord = read(&path)?;
        if record.lab != self.lab.id() {
            return Err(LabError::Foreign { path, problem: format!("it is a record of the lab `{}`", record.lab) });
        }
        Ok(record)
    }

    /// Writes down that a run has been measured, and its digests.
    ///
    /// # Errors
    /// Where a file cannot be read or written.
    pub fn measured(&self, mut record: LabRecord) -> Result<LabRecord, LabError> {
        let times = record.measured.map_or(0, |measured| measured.times) + 1;
        record.measured = Some(MeasuredRun { times, ended: now(), digests: self.digests()? });
        write(&self.file(), &mut record)?;
        Ok(record)
    }

    /// Digests of the records as they are now.
    ///
    /// # Errors
    /// Where one cannot be read.
    pub fn digests(&self) -> Result<Digests, LabError> {
        let digest = |name: &str| {
            let path = self.run().join(name);
            Ok(seal::digest(&system("read", &path, fs::read(&path))?))
        };
        Ok(Digests { run: digest(RUN_FILE)?, samples: digest(SAMPLES_FILE)? })
    }

    /// Where the file to hand in is: it carries the student's name, so that a class's files fit into one directory.
    pub fn hand_in(&self, student: &str) -> PathBuf {
        let letters = student.chars().map(|character| if character.is_alphanumeric() { character } else { '-' });
        let name: String = letters.take(60).collect();
        self.directory.join(format!("{}-{name}{}", self.lab.id(), super::check::SUFFIX))
    }
}

/// Reads a sealed record.
pub(super) fn read<T: Sealed>(path: &Path) -> Result<T, LabError> {
    let broken = |problem: String| LabError::Broken { path: path.to_owned(), problem };
    let text = system("read", path, fs::read(path))?;
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
    match value.get("schema") {
        Some(version) if *version == SCHEMA_VERSION => {}
        Some(version) => {
            return Err(broken(format!("it has schema version {version}, and this program reads {SCHEMA_VERSION}")));
        }
        None => return Err(broken("it has no schema version".to_owned())),
    }
    let mut record: T = serde_json::from_value(value).map_err(|error| broken(error.to_string()))?;
    let sealed = record.seal().clone();
    if seal::seal(&record) != sealed {
        return Err(LabError::Changed(path.to_owned()));
    }
    Ok(record)
}

/// Seals a record and writes it, whole or not at all.
pub(super) fn write<T: Sealed>(path: &Path, record: &mut T) -> Result<(), LabError> {
    *record.seal() = seal::seal(record);
    let text = serde_json::to_string_pretty(record).unwrap_or_default() + "\n";
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = system("make a file in", directory, tempfile::NamedTempFile::new_in(directory))?;
    system("write", path, io::Write::write_all(&mut file, text.as_bytes()))?;
    // A temporary file is its owner's alone; this one is to be handed in.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    system("write", path, file.as_file().set_permissions(readable))?;
    system("write", path, file.persist(path).map_err(|error| error.error))?;
    Ok(())
}

pub(super) fn system<T>(operation: &'static str, path: &Path, result: io::Result<T>) -> Result<T, LabError> {
    result.map_err(|source| LabError::System { operation, path: path.to_owned(), source })
}

/// The time, RFC 3339, UTC.
pub(super) fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// What tells this machine apart.
fn machine_mark() -> MachineMark {
    // machine-id(5): the id is confidential, so what leaves the machine is a digest keyed with the application's name.
    let id = fs::read_to_string("/etc/machine-id").ok().filter(|id| !id.trim().is_empty());
    let id = id.map(|id| seal::digest(format!("isobench lab {}", id.trim()).as_bytes())[..16].to_owned());
    MachineMark { id, kernel: machine::boot_and_kernel().1 }
}
