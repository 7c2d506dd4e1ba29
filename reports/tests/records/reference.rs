//! The statistics against published values, R and scipy 1.17.1.

use isobench_reports::statistics::bootstrap::{ratio_of_medians, unpaired_ratio};
use isobench_reports::statistics::distribution::{decode, encode, new_histogram, supported_quantiles};
use isobench_reports::statistics::holm::holm;
use isobench_reports::statistics::paired::Pairs;
use isobench_reports::statistics::rank_sum::rank_sum;
use isobench_reports::statistics::signed_rank::signed_rank;
use isobench_reports::statistics::slope::theil_sen;
use isobench_reports::statistics::{MINIMUM_BLOCKS, median, median_estimate};

fn close(left: f64, right: f64) {
    assert!((left - right).abs() <= 1e-12 * right.abs().max(1e-3), "{left} is not {right}");
}

#[test]
fn the_median_is_the_middle() {
    assert_eq!(median(&[]), None);
    assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
}

/// scipy.stats.bootstrap((v,), np.median, n_resamples=400000, method='percentile', confidence_level=1 - 2 * a) with
/// Hesterberg's tail a = norm.cdf(-sqrt(20 / 19) * t.ppf(0.975, 19)) = 0.01588: [10.2, 13.5]; at 90 %: [10.5, 13.0].
#[test]
fn the_interval_of_a_median_is_that_of_scipy() {
    let values = [
        10.0, 12.0, 9.0, 11.0, 15.0, 30.0, 8.0, 13.0, 14.0, 10.5, 11.5, 16.0, 9.5, 12.5, 13.5, 40.0, 7.0, 10.2, 11.1,
        12.2,
    ];
    let estimate = median_estimate(&values, 0.95).unwrap();
    assert_eq!((estimate.value, estimate.blocks), (11.75, 20));
    let (low, high) = estimate.interval.unwrap();
    assert!((low - 10.2).abs() < 0.06 && (high - 13.5).abs() < 0.06, "{low} {high}");
    let (low, high) = median_estimate(&values, 0.90).unwrap().interval.unwrap();
    assert!((low - 10.5).abs() < 0.06 && (high - 13.0).abs() < 0.06, "{low} {high}");
}

/// Skewed values whose true median is known: at least 95 % of intervals hold it, give or take the chance of 150 trials.
#[test]
fn intervals_hold_the_true_median_as_often_as_they_say() {
    let mut generator = fastrand::Rng::with_seed(6);
    for blocks in [6, 7, 10, 20] {
        let held = (0..150)
            .map(|_| (0..blocks).map(|_| -generator.f64().ln()).collect::<Vec<f64>>())
            .filter(|values| {
                let (low, high) = median_estimate(values, 0.95).unwrap().interval.unwrap();
                low <= 2.0_f64.ln() && 2.0_f64.ln() <= high
            })
            .count();
        assert!(held >= 138, "{held} of 150 with {blocks} blocks");
    }
}

#[test]
fn few_blocks_have_no_interval() {
    let values: Vec<f64> = (0..MINIMUM_BLOCKS).map(|value| value as f64).collect();
    assert!(median_estimate(&values, 0.95).unwrap().interval.is_some());
    assert_eq!(median_estimate(&values[1..], 0.95).unwrap().interval, None);
    assert_eq!(median_estimate(&[], 0.95), None);
}

/// Darwin's maize (in R: wilcox.test with mu = 0 on the differences): V = 96, two-sided p = 0.04126.
#[test]
fn the_signed_rank_test_agrees_with_darwins_maize() {
    let differences = [6.125, -8.375, 1.0, 2.0, 0.75, 2.875, 3.5, 5.125, 1.75, 3.625, 7.0, 3.0, 9.375, 7.5, -6.0];
    let test = signed_rank(&differences);
    assert_eq!((test.positive, test.pairs), (96.0, 15));
    close(test.two_sided(), 0.041259765625);
    close(test.greater, 0.0206298828125);
    close(test.less, 0.982330322265625);
}

/// Hollander and Wolfe's depression scale factor, the example of R's `?wilcox.test`: V = 40, p = 0.01953.
#[test]
#[expect(clippy::approx_constant, reason = "it is a published measurement")]
fn the_signed_rank_test_agrees_with_hollander_and_wolfe() {
    let before = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30];
    let after = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29];
    let differences: Vec<f64> = before.iter().zip(after).map(|(before, after)| before - after).collect();
    let test = signed_rank(&differences);
    assert_eq!(test.positive, 40.0);
    close(test.greater, 0.01953125);
}

/// scipy.stats.wilcoxon(d, correction=True, method='approx', zero_method='wilcox'), with ties and five zeros.
#[test]
fn the_signed_rank_test_agrees_with_scipy_beyond_the_exact_range() {
    let differences: Vec<f64> =
        (1..=60).map(|i| f64::from((i * 37) % 61 - 25) / 4.0).map(f64::round_ties_even).collect();
    let test = signed_rank(&differences);
    assert_eq!((test.positive, test.pairs), (1042.0, 55));
    assert!((test.greater - 0.011297477633585832).abs() < 1e-9, "{}", test.greater);
    assert!((test.less - 0.988949085521127).abs() < 1e-9, "{}", test.less);
}

/// Permeability constants, the other example of R's `?wilcox.test`: p = 0.2544 on either side.
#[test]
fn the_rank_sum_test_agrees_with_r() {
    let term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
    let early = [1.15, 0.88, 0.90, 0.74, 1.21];
    close(rank_sum(&term, &early), 0.2544122544122544);
    assert_eq!(rank_sum(&term, &[]), 1.0);
    assert_eq!(rank_sum(&[1.0; 40], &[1.0; 40]), 1.0);
}

