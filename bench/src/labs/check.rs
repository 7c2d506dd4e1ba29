//! Prediction against measurement, and what the records show: evidence, never prose.

use super::description::{Description, Measured, Observation, Quantity};
use super::prediction::{Prediction, nanoseconds};
use super::record::{self, Digests, LabError, LabRecord, MachineMark, Place, SCHEMA_VERSION, Sealed};
use super::{Lab, named};
use isobench_reports::reader::{self, Records, SAMPLES_FILE};
use isobench_reports::render::view::View;
use isobench_reports::statistics::paired::Pairs;
use isobench_reports::statistics::{Estimate, median_estimate};
use isobench_reports::summary::{Data, LEVEL, Numbers, Parameters, block_medians};
use isobench_reports::verdict::{Answer, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How the name of a file to hand in ends.
pub const SUFFIX: &str = ".check.json";

/// What a student hands in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckRecord {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema: u32,
    /// The lab's name.
    pub lab: String,
    /// The student, as typed.
    pub student: String,
    /// The seed of the order of measurements.
    pub seed: u32,
    /// When the prediction was made, RFC 3339, UTC.
    pub predicted: String,
    /// The prediction.
    pub prediction: Prediction,
    /// What was measured in its place; absent where the records do not say.
    pub measured: Option<MeasuredAnswer>,
    /// How the two compare; absent where nothing was measured.
    pub comparison: Option<Comparison>,
    /// What the records show.
    pub observations: Vec<ObservationResult>,
    /// What they say about each claim of the lab.
    pub verdicts: Vec<VerdictEntry>,
    /// Digests of the records.
    pub digests: Digests,
    /// How many times it was measured: only the last one counts.
    pub times: u32,
    /// Versions of the program: of the one that measured, and of the one that checked.
    pub versions: Versions,
    /// Where it was measured.
    pub machine: MachineMark,
    /// What emulates the machine, where something does.
    pub emulation: Option<String>,
    /// When it was checked, RFC 3339, UTC.
    pub checked: String,
    /// SHA-256 of all other fields.
    pub seal: String,
}

impl Sealed for CheckRecord {
    fn seal(&mut self) -> &mut String {
        &mut self.seal
    }
}

/// A number or a truth with its interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeasuredAnswer {
    /// In the form of the prediction.
    pub answer: Prediction,
    /// Bounds of the interval, in the same unit; absent for yes and no, and below six blocks.
    pub interval: Option<(f64, f64)>,
    /// Level of the interval.
    pub level: Option<f64>,
    /// Blocks.
    pub blocks: Option<usize>,
}

/// How prediction and measurement compare.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Whether the prediction is what was measured: the same truth, or a number within the interval.
    pub hit: bool,
    /// Prediction less measurement, in the unit of both; absent for yes and no.
    pub off_by: Option<f64>,
}

/// What the records say about an observation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ObservationResult {
    /// The claim whose facts or figures show it.
    pub claim: String,
    /// The observation, in English.
    pub text: String,
    /// What the records say.
    pub evidence: Evidence,
}

/// What the records say about an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// They show it.
    Supported,
    /// They show the contrary.
    Contradicted,
    /// They do not decide.
    Undecided,
    /// They hold nothing about it.
    Missing,
}

/// What the records say about a claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerdictEntry {
    /// The claim.
    pub claim: String,
    /// The answer's name.
    pub answer: String,
}

/// Versions of the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// The one that measured.
    pub measured: String,
    /// SHA-256 of its file.
    pub measured_digest: String,
    /// The one that checked.
    pub checked: String,
}

