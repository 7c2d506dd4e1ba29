//! Pairs within blocks, and what they show about a ratio that was fixed beforehand.
//!
//! Both values of a pair come from one block, so that drift hits them alike. A ratio is treated by its logarithm: twice as
//! slow and half as slow lie equally far from no difference, and the median's logarithm is the logarithms' median.
//!
//! A *difference* beyond a margin is tested by the signed-rank test on the logarithms less the margin's. *Equivalence*
//! within a margin is tested by two one-sided tests (Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15
//! (1987), 657-680) in their signed-rank form (Meier: *Nonparametric Equivalence Testing with Respect to the Median
//! Difference*, Pharmaceutical Statistics 9 (2010), 142-150): both nulls, "below the margin" and "above it", must be
//! rejected at 5 %, which corresponds to the 90 % interval lying within the margin.

use super::bootstrap::{Estimate, median_estimate, ratio_of_medians};
use super::signed_rank::signed_rank;

/// Pairs of values within blocks, to be judged by their ratio.
#[derive(Clone, Debug, PartialEq)]
pub enum Pairs {
    /// Logarithms of the ratios: for values that are positive in every block.
    Logarithms(Vec<f64>),
    /// The pairs themselves, first and second: for slopes, whose ratio within one block is too noisy to be taken. `first`
    /// beyond a multiple of `second` is judged by the difference between the two.
    Linear(Vec<(f64, f64)>),
}

impl Pairs {
    /// Pairs of positive values. `None` where one is not positive: a ratio without logarithm is never dropped in silence.
    pub fn ratios(pairs: &[(f64, f64)]) -> Option<Self> {
        let usable = |value: f64| value > 0.0 && value.is_finite();
        pairs
            .iter()
            .map(|&(first, second)| (usable(first) && usable(second)).then(|| first.ln() - second.ln()))
            .collect::<Option<_>>()
            .map(Self::Logarithms)
    }

    /// Number of pairs.
    pub fn blocks(&self) -> usize {
        match self {
            Self::Logarithms(logarithms) => logarithms.len(),
            Self::Linear(pairs) => pairs.len(),
        }
    }

    /// The ratio with its interval: the median of the blocks' ratios, or the ratio of the medians for linear pairs.
    pub fn estimate(&self, level: f64) -> Option<Estimate> {
        match self {
            Self::Logarithms(logarithms) => {
                let logarithm = median_estimate(logarithms, level)?;
                let interval = logarithm.interval.map(|(low, high)| (low.exp(), high.exp()));
                Some(Estimate { value: logarithm.value.exp(), interval, ..logarithm })
            }
            Self::Linear(pairs) => {
                let (first, second): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
                ratio_of_medians(&first, &second, level)
            }
        }
    }

    /// Probability of such pairs where their ratio is not above `ratio`: small where it is.
    pub fn above(&self, ratio: f64) -> f64 {
        signed_rank(&self.less(ratio)).greater
    }

    /// Probability of such pairs where their ratio is not below `ratio`: small where it is.
    pub fn below(&self, ratio: f64) -> f64 {
        signed_rank(&self.less(ratio)).less
    }

    /// Probability of such pairs where their ratio is not between two: the larger one of two one-sided tests.
    pub fn between(&self, low: f64, high: f64) -> f64 {
        self.above(low).max(self.below(high))
    }

    /// Probability of such pairs where their ratio is between two: twice the smaller one of two one-sided tests, since
    /// either side would do.
    pub fn outside(&self, low: f64, high: f64) -> f64 {
        (2.0 * self.below(low).min(self.above(high))).min(1.0)
    }

    /// Probability of such pairs, on either side, where there is no difference.
    pub fn different(&self) -> f64 {
        signed_rank(&self.less(1.0)).two_sided()
    }

    fn less(&self, ratio: f64) -> Vec<f64> {
        match self {
            Self::Logarithms(logarithms) => logarithms.iter().map(|logarithm| logarithm - ratio.ln()).collect(),
            Self::Linear(pairs) => pairs.iter().map(|(first, second)| first - ratio * second).collect(),
        }
    }
}
