//! Two runs against each other: has anything become worse?
//!
//! The blocks of two runs are not paired, so the ratio is that of the two medians, each run's blocks drawn by themselves,
//! and the probability is that of the rank-sum test, adjusted by Holm over all series
//! of the comparison that have blocks enough for an interval. A series has
//! *changed* where that probability is below 5 % and the 95 % interval excludes 1. What differs between two runs of one
//! program on one machine at different hours is noise of the machine, too: a comparison is only as good as the machine was
//! quiet in both.

use crate::metrics::{self, Better};
use crate::reader::Records;
use crate::record::{Outcome, Run, SandboxRecord};
use crate::statistics::bootstrap::unpaired_ratio;
use crate::statistics::holm::holm;
use crate::statistics::rank_sum::rank_sum;
use crate::statistics::{Estimate, median};
use crate::summary::{Data, LEVEL, Parameters, Series, block_medians, lines, summary};

/// The metric that is compared by its slope.
const HOST_MEMORY: &str = "memory.host";

/// Two runs, series by series.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Series that both runs have, in the order of the old one.
    pub rows: Vec<Row>,
    /// Series with values in the old run that were tried in the new one and all failed.
    pub lost: Vec<Name>,
    /// Sandboxes with values in the old run that could not be measured in the new one, with the reason.
    pub unavailable: Vec<(String, String)>,
    /// Samples of both runs that ended in an error: no median knows of them.
    pub errors: [usize; 2],
    /// Circumstances that differ: name, old, new. Where there are any, these are compared, and not programs alone.
    pub circumstances: Vec<(String, String, String)>,
}

/// What tells series apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The experiment.
    pub experiment: String,
    /// The sandbox.
    pub sandbox: String,
    /// The metric.
    pub metric: String,
    /// Its parameters.
    pub parameters: Parameters,
}

/// One series in both runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which series.
    pub name: Name,
    /// What emulates the sandbox in the new run, or else in the old one.
    pub emulation: Option<String>,
    /// Unit of the medians.
    pub unit: &'static str,
    /// Median over the old run's blocks.
    pub old: f64,
    /// Median over the new run's blocks.
    pub new: f64,
    /// Ratio of costs, new / old for times and memory and old / new for rates: above 1 is worse. `None` where a median is
    /// not positive; no interval below 6 blocks in either run.
    pub cost: Option<Estimate>,
    /// Probability of such a difference by chance, adjusted over all rows that have an interval.
    pub probability: f64,
    /// What it means.
    pub change: Change,
}

/// What became of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It became worse.
    Worse,
    /// It became better.
    Better,
    /// The samples show no change.
    NoneShown,
}

impl Comparison {
    /// Compares two runs. Facts, and states of the machine, are left out.
    pub fn new(old: &Records, new: &Records) -> Self {
        let (before, after) = (quantities(&summary(old)), quantities(&summary(new)));
        let mut rows: Vec<Row> = Vec::new();
        let mut lost = Vec::new();
        for quantity in before.iter().filter(|quantity| !quantity.blocks.is_empty()) {
            match after.iter().find(|candidate| candidate.name == quantity.name) {
                Some(counterpart) if counterpart.blocks.is_empty() => lost.push(quantity.name.clone()),
                Some(counterpart) => {
                    let emulation =
                        [new, old].into_iter().find_map(|records| records.run.emulation(&quantity.name.sandbox));
                    rows.extend(row(quantity, &counterpart.blocks, emulation.map(str::to_owned)));
                }
                None => {}
            }
        }
        // A row without an interval is never called a change: it is no test, and would only make the others' probabilities larger.
        let mut tests: Vec<&mut Row> =
            rows.iter_mut().filter(|row| row.cost.is_some_and(|cost| cost.interval.is_some())).collect();
        let adjusted = holm(&tests.iter().map(|row| row.probability).collect::<Vec<f64>>());
        for (row, probability) in tests.iter_mut().zip(adjusted) {
            row.probability = probability;
            row.change = change(row);
        }
        let measured = |name: &str| before.iter().any(|old| old.name.sandbox == name && !old.blocks.is_empty());
        let unavailable = new.run.sandboxes.iter().filter(|sandbox| measured(&sandbox.name));
        let unavailable = unavailable.filter_map(|sandbox| Some((sandbox.name.clone(), sandbox.unavailable.clone()?)));
        Self {
            rows,
            lost,
            unavailable: unavailable.collect(),
            errors: [old, new].map(errors),
            circumstances: circumstances(&old.run, &new.run),
        }
    }

    /// The row that became worse by the largest factor.
    pub fn worst_regression(&self) -> Option<&Row> {
        let factor = |row: &Row| row.cost.map_or(1.0, |cost| cost.value);
        let worse = self.rows.iter().filter(|row| row.change == Change::Worse);
        worse.max_by(|left, right| factor(left).total_cmp(&factor(right)))
    }

    /// Whether anything became worse by more than a factor (1.1 is 10 %), or fails or cannot be measured now.
    pub fn fails(&self, factor: f64) -> bool {
        let worst = self.worst_regression().and_then(|row| row.cost);
        !self.lost.is_empty() || !self.unavailable.is_empty() || worst.is_some_and(|cost| cost.value > factor)
    }
}

/// What can become worse, with its value in each block; it has none where all samples failed.
struct Quantity {
    name: Name,
    unit: &'static str,
    blocks: Vec<f64>,
}