/// Reads a lab's records and compares.
///
/// # Errors
/// Where the lab was not measured, or anything in its directory is not as it was written.
pub fn check(lab: &'static Lab, place: &Place) -> Result<CheckRecord, LabError> {
    let record = place.read()?;
    let Some(measured) = &record.measured else { return Err(LabError::NotMeasured(lab.id().to_owned())) };
    let directory = place.run();
    let records = reader::read(&directory)
        .map_err(|error| LabError::Broken { path: directory.clone(), problem: error.to_string() })?;
    if place.digests()? != measured.digests {
        return Err(LabError::Changed(directory.join(SAMPLES_FILE)));
    }
    if records.run.plan.seed != u64::from(record.seed) {
        let problem = format!("its seed is {}, and the student's is {}", records.run.plan.seed, record.seed);
        return Err(LabError::Foreign { path: directory, problem });
    }
    Ok(compare(&lab.description, &record, measured.digests.clone(), measured.times, &records))
}

/// Compares a prediction with records.
pub fn compare(lab: &Description, record: &LabRecord, digests: Digests, times: u32, records: &Records) -> CheckRecord {
    let view = View::new(records);
    let measured = measured(&lab.prediction.measured, &view);
    let verdicts = lab.claims.iter().filter_map(|id| verdict(&view, id));
    let verdicts = verdicts
        .map(|verdict| VerdictEntry { claim: verdict.claim.id.clone(), answer: verdict.answer.key().to_owned() })
        .collect();
    let observations = lab.observations.iter().map(|observation| ObservationResult {
        claim: observation.claim.clone(),
        text: observation.text.en.clone(),
        evidence: evidence(&view, observation),
    });
    CheckRecord {
        schema: SCHEMA_VERSION,
        lab: record.lab.clone(),
        student: record.student.clone(),
        seed: record.seed,
        predicted: record.predicted.clone(),
        prediction: record.prediction.clone(),
        comparison: measured.as_ref().map(|measured| comparison(&record.prediction, measured)),
        measured,
        observations: observations.collect(),
        verdicts,
        digests,
        times,
        versions: Versions {
            measured: records.run.program.clone(),
            measured_digest: records.run.program_digest.clone(),
            checked: format!("isobench {}", crate::machine::version()),
        },
        machine: record.machine.clone(),
        emulation: records.run.machine.emulation().map(str::to_owned),
        checked: record::now(),
        seal: String::new(),
    }
}

/// Writes the file to hand in.
///
/// # Errors
/// Where it cannot be written.
pub fn write(place: &Place, check: &mut CheckRecord) -> Result<PathBuf, LabError> {
    let path = place.hand_in(&check.student);
    record::write(&path, check)?;
    Ok(path)
}

/// Reads a file that was handed in.
///
/// # Errors
/// Where it is not as it was written, or of a lab that is none.
pub fn read(path: &Path) -> Result<CheckRecord, LabError> {
    let check: CheckRecord = record::read(path)?;
    named(&check.lab).map_err(|error| LabError::Broken { path: path.to_owned(), problem: error.to_string() })?;
    Ok(check)
}

fn verdict<'a>(view: &'a View<'_>, claim: &str) -> Option<&'a Verdict> {
    view.verdicts.iter().find(|verdict| verdict.claim.id == claim)
}

fn evidence(view: &View<'_>, observation: &Observation) -> Evidence {
    let Some(verdict) = verdict(view, &observation.claim) else { return Evidence::Missing };
    let wanted = |metric: &str, sandbox: &str| {
        observation.metric.as_deref().is_none_or(|wanted| wanted == metric)
            && observation.sandbox.as_deref().is_none_or(|wanted| wanted == sandbox)
    };
    let whole = observation.metric.is_none() && observation.sandbox.is_none();
    if whole {
        return match verdict.answer {
            Answer::Confirmed | Answer::ShownByConstruction => Evidence::Supported,
            Answer::Refuted => Evidence::Contradicted,
            Answer::Split | Answer::Inconclusive => Evidence::Undecided,
            Answer::NotMeasurable | Answer::NotTested => Evidence::Missing,
        };
    }
    let facts = verdict.facts.iter().filter(|fact| fact.blocks > 0 && wanted(&fact.metric, &fact.sandbox));
    let figures = verdict.figures.iter().filter(|figure| wanted(&figure.metric, &figure.sandbox));
    let answers: Vec<Answer> = facts.map(|fact| fact.answer).chain(figures.map(|figure| figure.answer)).collect();
    let every = |sought: Answer| answers.iter().all(|answer| *answer == sought);
    match () {
        () if answers.is_empty() => Evidence::Missing,
        () if every(Answer::Confirmed) => Evidence::Supported,
        () if every(Answer::Refuted) => Evidence::Contradicted,
        () => Evidence::Undecided,
    }
}

