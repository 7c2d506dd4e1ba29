//! `isobench selftest`.

use super::{BadInput, Status, output};
use crate::interrupt::Interrupt;
use crate::journal::Journal;
use crate::plan;
use crate::selftest::{self, Extent, Findings};
use crate::testbed::{Settings, Testbed};
use anyhow::Context;
use isobench_reports::selftest::FalseAlarms;
use serde::Serialize;

/// Check the method on this machine: A/A pairs show how often it sees a difference where there is none, and a planted
/// slowdown must be found
///
/// All launches are real, through the testbed, in randomised pairs. Ends with status 1 where the method does not hold here:
/// then no figure of this machine should be trusted.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The sandbox to launch
    #[arg(long, value_name = "NAME", default_value = "process")]
    sandbox: String,
    /// Comparisons of the same with the same
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    comparisons: u32,
    /// Pairs in each comparison
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(6..=1000))]
    reps: u32,
    /// The slowdown that is planted
    #[arg(long, value_name = "FACTOR", default_value_t = 1.25)]
    slowdown: f64,
    /// Seed of the order within pairs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    plan::check_sandbox(&arguments.sandbox).map_err(BadInput::from_error)?;
    if !(arguments.slowdown > 1.0 && arguments.slowdown <= 100.0) {
        return Err(BadInput("--slowdown takes a factor above 1, such as 1.25".into()).into());
    }
    let extent = Extent {
        comparisons: arguments.comparisons as usize,
        blocks: arguments.reps as usize,
        slowdown: arguments.slowdown,
        seed: arguments.seed,
    };
    let interrupt = Interrupt::watch().context("watch for Ctrl-C")?;
    let journal = Journal::open().context("begin the journal of what outlives a kill")?;
    let settings = Settings { run: journal.run().to_owned(), ..Settings::default() };
    let mut testbed = Testbed::start(&settings).context("make the testbed")?;
    let unavailable = testbed
        .sandboxes()
        .iter()
        .find(|sandbox| sandbox.name == arguments.sandbox)
        .and_then(|found| found.unavailable.clone());
    let findings = match unavailable {
        Some(reason) => Err(anyhow::anyhow!("{} cannot be measured here: {reason}", arguments.sandbox)),
        None => selftest::run(&mut testbed, &arguments.sandbox, extent, &interrupt),
    };
    let stopped = testbed.stop().context("end the testbed");
    journal.close();
    if interrupt.requested() {
        return Ok(Status::Interrupted);
    }
    let findings = findings?;
    stopped?;
    if arguments.json {
        output::print_json(&Document::new(&findings))?;
    } else {
        output::print(&text(&findings))?;
    }
    Ok(if findings.hold() { Status::Success } else { Status::Refused })
}

fn text(findings: &Findings) -> String {
    let FalseAlarms { comparisons, alarms, interval: (low, high) } = findings.false_alarms;
    let mut text = format!(
        "false alarms     {alarms} of {comparisons} comparisons of the same with the same, {:.1} % (95 % interval {:.1} to \
         {:.1} %); the method allows itself {:.0} %\n",
        100.0 * findings.false_alarms.rate(),
        100.0 * low,
        100.0 * high,
        100.0 * FalseAlarms::NOMINAL,
    );
    let detection = &findings.detection;
    let (low, high) = detection.found.interval.unwrap_or((f64::NAN, f64::NAN));
    let found = if detection.detected() { "was found" } else { "was not found" };
    text += &format!(
        "planted slowdown a factor of {:.2} {found}: {:.3} (95 % interval {low:.3} to {high:.3}) over {} pairs\n",
        detection.planted, detection.found.value, detection.found.blocks,
    );
    text += if findings.hold() {
        "the method holds on this machine\n"
    } else {
        "the method does not hold on this machine: do not trust its figures; quieten it and try again\n"
    };
    text
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document {
    holds: bool,
    comparisons: usize,
    false_alarms: usize,
    false_alarm_rate: f64,
    false_alarm_interval: (f64, f64),
    planted: f64,
    found: f64,
    found_interval: Option<(f64, f64)>,
    detected: bool,
}

impl Document {
    fn new(findings: &Findings) -> Self {
        Self {
            holds: findings.hold(),
            comparisons: findings.false_alarms.comparisons,
            false_alarms: findings.false_alarms.alarms,
            false_alarm_rate: findings.false_alarms.rate(),
            false_alarm_interval: findings.false_alarms.interval,
            planted: findings.detection.planted,
            found: findings.detection.found.value,
            found_interval: findings.detection.found.interval,
            detected: findings.detection.detected(),
        }
    }
}
