//! Records as CSV (RFC 4180): one row for each sample used, one for each series, and one for each figure of a claim. Names
//! are those of the records and numbers are in base units, for programs; nothing is translated.

use crate::record::{Outcome, Value};
use crate::render::view::View;
use crate::statistics::{Estimate, distribution};
use crate::summary::{Data, Parameters};
use crate::verdict::Expectation;
use ::csv::{Writer, WriterBuilder};
use std::borrow::Cow;

const SAMPLES: [&str; 14] = [
    "sequence",
    "time_ns",
    "experiment",
    "block",
    "position",
    "instance",
    "sandbox",
    "metric",
    "parameters",
    "stage",
    "unit",
    "value",
    "duration_ns",
    "emulation",
];

/// One row for each sample that was used: no warm-up and no error. Each stage of a launch is a row, a transfer has its bytes
/// in `value` and its time in `duration_ns`, and a histogram is its median.
#[must_use]
pub fn samples(view: &View<'_>) -> String {
    let mut writer = writer(&SAMPLES);
    for sample in view.records.samples.iter().filter(|sample| !sample.warm_up) {
        let Outcome::Value(value) = &sample.outcome else { continue };
        let unit = view.records.run.metrics.get(&sample.metric).map_or("", |metric| metric.unit.as_str());
        for (stage, value, duration) in cells(value) {
            row(
                &mut writer,
                &[
                    &sample.sequence.to_string(),
                    &sample.time.to_string(),
                    &sample.experiment,
                    &sample.block.to_string(),
                    &sample.position.to_string(),
                    &sample.instance.to_string(),
                    &sample.sandbox,
                    &sample.metric,
                    &parameters(&sample.parameters),
                    &stage,
                    unit,
                    &value,
                    &duration,
                    view.emulation(&sample.sandbox).unwrap_or_default(),
                ],
            );
        }
    }
    finish(writer)
}

/// Stage, value and duration of each row of a sample.
fn cells(value: &Value) -> Vec<(String, String, String)> {
    let one = |value: String| vec![(String::new(), value, String::new())];
    match value {
        Value::Integer(integer) => one(integer.to_string()),
        Value::Boolean(seen) => one(seen.to_string()),
        Value::Texts(texts) => one(texts.join("; ")),
        Value::Transfer { amount, nanoseconds } => {
            vec![(String::new(), amount.to_string(), nanoseconds.to_string())]
        }
        Value::Stages(stages) => {
            stages.iter().map(|stage| (stage.stage.clone(), stage.at.to_string(), String::new())).collect()
        }
        Value::Histogram(text) => {
            let median = distribution::decode(text).map(|histogram| histogram.value_at_quantile(0.5).to_string());
            one(median.unwrap_or_default())
        }
    }
}

const SUMMARY: [&str; 13] = [
    "experiment",
    "sandbox",
    "metric",
    "parameters",
    "statistic",
    "unit",
    "value",
    "low",
    "high",
    "level",
    "blocks",
    "failures",
    "emulation",
];

/// One row for each estimate of each series: median, median duration of each stage, quantiles, slope over instances.
#[must_use]
pub fn summary(view: &View<'_>) -> String {
    let mut writer = writer(&SUMMARY);
    for series in &view.series {
        let mut estimates: Vec<(String, Estimate)> = Vec::new();
        match &series.data {
            Data::Numbers(numbers) => {
                estimates.extend(numbers.estimate.map(|estimate| ("median".to_owned(), estimate)))
            }
            Data::Stages(stages) => estimates.extend(
                stages
                    .iter()
                    .filter_map(|stage| Some((format!("median duration of {}", stage.name), stage.duration.estimate?))),
            ),
            Data::Distribution(distribution) => estimates.extend(
                distribution
                    .quantiles
                    .iter()
                    .filter_map(|quantile| Some((format!("p{}", quantile.quantile * 100.0), quantile.over_blocks?))),
            ),
            Data::Facts(_) => {}
        }
        let failures = series.failures.iter().filter(|failure| !failure.warm_up).count().to_string();
        for (statistic, estimate) in estimates {
            let names = [series.experiment.as_str(), &series.sandbox, &series.metric, &parameters(&series.parameters)]
                .map(str::to_owned);
            estimate_row(&mut writer, view, &names, (&statistic, series.unit), estimate, &failures);
        }
    }
    for line in &view.lines {
        if let Some(slope) = line.slope {
            let names = ["memory", &line.sandbox, &line.metric, ""].map(str::to_owned);
            estimate_row(&mut writer, view, &names, ("slope over instances", "B"), slope, "");
        }
    }
    finish(writer)
}

