//! Ratios paired within blocks, and what they show about a margin that was fixed beforehand.
//!
//! Both values of a pair come from one block, so that drift hits them alike. A ratio is treated by its logarithm: twice as
//! slow and half as slow lie equally far from no difference, and the median's logarithm is the logarithms' median.
//!
//! A *difference* beyond a margin is tested by the signed-rank test on the logarithms less the margin's. *Equivalence*
//! within a margin is tested by two one-sided tests (Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15
//! (1987), 657-680) in their signed-rank form (Meier: *Nonparametric Equivalence Testing with Respect to the Median
//! Difference*, Pharmaceutical Statistics 9 (2010), 142-150): both nulls, "below the margin" and "above it", must be
//! rejected at 5 %, which corresponds to the 90 % interval lying within the margin.

use super::bootstrap::{Estimate, median_estimate};
use super::signed_rank::signed_rank;

/// Logarithms of ratios paired within blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct PairedRatios(Vec<f64>);

impl PairedRatios {
    /// Takes the pairs of each block, numerator and divisor. `None` where a value is not positive: its ratio has no
    /// logarithm, and a pair is never dropped in silence.
    pub fn new(pairs: &[(f64, f64)]) -> Option<Self> {
        let usable = |value: f64| value > 0.0 && value.is_finite();
        pairs
            .iter()
            .map(|&(numerator, divisor)| (usable(numerator) && usable(divisor)).then(|| numerator.ln() - divisor.ln()))
            .collect::<Option<_>>()
            .map(Self)
    }

    /// The median ratio and its interval.
    pub fn estimate(&self, level: f64) -> Option<Estimate> {
        let logarithm = median_estimate(&self.0, level)?;
        let interval = logarithm.interval.map(|(low, high)| (low.exp(), high.exp()));
        Some(Estimate { value: logarithm.value.exp(), interval, ..logarithm })
    }

    /// Probability of such ratios where their median is not above `margin`.
    pub fn above(&self, margin: f64) -> f64 {
        signed_rank(&self.less(margin)).greater
    }

    /// Probability of such ratios where their median is not below `margin`.
    pub fn below(&self, margin: f64) -> f64 {
        signed_rank(&self.less(margin)).less
    }

    /// Probability of such ratios where their median is not between `1 / margin` and `margin`: the larger one of two
    /// one-sided tests.
    pub fn equivalent(&self, margin: f64) -> f64 {
        self.above(margin.recip()).max(self.below(margin))
    }

    /// Probability of such ratios where their median is between `1 / margin` and `margin`: twice the smaller one of two
    /// one-sided tests, since either side would do.
    pub fn beyond(&self, margin: f64) -> f64 {
        (2.0 * self.above(margin).min(self.below(margin.recip()))).min(1.0)
    }

    /// Probability of such ratios, on either side, where there is no difference.
    pub fn different(&self) -> f64 {
        signed_rank(&self.0).two_sided()
    }

    fn less(&self, margin: f64) -> Vec<f64> {
        self.0.iter().map(|logarithm| logarithm - margin.ln()).collect()
    }
}
