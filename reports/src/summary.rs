//! What charts and tables are drawn from: every sample used, grouped into series, with median and interval.
//!
//! A series is one metric of one sandbox under one set of parameters. Its *blocks* are the unit of replication: where a
//! block holds several samples of a series (instances, repetitions), their median stands for the block.

use crate::metrics::{self, Better, Definition, Kind};
use crate::reader::Records;
use crate::record::{Outcome, Sample, Value};
use crate::statistics::distribution::{decode, merge, new_histogram, supported_quantiles};
use crate::statistics::{Estimate, median, median_estimate, slope::theil_sen};
use std::collections::BTreeMap;

/// Level of the intervals of series and lines.
pub const LEVEL: f64 = 0.95;

/// Parameters of a series, such as `path` = `client`.
pub type Parameters = BTreeMap<String, String>;

/// One metric of one sandbox under one set of parameters.
#[derive(Clone, Debug)]
pub struct Series {
    /// The experiment that took it.
    pub experiment: String,
    /// The sandbox's name.
    pub sandbox: String,
    /// The metric's name.
    pub metric: String,
    /// What tells it apart from other series of the same metric.
    pub parameters: Parameters,
    /// Unit of its numbers: the metric's base unit, and `B/s` for transfers.
    pub unit: &'static str,
    /// What was measured.
    pub data: Data,
    /// What failed, in the order of the samples.
    pub failures: Vec<Failure>,
}

/// What a series holds, by the kind of its metric's values.
#[derive(Clone, Debug)]
pub enum Data {
    /// Numbers, in the series' unit.
    Numbers(Numbers),
    /// Stages of launches, in the order in which they are passed.
    Stages(Vec<Stage>),
    /// The distribution of single requests, merged over all blocks.
    Distribution(Distribution),
    /// Facts.
    Facts(Vec<Fact>),
}

/// Numbers with their estimate.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// All samples, warm-ups included and marked.
    pub points: Vec<Point>,
    /// Median over blocks with its 95 % interval, where there is a sample that is no warm-up.
    pub estimate: Option<Estimate>,
}

/// One sample of a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The randomised block.
    pub block: u32,
    /// Instance within the cell.
    pub instance: u32,
    /// The value, in the series' unit.
    pub value: f64,
    /// Whether it is a warm-up: shown, never used.
    pub warm_up: bool,
}

/// One stage of a launch: nanoseconds since t0.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The stage's name.
    pub name: String,
    /// When it was passed, in nanoseconds since t0.
    pub at: Numbers,
    /// How long it took: nanoseconds since the stage before it in the same launch (since t0 for the first).
    pub duration: Numbers,
}

/// Latencies of single requests over all blocks, warm-ups left out.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// All requests, in nanoseconds.
    pub histogram: hdrhistogram::Histogram<u64>,
    /// Blocks that it was merged from.
    pub blocks: usize,
    /// Quantiles that the number of requests supports: p50 and p90 always, p99 only from 10,000 requests up.
    pub quantiles: Vec<Quantile>,
}

/// One quantile: its value over all requests, and how it varies over blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile {
    /// Between 0 and 1.
    pub quantile: f64,
    /// Over all requests, in nanoseconds.
    pub value: f64,
    /// Median over the blocks' own quantiles with its interval, in nanoseconds.
    pub over_blocks: Option<Estimate>,
}

/// One observed fact.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// The randomised block.
    pub block: u32,
    /// Whether it is a warm-up.
    pub warm_up: bool,
    /// What was seen: [`Value::Boolean`] or [`Value::Texts`].
    pub value: Value,
}

/// One sample that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The randomised block.
    pub block: u32,
    /// Whether it is a warm-up.
    pub warm_up: bool,
    /// What failed, in one sentence.
    pub error: String,
}

/// Memory of one sandbox over the number of instances.
#[derive(Clone, Debug)]
pub struct Line {
    /// The sandbox's name.
    pub sandbox: String,
    /// The metric's name, such as `memory.host`.
    pub metric: String,
    /// All samples with instances, in bytes, ordered by instances, then block. Where a block has a sample with none, they
    /// are what there is beyond it.
    pub points: Vec<LinePoint>,
    /// Bytes per instance in each block.
    pub slopes: Vec<f64>,
    /// Bytes per instance: median over the blocks' slopes with its 95 % interval.
    pub slope: Option<Estimate>,
    /// Bytes at zero instances on the line through the median slope: the median over the blocks' intercepts.
    pub intercept: Option<f64>,
}

