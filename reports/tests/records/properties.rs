//! Properties of the statistics that hold for any numbers.

use isobench_reports::statistics::bootstrap::ratio_of_medians;
use isobench_reports::statistics::distribution::{decode, encode, merge, new_histogram};
use isobench_reports::statistics::holm::holm;
use isobench_reports::statistics::median_estimate;
use isobench_reports::statistics::paired::Pairs;
use isobench_reports::statistics::rank_sum::rank_sum;
use isobench_reports::statistics::signed_rank::signed_rank;
use isobench_reports::statistics::slope::theil_sen;
use proptest::collection::vec;
use proptest::prelude::*;

/// Probabilities of a signed-rank test, by going through every choice of signs.
fn signed_rank_by_enumeration(differences: &[f64]) -> (f64, f64) {
    let differences: Vec<f64> = differences.iter().copied().filter(|difference| *difference != 0.0).collect();
    let rank = |of: f64| -> f64 {
        let below = differences.iter().filter(|other| other.abs() < of.abs()).count();
        let same = differences.iter().filter(|other| other.abs() == of.abs()).count();
        below as f64 + (same as f64 + 1.0) / 2.0
    };
    let ranks: Vec<f64> = differences.iter().map(|difference| rank(*difference)).collect();
    let observed: f64 =
        ranks.iter().zip(&differences).filter(|(_, difference)| **difference > 0.0).map(|(rank, _)| rank).sum();
    let (mut greater, mut less) = (0.0, 0.0);
    for signs in 0..1_u32 << ranks.len() {
        let sum: f64 = ranks.iter().enumerate().filter(|(bit, _)| signs >> bit & 1 == 1).map(|(_, rank)| rank).sum();
        greater += f64::from(u8::from(sum >= observed));
        less += f64::from(u8::from(sum <= observed));
    }
    let all = f64::from(1_u32 << ranks.len());
    (greater / all, less / all)
}

/// Probability of a rank-sum test, by going through every division.
fn rank_sum_by_enumeration(first: &[f64], second: &[f64]) -> f64 {
    let all: Vec<f64> = first.iter().chain(second).copied().collect();
    let rank = |of: f64| {
        let (below, same) = (all.iter().filter(|v| **v < of).count(), all.iter().filter(|v| **v == of).count());
        below as f64 + (same as f64 + 1.0) / 2.0
    };
    let ranks: Vec<f64> = all.iter().map(|value| rank(*value)).collect();
    let observed: f64 = ranks[..first.len()].iter().sum();
    let (mut greater, mut less, mut divisions) = (0.0, 0.0, 0.0);
    for chosen in (0..1_u32 << all.len()).filter(|chosen| chosen.count_ones() as usize == first.len()) {
        let sum: f64 = ranks.iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 == 1).map(|(_, rank)| rank).sum();
        greater += f64::from(u8::from(sum >= observed));
        less += f64::from(u8::from(sum <= observed));
        divisions += 1.0;
    }
    (2.0 * f64::min(greater, less) / divisions).min(1.0)
}

