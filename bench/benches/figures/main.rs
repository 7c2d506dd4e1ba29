//! The speeds that the project promises, each measured here and now beside its peer.
//!
//! `scripts/figures` runs all, `scripts/figures NAME...` some. Each prints one line of JSON. Both sides of a figure do the
//! same work, one after the other in pairs ([`PAIRS`] of them), in an order that is drawn for each pair, so that drift hits
//! both alike. A goal is *met* only where the whole 95 % interval of the median paired ratio lies inside it; where the
//! interval lies wholly outside it is not, and else the figure is *undecided*.

mod catalogue;
mod cells;
mod container_program;
mod exits;
mod generator;
mod library;
mod machines;
mod networks;
mod place;
mod programs;
mod strategies;
#[path = "../../../runtime/benches/textbook/mod.rs"]
mod textbook;

use anyhow::Context;
use catalogue::{FIGURES, Figure, Goal};
use indicatif::{ProgressBar, ProgressStyle};
use isobench::testbed;
use isobench_reports::statistics::paired::Pairs;
use serde::Serialize;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The least and the most pairs of a figure, and for how long pairs are taken between those: 30 of those that take seconds, more
/// of the short ones, whose interval is narrower for it: a round trip to a guest that sleeps has two lengths, by where the
/// scheduler wakes it, and 36 pairs left the median of such a mixture undecided. How many there are is fixed by how long
/// the uncounted pair took, before any that counts.
const PAIRS: RangeInclusive<usize> = 30..=300;
const TIME: Duration = Duration::from_secs(45);

/// For how long those of an agreement are taken, whose interval must fit between two ends: what a machine moves drifts by some
/// 5 % from one second to the next, so that the median of 30 pairs is known to 2 % only, and of 90 to little more than 1 %.
const TIME_OF_AGREEMENT: Duration = Duration::from_secs(6 * 60);

/// Where a pair takes longer than this, as a thousand launches do, there are fewer: an interval needs six.
const LONG: Duration = Duration::from_secs(15);
const FEWER: usize = 8;

/// Each call takes one pair: ours and the peer's.
type Pair = Box<dyn FnMut() -> anyhow::Result<(f64, f64)>>;

/// One line of the output.
#[derive(Serialize)]
struct Line {
    name: &'static str,
    text: &'static str,
    value: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    n: usize,
    unit: &'static str,
    against: &'static str,
    goal: String,
    met: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn main() -> ExitCode {
    // The testbed and the name server are made from this same program.
    match std::env::args().nth(1).as_deref() {
        Some(testbed::SUBCOMMAND) => return testbed::host::main(),
        Some(isobench::networks::server::SUBCOMMAND) => return isobench::networks::server::main(),
        Some(strategies::LAUNCHER) => return strategies::launcher(std::env::args().nth(2)),
        _ => {}
    }
    // cargo bench adds --bench.
    let names: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let Some(unknown) = names.iter().find(|name| FIGURES.iter().all(|figure| figure.name != **name)) {
        let known: Vec<&str> = FIGURES.iter().map(|figure| figure.name).collect();
        println!("there is no figure named `{unknown}`; there are {}", known.join(", "));
        return ExitCode::from(2);
    }
    let asked: Vec<&Figure> =
        FIGURES.iter().filter(|figure| names.is_empty() || names.iter().any(|name| name == figure.name)).collect();
    let mut failed = false;
    for (index, figure) in asked.iter().enumerate() {
        let bar = bar(format!("{}/{} {}", index + 1, asked.len(), figure.name));
        let line = measured(figure, &bar);
        bar.finish_and_clear();
        failed |= line.error.is_some();
        println!("{}", serde_json::to_string(&line).unwrap_or_default());
    }
    ExitCode::from(u8::from(failed))
}

/// Shows how far a figure is, on the standard error where that is a terminal. It is drawn between two pairs.
fn bar(figure: String) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:48!} {wide_bar} {pos}/{len} pairs  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::no_length().with_style(style).with_prefix(figure);
    bar.tick();
    bar
}

fn measured(figure: &Figure, bar: &ProgressBar) -> Line {
    let goal = match figure.goal {
        Goal::AtMost(limit) => format!("at most {limit}"),
        Goal::AtLeast(limit) => format!("at least {limit}"),
        Goal::Within(margin) => format!("within {} %", margin * 100.0),
        Goal::Shown => "none".to_owned(),
    };
    let mut line = Line {
        name: figure.name,
        text: figure.text,
        value: None,
        low: None,
        high: None,
        n: 0,
        unit: figure.unit,
        against: figure.against,
        goal,
        met: "undecided",
        error: None,
    };
    match estimate(figure, bar) {
        Ok(Estimate { value, low, high, pairs }) => {
            line.value = Some(value);
            line.low = Some(low);
            line.high = Some(high);
            line.n = pairs;
            line.met = figure.goal.met(low, high);
        }
        Err(error) => line.error = Some(format!("{error:#}")),
    }
    line
}

struct Estimate {
    value: f64,
    low: f64,
    high: f64,
    pairs: usize,
}

fn estimate(figure: &Figure, bar: &ProgressBar) -> anyhow::Result<Estimate> {
    let mut pair = (figure.measure)()?;
    // The first pair warms caches and neighbour tables and is not counted.
    let begun = Instant::now();
    pair()?;
    let taken = begun.elapsed();
    let time = if matches!(figure.goal, Goal::Within(_)) { TIME_OF_AGREEMENT } else { TIME };
    let affordable = (time.as_nanos() / taken.as_nanos().max(1)) as usize;
    let number = if taken > LONG { FEWER } else { affordable.clamp(*PAIRS.start(), *PAIRS.end()) };
    bar.set_length(number as u64);
    let mut pairs = Vec::with_capacity(number);
    for done in 0..number {
        let left = taken * (number - done) as u32;
        bar.set_message(format!("about {} s left", left.as_secs() + 1));
        pairs.push(pair()?);
        bar.inc(1);
    }
    let estimate =
        Pairs::ratios(&pairs).and_then(|pairs| pairs.estimate(0.95)).context("a measured value is not above zero")?;
    let (low, high) = estimate.interval.context("too few pairs for an interval")?;
    Ok(Estimate { value: estimate.value, low, high, pairs: number })
}

/// Waits until the kernel has done what it puts off, such as to free the network namespace of a container that has gone, some 40 ms
/// after its last process: by the clock, since no event tells of that. The experiments' cells lie as far apart, so what is measured is a
/// start on a machine that is not busy with the one before.
fn settle() {
    std::thread::sleep(std::time::Duration::from_millis(50));
}

/// Runs both sides in an order drawn by chance.
fn both<T>(
    mut first: impl FnMut() -> anyhow::Result<T>,
    mut second: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<(T, T)> {
    if fastrand::bool() {
        let first = first()?;
        Ok((first, second()?))
    } else {
        let second = second()?;
        Ok((first()?, second))
    }
}
