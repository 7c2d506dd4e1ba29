//! `isobench compare`.

use super::{BadInput, Status, output};
use isobench_reports::compare::{Change, Comparison, Name, Row};
use isobench_reports::reader::{self, Records};
use isobench_reports::render::quantity::quantity;
use isobench_reports::statistics::MINIMUM_BLOCKS;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Compare two runs: has anything become slower or larger?
///
/// A series has changed where its two runs differ by the rank-sum test (adjusted over all series) and the 95 % interval of
/// the ratio of medians excludes 1. A ratio above 1 is worse, for rates too.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The directory of the run that is the standard
    old: PathBuf,
    /// The directory of the run that is judged
    new: PathBuf,
    /// End with status 1 where a series became worse by more than this factor, or fails or cannot be measured now
    #[arg(long, value_name = "FACTOR", value_parser = factor)]
    fail_above: Option<f64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  isobench compare before after
  isobench compare main branch --fail-above 1.1 --json     for CI: status 1 where something is shown worse by over 10 %

Exit status: 0 nothing beyond the limit, 1 a regression beyond it, 2 a run cannot be read.";

fn factor(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(factor) if factor >= 1.0 && f64::is_finite(factor) => Ok(factor),
        _ => Err("a factor from 1 up, such as 1.1 for 10 %".into()),
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let (old, new) = (read(&arguments.old)?, read(&arguments.new)?);
    let comparison = Comparison::new(&old, &new);
    if comparison.rows.is_empty() && comparison.lost.is_empty() && comparison.unavailable.is_empty() {
        let (old, new) = (arguments.old.display(), arguments.new.display());
        return Err(BadInput(format!(
            "{old} and {new} measured nothing in common: compare runs of the same experiments"
        ))
        .into());
    }
    let failed = arguments.fail_above.is_some_and(|factor| comparison.fails(factor));
    if arguments.json {
        output::print_json(&Document::new(&comparison, failed))?;
    } else {
        output::print(&text(&comparison, arguments.fail_above))?;
    }
    Ok(if failed { Status::Refused } else { Status::Success })
}

fn read(directory: &Path) -> anyhow::Result<Records> {
    let shown = format!("cannot compare {}", directory.display());
    reader::read(directory).map_err(|error| BadInput::because(&shown, error))
}

fn text(comparison: &Comparison, limit: Option<f64>) -> String {
    let mut text = String::new();
    for (name, old, new) in &comparison.circumstances {
        text += &format!("the runs differ in {name}: {old} / {new}\n");
    }
    let heading = ["experiment", "sandbox", "metric", "old", "new", "ratio (above 1 is worse)", ""];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(comparison.rows.iter().map(cells));
    text += &output::table(&rows);
    for lost in &comparison.lost {
        text += &format!("{} in {} was measured in the old run and fails in the new one\n", metric(lost), lost.sandbox);
    }
    for (sandbox, reason) in &comparison.unavailable {
        text += &format!("{sandbox} was measured in the old run and cannot be in the new one: {reason}\n");
    }
    let [old, new] = comparison.errors;
    if old + new > 0 {
        text += &format!(
            "samples that ended in an error, in no figure above: {old} in the old run, {new} in the new one\n"
        );
    }
    text += "\n";
    text += &match (comparison.worst_regression(), limit) {
        (Some(worst), _) => format!(
            "{} in {} became worse by a factor of {:.2}\n",
            metric(&worst.name),
            worst.name.sandbox,
            worst.cost.map_or(1.0, |cost| cost.value)
        ),
        (None, _) => "nothing is shown to have become worse\n".to_owned(),
    };
    if let Some(limit) = limit {
        let verdict = if comparison.fails(limit) { "beyond" } else { "within" };
        text += &format!("that is {verdict} the limit of {limit}\n");
    }
    text
}

fn cells(row: &Row) -> Vec<String> {
    let ratio = match row.cost {
        Some(cost) => match cost.interval {
            Some((low, high)) => format!("{:.3} ({low:.3} to {high:.3})", cost.value),
            None if cost.blocks < MINIMUM_BLOCKS => format!("{:.3} (fewer than {MINIMUM_BLOCKS} blocks)", cost.value),
            None => format!("{:.3} (no interval: values of nought or below)", cost.value),
        },
        None => String::new(),
    };
    let change = match row.change {
        Change::Worse => "worse",
        Change::Better => "better",
        Change::NoneShown => "",
    };
    let name = &row.name;
    let emulation = row.emulation.as_ref().map_or_else(String::new, |emulation| format!(" ({emulation})"));
    vec![
        name.experiment.clone(),
        name.sandbox.clone() + &emulation,
        metric(name),
        quantity(row.old, row.unit),
        quantity(row.new, row.unit),
        ratio,
        change.to_owned(),
    ]
}

/// The metric with what tells its series apart.
fn metric(name: &Name) -> String {
    let parameters = name.parameters.iter().map(|(name, value)| format!(" {name}={value}"));
    std::iter::once(name.metric.clone()).chain(parameters).collect()
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    /// Whether the limit was crossed.
    failed: bool,
    /// What bears on every figure and is not the same: name, old, new.
    differences: &'a [(String, String, String)],
    series: Vec<Entry<'a>>,
    lost: Vec<String>,
    /// Sandboxes that the new run could not measure, with the reason.
    unavailable: &'a [(String, String)],
    /// Samples that ended in an error, of the old run and of the new one.
    errors: [usize; 2],
}

#[derive(Serialize)]
struct Entry<'a> {
    experiment: &'a str,
    sandbox: &'a str,
    /// What emulates it.
    emulation: Option<&'a str>,
    metric: String,
    unit: &'static str,
    old: f64,
    new: f64,
    /// Above 1 is worse.
    ratio: Option<f64>,
    interval: Option<(f64, f64)>,
    probability: f64,
    change: &'static str,
}

impl<'a> Document<'a> {
    fn new(comparison: &'a Comparison, failed: bool) -> Self {
        let entry = |row: &'a Row| Entry {
            experiment: &row.name.experiment,
            sandbox: &row.name.sandbox,
            emulation: row.emulation.as_deref(),
            metric: metric(&row.name),
            unit: row.unit,
            old: row.old,
            new: row.new,
            ratio: row.cost.map(|cost| cost.value),
            interval: row.cost.and_then(|cost| cost.interval),
            probability: row.probability,
            change: match row.change {
                Change::Worse => "worse",
                Change::Better => "better",
                Change::NoneShown => "none-shown",
            },
        };
        Self {
            failed,
            differences: &comparison.circumstances,
            series: comparison.rows.iter().map(entry).collect(),
            lost: comparison.lost.iter().map(|name| format!("{} in {}", metric(name), name.sandbox)).collect(),
            unavailable: &comparison.unavailable,
            errors: comparison.errors,
        }
    }
}
