//! A run in numbers, as JSON for programs.

use isobench_reports::reader::Records;
use isobench_reports::record::Run;
use isobench_reports::summary::{Data, Line, Parameters, Series, lines, summary};
use isobench_reports::verdict::{self, Verdict};
use serde::Serialize;
use std::path::Path;

/// What `run --json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// The report's page.
    report: String,
    started: String,
    program: String,
    host: String,
    seed: u64,
    results: Vec<Result>,
    verdicts: Vec<Answer>,
}

/// One series of numbers.
#[derive(Debug, Serialize)]
struct Result {
    experiment: String,
    sandbox: String,
    /// What emulates it.
    #[serde(skip_serializing_if = "Option::is_none")]
    emulation: Option<String>,
    metric: String,
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    parameters: Parameters,
    unit: &'static str,
    /// What the number of a block is: the value itself, or the slope over the number of instances.
    statistic: &'static str,
    /// Median over blocks.
    median: Option<f64>,
    /// Bounds of its 95 % interval; none below 6 blocks.
    interval: Option<(f64, f64)>,
    blocks: usize,
    failures: usize,
}

/// The answer to one claim.
#[derive(Debug, Serialize)]
struct Answer {
    claim: &'static str,
    answer: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    emulation: Option<String>,
}

impl Summary {
    pub(super) fn new(records: &Records, page: &Path) -> Self {
        let run = &records.run;
        let series = summary(records);
        let slopes = lines(&series);
        Self {
            report: page.display().to_string(),
            started: run.started.clone(),
            program: run.program.clone(),
            host: run.machine.host.clone(),
            seed: run.plan.seed,
            results: (series.iter().filter_map(|series| result(run, series)))
                .chain(slopes.iter().filter_map(|line| slope(run, &series, line)))
                .collect(),
            verdicts: verdict::evaluate(records).into_iter().map(answer).collect(),
        }
    }
}

/// Facts, stages and histograms are in the records; what is one number is here.
fn result(run: &Run, series: &Series) -> Option<Result> {
    let Data::Numbers(numbers) = &series.data else { return None };
    Some(Result {
        experiment: series.experiment.clone(),
        sandbox: series.sandbox.clone(),
        emulation: run.emulation(&series.sandbox).map(str::to_owned),
        metric: series.metric.clone(),
        parameters: series.parameters.clone(),
        unit: series.unit,
        statistic: "value",
        median: numbers.estimate.map(|estimate| estimate.value),
        interval: numbers.estimate.and_then(|estimate| estimate.interval),
        blocks: numbers.estimate.map_or(0, |estimate| estimate.blocks),
        failures: failures(series),
    })
}

/// Samples that failed, warm-ups left out.
fn failures(series: &Series) -> usize {
    series.failures.iter().filter(|failure| !failure.warm_up).count()
}

/// Memory of one more instance.
fn slope(run: &Run, series: &[Series], line: &Line) -> Option<Result> {
    let estimate = line.slope?;
    let of_line = series.iter().filter(|series| series.sandbox == line.sandbox && series.metric == line.metric);
    Some(Result {
        experiment: "memory".to_owned(),
        sandbox: line.sandbox.clone(),
        emulation: run.emulation(&line.sandbox).map(str::to_owned),
        metric: line.metric.clone(),
        parameters: Parameters::new(),
        unit: "B",
        statistic: "slope over instances",
        median: Some(estimate.value),
        interval: estimate.interval,
        blocks: estimate.blocks,
        failures: of_line.map(failures).sum(),
    })
}

fn answer(verdict: Verdict) -> Answer {
    Answer {
        claim: &verdict.claim.id,
        answer: verdict.answer.key(),
        reason: verdict.reason.as_ref().map(verdict::Reason::key),
        emulation: verdict.emulation,
    }
}
