//! Does the method hold on this machine? Real launches of one thing against itself, and against itself with a slowdown that
//! was planted: the first must show no difference more often than the level allows, the second must be found.

use crate::cell::{Cell, Measure};
use crate::interrupt::Interrupt;
use anyhow::{Context, bail};
use isobench_reports::record::{Outcome, Value};
use isobench_reports::selftest::{Detection, FalseAlarms, detection, false_alarms};
use isobench_reports::statistics::median;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The hidden subcommand that is measured: it works for so many nanoseconds, then says one line.
pub const SUBCOMMAND: &str = "__selftest";

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extent {
    /// Comparisons of the same with the same.
    pub comparisons: usize,
    /// Pairs in each comparison.
    pub blocks: usize,
    /// The planted slowdown: 1.1 is 10 %.
    pub slowdown: f64,
    /// Seed of the order within pairs.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Findings {
    /// The same against the same.
    pub false_alarms: FalseAlarms,
    /// The planted slowdown.
    pub detection: Detection,
}

impl Findings {
    /// Whether the method holds here.
    pub fn hold(&self) -> bool {
        self.false_alarms.holds() && self.detection.detected()
    }
}

/// Pairs for the planted slowdown, as many as `scripts/figures` takes.
const DETECTION_PAIRS: usize = 30;
/// Launches that are thrown away, and that give the time of which the slowdown is a share.
const WARM_UPS: usize = 12;

/// The hidden subcommand's own main.
pub fn main() -> ExitCode {
    let work = std::env::args().nth(2).and_then(|text| text.parse().ok()).map_or(Duration::ZERO, Duration::from_nanos);
    let began = Instant::now();
    while began.elapsed() < work {
        std::hint::spin_loop();
    }
    match writeln!(std::io::stdout(), "ready") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Measures in one sandbox.
///
/// # Errors
/// Where a launch fails, or somebody pressed Ctrl-C.
pub fn run(
    measure: &mut dyn Measure,
    sandbox: &str,
    extent: Extent,
    interrupt: &Interrupt,
) -> anyhow::Result<Findings> {
    let mut launches = Launches { measure, sandbox, interrupt, random: fastrand::Rng::with_seed(extent.seed) };
    let warm_ups: Vec<f64> = (0..WARM_UPS).map(|_| launches.launch(0)).collect::<anyhow::Result<_>>()?;
    let usual = median(&warm_ups).context("there was no launch")?;
    let same: Vec<(f64, f64)> =
        (0..extent.comparisons * extent.blocks).map(|_| launches.pair(0)).collect::<anyhow::Result<_>>()?;
    let work = usual * (extent.slowdown - 1.0);
    let slower: Vec<(f64, f64)> =
        (0..DETECTION_PAIRS).map(|_| launches.pair(work as u64)).collect::<anyhow::Result<_>>()?;
    // The machine may have drifted since the warm-up: what was really planted is known by the pairs' own plain side.
    let plain: Vec<f64> = slower.iter().map(|(_, plain)| *plain).collect();
    let planted = 1.0 + work / median(&plain).unwrap_or(usual);
    Ok(Findings {
        false_alarms: false_alarms(&same, extent.blocks).context("the pairs give no comparison")?,
        detection: detection(&slower, planted).context("the pairs with the slowdown give no interval")?,
    })
}

struct Launches<'a> {
    measure: &'a mut dyn Measure,
    sandbox: &'a str,
    interrupt: &'a Interrupt,
    random: fastrand::Rng,
}

impl Launches<'_> {
    /// One launch with so much work and one without, in random order.
    fn pair(&mut self, work: u64) -> anyhow::Result<(f64, f64)> {
        if self.interrupt.requested() {
            bail!("interrupted");
        }
        if self.random.bool() {
            let slower = self.launch(work)?;
            Ok((slower, self.launch(0)?))
        } else {
            let plain = self.launch(0)?;
            Ok((self.launch(work)?, plain))
        }
    }

    /// Nanoseconds from t0 to the first line.
    fn launch(&mut self, work: u64) -> anyhow::Result<f64> {
        let cell = Cell {
            experiment: "startup".into(),
            sandbox: self.sandbox.into(),
            block: 0,
            position: 0,
            warm_up: false,
            program: Some(vec!["/proc/self/exe".into(), SUBCOMMAND.into(), work.to_string()]),
        };
        for measurement in self.measure.measure(&cell)?.measurements {
            match measurement.outcome {
                Outcome::Value(Value::Integer(nanoseconds)) if measurement.metric == "start.ready" => {
                    return Ok(nanoseconds as f64);
                }
                Outcome::Error(error) => bail!("launch in {}: {error}", self.sandbox),
                Outcome::Value(_) => {}
            }
        }
        bail!("a launch in {} gave no start.ready", self.sandbox)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::{Measured, Measurement};

    /// A machine whose launches vary by some tens of per cent around 1 ms, drift, and do what work they are given.
    struct Machine {
        random: fastrand::Rng,
        launches: u64,
        heeds_work: bool,
    }

    impl Measure for Machine {
        fn measure(&mut self, cell: &Cell) -> anyhow::Result<Measured> {
            self.launches += 1;
            let work: u64 = cell.program.as_ref().and_then(|program| program.last()?.parse().ok()).unwrap_or(0);
            let noise = self.random.u64(0..300_000) + self.launches * 100;
            let nanoseconds = 1_000_000 + noise + if self.heeds_work { work } else { 0 };
            let measurement = Measurement {
                instance: 0,
                metric: "start.ready".into(),
                parameters: Default::default(),
                outcome: Outcome::Value(Value::Integer(nanoseconds)),
            };
            Ok(Measured { measurements: vec![measurement], left: Vec::new() })
        }
    }

    fn findings(heeds_work: bool) -> Findings {
        let mut machine = Machine { random: fastrand::Rng::with_seed(11), launches: 0, heeds_work };
        let extent = Extent { comparisons: 60, blocks: 8, slowdown: 1.25, seed: 3 };
        run(&mut machine, "process", extent, &Interrupt::default()).unwrap()
    }

    #[test]
    fn a_slowdown_is_found_and_nothing_else() {
        let findings = findings(true);
        assert_eq!(findings.false_alarms.comparisons, 60);
        assert!(findings.hold(), "{findings:?}");
        let (found, planted) = (findings.detection.found.value, findings.detection.planted);
        assert!((found / planted - 1.0).abs() < 0.1, "{findings:?}");
    }

    #[test]
    fn a_machine_that_hides_the_slowdown_does_not_hold() {
        let findings = findings(false);
        assert!(!findings.detection.detected() && !findings.hold(), "{findings:?}");
    }

    #[test]
    fn ctrl_c_ends_it() {
        let mut machine = Machine { random: fastrand::Rng::with_seed(1), launches: 0, heeds_work: true };
        let interrupt = Interrupt::default();
        interrupt.request();
        let extent = Extent { comparisons: 1, blocks: 8, slowdown: 1.25, seed: 3 };
        assert!(run(&mut machine, "process", extent, &interrupt).is_err());
    }
}
