//! Two runs against each other.

use crate::synthetic::{Synthetic, owned};
use isobench_reports::compare::{Change, Comparison};
use isobench_reports::record::Outcome;

/// A run of 20 blocks in which start-up takes `start` and the rate is `rate`, give or take 2 %.
fn run(start: f64, rate: f64, seed: u64) -> Synthetic {
    let mut generator = fastrand::Rng::with_seed(seed);
    let mut records = Synthetic::new();
    for block in 1..=20 {
        let mut noise = || 0.98 + 0.04 * generator.f64();
        records.number("process", block, "start.ready", &owned(&[]), 1e6 * noise());
        records.number("container-none", block, "start.ready", &owned(&[]), start * noise());
        records.number("container-none", block, "tcp.upload", &owned(&[("path", "host")]), rate * noise());
    }
    records
}

fn compare(old: &Synthetic, new: &Synthetic) -> Comparison {
    Comparison::new(&old.0, &new.0)
}

#[test]
fn nothing_changed_between_two_runs_of_the_same() {
    let comparison = compare(&run(2e6, 1e9, 1), &run(2e6, 1e9, 2));
    assert_eq!(comparison.rows.len(), 3);
    assert!(comparison.rows.iter().all(|row| row.change == Change::NoneShown), "{comparison:?}");
    assert!(comparison.worst_regression().is_none() && !comparison.fails(1.0));
}

#[test]
fn a_slower_start_and_a_lower_rate_are_worse() {
    let comparison = compare(&run(2e6, 1e9, 1), &run(2.4e6, 0.7e9, 2));
    let worst = comparison.worst_regression().unwrap();
    assert_eq!(worst.name.metric, "tcp.upload");
    assert!((worst.cost.unwrap().value - 1.0 / 0.7).abs() < 0.03, "{worst:?}");
    assert!((worst.new / worst.old - 0.7).abs() < 0.03);
    assert!(worst.probability < 1e-6, "{worst:?}");
    assert_eq!(comparison.rows.iter().filter(|row| row.change == Change::Worse).count(), 2);
    assert!(comparison.fails(1.1) && comparison.fails(1.4) && !comparison.fails(1.5));
    let back = compare(&run(2.4e6, 0.7e9, 2), &run(2e6, 1e9, 1));
    assert_eq!(back.rows.iter().filter(|row| row.change == Change::Better).count(), 2);
    assert!(!back.fails(1.0), "better is no regression");
}

#[test]
fn a_small_change_does_not_pass_for_noise_but_is_below_the_threshold() {
    let comparison = compare(&run(2e6, 1e9, 1), &run(2.1e6, 1e9, 2));
    assert_eq!(comparison.worst_regression().unwrap().change, Change::Worse);
    assert!(!comparison.fails(1.1) && comparison.fails(1.02));
}

#[test]
fn too_few_blocks_show_nothing() {
    let mut old = run(2e6, 1e9, 1);
    old.0.samples.retain(|sample| sample.block <= 5);
    let comparison = compare(&old, &run(4e6, 1e9, 2));
    assert!(comparison.rows.iter().all(|row| row.change == Change::NoneShown));
}

#[test]
fn what_has_too_few_blocks_makes_no_other_change_less_probable() {
    let probability = |short: bool| {
        let (mut old, mut new) = (run(2e6, 1e9, 1), run(2.4e6, 1e9, 2));
        for (records, block) in (1..=5).flat_map(|block| [(true, block), (false, block)]) {
            let records = if records { &mut old } else { &mut new };
            if short {
                records.number("docker-none", block, "start.ready", &owned(&[]), 1e8 + f64::from(block));
            }
        }
        let comparison = compare(&old, &new);
        assert_eq!(comparison.rows.len(), if short { 4 } else { 3 });
        comparison.worst_regression().unwrap().probability
    };
    assert_eq!(probability(true), probability(false));
}

