//! Wilcoxon's signed-rank test for paired samples.
//!
//! Wilcoxon: *Individual Comparisons by Ranking Methods*, Biometrics Bulletin 1 (1945), 80-83. Differences of zero are left
//! out, as there; tied differences share the mean of their ranks. Up to 50 pairs the probability is exact, also with
//! ties: every choice of signs is counted (Hollander, Wolfe, Chicken: *Nonparametric Statistical Methods*, 3rd ed. 2014,
//! section 3.1). Beyond, the normal approximation with the correction for ties and for continuity.

use statrs::distribution::{ContinuousCDF, Normal};

/// Up to this number of pairs the probability is exact: 2^50 choices of signs are counted without rounding in an `f64`.
const EXACT: usize = 50;

/// The result of a test on differences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignedRank {
    /// Sum of the ranks of the positive differences.
    pub positive: f64,
    /// Pairs whose difference is not zero.
    pub pairs: usize,
    /// Probability, where the differences are symmetric around zero, of a sum at least this large: small where they are
    /// greater than zero.
    pub greater: f64,
    /// Probability of a sum at most this large: small where they are less than zero.
    pub less: f64,
}

impl SignedRank {
    /// Probability of a sum at least this far from its middle on either side.
    pub fn two_sided(&self) -> f64 {
        (2.0 * self.greater.min(self.less)).min(1.0)
    }
}

/// Tests whether differences are symmetric around zero. With no difference but zero, both probabilities are 1.
pub fn signed_rank(differences: &[f64]) -> SignedRank {
    let mut differences: Vec<f64> = differences.iter().copied().filter(|difference| *difference != 0.0).collect();
    differences.sort_unstable_by(|left, right| left.abs().total_cmp(&right.abs()));
    let ties: Vec<usize> = differences.chunk_by(|left, right| left.abs() == right.abs()).map(<[f64]>::len).collect();
    let doubled = doubled_ranks(&ties);
    let positive: usize =
        doubled.iter().zip(&differences).filter(|(_, difference)| **difference > 0.0).map(|(rank, _)| rank).sum();
    let (greater, less) =
        if doubled.len() <= EXACT { exact(&doubled, positive) } else { approximate(&ties, positive as f64 / 2.0) };
    SignedRank { positive: positive as f64 / 2.0, pairs: doubled.len(), greater, less }
}

/// Twice the rank of each difference, so that the mean rank of a tie is a whole number too.
fn doubled_ranks(ties: &[usize]) -> Vec<usize> {
    let mut ranks = Vec::new();
    for &tied in ties {
        let before = ranks.len();
        ranks.resize(before + tied, 2 * before + tied + 1);
    }
    ranks
}

/// Counts, for each sum that is possible, the choices of signs that give it.
fn exact(doubled: &[usize], positive: usize) -> (f64, f64) {
    let largest: usize = doubled.iter().sum();
    let mut choices = vec![0.0_f64; largest + 1];
    choices[0] = 1.0;
    for &rank in doubled {
        for sum in (rank..=largest).rev() {
            choices[sum] += choices[sum - rank];
        }
    }
    let all = 2.0_f64.powi(doubled.len() as i32);
    let (below, from) = choices.split_at(positive);
    let less = below.iter().sum::<f64>() + choices[positive];
    (from.iter().sum::<f64>() / all, less / all)
}

fn approximate(ties: &[usize], positive: f64) -> (f64, f64) {
    let pairs = ties.iter().sum::<usize>() as f64;
    let mean = pairs * (pairs + 1.0) / 4.0;
    let tied: f64 = ties.iter().map(|&tied| (tied as f64).powi(3) - tied as f64).sum();
    let deviation = (pairs * (pairs + 1.0) * (2.0 * pairs + 1.0) / 24.0 - tied / 48.0).sqrt();
    let normal = Normal::standard();
    (normal.sf((positive - mean - 0.5) / deviation), normal.cdf((positive - mean + 0.5) / deviation))
}