/// The quantities of a run. Memory of the whole host at two different hours says nothing: of that it is the slope over the
/// number of instances, and that has no parameters.
fn quantities(series: &[Series]) -> Vec<Quantity> {
    let medians = series.iter().filter(|series| series.metric != HOST_MEMORY).filter_map(|series| {
        metrics::find(&series.metric).filter(|metric| metric.better != Better::Neither)?;
        let Data::Numbers(numbers) = &series.data else { return None };
        let blocks = block_medians(&numbers.points).into_values().collect();
        Some(Quantity { name: name(series), unit: series.unit, blocks })
    });
    let lines = lines(series);
    let slopes = lines.iter().filter(|line| line.metric == HOST_MEMORY).filter_map(|line| {
        let series = series.iter().find(|series| series.metric == line.metric && series.sandbox == line.sandbox)?;
        let name = Name { parameters: Parameters::new(), ..name(series) };
        Some(Quantity { name, unit: series.unit, blocks: line.slopes.clone() })
    });
    medians.chain(slopes).collect()
}

fn row(quantity: &Quantity, new: &[f64], emulation: Option<String>) -> Option<Row> {
    let (metric, old) = (metrics::find(&quantity.name.metric)?, quantity.blocks.as_slice());
    let (worse, better) = if metric.better == Better::Higher { (old, new) } else { (new, old) };
    Some(Row {
        name: quantity.name.clone(),
        emulation,
        unit: quantity.unit,
        old: median(old)?,
        new: median(new)?,
        cost: unpaired_ratio(worse, better, LEVEL),
        probability: rank_sum(old, new),
        change: Change::NoneShown,
    })
}

fn change(row: &Row) -> Change {
    match row.cost.and_then(|cost| cost.interval) {
        Some((low, _)) if row.probability < 1.0 - LEVEL && low > 1.0 => Change::Worse,
        Some((_, high)) if row.probability < 1.0 - LEVEL && high < 1.0 => Change::Better,
        _ => Change::NoneShown,
    }
}

fn name(series: &Series) -> Name {
    Name {
        experiment: series.experiment.clone(),
        sandbox: series.sandbox.clone(),
        metric: series.metric.clone(),
        parameters: series.parameters.clone(),
    }
}

fn errors(records: &Records) -> usize {
    records.samples.iter().filter(|sample| matches!(sample.outcome, Outcome::Error(_))).count()
}

/// Facts of a machine that are others in each run.
const PASSING: [&str; 4] = ["load", "uptime", "monotonic-start", "agent-copied-once-ns"];

/// What bears on every figure: the machine, how much is measured in a cell, and what emulates a sandbox that both runs have.
fn circumstances(old: &Run, new: &Run) -> Vec<(String, String, String)> {
    let facts = |run: &Run| {
        let Run { machine, plan, .. } = run;
        let own = [
            ("host", machine.host.clone()),
            ("kernel", machine.kernel.clone()),
            ("cpu", machine.cpu.clone()),
            ("cpus", machine.cpus.to_string()),
            ("memory", machine.memory.to_string()),
            ("cgroups", machine.cgroups.clone()),
            ("kvm", machine.kvm.clone()),
            ("whole machine emulated", machine.emulated.to_string()),
            ("run by an ordinary user", machine.rootless.to_string()),
            ("suite", plan.scale().unwrap_or("not recorded").to_owned()),
            ("program measured", plan.program.as_ref().map_or_else(|| NOTHING.to_owned(), |words| words.join(" "))),
            ("C library", library(&run.program).to_owned()),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        let others = machine.facts.iter().filter(|(name, _)| !PASSING.contains(&name.as_str()));
        own.into_iter().chain(others.map(|(name, value)| (name.clone(), value.clone()))).collect::<Vec<_>>()
    };
    let (before, mut after) = (facts(old), facts(new));
    let mut pairs = Vec::new();
    for (name, old) in before {
        let place = after.iter().position(|(known, _)| *known == name);
        let new = place.map_or_else(|| NOTHING.to_owned(), |place| after.remove(place).1);
        pairs.push((name, old, new));
    }
    pairs.extend(after.into_iter().map(|(name, new)| (name, NOTHING.to_owned(), new)));
    for sandbox in &old.sandboxes {
        let Some(counterpart) = new.sandboxes.iter().find(|new| new.name == sandbox.name) else { continue };
        if sandbox.unavailable.is_none() && counterpart.unavailable.is_none() {
            let emulation = |sandbox: &SandboxRecord| sandbox.emulation.clone().unwrap_or_else(|| NOTHING.to_owned());
            let name = format!("emulation of {}", sandbox.name);
            pairs.push((name, emulation(sandbox), emulation(counterpart)));
        }
    }
    // What KVM is ends in a factor that is measured anew in each run.
    let alike = |name: &str, old: &str, new: &str| name == "kvm" && without_digits(old) == without_digits(new);
    pairs.retain(|(name, old, new)| old != new && !alike(name, old, new));
    pairs
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|character| !character.is_ascii_digit()).collect()
}

/// What stands where one run has no such thing.
const NOTHING: &str = "none";

/// The C library that a program's version names, which is part of how long a program takes to start.
fn library(program: &str) -> &str {
    ["musl", "gnu"].into_iter().find(|library| program.contains(library)).unwrap_or("not recorded")
}