const FIGURES: [&str; 19] = [
    "claim",
    "family",
    "sandbox",
    "against",
    "metric",
    "parameters",
    "against_parameters",
    "unit",
    "value",
    "low",
    "high",
    "level",
    "blocks",
    "expectation",
    "margin",
    "adjusted_probability_for",
    "adjusted_probability_against",
    "answer",
    "emulation",
];

/// One row for each figure that decides a claim, with what the claim expects of it, the adjusted probabilities for and against
/// the claim, and what the figure alone says.
#[must_use]
pub fn figures(view: &View<'_>) -> String {
    let mut writer = writer(&FIGURES);
    for (claim, figure) in
        view.verdicts.iter().flat_map(|verdict| verdict.figures.iter().map(|figure| (verdict.claim, figure)))
    {
        let (expectation, margin) = expectation(figure.expectation);
        // A figure depends on both of its sides.
        let emulation = [Some(&figure.sandbox), figure.against.as_ref()]
            .into_iter()
            .flatten()
            .find_map(|sandbox| view.emulation(sandbox));
        row(
            &mut writer,
            &[
                &claim.id,
                &claim.family,
                &figure.sandbox,
                figure.against.as_deref().unwrap_or_default(),
                &figure.metric,
                &parameters(&figure.parameters),
                &figure.against_parameters.as_ref().map(parameters).unwrap_or_default(),
                figure.unit,
                &number(figure.value),
                &number(figure.interval.0),
                &number(figure.interval.1),
                &figure.level.to_string(),
                &figure.blocks.to_string(),
                expectation,
                &margin.to_string(),
                &number(figure.p_confirm),
                &number(figure.p_refute),
                figure.answer.key(),
                emulation.unwrap_or_default(),
            ],
        );
    }
    finish(writer)
}

/// What a claim expects, by the name that its rule has, and the margin or limit.
const fn expectation(expectation: Expectation) -> (&'static str, f64) {
    match expectation {
        Expectation::Worse { margin } => ("worse", margin),
        Expectation::Better { margin } => ("better", margin),
        Expectation::Equal { margin } => ("equal", margin),
        Expectation::Reaches { ratio } => ("reaches", ratio),
        Expectation::Below { limit } => ("below", limit),
        Expectation::AtLeast { limit } => ("at-least", limit),
    }
}

fn estimate_row(
    writer: &mut Writer<Vec<u8>>,
    view: &View<'_>,
    names: &[String; 4],
    (statistic, unit): (&str, &str),
    estimate: Estimate,
    failures: &str,
) {
    let (low, high) = estimate.interval.map_or_else(Default::default, |(low, high)| (number(low), number(high)));
    row(
        writer,
        &[
            &names[0],
            &names[1],
            &names[2],
            &names[3],
            statistic,
            unit,
            &number(estimate.value),
            &low,
            &high,
            &estimate.level.to_string(),
            &estimate.blocks.to_string(),
            failures,
            view.emulation(&names[1]).unwrap_or_default(),
        ],
    );
}

/// Six significant digits and no exponent.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return String::new();
    }
    let places = match value.abs() {
        size if size >= 1e5 => 0,
        size if size >= 1e2 => 3,
        size if size >= 0.1 || size == 0.0 => 6,
        size => 5 + -size.log10().floor() as usize,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn parameters(parameters: &Parameters) -> String {
    parameters.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

fn writer(head: &[&str]) -> Writer<Vec<u8>> {
    let mut writer = WriterBuilder::new().from_writer(Vec::new());
    row(&mut writer, head);
    writer
}

/// A cell as it is, but for one that a spreadsheet would take for a formula, which gets an apostrophe before it (OWASP, *CSV
/// Injection*); numbers keep their minus.
#[must_use]
pub fn harmless(cell: &str) -> Cow<'_, str> {
    let formula =
        cell.starts_with(['=', '+', '@', '\t', '\r']) || (cell.starts_with('-') && cell.parse::<f64>().is_err());
    if formula { format!("'{cell}").into() } else { cell.into() }
}

fn row(writer: &mut Writer<Vec<u8>>, cells: &[&str]) {
    writer
        .write_record(cells.iter().map(|cell| harmless(cell).into_owned()))
        .expect("writing to memory cannot fail, and every row has as many cells");
}

fn finish(writer: Writer<Vec<u8>>) -> String {
    let bytes = writer.into_inner().expect("writing to memory cannot fail");
    String::from_utf8(bytes).expect("every cell was text")
}
