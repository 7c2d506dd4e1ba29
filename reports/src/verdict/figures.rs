//! Figures against the margin that was fixed for them beforehand.

use super::{Answer, Expectation, Figure, FigureKind, Reason};
use crate::claims::{Comparison, Limit, Measure, Subject};
use crate::metrics::{self, Better};
use crate::statistics::paired::Pairs;
use crate::statistics::{MINIMUM_BLOCKS, median};
use crate::summary::{Data, LinePoint, Parameters, Series, block_medians, block_slopes};
use std::collections::BTreeMap;

/// Level at which differences are shown, and every probability's complement is read.
const LEVEL: f64 = 0.95;
/// Level of the interval that two one-sided tests at 5 % correspond to.
const EQUALITY_LEVEL: f64 = 0.90;

/// A figure whose answer is not yet known, since its probabilities are not yet adjusted.
pub(super) struct Draft {
    figure: Figure,
    confirm: f64,
    refute: f64,
    /// Whether the interval lies inside what the claim says, or outside.
    inside: bool,
    outside: bool,
}

impl Draft {
    pub(super) fn confirm(&mut self) -> &mut f64 {
        &mut self.confirm
    }

    pub(super) fn refute(&mut self) -> &mut f64 {
        &mut self.refute
    }

    /// Whether this is the same figure with the same expectation, as two claims may look at one.
    pub(super) fn is_same_test(&self, other: &Self) -> bool {
        self.figure == other.figure
    }

    /// The figure with its answer: its whole interval on one side, and a probability that is small after adjustment.
    pub(super) fn decide(self) -> Figure {
        let small = |probability: f64| probability < 1.0 - LEVEL;
        let answer = if self.inside && small(self.confirm) {
            Answer::Confirmed
        } else if self.outside && small(self.refute) {
            Answer::Refuted
        } else {
            Answer::Inconclusive
        };
        let clear = self.inside || self.outside;
        Figure { p_confirm: self.confirm, p_refute: self.refute, clear, answer, ..self.figure }
    }
}

/// The ratio of one measure, paired within blocks.
pub(super) fn ratio(
    series: &[Series],
    subject: &Subject,
    measure: &Measure,
    expect: Comparison,
    margin: f64,
) -> Result<Draft, Reason> {
    compare(subject, measure, (expect, margin), FigureKind::Ratio, |sandbox, parameters| {
        numbers(series, sandbox, &measure.metric, parameters)
    })
}

/// The ratio of the slopes of one measure over the number of instances.
pub(super) fn slope_ratio(
    series: &[Series],
    subject: &Subject,
    measure: &Measure,
    expect: Comparison,
    margin: f64,
) -> Result<Draft, Reason> {
    compare(subject, measure, (expect, margin), FigureKind::SlopeRatio, |sandbox, parameters| {
        slopes(series, sandbox, &measure.metric, parameters)
    })
}

/// Values against a limit.
pub(super) fn value(series: &[Series], limit: &Limit) -> Result<Draft, Reason> {
    let blocks = numbers(series, &limit.sandbox, &limit.metric, &limit.parameters);
    let pairs: Vec<(f64, f64)> = blocks.values().map(|value| (*value, 1.0)).collect();
    let (expectation, region) = match (limit.below, limit.at_least) {
        (Some(limit), _) => (Expectation::Below { limit }, Region::Below(limit)),
        (None, at_least) => {
            let limit = at_least.unwrap_or(0.0);
            (Expectation::AtLeast { limit }, Region::Above(limit))
        }
    };
    let unit = unit(&limit.metric);
    let blank = Figure {
        kind: FigureKind::Value,
        metric: limit.metric.clone(),
        parameters: limit.parameters.clone(),
        sandbox: limit.sandbox.clone(),
        against: None,
        against_parameters: None,
        value: 0.0,
        interval: (0.0, 0.0),
        level: LEVEL,
        blocks: pairs.len(),
        unit,
        expectation,
        median: median(&blocks.into_values().collect::<Vec<f64>>()).unwrap_or_default(),
        against_median: None,
        median_unit: unit,
        p_confirm: 1.0,
        p_refute: 1.0,
        clear: false,
        answer: Answer::Inconclusive,
    };
    draft(blank, Some(Pairs::Linear(pairs)), region)
}

