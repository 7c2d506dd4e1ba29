//! The experiments, one file each. They yield measurements and judge nothing.

mod startup;

use crate::cell::{Cell, Measurement};
use crate::programs::Program;
use crate::sandboxes::{Candidate, Kind};
use crate::testbed::Settings;
use crate::testbed::network::Network;
use isobench_reports::record::{Metric, Outcome, SandboxRecord, Value};
use isobench_workload::Sandbox;
use std::collections::BTreeMap;
use std::rc::Rc;

/// One experiment.
#[derive(Debug)]
pub struct Experiment {
    /// The name used in records and on the command line.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub text: &'static str,
    /// Randomised blocks of it in the quick suite.
    pub quick_blocks: u32,
    /// Whether it can run the user's own program in place of its workload.
    pub takes_program: bool,
    /// What it measures.
    pub metrics: &'static [MetricText],
    /// The points that one cell of it yields in a sandbox: none where it does not apply.
    points: fn(&Kind) -> Vec<Point>,
    measure: fn(&mut Ground, &Kind, &mut dyn Sandbox, &Cell, &mut Sheet) -> anyhow::Result<()>,
}

/// A metric as an experiment declares it.
#[derive(Debug)]
pub struct MetricText {
    /// The metric's name.
    pub name: &'static str,
    /// Base unit.
    pub unit: &'static str,
    /// Which way is better.
    pub better: &'static str,
    /// What it is, in one sentence.
    pub text: &'static str,
}

/// Every experiment, in the order of the report.
pub fn all() -> &'static [Experiment] {
    static ALL: [Experiment; 1] = [startup::EXPERIMENT];
    &ALL
}

/// The experiment with this name.
pub fn named(name: &str) -> Option<&'static Experiment> {
    all().iter().find(|experiment| experiment.name == name)
}

/// What each metric's values mean, as `run.json` has it.
pub fn metrics() -> BTreeMap<String, Metric> {
    all()
        .iter()
        .flat_map(|experiment| experiment.metrics)
        .map(|metric| {
            let described = Metric { unit: metric.unit.into(), better: metric.better.into(), text: metric.text.into() };
            (metric.name.to_owned(), described)
        })
        .collect()
}

impl Experiment {
    /// Whether it has anything to measure in a sandbox.
    pub fn applies(&self, sandbox: &SandboxRecord) -> bool {
        Kind::named(&sandbox.name).is_some_and(|kind| !(self.points)(kind).is_empty())
    }

    /// Measures one cell. Every point has a value or an error in its place; a failure is never a zero and never a stop.
    pub(crate) fn measure(&self, ground: &mut Ground, candidate: &mut Candidate, cell: &Cell) -> Vec<Measurement> {
        let mut sheet = Sheet::default();
        let outcome = match &mut candidate.sandbox {
            Ok(sandbox) => (self.measure)(ground, candidate.kind, sandbox.as_mut(), cell, &mut sheet),
            Err(reason) => Err(anyhow::anyhow!(reason.clone())),
        };
        let reason = match outcome {
            Ok(()) => "it was not measured".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        for point in (self.points)(candidate.kind) {
            if !sheet.has(&point) {
                sheet.write(&point, 0, Outcome::Error(reason.clone()));
            }
        }
        sheet.measurements
    }
}

/// What an experiment stands on: the simulated host's side.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) settings: Settings,
    pub(crate) agent: Rc<Program>,
    pub(crate) network: Network,
}

/// A metric with the parameters that tell its samples apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Point {
    metric: &'static str,
    parameters: BTreeMap<String, String>,
}

impl Point {
    fn plain(metric: &'static str) -> Self {
        Self { metric, parameters: BTreeMap::new() }
    }

    fn with(metric: &'static str, parameters: &[(&str, &str)]) -> Self {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { metric, parameters }
    }
}

/// The measurements of one cell as they are taken.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    measurements: Vec<Measurement>,
}

impl Sheet {
    fn write(&mut self, point: &Point, instance: u32, outcome: Outcome) {
        let metric = point.metric.to_owned();
        self.measurements.push(Measurement { instance, metric, parameters: point.parameters.clone(), outcome });
    }

    fn value(&mut self, point: &Point, value: Value) {
        self.write(point, 0, Outcome::Value(value));
    }

    fn has(&self, point: &Point) -> bool {
        self.measurements
            .iter()
            .any(|measurement| measurement.metric == point.metric && measurement.parameters == point.parameters)
    }
}

/// Every error of an instance's end, in one sentence.
fn ended(errors: Vec<Box<dyn std::error::Error + Send + Sync>>) -> anyhow::Error {
    let texts: Vec<String> =
        errors.into_iter().map(|error| format!("{:#}", anyhow::Error::from_boxed(error))).collect();
    anyhow::anyhow!(texts.join("; "))
}