/// One sample of a memory line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinePoint {
    /// The randomised block.
    pub block: u32,
    /// Instances running.
    pub instances: u32,
    /// Bytes.
    pub value: f64,
    /// Whether it is a warm-up.
    pub warm_up: bool,
}

impl Numbers {
    /// Numbers with the estimate over their blocks.
    pub fn new(points: Vec<Point>) -> Self {
        let blocks: Vec<f64> = block_medians(&points).into_values().collect();
        Self { estimate: median_estimate(&blocks, LEVEL), points }
    }
}

/// The median of each block's points, warm-ups left out.
pub fn block_medians(points: &[Point]) -> BTreeMap<u32, f64> {
    let mut blocks: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for point in points.iter().filter(|point| !point.warm_up) {
        blocks.entry(point.block).or_default().push(point.value);
    }
    blocks.into_iter().filter_map(|(block, values)| Some((block, median(&values)?))).collect()
}

/// All series of a run: experiments as planned, metrics in the order of their table, sandboxes in the run's order.
pub fn summary(records: &Records) -> Vec<Series> {
    let place = |list: &[String], name: &str| list.iter().position(|entry| entry == name);
    let sandboxes: Vec<String> = records.run.sandboxes.iter().map(|sandbox| sandbox.name.clone()).collect();
    let metric_place = |name: &str| metrics::METRICS.iter().position(|metric| metric.name == name);
    let experiments = &records.run.plan.experiments;
    let mut groups: BTreeMap<_, Vec<&Sample>> = BTreeMap::new();
    for sample in &records.samples {
        let key = (
            place(experiments, &sample.experiment),
            metric_place(&sample.metric),
            &sample.parameters,
            place(&sandboxes, &sample.sandbox),
        );
        groups.entry(key).or_default().push(sample);
    }
    groups.into_values().filter_map(|samples| series(&samples)).collect()
}

/// The series of samples that differ in block and instance only.
fn series(samples: &[&Sample]) -> Option<Series> {
    let first = samples.first()?;
    let metric = metrics::find(&first.metric)?;
    let failures = samples
        .iter()
        .filter_map(|sample| match &sample.outcome {
            Outcome::Error(error) => {
                Some(Failure { block: sample.block, warm_up: sample.warm_up, error: error.clone() })
            }
            Outcome::Value(_) => None,
        })
        .collect();
    Some(Series {
        experiment: first.experiment.clone(),
        sandbox: first.sandbox.clone(),
        metric: first.metric.clone(),
        parameters: first.parameters.clone(),
        unit: metric.shown_unit,
        data: data(metric, samples),
        failures,
    })
}

fn data(metric: &Definition, samples: &[&Sample]) -> Data {
    match metric.kind {
        Kind::Integer | Kind::Transfer => Data::Numbers(Numbers::new(
            samples.iter().filter_map(|sample| Some(point(sample, number(sample)?))).collect(),
        )),
        Kind::Stages => Data::Stages(stages(samples)),
        Kind::Histogram => Data::Distribution(distribution(samples)),
        Kind::Boolean | Kind::Texts => Data::Facts(
            samples
                .iter()
                .filter_map(|sample| match &sample.outcome {
                    Outcome::Value(value) => {
                        Some(Fact { block: sample.block, warm_up: sample.warm_up, value: value.clone() })
                    }
                    Outcome::Error(_) => None,
                })
                .collect(),
        ),
    }
}

/// The number that a sample holds: an integer, the rate of a transfer per second, or its nanoseconds for each unit where less
/// of it is better.
pub fn number(sample: &Sample) -> Option<f64> {
    let is_cost = metrics::find(&sample.metric).is_some_and(|metric| metric.better == Better::Lower);
    match sample.outcome {
        Outcome::Value(Value::Integer(value)) => Some(value as f64),
        Outcome::Value(Value::Transfer { amount, nanoseconds }) if is_cost => {
            (amount > 0).then(|| nanoseconds as f64 / amount as f64)
        }
        Outcome::Value(Value::Transfer { amount, nanoseconds }) if nanoseconds > 0 => {
            Some(amount as f64 * 1e9 / nanoseconds as f64)
        }
        _ => None,
    }
}

fn point(sample: &Sample, value: f64) -> Point {
    Point { block: sample.block, instance: sample.instance, value, warm_up: sample.warm_up }
}

