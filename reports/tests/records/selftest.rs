//! The method on noise that is known: false alarms stay rare, and a planted slowdown is found.

use isobench_reports::selftest::{detection, false_alarms};

/// Pairs with skewed noise and a common drift, the first of each slower by a factor.
fn pairs(count: usize, factor: f64, seed: u64) -> Vec<(f64, f64)> {
    let mut generator = fastrand::Rng::with_seed(seed);
    (0..count)
        .map(|_| {
            let drift = 1e6 * (1.0 + generator.f64());
            let mut noise = || drift * (1.0 - 0.05 * (1.0 - generator.f64()).ln());
            (factor * noise(), noise())
        })
        .collect()
}

#[test]
fn false_alarms_are_as_rare_as_promised() {
    let found = false_alarms(&pairs(10_000, 1.0, 1), 10).unwrap();
    assert_eq!(found.comparisons, 1000);
    assert!(found.holds() && found.rate() < 0.06, "{found:?}");
    assert!(found.interval.0 < found.rate() && found.rate() < found.interval.1);
}

#[test]
fn alarms_on_a_true_difference_are_not_called_rare() {
    let found = false_alarms(&pairs(400, 1.2, 2), 10).unwrap();
    assert!(found.rate() > 0.9 && !found.holds(), "{found:?}");
}

#[test]
fn a_planted_slowdown_is_found_and_none_is_not() {
    let found = detection(&pairs(30, 1.2, 3), 1.2).unwrap();
    assert!(found.detected() && found.covered(), "{found:?}");
    let nothing = detection(&pairs(30, 1.0, 4), 1.2).unwrap();
    assert!(!nothing.detected() && !nothing.covered(), "{nothing:?}");
}

/// scipy.stats.binomtest(k, n).proportion_ci(0.95, 'exact'): none of 40 gives (0, 0.0881).
#[test]
fn the_interval_of_a_rate_is_exact() {
    let same: Vec<(f64, f64)> = (1..=240).map(|value| (f64::from(value), f64::from(value))).collect();
    let found = false_alarms(&same, 6).unwrap();
    assert_eq!((found.comparisons, found.alarms), (40, 0));
    assert_eq!(found.interval.0, 0.0);
    assert!((found.interval.1 - 0.08809730287880335).abs() < 1e-9, "{found:?}");
}

#[test]
fn too_little_is_no_test() {
    assert_eq!(false_alarms(&pairs(9, 1.0, 5), 10), None);
    assert_eq!(false_alarms(&pairs(10, 1.0, 5), 5), None, "5 blocks have no interval");
    assert_eq!(detection(&pairs(5, 1.0, 5), 1.2), None);
    assert_eq!(detection(&[(0.0, 1.0); 10], 1.2), None);
}
