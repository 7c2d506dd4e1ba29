//! The rank-sum test for two independent samples (Wilcoxon 1945; Mann, Whitney: *On a Test of Whether One of Two Random
//! Variables Is Stochastically Larger than the Other*, Annals of Mathematical Statistics 18 (1947), 50-60).
//!
//! Tied values share the mean of their ranks. Up to 50 values in all the probability is exact, also with ties: every
//! division of the ranks is counted. Beyond, the normal approximation with the correction for ties and for continuity.

use statrs::distribution::{ContinuousCDF, Normal};

/// Up to this number of values in both samples together every division is counted, without rounding in an `f64`.
const EXACT: usize = 50;

/// Probability, on either side, of rank sums this far apart where both samples come from one distribution. 1 where a sample
/// is empty.
pub fn rank_sum(first: &[f64], second: &[f64]) -> f64 {
    let mut values: Vec<(f64, bool)> =
        first.iter().map(|value| (*value, true)).chain(second.iter().map(|value| (*value, false))).collect();
    values.sort_unstable_by(|left, right| left.0.total_cmp(&right.0));
    // Twice the rank, so that the mean rank of a tie is a whole number too.
    let (mut ranks, mut sum, mut tied) = (Vec::new(), 0, 0.0);
    for same in values.chunk_by(|left, right| left.0 == right.0) {
        let rank = 2 * ranks.len() + same.len() + 1;
        ranks.resize(ranks.len() + same.len(), rank);
        sum += rank * same.iter().filter(|(_, first)| *first).count();
        tied += (same.len() as f64).powi(3) - same.len() as f64;
    }
    let one_sided = if ranks.len() <= EXACT {
        exact(&ranks, first.len(), sum)
    } else {
        approximate(first.len() as f64, second.len() as f64, sum as f64 / 2.0, tied)
    };
    (2.0 * one_sided).min(1.0)
}

/// The smaller one-sided probability: counts the divisions for each sum that the first sample's ranks can have.
fn exact(ranks: &[usize], chosen: usize, sum: usize) -> f64 {
    let largest: usize = ranks.iter().sum();
    // divisions[n][s]: ways to choose n of the ranks seen so far with sum s.
    let mut divisions = vec![vec![0.0_f64; largest + 1]; chosen + 1];
    divisions[0][0] = 1.0;
    for &rank in ranks {
        for count in (1..=chosen).rev() {
            let (fewer, more) = divisions.split_at_mut(count);
            for sum in rank..=largest {
                more[0][sum] += fewer[count - 1][sum - rank];
            }
        }
    }
    let sums = &divisions[chosen];
    let all: f64 = sums.iter().sum();
    let (less, greater): (f64, f64) = (sums[..=sum].iter().sum(), sums[sum..].iter().sum());
    less.min(greater) / all
}

fn approximate(first: f64, second: f64, sum: f64, tied: f64) -> f64 {
    let all = first + second;
    let mean = first * (all + 1.0) / 2.0;
    let variance = first * second / 12.0 * (all + 1.0 - tied / (all * (all - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    Normal::standard().sf(((sum - mean).abs() - 0.5) / variance.sqrt())
}
