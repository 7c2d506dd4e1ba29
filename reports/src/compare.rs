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
use crate::record::Machine;
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
    /// Facts of the machine that differ: name, old, new. Where there are any, machines are compared, not programs.
    pub machine: Vec<(&'static str, String, String)>,
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
                Some(counterpart) => rows.extend(row(quantity, &counterpart.blocks)),
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
        Self { rows, lost, machine: machine(&old.run.machine, &new.run.machine) }
    }

    /// The row that became worse by the largest factor.
    pub fn worst_regression(&self) -> Option<&Row> {
        let factor = |row: &Row| row.cost.map_or(1.0, |cost| cost.value);
        let worse = self.rows.iter().filter(|row| row.change == Change::Worse);
        worse.max_by(|left, right| factor(left).total_cmp(&factor(right)))
    }

    /// Whether anything became worse by more than a factor (1.1 is 10 %), or fails now.
    pub fn fails(&self, factor: f64) -> bool {
        let worst = self.worst_regression().and_then(|row| row.cost);
        !self.lost.is_empty() || worst.is_some_and(|cost| cost.value > factor)
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

fn row(quantity: &Quantity, new: &[f64]) -> Option<Row> {
    let (metric, old) = (metrics::find(&quantity.name.metric)?, quantity.blocks.as_slice());
    let (worse, better) = if metric.better == Better::Higher { (old, new) } else { (new, old) };
    Some(Row {
        name: quantity.name.clone(),
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

fn machine(old: &Machine, new: &Machine) -> Vec<(&'static str, String, String)> {
    let facts = |machine: &Machine| {
        [
            ("host", machine.host.clone()),
            ("kernel", machine.kernel.clone()),
            ("cpu", machine.cpu.clone()),
            ("cpus", machine.cpus.to_string()),
            ("memory", machine.memory.to_string()),
            ("cgroups", machine.cgroups.clone()),
            ("kvm", machine.kvm.clone()),
        ]
    };
    let pairs = facts(old).into_iter().zip(facts(new));
    pairs.filter(|(old, new)| old.1 != new.1).map(|((name, old), (_, new))| (name, old, new)).collect()
}
