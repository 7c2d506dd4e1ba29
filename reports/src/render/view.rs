//! Records, their summary and their verdicts, as charts and pages look things up in them.

use super::remarks::translated;
use crate::messages::Messages;
use crate::palette::family_name;
use crate::reader::Records;
use crate::record::SandboxRecord;
use crate::statistics::paired::Pairs;
use crate::statistics::{Estimate, median_estimate};
use crate::summary::{self, Data, Line, Numbers, Parameters, Series, block_medians};
use crate::verdict::{self, Verdict};
use isobench_workload::Family;
use std::collections::{BTreeMap, BTreeSet};

/// Everything that a report shows, computed once for both languages.
#[derive(Debug)]
pub struct View<'a> {
    /// The records.
    pub records: &'a Records,
    /// Their series.
    pub series: Vec<Series>,
    /// Memory over the number of instances.
    pub lines: Vec<Line>,
    /// What they say about each claim.
    pub verdicts: Vec<Verdict>,
}

/// What could not be measured on a machine.
#[derive(Clone, Copy, Debug)]
pub struct Gap<'a> {
    /// The sandbox.
    pub sandbox: &'a str,
    /// The experiment, where it is not all of them.
    pub experiment: Option<&'a str>,
    /// The reason, in one English sentence.
    pub reason: &'a str,
}

impl Gap<'_> {
    /// What it is about, for a table.
    #[must_use]
    pub fn label(&self) -> String {
        self.experiment.map_or_else(|| self.sandbox.to_owned(), |experiment| format!("{}, {experiment}", self.sandbox))
    }
}

impl<'a> View<'a> {
    /// Computes summary and verdicts of records.
    #[must_use]
    pub fn new(records: &'a Records) -> Self {
        let series = summary::summary(records);
        let lines = summary::lines(&series);
        Self { records, series, lines, verdicts: verdict::evaluate(records) }
    }

    /// The sandboxes that took part, in the run's order.
    pub fn measured(&self) -> impl Iterator<Item = &'a SandboxRecord> {
        self.records.run.sandboxes.iter().filter(|sandbox| sandbox.unavailable.is_none())
    }

    /// How many sandboxes there are samples of. Others took part by name alone: a short suite leaves out what takes long.
    #[must_use]
    pub fn sampled(&self) -> usize {
        let of = |series: &&Series| match &series.data {
            Data::Numbers(numbers) => numbers.estimate.is_some(),
            Data::Stages(stages) => !stages.is_empty(),
            Data::Distribution(distribution) => distribution.blocks > 0,
            Data::Facts(facts) => !facts.is_empty(),
        };
        self.series.iter().filter(of).map(|series| series.sandbox.as_str()).collect::<BTreeSet<_>>().len()
    }

    /// What could not be measured: whole sandboxes, and of others single experiments.
    pub fn unavailable(&self) -> impl Iterator<Item = Gap<'a>> {
        self.records.run.sandboxes.iter().flat_map(|sandbox| {
            let whole = sandbox.unavailable.as_deref().map(|reason| (None, reason));
            let parts = sandbox.gaps.iter().map(|(experiment, reason)| (Some(experiment.as_str()), reason.as_str()));
            let sandbox = sandbox.name.as_str();
            whole.into_iter().chain(parts).map(move |(experiment, reason)| Gap { sandbox, experiment, reason })
        })
    }

    /// A sandbox's family; samples of one that the run does not name are drawn as a peer's.
    #[must_use]
    pub fn family(&self, sandbox: &str) -> Family {
        self.find(sandbox).map_or(Family::Peer, |sandbox| sandbox.family)
    }

    /// What emulates a sandbox, or the whole machine.
    #[must_use]
    pub fn emulation(&self, sandbox: &str) -> Option<&'a str> {
        self.records.run.emulation(sandbox)
    }

    /// A sandbox's name with what emulates it, for tables.
    #[must_use]
    pub fn labelled(&self, messages: &Messages, sandbox: &str) -> String {
        self.emulation(sandbox).map_or_else(|| sandbox.to_owned(), |emulation| emulated(messages, sandbox, emulation))
    }

    fn find(&self, name: &str) -> Option<&'a SandboxRecord> {
        self.records.run.sandboxes.iter().find(|sandbox| sandbox.name == name)
    }

    /// A series by metric, sandbox and exact parameters.
    #[must_use]
    pub fn find_series(&self, metric: &str, sandbox: &str, parameters: &[(&str, &str)]) -> Option<&Series> {
        self.series.iter().find(|series| {
            series.metric == metric && series.sandbox == sandbox && has_exactly(&series.parameters, parameters)
        })
    }

    /// The numbers of a series, where it has any.
    #[must_use]
    pub fn numbers(&self, metric: &str, sandbox: &str, parameters: &[(&str, &str)]) -> Option<&Numbers> {
        match &self.find_series(metric, sandbox, parameters)?.data {
            Data::Numbers(numbers) if numbers.estimate.is_some() => Some(numbers),
            _ => None,
        }
    }

    /// The line of host memory of a sandbox.
    #[must_use]
    pub fn memory(&self, sandbox: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.metric == "memory.host" && line.sandbox == sandbox)
    }
}

fn has_exactly(parameters: &Parameters, wanted: &[(&str, &str)]) -> bool {
    parameters.len() == wanted.len()
        && wanted.iter().all(|(name, value)| parameters.get(*name).is_some_and(|found| found == value))
}

/// How two sandboxes compare within blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Median of the first over all its blocks.
    pub first: f64,
    /// Median of the second.
    pub second: f64,
    /// Median of the ratios first / second.
    pub ratio: Estimate,
    /// Median of the differences first - second.
    pub difference: Estimate,
}

impl Comparison {
    /// Compares two series of numbers in the blocks that both have. `None` where there are too few for an interval: a title
    /// states nothing without one.
    #[must_use]
    pub fn new(first: &Numbers, second: &Numbers) -> Option<Self> {
        let (one, other) = (block_medians(&first.points), block_medians(&second.points));
        let pairs = pairs(&one, &other);
        let differences: Vec<f64> = pairs.iter().map(|(one, other)| one - other).collect();
        let comparison = Self {
            first: first.estimate?.value,
            second: second.estimate?.value,
            ratio: Pairs::ratios(&pairs)?.estimate(0.95)?,
            difference: median_estimate(&differences, 0.95)?,
        };
        (comparison.ratio.interval.is_some() && comparison.difference.interval.is_some()).then_some(comparison)
    }

    /// Whether a difference was shown: the interval of the differences lies on one side of nought, and that of the ratios on
    /// the same side of one.
    #[must_use]
    pub fn differs(&self) -> bool {
        let beside =
            |estimate: Estimate, point: f64| estimate.interval.is_some_and(|(low, high)| low > point || high < point);
        beside(self.ratio, 1.0) && beside(self.difference, 0.0)
    }
}

fn pairs(one: &BTreeMap<u32, f64>, other: &BTreeMap<u32, f64>) -> Vec<(f64, f64)> {
    one.iter().filter_map(|(block, value)| Some((*value, *other.get(block)?))).collect()
}

/// A name with what emulates it.
#[must_use]
pub fn emulated(messages: &Messages, name: &str, emulation: &str) -> String {
    messages.format("emulated-name", &[("name", name), ("emulation", &translated(messages, emulation))])
}

/// A family's message key.
#[must_use]
pub fn family_key(family: Family) -> String {
    format!("family-{}", family_name(family))
}