fn comparison(prediction: &Prediction, measured: &MeasuredAnswer) -> Comparison {
    match (prediction, &measured.answer) {
        (Prediction::Number { value, .. }, Prediction::Number { value: found, .. }) => {
            let hit = measured.interval.is_some_and(|(low, high)| (low..=high).contains(value));
            Comparison { hit, off_by: Some(value - found) }
        }
        (prediction, found) => Comparison { hit: prediction == found, off_by: None },
    }
}

fn measured(question: &Measured, view: &View<'_>) -> Option<MeasuredAnswer> {
    match question {
        Measured::Claim { claim } => {
            let yes = match verdict(view, claim)?.answer {
                Answer::Confirmed | Answer::ShownByConstruction => true,
                Answer::Refuted => false,
                _ => return None,
            };
            Some(MeasuredAnswer { answer: Prediction::Yes(yes), interval: None, level: None, blocks: None })
        }
        Measured::Number {
            quantity, unit, metric, stage, sandbox, parameters, against, against_parameters, ..
        } => {
            let numbers = |sandbox: &str, parameters| numbers(view, metric, stage.as_deref(), sandbox, parameters);
            let first = block_medians(&numbers(sandbox, parameters)?.points);
            let second = block_medians(&numbers(against, against_parameters.as_ref().unwrap_or(parameters))?.points);
            let pairs: Vec<(f64, f64)> =
                first.iter().filter_map(|(block, value)| Some((*value, *second.get(block)?))).collect();
            let estimate = estimate(*quantity, &pairs, unit)?;
            Some(MeasuredAnswer {
                answer: Prediction::Number { value: estimate.value, unit: unit.clone() },
                interval: estimate.interval,
                level: estimate.interval.map(|_| estimate.level),
                blocks: Some(estimate.blocks),
            })
        }
    }
}

/// The numbers of a series, or of one stage of it.
fn numbers<'a>(
    view: &'a View<'_>,
    metric: &str,
    stage: Option<&str>,
    sandbox: &str,
    parameters: &Parameters,
) -> Option<&'a Numbers> {
    let series = view
        .series
        .iter()
        .find(|series| series.metric == metric && series.sandbox == sandbox && series.parameters == *parameters)?;
    match (&series.data, stage) {
        (Data::Numbers(numbers), None) => Some(numbers),
        (Data::Stages(stages), Some(name)) => Some(&stages.iter().find(|stage| stage.name == name)?.at),
        _ => None,
    }
}

/// Median over the blocks' own quantities with its interval, in the unit of the question.
fn estimate(quantity: Quantity, pairs: &[(f64, f64)], unit: &str) -> Option<Estimate> {
    let map = |estimate: Estimate, change: &dyn Fn(f64) -> f64| Estimate {
        value: change(estimate.value),
        interval: estimate.interval.map(|(low, high)| (change(low), change(high))),
        ..estimate
    };
    match quantity {
        Quantity::Difference => {
            let scale = nanoseconds(unit)?;
            let differences: Vec<f64> = pairs.iter().map(|(first, second)| (first - second) / scale).collect();
            median_estimate(&differences, LEVEL)
        }
        Quantity::Change => Some(map(Pairs::ratios(pairs)?.estimate(LEVEL)?, &|ratio| (ratio - 1.0) * 100.0)),
        Quantity::Share => Some(map(Pairs::ratios(pairs)?.estimate(LEVEL)?, &|ratio| ratio * 100.0)),
    }
}