/// scipy.stats.mannwhitneyu(a, b, method='asymptotic', use_continuity=True), with ties.
#[test]
fn the_rank_sum_test_agrees_with_scipy_beyond_the_exact_range() {
    let first: Vec<f64> = (1..=60).map(|i| f64::from((i * 37) % 61 / 3)).collect();
    let second: Vec<f64> = (1..=60).map(|i| f64::from(((i * 29) % 61 + 5) / 3)).collect();
    assert!((rank_sum(&first, &second) - 0.13288932657590674).abs() < 1e-9);
}

/// scipy.stats.wilcoxon on log ratios shifted by the margin, each side by itself.
#[test]
fn equivalence_is_two_one_sided_tests() {
    let of = |ratios: [f64; 10]| Pairs::ratios(&ratios.map(|ratio| (ratio, 1.0))).unwrap();
    let tight = of([1.01, 0.99, 1.02, 1.003, 0.985, 1.012, 0.998, 1.021, 0.992, 1.006]);
    close(tight.between(1.05_f64.recip(), 1.05), 0.0009765625);
    let loose = of([1.01, 0.93, 1.06, 1.003, 0.945, 1.072, 0.998, 1.061, 0.992, 1.046]);
    close(loose.above(1.05_f64.recip()), 0.0048828125);
    close(loose.below(1.05), 0.0322265625);
    close(loose.between(1.05_f64.recip(), 1.05), 0.0322265625);
    assert_eq!(loose.outside(1.05_f64.recip(), 1.05), 1.0);
}

#[test]
fn a_ratio_is_that_of_the_median_pair() {
    let pairs = [(2.0, 1.0), (6.0, 2.0), (16.0, 4.0), (3.0, 1.0), (9.0, 3.0), (27.0, 9.0), (30.0, 10.0)];
    let estimate = Pairs::ratios(&pairs).unwrap().estimate(0.95).unwrap();
    close(estimate.value, 3.0);
    assert_eq!(Pairs::ratios(&[(1.0, 0.0)]), None, "a ratio to nothing is no ratio");
    assert_eq!(Pairs::ratios(&[(-1.0, 1.0)]), None);
}

/// Holm 1979; R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") = 0.03 0.06 0.06 0.02.
#[test]
fn holm_agrees_with_r() {
    for (adjusted, expected) in holm(&[0.01, 0.04, 0.03, 0.005]).into_iter().zip([0.03, 0.06, 0.06, 0.02]) {
        close(adjusted, expected);
    }
    assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
    assert!(holm(&[]).is_empty());
}

/// scipy.stats.theilslopes(y, x, method='joint'): slope 3.4017857142857144, intercept 9.785714285714285.
#[test]
fn the_slope_is_that_of_scipy() {
    let line = theil_sen(&[(0.0, 10.0), (1.0, 13.0), (2.0, 14.0), (4.0, 30.0), (8.0, 37.0)]).unwrap();
    close(line.slope, 3.4017857142857144);
    close(line.intercept, 9.785714285714285);
    assert_eq!(theil_sen(&[(1.0, 2.0), (1.0, 3.0)]), None);
}

#[test]
fn a_slope_of_nothing_has_no_ratio() {
    let rising = [1.0, 2.0, 3.0, 2.0, 1.0, 2.0];
    assert_eq!(ratio_of_medians(&rising, &[0.0; 6], 0.95), None);
    let sometimes = [1.0, 1.0, 1.0, 1.0, -1.0, -1.0];
    assert_eq!(ratio_of_medians(&rising, &sometimes, 0.95).unwrap().interval, None);
    let ratio = ratio_of_medians(&rising, &[2.0; 6], 0.95).unwrap();
    assert_eq!((ratio.value, ratio.blocks), (1.0, 6));
    let falling = rising.map(|value| -value);
    let ratio = ratio_of_medians(&falling, &[2.0; 6], 0.95).unwrap();
    assert_eq!(
        (ratio.value, ratio.interval),
        (-1.0, Some((-1.5, -0.5))),
        "what takes nothing is less than what takes some"
    );
}

#[test]
fn a_ratio_of_two_runs_draws_each_by_itself() {
    let slow: Vec<f64> = (0..20).map(|value| 200.0 + f64::from(value)).collect();
    let fast: Vec<f64> = (0..10).map(|value| 100.0 + f64::from(value)).collect();
    let ratio = unpaired_ratio(&slow, &fast, 0.95).unwrap();
    close(ratio.value, 209.5 / 104.5);
    let (low, high) = ratio.interval.unwrap();
    assert!(1.9 < low && low < ratio.value && ratio.value < high && high < 2.1, "{low} {high}");
    assert_eq!(unpaired_ratio(&slow, &fast[..5], 0.95).unwrap().interval, None);
}

#[test]
fn the_99th_percentile_needs_10_000_requests() {
    assert_eq!(supported_quantiles(0), [0.0; 0]);
    assert_eq!(supported_quantiles(9_999), [0.5, 0.9]);
    assert_eq!(supported_quantiles(10_000), [0.5, 0.9, 0.99]);
}

#[test]
fn a_histogram_reads_back() {
    let mut histogram = new_histogram();
    for value in [1, 5_000, 5_001, 70_000, 999_999_999_999] {
        histogram.record(value).unwrap();
    }
    assert_eq!(decode(&encode(&histogram)).unwrap(), histogram);
    assert!(decode("not base64!").is_err());
    assert!(decode("AAAA").is_err());
}