/// Stages in the order in which most launches passed them: by the median of when.
fn stages(samples: &[&Sample]) -> Vec<Stage> {
    let mut stages: BTreeMap<&str, (Vec<Point>, Vec<Point>)> = BTreeMap::new();
    for sample in samples {
        let Outcome::Value(Value::Stages(passed)) = &sample.outcome else { continue };
        let mut passed: Vec<_> = passed.iter().collect();
        passed.sort_by_key(|stage| stage.at);
        let mut before = 0;
        for stage in passed {
            let (at, duration) = stages.entry(&stage.stage).or_default();
            at.push(point(sample, stage.at as f64));
            duration.push(point(sample, (stage.at - before) as f64));
            before = stage.at;
        }
    }
    let mut stages: Vec<Stage> = stages
        .into_iter()
        .map(|(name, (at, duration))| Stage {
            name: name.to_owned(),
            at: Numbers::new(at),
            duration: Numbers::new(duration),
        })
        .collect();
    let when = |stage: &Stage| stage.at.estimate.map_or(f64::INFINITY, |estimate| estimate.value);
    stages.sort_by(|left, right| when(left).total_cmp(&when(right)));
    stages
}

fn distribution(samples: &[&Sample]) -> Distribution {
    let mut merged = new_histogram();
    let mut blocks: BTreeMap<u32, hdrhistogram::Histogram<u64>> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| !sample.warm_up) {
        let Outcome::Value(Value::Histogram(text)) = &sample.outcome else { continue };
        let Ok(histogram) = decode(text) else { continue };
        merge(blocks.entry(sample.block).or_insert_with(new_histogram), &histogram);
        merge(&mut merged, &histogram);
    }
    let quantiles = supported_quantiles(merged.len())
        .iter()
        .map(|&quantile| {
            let of = |histogram: &hdrhistogram::Histogram<u64>| histogram.value_at_quantile(quantile) as f64;
            let each: Vec<f64> = blocks.values().map(of).collect();
            Quantile { quantile, value: of(&merged), over_blocks: median_estimate(&each, LEVEL) }
        })
        .collect();
    Distribution { histogram: merged, blocks: blocks.len(), quantiles }
}

/// Metrics that grow with the number of instances; `memory.vmm-overhead` is that of one.
const GROWING: [&str; 3] = ["memory.host", "memory.pss", "memory.cgroup"];

/// The memory lines of a run: one for each metric that grows with the number of instances and each sandbox, in the order
/// of [`summary`].
pub fn lines(series: &[Series]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for series in series.iter().filter(|series| GROWING.contains(&series.metric.as_str())) {
        let Data::Numbers(numbers) = &series.data else { continue };
        let Some(instances) = series.parameters.get("instances").and_then(|count| count.parse().ok()) else { continue };
        let line = match lines.iter().position(|line| line.sandbox == series.sandbox && line.metric == series.metric) {
            Some(index) => &mut lines[index],
            None => lines.push_mut(Line {
                sandbox: series.sandbox.clone(),
                metric: series.metric.clone(),
                points: Vec::new(),
                slopes: Vec::new(),
                slope: None,
                intercept: None,
            }),
        };
        line.points.extend(numbers.points.iter().map(|point| LinePoint {
            block: point.block,
            instances,
            value: point.value,
            warm_up: point.warm_up,
        }));
    }
    for line in &mut lines {
        rebase(&mut line.points);
        line.points.sort_by_key(|point| (point.instances, point.block));
        let blocks: Vec<_> = block_slopes(&line.points).into_values().collect();
        line.slopes = blocks.iter().map(|line| line.slope).collect();
        let intercepts: Vec<f64> = blocks.iter().map(|line| line.intercept).collect();
        line.slope = median_estimate(&line.slopes, LEVEL);
        line.intercept = median(&intercepts);
        line.points.retain(|point| point.instances > 0);
    }
    lines
}

/// Takes each block's sample with no instances off all of its samples. No slope changes, and no sample is left out: one may
/// be below nought.
fn rebase(points: &mut [LinePoint]) {
    let none = points.iter().filter(|point| point.instances == 0);
    let baselines: BTreeMap<u32, f64> = none.map(|point| (point.block, point.value)).collect();
    for point in points {
        point.value -= baselines.get(&point.block).copied().unwrap_or_default();
    }
}

/// The line through each block's points with instances, warm-ups left out. The first instance may bring what all others
/// share, so the step from none to one is no part of what one more takes.
pub fn block_slopes(points: &[LinePoint]) -> BTreeMap<u32, crate::statistics::slope::Line> {
    let mut blocks: BTreeMap<u32, Vec<(f64, f64)>> = BTreeMap::new();
    for point in points.iter().filter(|point| !point.warm_up && point.instances > 0) {
        blocks.entry(point.block).or_default().push((f64::from(point.instances), point.value));
    }
    blocks.into_iter().filter_map(|(block, points)| Some((block, theil_sen(&points)?))).collect()
}
