//! Medians and their intervals by resampling blocks.
//!
//! Blocks are drawn with replacement, the statistic is taken of each draw, and the interval holds the middle of what comes
//! out: Efron's percentile interval (Efron, Tibshirani 1993, chapter 13), which respects monotone transformations, so that
//! an interval for a ratio is the exponential of that for its logarithm. With few blocks it is too narrow (a median of 7
//! blocks lies outside in 12 % of cases, not 5 %), so its tails are chosen for the number of blocks as in Hesterberg: *What
//! Teachers Should Know About the Bootstrap*, The American Statistician 69 (2015), 371-386, section 5.3: with that, 95 %
//! intervals of 6 to 30 blocks held the true median in 95 to 99 % of simulations. Draws are seeded: the same records give
//! the same report, byte for byte.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// Below this number of blocks there is no interval. With 6 values, the chance that all lie on one side of the median is
/// 2 x 0.5^6 = 3.1 %: the smallest number whose whole range is a 95 % interval for the median.
pub const MINIMUM_BLOCKS: usize = 6;

/// Draws. One less than a round number, so that a bound at probability p is the order statistic p x (9,999 + 1).
const DRAWS: usize = 9_999;

/// Any fixed number serves.
const SEED: u64 = 0x69_73_6f_62_65_6e_63_68;

/// A median over blocks with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The median.
    pub value: f64,
    /// Bounds of the interval; absent below [`MINIMUM_BLOCKS`].
    pub interval: Option<(f64, f64)>,
    /// Level of the interval, such as 0.95.
    pub level: f64,
    /// Blocks.
    pub blocks: usize,
}

/// The median: the middle value, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some(mean(sorted[middle - 1], sorted[middle])),
    }
}

/// The median over blocks and its interval at a level.
pub fn median_estimate(blocks: &[f64], level: f64) -> Option<Estimate> {
    let sorted = sorted(blocks);
    let interval = resample(sorted.len(), level, |counts| Some(drawn(counts, &sorted)));
    Some(Estimate { value: median(blocks)?, interval, level, blocks: blocks.len() })
}

/// The ratio of two medians over the same blocks, drawn together: for quantities whose ratio within one block is too noisy
/// to be taken, such as slopes. A numerator may be nought or below, as the slope of a little memory in much noise is; there is no
/// interval where a draw's divisor is not positive.
pub fn ratio_of_medians(numerators: &[f64], divisors: &[f64], level: f64) -> Option<Estimate> {
    let blocks = numerators.len().min(divisors.len());
    let (numerators, divisors) = (&numerators[..blocks], &divisors[..blocks]);
    let (upper, lower) = (order(numerators), order(divisors));
    let ratio = |numerator: f64, divisor: f64| (divisor > 0.0).then(|| numerator / divisor);
    let value = ratio(median(numerators)?, median(divisors)?)?;
    let interval = resample(blocks, level, |counts| {
        let of = |order: &[usize], values: &[f64]| drawn_median(blocks, order.iter().map(|&i| (counts[i], values[i])));
        ratio(of(&upper, numerators), of(&lower, divisors))
    });
    Some(Estimate { value, interval, level, blocks })
}

/// The ratio of the medians of two independent sets of blocks, each drawn by itself: for two runs.
/// `blocks` of the estimate is the smaller number.
pub fn unpaired_ratio(numerators: &[f64], divisors: &[f64], level: f64) -> Option<Estimate> {
    let (upper, lower) = (sorted(numerators), sorted(divisors));
    let value = positive_ratio(median(&upper)?, median(&lower)?)?;
    let mut generator = fastrand::Rng::with_seed(SEED);
    let blocks = upper.len().min(lower.len());
    let interval = (blocks >= MINIMUM_BLOCKS).then(|| {
        let (mut upper_counts, mut lower_counts) = (vec![0; upper.len()], vec![0; lower.len()]);
        percentiles(blocks, level, || {
            draw(&mut generator, &mut upper_counts);
            draw(&mut generator, &mut lower_counts);
            positive_ratio(drawn(&upper_counts, &upper), drawn(&lower_counts, &lower))
        })
    });
    Some(Estimate { value, interval: interval.flatten(), level, blocks })
}

/// Draws blocks with replacement and gives the percentile interval of a statistic, which is told how often each block was
/// drawn. Absent below [`MINIMUM_BLOCKS`] or where the statistic of any draw is.
fn resample(blocks: usize, level: f64, mut statistic: impl FnMut(&[u32]) -> Option<f64>) -> Option<(f64, f64)> {
    if blocks < MINIMUM_BLOCKS {
        return None;
    }
    let mut generator = fastrand::Rng::with_seed(SEED);
    let mut counts = vec![0; blocks];
    percentiles(blocks, level, || {
        draw(&mut generator, &mut counts);
        statistic(&counts)
    })
}

fn draw(generator: &mut fastrand::Rng, counts: &mut [u32]) {
    counts.fill(0);
    for _ in 0..counts.len() {
        counts[generator.usize(..counts.len())] += 1;
    }
}

/// The interval that leaves out as many draws on either side as the level allows with so many blocks.
fn percentiles(blocks: usize, level: f64, mut statistic: impl FnMut() -> Option<f64>) -> Option<(f64, f64)> {
    let mut drawn = (0..DRAWS).map(|_| statistic()).collect::<Option<Vec<f64>>>()?;
    let outside = (tail(blocks, level)? * (DRAWS + 1) as f64).round() as usize;
    let outside = outside.clamp(1, DRAWS.div_ceil(2));
    let mut bound = |rank: usize| *drawn.select_nth_unstable_by(rank, f64::total_cmp).1;
    Some((bound(outside - 1), bound(DRAWS - outside)))
}

/// Hesterberg's expanded tail: resampling makes spread too small by the root of (n - 1) / n, and takes it for known.
fn tail(blocks: usize, level: f64) -> Option<f64> {
    let blocks = blocks as f64;
    let student = StudentsT::new(0.0, 1.0, blocks - 1.0).ok()?;
    Some(Normal::standard().cdf(-(blocks / (blocks - 1.0)).sqrt() * student.inverse_cdf((1.0 + level) / 2.0)))
}

fn drawn(counts: &[u32], sorted: &[f64]) -> f64 {
    drawn_median(sorted.len(), counts.iter().copied().zip(sorted.iter().copied()))
}

/// The median of a draw: values in ascending order, each with the number of times that it was drawn.
fn drawn_median(total: usize, ascending: impl Iterator<Item = (u32, f64)>) -> f64 {
    let (below, above) = ((total - 1) / 2, total / 2);
    let (mut passed, mut lower) = (0, None);
    for (count, value) in ascending {
        passed += count as usize;
        if passed > below {
            let lower = *lower.get_or_insert(value);
            if passed > above {
                return mean(lower, value);
            }
        }
    }
    f64::NAN
}

/// Half of the sum, written so that it cannot overflow and lies between the two.
fn mean(lower: f64, upper: f64) -> f64 {
    lower + (upper - lower) / 2.0
}

fn positive_ratio(numerator: f64, divisor: f64) -> Option<f64> {
    (numerator > 0.0 && divisor > 0.0).then(|| numerator / divisor)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// Indices in the ascending order of their values.
fn order(values: &[f64]) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..values.len()).collect();
    indices.sort_by(|&left, &right| values[left].total_cmp(&values[right]));
    indices
}