fn compare(
    subject: &Subject,
    measure: &Measure,
    (expect, margin): (Comparison, f64),
    kind: FigureKind,
    blocks: impl Fn(&str, &Parameters) -> BTreeMap<u32, f64>,
) -> Result<Draft, Reason> {
    let against = subject.against.as_ref().unwrap_or(&subject.sandbox);
    let first = blocks(&subject.sandbox, &measure.parameters);
    let second = blocks(against, measure.against_parameters.as_ref().unwrap_or(&measure.parameters));
    for (blocks, sandbox) in [(&first, &subject.sandbox), (&second, against)] {
        if blocks.is_empty() {
            return Err(Reason::NoSamples { metric: measure.metric.clone(), sandbox: sandbox.clone() });
        }
    }
    let pairs: Vec<(f64, f64)> =
        first.iter().filter_map(|(block, first)| Some((*first, *second.get(block)?))).collect();
    let better = metrics::find(&measure.metric).map_or(Better::Lower, |metric| metric.better);
    let (expectation, region) = match (expect, better) {
        (Comparison::Equal, _) => (Expectation::Equal { margin }, Region::Between(margin.recip(), margin)),
        (Comparison::Reaches, _) => (Expectation::Reaches { ratio: margin }, Region::Above(margin)),
        (Comparison::Worse, Better::Higher) => (Expectation::Worse { margin }, Region::Below(margin.recip())),
        (Comparison::Worse, _) => (Expectation::Worse { margin }, Region::Above(margin)),
        (Comparison::Better, Better::Higher) => (Expectation::Better { margin }, Region::Above(margin)),
        (Comparison::Better, _) => (Expectation::Better { margin }, Region::Below(margin.recip())),
    };
    let (firsts, seconds): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let blank = Figure {
        kind,
        metric: measure.metric.clone(),
        parameters: measure.parameters.clone(),
        sandbox: subject.sandbox.clone(),
        against: Some(against.clone()),
        against_parameters: measure.against_parameters.clone(),
        value: 0.0,
        interval: (0.0, 0.0),
        level: if expect == Comparison::Equal { EQUALITY_LEVEL } else { LEVEL },
        blocks: pairs.len(),
        unit: "",
        expectation,
        median: median(&firsts).unwrap_or_default(),
        against_median: median(&seconds),
        median_unit: unit(&measure.metric),
        p_confirm: 1.0,
        p_refute: 1.0,
        clear: false,
        answer: Answer::Inconclusive,
    };
    let pairs = if kind == FigureKind::SlopeRatio { Some(Pairs::Linear(pairs)) } else { Pairs::ratios(&pairs) };
    draft(blank, pairs, region)
}

/// Where the claim says that a ratio or value lies.
#[derive(Clone, Copy)]
enum Region {
    Above(f64),
    Below(f64),
    Between(f64, f64),
}

fn draft(blank: Figure, pairs: Option<Pairs>, region: Region) -> Result<Draft, Reason> {
    let (metric, sandbox) = (blank.metric.clone(), blank.sandbox.clone());
    match (blank.blocks, &blank.against) {
        (0, None) => return Err(Reason::NoSamples { metric, sandbox }),
        // Both sides have samples, but of no block that they share.
        (blocks, _) if blocks < MINIMUM_BLOCKS => {
            return Err(Reason::TooFewBlocks { blocks, needed: MINIMUM_BLOCKS });
        }
        _ => {}
    }
    let against = blank.against.clone().unwrap_or_default();
    let no_ratio = || Reason::NoRatio { metric, sandbox, against };
    let estimates = pairs.as_ref().and_then(|pairs| {
        let shown = pairs.estimate(blank.level)?;
        let wide = if blank.level == LEVEL { shown } else { pairs.estimate(LEVEL)? };
        Some((pairs, shown, shown.interval?, wide.interval?))
    });
    let (pairs, shown, (low, high), wide) = estimates.ok_or_else(no_ratio)?;
    let (confirm, refute, inside, outside) = match region {
        Region::Above(limit) => (pairs.above(limit), pairs.below(limit), low > limit, wide.1 < limit),
        Region::Below(limit) => (pairs.below(limit), pairs.above(limit), high < limit, wide.0 > limit),
        Region::Between(least, most) => (
            pairs.between(least, most),
            pairs.outside(least, most),
            least < low && high < most,
            wide.1 < least || most < wide.0,
        ),
    };
    Ok(Draft {
        figure: Figure { value: shown.value, interval: (low, high), ..blank },
        confirm,
        refute,
        inside,
        outside,
    })
}

fn numbers(series: &[Series], sandbox: &str, metric: &str, parameters: &Parameters) -> BTreeMap<u32, f64> {
    let found = series
        .iter()
        .find(|series| series.sandbox == sandbox && series.metric == metric && series.parameters == *parameters);
    match found.map(|series| &series.data) {
        Some(Data::Numbers(numbers)) => block_medians(&numbers.points),
        _ => BTreeMap::new(),
    }
}

/// The slope of each block over the parameter `instances`; all other parameters must be the same.
fn slopes(series: &[Series], sandbox: &str, metric: &str, parameters: &Parameters) -> BTreeMap<u32, f64> {
    let mut points = Vec::new();
    for series in series.iter().filter(|series| series.sandbox == sandbox && series.metric == metric) {
        let mut others = series.parameters.clone();
        let instances = others.remove("instances").and_then(|instances| instances.parse().ok());
        let (Some(instances), Data::Numbers(numbers)) = (instances, &series.data) else { continue };
        if others == *parameters {
            points.extend(numbers.points.iter().map(|point| LinePoint {
                block: point.block,
                instances,
                value: point.value,
                warm_up: point.warm_up,
            }));
        }
    }
    block_slopes(&points).into_iter().map(|(block, line)| (block, line.slope)).collect()
}

fn unit(metric: &str) -> &'static str {
    metrics::find(metric).map_or("", |metric| metric.shown_unit)
}