fn near(left: f64, right: f64) -> bool {
    (left - right).abs() < 1e-9
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_interval_holds_its_median_and_does_not_depend_on_the_order(
        values in vec(-1e9..1e9_f64, 1..40), seed in any::<u64>(),
    ) {
        let estimate = median_estimate(&values, 0.95).unwrap();
        let mut shuffled = values.clone();
        fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
        prop_assert_eq!(median_estimate(&shuffled, 0.95).unwrap(), estimate);
        prop_assert_eq!(estimate.interval.is_some(), values.len() >= 6);
        if let Some((low, high)) = estimate.interval {
            let narrow = median_estimate(&values, 0.90).unwrap().interval.unwrap();
            let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(l, m), v| (l.min(*v), m.max(*v)));
            prop_assert!(least <= low && low <= narrow.0 && narrow.0 <= estimate.value);
            prop_assert!(estimate.value <= narrow.1 && narrow.1 <= high && high <= most);
        }
    }

    #[test]
    fn a_ratio_scales_and_inverts(pairs in vec((1.0..1e6_f64, 1.0..1e6_f64), 6..30), scale in 0.01..100.0_f64) {
        let estimate = |pairs: &[(f64, f64)]| Pairs::ratios(pairs).unwrap().estimate(0.95).unwrap();
        let same = |left: f64, right: f64| (left / right - 1.0).abs() < 1e-9;
        let plain = estimate(&pairs);
        let (low, high) = plain.interval.unwrap();
        let scaled = estimate(&pairs.iter().map(|(a, b)| (a * scale, *b)).collect::<Vec<_>>());
        prop_assert!(same(scaled.value, plain.value * scale) && same(scaled.interval.unwrap().0, low * scale));
        let inverted: Vec<_> = pairs.iter().map(|(a, b)| (*b, *a)).collect();
        prop_assert!(same(estimate(&inverted).value, plain.value.recip()));
        let (forward, backward) = (Pairs::ratios(&pairs).unwrap(), Pairs::ratios(&inverted).unwrap());
        prop_assert!(near(forward.above(1.0), backward.below(1.0)));
        prop_assert!(near(forward.different(), backward.different()));
        prop_assert!(low <= plain.value && plain.value <= high);
    }

    #[test]
    fn a_wider_margin_is_easier_to_stay_within(pairs in vec((0.5..2.0_f64, 0.5..2.0_f64), 6..20)) {
        let pairs = Pairs::ratios(&pairs).unwrap();
        prop_assert!(pairs.between(0.5, 2.0) <= pairs.between(0.8, 1.25));
        prop_assert!(pairs.outside(0.5, 2.0) >= pairs.outside(0.8, 1.25));
    }

    #[test]
    fn the_signed_rank_probability_is_the_share_of_all_signs(differences in vec(-6..=6_i8, 0..12)) {
        let differences: Vec<f64> = differences.into_iter().map(f64::from).collect();
        let (greater, less) = signed_rank_by_enumeration(&differences);
        let test = signed_rank(&differences);
        prop_assert!(near(test.greater, greater) && near(test.less, less), "{test:?} {greater} {less}");
    }

    #[test]
    fn the_rank_sum_probability_is_the_share_of_all_divisions(
        first in vec(0..9_u8, 1..7), second in vec(0..9_u8, 1..7),
    ) {
        let (first, second): (Vec<f64>, Vec<f64>) =
            (first.into_iter().map(f64::from).collect(), second.into_iter().map(f64::from).collect());
        let expected = rank_sum_by_enumeration(&first, &second);
        prop_assert!(near(rank_sum(&first, &second), expected), "{} {expected}", rank_sum(&first, &second));
        prop_assert!(near(rank_sum(&second, &first), expected));
    }

    #[test]
    fn the_normal_approximation_takes_over_smoothly(seed in any::<u64>(), shift in -0.5..0.5_f64) {
        let mut generator = fastrand::Rng::with_seed(seed);
        let differences: Vec<f64> = (0..51).map(|_| generator.f64() - 0.5 + shift).collect();
        let (exact, approximate) = (signed_rank(&differences[..50]), signed_rank(&differences));
        prop_assert!((exact.greater - approximate.greater).abs() < 0.15, "{exact:?} {approximate:?}");
        prop_assert!(near(approximate.two_sided(), (2.0 * approximate.greater.min(approximate.less)).min(1.0)));
    }

    #[test]
    fn holm_never_lowers_and_keeps_the_order(probabilities in vec(0.0..=1.0_f64, 0..20)) {
        let adjusted = holm(&probabilities);
        for (index, (raw, adjusted_one)) in probabilities.iter().zip(&adjusted).enumerate() {
            prop_assert!(raw <= adjusted_one && *adjusted_one <= 1.0);
            prop_assert!(*adjusted_one <= (raw * probabilities.len() as f64).min(1.0) || adjusted.iter().any(|a| a == adjusted_one));
            for (other, other_adjusted) in probabilities.iter().zip(&adjusted).skip(index) {
                prop_assert!(raw > other || adjusted_one <= other_adjusted);
                prop_assert!(raw < other || adjusted_one >= other_adjusted);
            }
        }
        if let Some(least) = probabilities.iter().copied().reduce(f64::min) {
            let adjusted_least = adjusted.iter().copied().reduce(f64::min).unwrap();
            prop_assert!(near(adjusted_least, (least * probabilities.len() as f64).min(1.0)), "Bonferroni's first step");
        }
    }

    #[test]
    fn a_line_is_found_through_one_wild_point(slope in -1e3..1e3_f64, start in -1e6..1e6_f64, wild in 0..9_usize) {
        let mut points: Vec<(f64, f64)> = (0..9).map(|x| (f64::from(x), start + slope * f64::from(x))).collect();
        points[wild].1 += 1e9;
        let line = theil_sen(&points).unwrap();
        prop_assert!((line.slope - slope).abs() < 1e-6 && (line.intercept - start).abs() < 1e-3, "{line:?}");
    }

    #[test]
    fn a_ratio_of_medians_lies_between_the_extremes(pairs in vec((1.0..9.0_f64, 1.0..9.0_f64), 6..20)) {
        let (first, second): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        let ratio = ratio_of_medians(&first, &second, 0.95).unwrap();
        let (low, high) = ratio.interval.unwrap();
        prop_assert!(1.0 / 9.0 <= low && low <= ratio.value && ratio.value <= high && high <= 9.0);
    }

    #[test]
    fn histograms_add_up_and_read_back(
        first in vec(1..=1_000_000_000_000_u64, 0..50), second in vec(1..=1_000_000_000_000_u64, 0..50),
    ) {
        let (mut left, mut right, mut both) = (new_histogram(), new_histogram(), new_histogram());
        for value in &first { left.record(*value).unwrap(); both.record(*value).unwrap(); }
        for value in &second { right.record(*value).unwrap(); both.record(*value).unwrap(); }
        let mut sum = decode(&encode(&left)).unwrap();
        merge(&mut sum, &decode(&encode(&right)).unwrap());
        prop_assert_eq!(sum, both);
    }

    #[test]
    fn any_text_is_a_histogram_or_an_error(text in "[A-Za-z0-9+/]{0,80}={0,2}", bytes in vec(any::<u8>(), 0..60)) {
        let _ = decode(&text);
        // A header that is right, and then anything.
        use base64::Engine as _;
        let mut forged = 0x1c84_9313_u32.to_be_bytes().to_vec();
        forged.extend((bytes.len() as u32).to_be_bytes());
        forged.extend([0; 4]);
        forged.extend(3_u32.to_be_bytes());
        forged.extend(1_u64.to_be_bytes());
        forged.extend(1_000_000_000_000_u64.to_be_bytes());
        forged.extend(1.0_f64.to_be_bytes());
        forged.extend(bytes);
        if let Ok(histogram) = decode(&base64::engine::general_purpose::STANDARD.encode(forged)) {
            let mut merged = new_histogram();
            merge(&mut merged, &histogram);
            prop_assert_eq!(merged.len(), histogram.len());
        }
    }
}