#[test]
fn what_fails_now_is_a_failure() {
    let mut new = run(2e6, 1e9, 2);
    for sample in new.0.samples.iter_mut().filter(|sample| sample.metric == "tcp.upload") {
        sample.outcome = Outcome::Error("refused".into());
    }
    let comparison = compare(&run(2e6, 1e9, 1), &new);
    assert_eq!(comparison.lost.len(), 1);
    assert_eq!(comparison.lost[0].metric, "tcp.upload");
    assert!(comparison.fails(10.0));
}

#[test]
fn another_machine_is_told_of() {
    let mut new = run(2e6, 1e9, 2);
    new.0.run.machine.kernel = "6.99".into();
    let comparison = compare(&run(2e6, 1e9, 1), &new);
    assert_eq!(comparison.circumstances, [("kernel".into(), String::new(), "6.99".into())]);
}

#[test]
fn other_circumstances_are_told_of_where_the_machine_is_the_same() {
    let (old, mut new) = (run(2e6, 1e9, 1), run(2e6, 1e9, 2));
    let mut full = old.0.clone();
    (full.run.plan.suite, full.run.plan.narrowed) = ("custom".into(), Some("full".into()));
    full.run.program = "isobench 0.1.0 (0123456789ab, musl)".into();
    new.0.run.plan.suite = "quick".into();
    new.0.run.program = "isobench 0.1.0 (ba9876543210, gnu)".into();
    new.0.run.machine.emulated = true;
    full.run.machine.kvm = "KVM is emulated here: 258 times slower".into();
    new.0.run.machine.kvm = "KVM is emulated here: 97 times slower".into();
    new.0.run.machine.facts =
        [("uptime", "1 1"), ("congestion-control", "reno")].map(|(a, b)| (a.into(), b.into())).into();
    new.sandbox("vm-unikernel").emulation = Some("software KVM".into());
    let comparison = Comparison::new(&full, &new.0);
    let told: Vec<[&str; 3]> = comparison.circumstances.iter().map(|(name, old, new)| [&**name, old, new]).collect();
    let expected = [
        ["whole machine emulated", "false", "true"],
        ["suite", "full", "quick"],
        ["C library", "musl", "gnu"],
        ["congestion-control", "none", "reno"],
        ["emulation of vm-unikernel", "none", "software KVM"],
    ];
    assert_eq!(told, expected);
    assert!(comparison.rows.iter().all(|row| row.emulation.as_deref() == Some("emulated machine")));
}

#[test]
fn what_cannot_be_measured_any_more_is_a_failure_and_errors_are_counted() {
    let mut new = run(2e6, 1e9, 2);
    new.sandbox("container-none").unavailable = Some("clone3 is refused".into());
    new.0.samples.retain(|sample| sample.sandbox != "container-none");
    new.sandbox("container-bridge").unavailable = Some("never measured".into());
    new.0.samples[0].outcome = Outcome::Error("late".into());
    let comparison = compare(&run(2e6, 1e9, 1), &new);
    assert_eq!(comparison.unavailable, [("container-none".into(), "clone3 is refused".into())]);
    assert_eq!(comparison.errors, [0, 1]);
    assert!(comparison.fails(10.0) && comparison.lost.is_empty());
}

#[test]
fn memory_of_the_host_is_compared_by_its_slope() {
    let run = |used: f64, each: f64| {
        let mut records = Synthetic::new();
        for block in 1..=8_u32 {
            for instances in [0_u32, 1, 2, 4] {
                let value = used + f64::from(instances) * (each + f64::from(block));
                let parameters = owned(&[("instances", &instances.to_string())]);
                records.number("process", block, "memory.host", &parameters, value);
            }
        }
        records
    };
    let busier = compare(&run(5e8, 1e5), &run(9e8, 1e5));
    assert_eq!(busier.rows.len(), 1, "{busier:?}");
    assert_eq!(busier.rows[0].change, Change::NoneShown, "what else the machine does is no regression");
    let heavier = compare(&run(9e8, 1e5), &run(5e8, 2e5));
    assert_eq!(heavier.rows[0].change, Change::Worse);
    assert!(heavier.rows[0].name.parameters.is_empty() && (heavier.rows[0].cost.unwrap().value - 2.0).abs() < 0.01);
}
