//! What is being measured and how long it will take: a bar where somebody watches a terminal, a line now and then
//! elsewhere. All of it goes to the standard error; results go to the standard output.

use crate::cell::Cell;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Time between two lines where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(15);

/// The progress of one run.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    total: usize,
    last_line: Instant,
    forecast: Forecast,
}

impl Progress {
    /// Shows the progress through these cells. Nothing is shown where `quiet`.
    pub fn new(cells: &[Cell], quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let bar = (terminal || quiet).then(|| {
            let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
            let bar = ProgressBar::with_draw_target(Some(cells.len() as u64), target);
            // The template is constant and tested below.
            bar.set_style(ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, total: cells.len(), last_line: Instant::now(), forecast: Forecast::new(cells) }
    }

    /// A cell begins, with this much time left to the run where that is limited.
    pub fn begin(&mut self, cell: &Cell, budget: Option<Duration>) {
        let left = self.forecast.left();
        let left = match (left, budget) {
            (Some(left), Some(budget)) => Some(left.min(budget)),
            (left, budget) => left.or(budget),
        };
        let left = left.map_or_else(String::new, |left| format!("{} left", rounded(left)));
        let doing = format!("{} in {}", cell.experiment, cell.sandbox);
        if let Some(bar) = &self.bar {
            bar.set_prefix(doing);
            bar.set_message(left);
        } else if self.last_line.elapsed() >= BETWEEN_LINES {
            self.last_line = Instant::now();
            let done = self.total - self.forecast.cells_left();
            self.line(&format!("{done} of {} cells done, {doing}{}", self.total, prefixed(&left)));
        }
    }

    /// A cell has ended.
    pub fn end(&mut self, cell: &Cell, duration: Duration) {
        self.forecast.end(cell, duration);
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Something that should not wait for the report.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => self.line(text),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        // Nobody can be told that the standard error is closed.
        let _ = writeln!(anstream::stderr(), "isobench: {text}");
    }
}

const TEMPLATE: &str = "{prefix:34!} {wide_bar} {pos}/{len} cells  {msg:>12}";

fn prefixed(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(", {text}") }
}

/// A duration as a person says it: `45 s`, `2 min 5 s`.
fn rounded(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().ceil() as u64;
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

/// How long the rest will take: cells of one experiment in one sandbox take as long as those before.
#[derive(Debug)]
struct Forecast {
    left: BTreeMap<(String, String), usize>,
    spent: BTreeMap<(String, String), (Duration, u32)>,
}

impl Forecast {
    fn new(cells: &[Cell]) -> Self {
        let mut left = BTreeMap::new();
        for cell in cells {
            *left.entry((cell.experiment.clone(), cell.sandbox.clone())).or_default() += 1;
        }
        Self { left, spent: BTreeMap::new() }
    }

    fn end(&mut self, cell: &Cell, duration: Duration) {
        let key = (cell.experiment.clone(), cell.sandbox.clone());
        if let Some(left) = self.left.get_mut(&key) {
            *left = left.saturating_sub(1);
        }
        let (spent, count) = self.spent.entry(key).or_default();
        *spent += duration;
        *count += 1;
    }

    fn cells_left(&self) -> usize {
        self.left.values().sum()
    }

    /// `None` until each kind of cell was seen once, which the warm-up block sees to.
    fn left(&self) -> Option<Duration> {
        let mut total = Duration::ZERO;
        for (key, left) in self.left.iter().filter(|(_, left)| **left > 0) {
            let (spent, count) = self.spent.get(key)?;
            total += *spent / *count * *left as u32;
        }
        Some(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(experiment: &str, sandbox: &str) -> Cell {
        Cell {
            experiment: experiment.into(),
            sandbox: sandbox.into(),
            block: 0,
            position: 0,
            warm_up: false,
            program: None,
        }
    }

    #[test]
    fn the_rest_takes_as_long_as_what_was_seen() {
        let (short, long) = (cell("startup", "process"), cell("throughput", "process"));
        let mut forecast = Forecast::new(&[short.clone(), long.clone(), short.clone(), long.clone(), long.clone()]);
        forecast.end(&short, Duration::from_secs(1));
        assert_eq!(forecast.left(), None, "one kind was not seen yet");
        forecast.end(&long, Duration::from_secs(10));
        assert_eq!(forecast.left(), Some(Duration::from_secs(21)));
        assert_eq!(forecast.cells_left(), 3);
        forecast.end(&long, Duration::from_secs(20));
        assert_eq!(forecast.left(), Some(Duration::from_secs(16)), "the mean of both");
    }

    #[test]
    fn durations_are_rounded_up() {
        let texts = [0.2, 45.0, 60.0, 124.5].map(|seconds| rounded(Duration::from_secs_f64(seconds)));
        assert_eq!(texts, ["1 s", "45 s", "1 min", "2 min 5 s"]);
    }

    #[test]
    fn the_template_is_one() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
