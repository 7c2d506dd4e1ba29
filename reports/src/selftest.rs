//! Does the method itself hold? With A/A pairs, where both sides are the same thing, every difference found is a false
//! alarm; and a slowdown that was planted must be found.

use crate::statistics::Estimate;
use crate::statistics::paired::Pairs;
use statrs::distribution::{Beta, ContinuousCDF};

/// Level of the interval that finds a difference.
const LEVEL: f64 = 0.95;

/// How often a difference was found where there is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FalseAlarms {
    /// Comparisons made.
    pub comparisons: usize,
    /// Those in which a difference was found.
    pub alarms: usize,
    /// 95 % interval of the rate of false alarms (Clopper, Pearson: Biometrika 26 (1934), 404-413).
    pub interval: (f64, f64),
}

impl FalseAlarms {
    /// The rate that the method allows itself.
    pub const NOMINAL: f64 = 0.05;

    /// Alarms for each comparison.
    pub fn rate(&self) -> f64 {
        self.alarms as f64 / self.comparisons as f64
    }

    /// Whether the rate is compatible with what the method promises: its interval does not lie above it.
    pub fn holds(&self) -> bool {
        self.interval.0 <= Self::NOMINAL
    }
}

/// Whether a planted slowdown was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// The factor that was planted.
    pub planted: f64,
    /// The factor that was found, with its 95 % interval.
    pub found: Estimate,
    /// Probability of such pairs where there is no slowdown.
    pub probability: f64,
}

impl Detection {
    /// Whether a slowdown was found: the whole interval lies above 1, and the probability is below 5 %.
    pub fn detected(&self) -> bool {
        self.found.interval.is_some_and(|(low, _)| low > 1.0) && self.probability < 1.0 - LEVEL
    }

    /// Whether the planted factor lies in the interval.
    pub fn covered(&self) -> bool {
        self.found.interval.is_some_and(|(low, high)| low <= self.planted && self.planted <= high)
    }
}

/// Divides A/A pairs into comparisons of so many blocks each and counts those in which a difference would be found, by the
/// same rule as for claims: the whole 95 % interval on one side of 1, and the two-sided probability below 5 %. Pairs that
/// are left over are not used. `None` where there is not one comparison, or a value is not positive.
pub fn false_alarms(pairs: &[(f64, f64)], blocks: usize) -> Option<FalseAlarms> {
    let mut found = FalseAlarms { comparisons: 0, alarms: 0, interval: (0.0, 1.0) };
    for comparison in pairs.chunks_exact(blocks.max(1)) {
        let comparison = Pairs::ratios(comparison)?;
        let (low, high) = comparison.estimate(LEVEL)?.interval?;
        found.comparisons += 1;
        found.alarms += usize::from((low > 1.0 || high < 1.0) && comparison.different() < 1.0 - LEVEL);
    }
    found.interval = binomial_interval(found.alarms, found.comparisons)?;
    Some(found)
}

/// Judges pairs (slowed down, plain) in whose first a slowdown by a factor was planted. `None` below 6 pairs or where a
/// value is not positive.
pub fn detection(pairs: &[(f64, f64)], planted: f64) -> Option<Detection> {
    let pairs = Pairs::ratios(pairs)?;
    let found = pairs.estimate(LEVEL).filter(|found| found.interval.is_some())?;
    Some(Detection { planted, found, probability: pairs.above(1.0) })
}

/// The 95 % interval of Clopper and Pearson for a proportion: quantiles of the beta distribution.
fn binomial_interval(hits: usize, trials: usize) -> Option<(f64, f64)> {
    if trials == 0 || hits > trials {
        return None;
    }
    let (hit, missed) = (hits as f64, (trials - hits) as f64);
    let tail = (1.0 - LEVEL) / 2.0;
    let low = if hits == 0 { 0.0 } else { Beta::new(hit, missed + 1.0).ok()?.inverse_cdf(tail) };
    let high = if hits == trials { 1.0 } else { Beta::new(hit + 1.0, missed).ok()?.inverse_cdf(1.0 - tail) };
    Some((low, high))
}
