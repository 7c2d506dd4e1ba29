//! Each rule on records that must come out each way.

use crate::synthetic::{EXPERIMENTS, Synthetic, Told, comparison, owned, texts};
use isobench_reports::claims::{Claim, Comparison, Kind, Rule, claims};
use isobench_reports::metrics;
use isobench_reports::record::{Outcome, Sample, Value};
use isobench_reports::verdict::{Answer, Expectation, FigureKind, Reason, evaluate};

const RATIOS: [&str; 3] = ["host.lossless", "bridge.slower", "container.loopback"];

/// A cost factor that is what the claim says, or the opposite.
fn factor(id: &str, holds: bool) -> f64 {
    match (comparison(id), holds) {
        (Comparison::Equal, true) => 1.0,
        (Comparison::Equal, false) | (Comparison::Worse, true) | (Comparison::Better, false) => 1.3,
        (Comparison::Worse, false) | (Comparison::Better, true) => 0.7,
        (Comparison::Reaches, _) => unreachable!("its ratio is not one of costs"),
    }
}

fn noise(generator: &mut fastrand::Rng, width: f64) -> f64 {
    1.0 + width * (generator.f64() - 0.5)
}

#[test]
fn every_claim_is_answered_once_in_order_and_those_without_experiment_are_not_tested() {
    let verdicts = evaluate(&Synthetic::new().0);
    let ids: Vec<&str> = verdicts.iter().map(|verdict| verdict.claim.id.as_str()).collect();
    assert_eq!(ids, claims().iter().map(|claim| claim.id.as_str()).collect::<Vec<_>>());
    for verdict in verdicts {
        match verdict.claim.rules.is_empty() {
            true => {
                assert_eq!((verdict.answer, verdict.reason), (Answer::NotTested, Some(Reason::NoExperiment)));
            }
            false => assert!(
                verdict.answer == Answer::Inconclusive && matches!(verdict.reason, Some(Reason::NoSamples { .. })),
                "{verdict:?}"
            ),
        }
    }
}

#[test]
fn the_claims_are_whole() {
    let mut ids: Vec<_> = claims().iter().map(|claim| &claim.id).collect();
    assert_eq!(ids.len(), 49);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 49, "an id stands twice");
    for claim in claims() {
        assert!(claim.wording.en.ends_with('.') && claim.wording.zh.ends_with('。'), "{}", claim.id);
        let tested = !claim.rules.is_empty();
        assert_eq!(tested, !claim.experiments.is_empty(), "{}", claim.id);
        assert_eq!(tested && claim.kind == Kind::Figure, !claim.family.is_empty(), "{}", claim.id);
        assert!(claim.experiments.iter().all(|name| EXPERIMENTS.contains(&name.as_str())));
        let metrics_of = |rule: &'static Rule| -> Vec<&String> {
            match rule {
                Rule::Facts { expect, control, .. } => expect.iter().chain(control).map(|fact| &fact.metric).collect(),
                Rule::Ratio { measures, .. } | Rule::SlopeRatio { measures, .. } => {
                    measures.iter().map(|measure| &measure.metric).collect()
                }
                Rule::Threshold { limits } => {
                    assert!(limits.iter().all(|limit| limit.below.is_some() != limit.at_least.is_some()));
                    limits.iter().map(|limit| &limit.metric).collect()
                }
            }
        };
        let mut named = claim.rules.iter().flat_map(metrics_of);
        assert!(named.all(|metric| metrics::find(metric).is_some()), "{}", claim.id);
    }
}

#[test]
fn ratios_confirm() {
    for id in RATIOS {
        let mut generator = fastrand::Rng::with_seed(1);
        let records = Synthetic::new().ratios(id, 10, false, |_, _| factor(id, true) * noise(&mut generator, 0.02));
        let verdict = records.verdict(id);
        assert_eq!((verdict.answer, &verdict.reason), (Answer::Confirmed, &None), "{verdict:#?}");
        for figure in &verdict.figures {
            assert_eq!((figure.answer, figure.blocks, figure.kind), (Answer::Confirmed, 10, FigureKind::Ratio));
            assert!(figure.interval.0 <= figure.value && figure.value <= figure.interval.1);
            let equal = matches!(figure.expectation, Expectation::Equal { margin } if margin == 1.05);
            assert_eq!(figure.level, if equal { 0.90 } else { 0.95 });
            assert!((figure.value - figure.median / figure.against_median.unwrap()).abs() < 0.05, "{figure:?}");
        }
    }
}

#[test]
fn ratios_refute() {
    for id in RATIOS {
        let mut generator = fastrand::Rng::with_seed(2);
        let records = Synthetic::new().ratios(id, 10, false, |_, _| factor(id, false) * noise(&mut generator, 0.02));
        assert_eq!(records.verdict(id).answer, Answer::Refuted, "{:#?}", records.verdict(id));
    }
    let same = Synthetic::new().ratios("bridge.slower", 10, false, |_, block| 1.0 + 0.001 * f64::from(block));
    assert_eq!(same.verdict("bridge.slower").answer, Answer::Refuted, "slower by less than the margin is not slower");
}

#[test]
fn ratios_split_where_figures_disagree() {
    for id in RATIOS {
        let records = Synthetic::new()
            .ratios(id, 10, false, |index, block| factor(id, index == 0) * (1.0 + 0.001 * f64::from(block)));
        let verdict = records.verdict(id);
        assert_eq!(verdict.answer, Answer::Split);
        assert_eq!(verdict.figures[0].answer, Answer::Confirmed);
        assert!(verdict.figures[1..].iter().all(|figure| figure.answer == Answer::Refuted));
    }
}

#[test]
fn ratios_are_inconclusive_in_noise() {
    for id in RATIOS {
        let mut generator = fastrand::Rng::with_seed(3);
        let records = Synthetic::new().ratios(id, 10, false, |_, _| 1.05 * noise(&mut generator, 0.6));
        let verdict = records.verdict(id);
        assert_eq!((verdict.answer, verdict.reason), (Answer::Inconclusive, Some(Reason::Undecided)), "{id}");
    }
}

#[test]
fn few_blocks_decide_nothing() {
    let records = Synthetic::new().ratios("bridge.slower", 5, false, |_, _| 2.0);
    let verdict = records.verdict("bridge.slower");
    assert_eq!(verdict.answer, Answer::Inconclusive);
    assert_eq!(verdict.reason, Some(Reason::TooFewBlocks { blocks: 5, needed: 6 }));
    // Ten figures in one family: 10 / 2^7 is above 5 %, 10 / 2^8 below.
    let adjusted =
        |blocks| Synthetic::new().ratios("bridge.slower", blocks, false, |_, _| 2.0).verdict("bridge.slower");
    assert_eq!(adjusted(7).answer, Answer::Inconclusive);
    assert_eq!(adjusted(7).reason, Some(Reason::Improbable { probability: 10.0 / 128.0, blocks: 7 }));
    assert!((adjusted(7).figures[0].p_confirm - 10.0 / 128.0).abs() < 1e-12);
    assert_eq!(adjusted(8).answer, Answer::Confirmed);
}

#[test]
fn a_measure_without_samples_leaves_a_claim_open() {
    let mut records = Synthetic::new().ratios("bridge.slower", 10, false, |_, _| 2.0);
    for sample in &mut records.0.samples {
        if sample.metric == "tcp.upload" && sample.sandbox == "container-bridge" {
            sample.outcome = Outcome::Error("refused".into());
        }
    }
    let verdict = records.verdict("bridge.slower");
    assert_eq!(verdict.answer, Answer::Inconclusive);
    let missing = Reason::NoSamples { metric: "tcp.upload".into(), sandbox: "container-bridge".into() };
    assert_eq!(verdict.reason, Some(missing));
    assert_eq!(verdict.figures.len(), 8, "what there is, is shown");
}

#[test]
fn a_pair_needs_both_sides_in_one_block_and_warm_ups_never_count() {
    let mut records = Synthetic::new().ratios("container.loopback", 12, false, |_, _| 0.5);
    let before = records.verdict("container.loopback");
    for sample in &mut records.0.samples {
        sample.warm_up = sample.block == 1;
        if sample.block == 1 {
            sample.outcome = Outcome::Value(match sample.outcome {
                Outcome::Value(Value::Transfer { .. }) => Value::Transfer { amount: 1, nanoseconds: 1 },
                _ => Value::Integer(1),
            });
        }
    }
    records.0.samples.retain(|sample| !(sample.block == 2 && sample.sandbox == "container-container"));
    let after = records.verdict("container.loopback");
    assert_eq!((before.answer, after.answer), (Answer::Confirmed, Answer::Confirmed));
    assert_eq!((before.figures[0].blocks, after.figures[0].blocks), (12, 10));
}

#[test]
fn peers_that_were_measured_decide_with_us() {
    let id = "bridge.slower";
    let peers = || Synthetic::new().peer("docker-bridge").peer("docker-host").ratios(id, 12, false, |_, _| 2.0);
    assert_eq!(peers().verdict(id).figures.len(), 10, "a peer without samples takes no part");
    let agree = peers().peer("podman-bridge").peer("podman-host").ratios(id, 12, true, |_, _| 2.0).verdict(id);
    assert_eq!((agree.answer, agree.figures.len()), (Answer::Confirmed, 30));
    let disagree = peers().peer("podman-bridge").peer("podman-host").ratios(id, 12, true, |_, _| 0.9).verdict(id);
    assert_eq!(disagree.answer, Answer::Split);
    let mut absent = peers().peer("podman-bridge").peer("podman-host").ratios(id, 12, true, |_, _| 0.9);
    absent.sandbox("podman-host").unavailable = Some("podman is not installed".into());
    absent.sandbox("docker-host").unavailable = Some("docker is not installed".into());
    assert_eq!(absent.verdict(id).answer, Answer::Confirmed, "a peer that is not there does not decide");
}

#[test]
fn footprints_are_compared_by_their_slopes() {
    for id in ["vm.footprint", "vm.footprint.unikernel"] {
        let mut generator = fastrand::Rng::with_seed(4);
        let mut of = |factor: f64, width: f64| {
            Synthetic::new().ratios(id, 10, false, |_, _| factor * noise(&mut generator, width)).verdict(id)
        };
        let confirmed = of(0.3, 0.1);
        assert_eq!(confirmed.answer, Answer::Confirmed, "{confirmed:#?}");
        let figure = &confirmed.figures[0];
        assert_eq!((figure.kind, figure.unit, figure.median_unit), (FigureKind::SlopeRatio, "", "B"));
        assert!((figure.value - 0.3).abs() < 0.05 && figure.interval.1 < 0.5, "{figure:?}");
        assert_eq!(of(1.5, 0.1).answer, Answer::Refuted);
        assert_eq!(of(1.0, 0.8).answer, Answer::Inconclusive);
    }
}

#[test]
fn a_footprint_that_is_lost_in_noise_is_small_and_one_to_compare_with_must_not_be() {
    let run = |container: f64, machine: f64| {
        let mut records = Synthetic::new();
        for block in 1..=10_u32 {
            let noise = if block % 2 == 0 { 3e3 } else { -4e3 };
            for instances in [1_u32, 2, 4, 8] {
                for (sandbox, each) in [("container-bridge", container), ("vm-linux", machine)] {
                    let value = 1e9 + f64::from(instances) * (each + noise);
                    let parameters = owned(&[("instances", &instances.to_string())]);
                    records.number(sandbox, block, "memory.host", &parameters, value);
                }
            }
        }
        records.verdict("vm.footprint")
    };
    let lost = run(0.0, 1e6);
    assert_eq!(lost.answer, Answer::Confirmed, "{lost:#?}");
    assert!(lost.figures[0].interval.0 < 0.0, "{lost:#?}");
    let both = run(0.0, 0.0);
    let (metric, sandbox, against) = ("memory.host".into(), "container-bridge".into(), "vm-linux".into());
    assert_eq!((both.answer, both.reason), (Answer::Inconclusive, Some(Reason::NoRatio { metric, sandbox, against })));
}

#[test]
fn a_value_of_nought_and_blocks_that_nobody_shares_are_told_from_samples_that_are_not_there() {
    let id = "container.loopback";
    let whole = || Synthetic::new().ratios(id, 10, false, |_, _| 0.5);
    let mut nought = whole();
    let stalled = |sample: &&mut Sample| sample.metric == "tcp.download" && sample.sandbox == "container-bridge";
    for sample in nought.0.samples.iter_mut().filter(stalled) {
        sample.outcome = Outcome::Value(Value::Transfer { amount: 0, nanoseconds: 1 });
    }
    let (metric, sandbox, against) = ("tcp.download".into(), "container-container".into(), "container-bridge".into());
    assert_eq!(nought.verdict(id).reason, Some(Reason::NoRatio { metric, sandbox, against }));
    let mut apart = whole();
    for sample in apart.0.samples.iter_mut().filter(|sample| sample.sandbox == "container-bridge") {
        sample.block += 100;
    }
    assert_eq!(apart.verdict(id).reason, Some(Reason::TooFewBlocks { blocks: 0, needed: 6 }));
}

/// A run whose container and whose VMs are ready after some seconds, give or take.
fn starts(container: f64, vm: f64, spread: f64) -> Synthetic {
    let mut records = Synthetic::new();
    let mut generator = fastrand::Rng::with_seed(5);
    for block in 1..=10 {
        let machines = ["vm-linux", "vm-unikernel", "qemu-microvm", "vm-linux-restored"].map(|machine| (machine, vm));
        for (sandbox, seconds) in [("container-bridge", container)].into_iter().chain(machines) {
            let nanoseconds = seconds * 1e9 * noise(&mut generator, spread);
            records.number(sandbox, block, "start.ready", &owned(&[]), nanoseconds);
        }
    }
    records
}

#[test]
fn starts_are_held_against_limits() {
    for id in ["vm.start", "vm.start.unikernel", "vm.start.emulation", "vm.start.restored"] {
        let answer = |container, vm, spread| starts(container, vm, spread).verdict(id).answer;
        assert_eq!(answer(1.0, 90.0, 0.2), Answer::Confirmed);
        assert_eq!(answer(1.0, 2.0, 0.2), Answer::Split, "the container's part holds, the machine's does not");
        assert_eq!(answer(20.0, 2.0, 0.2), Answer::Refuted);
        assert_eq!(answer(1.0, 60.0, 0.4), Answer::Inconclusive);
    }
    let figure = &starts(1.0, 2.0, 0.2).verdict("vm.start").figures[0];
    assert_eq!((figure.kind, figure.unit), (FigureKind::Value, "ns"));
    assert!((0.8e9..1.2e9).contains(&figure.value) && figure.value == figure.median, "{figure:?}");
}

/// The container, and what takes the machine's place in a claim or its sub-claim.
fn machine_of(id: &str) -> &'static str {
    if id.ends_with(".unikernel") { "vm-unikernel" } else { "vm-linux" }
}

#[test]
fn lives_are_held_against_limits() {
    for id in ["vm.lifecycle", "vm.lifecycle.unikernel"] {
        let answer = |container: f64, machine: f64, spread: f64| {
            let mut records = Synthetic::new();
            let mut generator = fastrand::Rng::with_seed(6);
            for block in 1..=10 {
                for (sandbox, seconds) in [("container-bridge", container), (machine_of(id), machine)] {
                    for metric in ["lifecycle.creation", "lifecycle.deletion"] {
                        let nanoseconds = seconds * 1e9 * noise(&mut generator, spread);
                        records.number(sandbox, block, metric, &owned(&[]), nanoseconds);
                    }
                }
            }
            let verdict = records.verdict(id);
            assert_eq!(verdict.figures.len(), 4, "{verdict:#?}");
            verdict.answer
        };
        assert_eq!(answer(1.0, 90.0, 0.2), Answer::Confirmed);
        assert_eq!(answer(1.0, 0.3, 0.2), Answer::Split);
        assert_eq!(answer(20.0, 2.0, 0.2), Answer::Refuted);
        assert_eq!(answer(10.0, 60.0, 0.4), Answer::Inconclusive);
    }
}

/// The family has eight figures, of which two stand in both claims. Seven blocks decide six figures, not eight.
#[test]
fn a_figure_in_several_claims_is_one_test_of_its_family() {
    let mut records = Synthetic::new();
    for block in 1..=7 {
        for (sandbox, seconds) in [("container-bridge", 1.0), ("vm-linux", 90.0), ("vm-unikernel", 90.0)] {
            for metric in ["lifecycle.creation", "lifecycle.deletion"] {
                records.number(sandbox, block, metric, &owned(&[]), (seconds + f64::from(block) / 100.0) * 1e9);
            }
        }
    }
    for id in ["vm.lifecycle", "vm.lifecycle.unikernel"] {
        let verdict = records.verdict(id);
        assert_eq!(verdict.answer, Answer::Confirmed, "{verdict:#?}");
        assert!(verdict.figures.iter().all(|figure| figure.p_confirm == 6.0 / 128.0), "{verdict:#?}");
    }
}

#[test]
fn density_is_a_ratio_of_counts() {
    for id in ["vm.density", "vm.density.unikernel"] {
        let of = |containers: f64, machines: f64, spread: f64| {
            let mut records = Synthetic::new();
            let mut generator = fastrand::Rng::with_seed(7);
            for block in 1..=10 {
                for (sandbox, count) in [("container-bridge", containers), (machine_of(id), machines)] {
                    let count = count * noise(&mut generator, spread);
                    records.number(sandbox, block, "density.instances", &owned(&[]), count);
                }
            }
            records.verdict(id)
        };
        let confirmed = of(300.0, 40.0, 0.05);
        assert_eq!(confirmed.answer, Answer::Confirmed, "{confirmed:#?}");
        assert_eq!(confirmed.figures[0].expectation, Expectation::Reaches { ratio: 5.0 });
        assert_eq!(of(120.0, 60.0, 0.05).answer, Answer::Refuted, "twice as many are more, and not five times as many");
        assert_eq!(of(200.0, 40.0, 0.4).answer, Answer::Inconclusive);
    }
}

/// Work that costs a container so much, and whether known differences were seen.
fn worked(id: &str, cost: impl Fn(usize) -> f64, seen: bool) -> isobench_reports::verdict::Verdict {
    let mut generator = fastrand::Rng::with_seed(9);
    let mut records = Synthetic::new().ratios(id, 10, false, |index, _| cost(index) * noise(&mut generator, 0.02));
    for sandbox in ["process", "container-bridge", "vm-unikernel"] {
        for block in 1..=10 {
            for what in ["work", "memory"] {
                let value = Value::Boolean(seen || sandbox != "container-bridge");
                records.add(("overhead", sandbox), block, "overhead.seen", &[("what", what)], value);
            }
        }
    }
    records.verdict(id)
}

#[test]
fn work_in_a_container_is_held_against_a_bare_process_and_a_machine() {
    for id in ["vm.overhead.native", "vm.overhead.unikernel"] {
        let of = |holds, seen| worked(id, |_| factor(id, holds), seen);
        let confirmed = of(true, true);
        assert_eq!((confirmed.answer, &confirmed.reason), (Answer::Confirmed, &None), "{confirmed:#?}");
        assert_eq!(of(false, true).answer, Answer::Refuted, "{id}");
        let broken = of(true, false);
        assert_eq!(broken.answer, Answer::Inconclusive);
        assert!(matches!(broken.reason, Some(Reason::ControlBroken { .. })), "{broken:#?}");
        // Its network alone costs more: what is true of the one is not said of the other.
        let split = worked(id, |index| factor(id, index < 2), true);
        assert_eq!(split.answer, Answer::Split, "{split:#?}");
    }
    // Where the machine is not on hardware, nothing is said of it.
    let verdict = Synthetic::new().verdict("vm.overhead");
    assert_eq!(verdict.answer, Answer::Inconclusive);
}

/// Records of what a machine holds of 100 MiB, at its start and after it has written to most of them.
fn reserved(id: &str, boot: f64, spread: f64, taken: (bool, bool)) -> Synthetic {
    let mut records = Synthetic::new();
    let mut generator = fastrand::Rng::with_seed(8);
    for block in 1..=10 {
        let machine = machine_of(id);
        for (when, mebibytes) in
            [("assigned", 100.0), ("boot", boot * noise(&mut generator, spread)), ("touched", 98.0)]
        {
            let bytes = mebibytes * 1_048_576.0;
            records.number(machine, block, "reservation.memory", &owned(&[("when", when)]), bytes);
        }
        for (sandbox, taken) in [(machine, taken.0), ("container-bridge", taken.1)] {
            let place = ("reservation", sandbox);
            records.add(place, block, "reservation.taken", &[("when", "touched")], Value::Boolean(taken));
        }
    }
    records
}

#[test]
fn what_a_machine_takes_at_its_start_is_held_against_what_it_was_assigned() {
    for id in ["vm.prealloc", "vm.prealloc.unikernel"] {
        let of = |boot, spread, taken| reserved(id, boot, spread, taken).verdict(id);
        let confirmed = of(97.0, 0.02, (true, true));
        assert_eq!((confirmed.answer, &confirmed.reason), (Answer::Confirmed, &None), "{confirmed:#?}");
        assert_eq!((confirmed.figures.len(), confirmed.facts.len()), (1, 2));
        assert_eq!(confirmed.figures[0].against_parameters, Some(owned(&[("when", "assigned")])));
        assert_eq!(of(30.0, 0.1, (true, true)).answer, Answer::Refuted);
        assert_eq!(of(90.0, 0.3, (true, true)).answer, Answer::Inconclusive);
        // Where memory that was written to is not seen to be taken, the reading is not to be trusted.
        for taken in [(false, true), (true, false)] {
            let verdict = of(30.0, 0.1, taken);
            let sandbox = if taken.0 { "container-bridge" } else { machine_of(id) };
            let broken = Reason::ControlBroken { metric: "reservation.taken".into(), sandbox: sandbox.into() };
            assert_eq!((verdict.answer, verdict.reason), (Answer::Inconclusive, Some(broken)), "{id}");
        }
    }
}

#[test]
fn what_a_machine_keeps_is_held_against_what_it_had_touched() {
    let of = |freed: f64, ballooned: f64, given_back: bool| {
        let mut records = Synthetic::new();
        let mut generator = fastrand::Rng::with_seed(8);
        for block in 1..=10 {
            for (when, mebibytes) in [("touched", 98.0), ("freed", freed), ("ballooned", ballooned)] {
                let bytes = mebibytes * noise(&mut generator, 0.02) * 1_048_576.0;
                records.number("vm-linux", block, "reservation.memory", &owned(&[("when", when)]), bytes);
            }
            let place = ("reservation", "vm-linux");
            records.add(place, block, "reservation.taken", &[("when", "touched")], Value::Boolean(true));
            let place = ("reservation", "container-bridge");
            records.add(place, block, "reservation.given-back", &[("when", "freed")], Value::Boolean(given_back));
        }
        records.verdict("vm.prealloc.kept")
    };
    let confirmed = of(97.0, 97.0, true);
    assert_eq!((confirmed.answer, &confirmed.reason), (Answer::Confirmed, &None), "{confirmed:#?}");
    let split = of(97.0, 35.0, true);
    assert_eq!(split.answer, Answer::Split, "{split:#?}");
    // The guest's own freeing is held apart from the balloon.
    let answers: Vec<Answer> = split.figures.iter().map(|figure| figure.answer).collect();
    assert_eq!(answers, [Answer::Confirmed, Answer::Refuted]);
    let broken = Reason::ControlBroken { metric: "reservation.given-back".into(), sandbox: "container-bridge".into() };
    assert_eq!(of(97.0, 35.0, false).reason, Some(broken));
}

#[test]
fn libraries_are_shared_where_pages_are_and_little_is_left() {
    for id in ["vm.shared-libraries", "vm.shared-libraries.unikernel"] {
        // MiB: shared and private of containers, private of machines.
        let answer = |shared: f64, private: f64, machine: f64, spread: f64| {
            let mut records = Synthetic::new();
            let mut generator = fastrand::Rng::with_seed(9);
            for block in 1..=10 {
                let pages = [
                    ("container-bridge", "shared", shared),
                    ("container-bridge", "private", private),
                    (machine_of(id), "private", machine),
                ];
                for (sandbox, set, mebibytes) in pages {
                    let bytes = mebibytes * 1_048_576.0 * noise(&mut generator, spread);
                    records.number(sandbox, block, "sharing.pages", &owned(&[("set", set)]), bytes);
                }
            }
            records.verdict(id).answer
        };
        assert_eq!(answer(12.0, 3.0, 40.0, 0.1), Answer::Confirmed);
        assert_eq!(answer(2.0, 3.0, 40.0, 0.1), Answer::Split, "small, and not because pages are shared");
        assert_eq!(answer(2.0, 30.0, 4.0, 0.1), Answer::Refuted);
        assert_eq!(answer(3.0, 3.0, 3.15, 0.8), Answer::Inconclusive);
    }
}

#[test]
fn a_claim_on_machines_needs_linux_on_hardware() {
    let mut unavailable = starts(1.0, 90.0, 0.1);
    unavailable.sandbox("vm-linux").unavailable = Some("this KVM is software".into());
    let verdict = unavailable.verdict("vm.start");
    assert_eq!(verdict.answer, Answer::NotMeasurable);
    let why = Reason::Unavailable { sandbox: "vm-linux".into(), why: "this KVM is software".into() };
    assert_eq!((verdict.reason, verdict.figures.len()), (Some(why), 0));
    assert_eq!(unavailable.verdict("vm.start.unikernel").answer, Answer::Confirmed);

    let mut emulated = starts(1.0, 90.0, 0.1);
    emulated.sandbox("vm-linux").emulation = Some("TCG".into());
    emulated.sandbox("vm-unikernel").emulation = Some("software KVM".into());
    let verdict = emulated.verdict("vm.start");
    assert_eq!(verdict.answer, Answer::NotMeasurable);
    assert_eq!(verdict.reason, Some(Reason::Emulated { sandbox: "vm-linux".into(), emulation: "TCG".into() }));
    let sub_claim = emulated.verdict("vm.start.unikernel");
    assert_eq!((sub_claim.answer, sub_claim.emulation.as_deref()), (Answer::Confirmed, Some("software KVM")));

    let mut machine = starts(1.0, 90.0, 0.1);
    machine.0.run.machine.emulated = true;
    assert_eq!(machine.verdict("vm.start").answer, Answer::NotMeasurable);
    assert_eq!(machine.verdict("vm.start.unikernel").emulation.as_deref(), Some("emulated machine"));
}

#[test]
fn a_claim_on_emulation_needs_a_machine_that_is_emulated() {
    let mut records = starts(1.0, 90.0, 0.1);
    let verdict = records.verdict("vm.start.emulation");
    assert_eq!(
        (verdict.answer, verdict.emulation.as_deref()),
        (Answer::Confirmed, Some("software emulation (QEMU TCG)"))
    );
    records.sandbox("qemu-microvm").emulation = None;
    let verdict = records.verdict("vm.start.emulation");
    let on_hardware = Reason::OnHardware { sandbox: "qemu-microvm".into() };
    assert_eq!((verdict.answer, verdict.reason), (Answer::NotMeasurable, Some(on_hardware)));
}

#[test]
fn what_the_run_left_out_is_not_tested() {
    let mut records = starts(1.0, 90.0, 0.1);
    records.0.run.sandboxes.retain(|sandbox| sandbox.name != "vm-linux");
    let reason = Some(Reason::NotInRun { name: "vm-linux".into() });
    assert_eq!((records.verdict("vm.start").answer, records.verdict("vm.start").reason), (Answer::NotTested, reason));
    records.0.run.plan.experiments.retain(|name| name != "network");
    let verdict = records.verdict("none.alone");
    assert_eq!(
        (verdict.answer, verdict.reason),
        (Answer::NotTested, Some(Reason::NotInRun { name: "network".into() }))
    );
}

/// Facts of every network mode as the claims say them.
fn networks() -> Synthetic {
    let mut records = Synthetic::new();
    let (yes, no) = (Value::Boolean(true), Value::Boolean(false));
    let host = [
        ("network.host-interfaces", texts(&["lo", "uplink", "bridge0"])),
        ("network.host-addresses", texts(&["lo 127.0.0.1/8", "uplink 198.51.100.1/24"])),
    ];
    for (sandbox, interfaces, addresses, routes) in [
        (
            "container-host",
            &["uplink", "bridge0", "lo"][..],
            &["uplink 198.51.100.1/24", "lo 127.0.0.1/8"][..],
            &["x"][..],
        ),
        ("container-none", &["lo"], &["lo 127.0.0.1/8"], &[]),
        ("container-bridge", &["eth0", "lo"], &["eth0 172.17.0.2/16"], &["0.0.0.0/0 via 172.17.0.1 dev eth0"]),
        ("container-custom", &["eth0", "lo"], &["eth0 10.89.0.2/24"], &["0.0.0.0/0 via 10.89.0.1 dev eth0"]),
    ] {
        let own = Value::Boolean(sandbox == "container-host");
        records.facts(
            sandbox,
            &[
                ("network.interfaces", texts(interfaces)),
                ("network.addresses", texts(addresses)),
                ("network.routes", texts(routes)),
                ("network.namespace-is-host", own.clone()),
                ("network.port-conflict", own),
                ("network.connects", if sandbox == "container-none" { no.clone() } else { yes.clone() }),
            ],
        );
        records.facts(sandbox, &host);
    }
    records.facts("container-bridge", &[("network.source-address", texts(&["198.51.100.1"]))]);
    records.facts("container-bridge", &[("network.default-mode", texts(&["bridge"]))]);
    records.facts("container-custom", &[("network.range", texts(&["10.89.0.0/24"]))]);
    records
}

/// The same with one fact of one sandbox changed in some blocks.
fn changed(sandbox: &str, metric: &str, value: &Value, blocks: impl Fn(u32) -> bool) -> Synthetic {
    let mut records = networks();
    let mut changes = 0;
    for sample in &mut records.0.samples {
        if sample.sandbox == sandbox && sample.metric == metric && blocks(sample.block) {
            sample.outcome = Outcome::Value(value.clone());
            changes += 1;
        }
    }
    assert!(changes > 0, "{sandbox} has no {metric}");
    records
}

#[test]
fn facts_confirm_consequences_and_only_show_choices() {
    let records = networks();
    for id in ["host.shared", "none.alone"] {
        let verdict = records.verdict(id);
        assert_eq!((verdict.answer, &verdict.reason), (Answer::Confirmed, &None), "{verdict:#?}");
        assert!(verdict.facts.iter().all(|fact| fact.blocks == 3 && fact.answer == Answer::Confirmed));
        assert!(verdict.facts.is_sorted_by_key(|fact| fact.control), "controls stand last");
    }
    for id in ["bridge.default", "bridge.address", "bridge.snat", "custom.range"] {
        assert_eq!(records.verdict(id).answer, Answer::ShownByConstruction, "{:#?}", records.verdict(id));
    }
}

#[test]
fn facts_refute_split_and_contradict() {
    let answer = |id: &str, sandbox, metric, value: &Value, blocks: fn(u32) -> bool| {
        changed(sandbox, metric, value, blocks).verdict(id).answer
    };
    let (yes, no) = (Value::Boolean(true), Value::Boolean(false));
    let all = |_| true;
    assert_eq!(answer("none.alone", "container-none", "network.connects", &yes, all), Answer::Split);
    assert_eq!(
        answer("none.alone", "container-none", "network.connects", &yes, |block| block == 2),
        Answer::Inconclusive
    );
    assert_eq!(answer("host.shared", "container-host", "network.port-conflict", &no, all), Answer::Split);
    assert_eq!(answer("host.shared", "container-host", "network.interfaces", &texts(&["lo"]), all), Answer::Split);

    let mut refuted = changed("container-none", "network.connects", &yes, all);
    for sample in refuted.0.samples.iter_mut().filter(|sample| sample.sandbox == "container-none") {
        if ["network.interfaces", "network.routes"].contains(&sample.metric.as_str()) {
            sample.outcome = Outcome::Value(texts(&["lo", "eth0"]));
        }
    }
    assert_eq!(refuted.verdict("none.alone").answer, Answer::Refuted);
    let contradictory = changed("container-none", "network.interfaces", &texts(&["eth0"]), |block| block == 1);
    let verdict = contradictory.verdict("none.alone");
    let reason = Reason::Contradictory { metric: "network.interfaces".into(), sandbox: "container-none".into() };
    assert_eq!((verdict.answer, verdict.reason), (Answer::Inconclusive, Some(reason)));
    assert_eq!(verdict.facts[0].seen, [texts(&["eth0"]), texts(&["lo"])]);
}

#[test]
fn a_broken_control_decides_nothing() {
    let cases = [
        ("host.shared", "container-none", "network.namespace-is-host", Value::Boolean(true)),
        ("host.shared", "container-none", "network.interfaces", texts(&["lo", "uplink", "bridge0"])),
        ("none.alone", "container-bridge", "network.connects", Value::Boolean(false)),
        ("bridge.address", "container-host", "network.namespace-is-host", Value::Boolean(false)),
        ("bridge.snat", "container-bridge", "network.addresses", texts(&["eth0 198.51.100.1/24"])),
        ("bridge.snat", "container-bridge", "network.connects", Value::Boolean(false)),
        ("custom.range", "container-bridge", "network.routes", texts(&["0.0.0.0/0 via 10.89.0.1 dev eth0"])),
    ];
    for (id, sandbox, metric, value) in cases {
        let verdict = changed(sandbox, metric, &value, |_| true).verdict(id);
        let reason = Reason::ControlBroken { metric: metric.into(), sandbox: sandbox.into() };
        assert_eq!((verdict.answer, verdict.reason), (Answer::Inconclusive, Some(reason)), "{id} {sandbox} {metric}");
    }
}

#[test]
fn a_fact_that_was_not_observed_decides_nothing() {
    let mut records = networks();
    for sample in records.0.samples.iter_mut().filter(|sample| sample.metric == "network.routes") {
        sample.outcome = Outcome::Error("the probe did not answer".into());
    }
    let verdict = records.verdict("none.alone");
    let reason = Reason::NoSamples { metric: "network.routes".into(), sandbox: "container-none".into() };
    assert_eq!((verdict.answer, verdict.reason), (Answer::Inconclusive, Some(reason)));
}

#[test]
fn only_peers_decide_choices() {
    let cases = [
        ("bridge.default", "network.default-mode", texts(&["bridge"]), texts(&["host"])),
        ("bridge.snat", "network.source-address", texts(&["198.51.100.1"]), texts(&["172.17.0.2"])),
        ("bridge.address", "network.addresses", texts(&["eth0 172.17.255.254/16"]), texts(&["eth0 172.18.0.2/16"])),
    ];
    for (id, metric, holds, fails) in cases {
        let own = changed("container-bridge", metric, &fails, |_| true).verdict(id);
        assert!(own.answer == Answer::Inconclusive || own.answer == Answer::ShownByConstruction, "{own:?}");
        assert_ne!(own.reason, None);

        for (value, expected) in [(&holds, Answer::Confirmed), (&fails, Answer::Refuted)] {
            let mut records = networks().peer("docker-bridge").peer("docker-host");
            records.facts("docker-host", &[("network.namespace-is-host", Value::Boolean(true))]);
            records.facts("docker-bridge", &[("network.connects", Value::Boolean(true))]);
            if id != "bridge.address" {
                records.facts("docker-bridge", &[("network.addresses", texts(&["eth0 172.17.0.9/16"]))]);
            }
            records.facts("docker-bridge", &[(metric, value.clone())]);
            records
                .facts("docker-bridge", &[("network.namespace-is-host", Value::Boolean(expected == Answer::Refuted))]);
            assert_eq!(records.verdict(id).answer, expected, "{:#?}", records.verdict(id));
        }
    }
    let custom =
        changed("container-custom", "network.range", &texts(&["10.90.0.0/24"]), |_| true).verdict("custom.range");
    assert_eq!((custom.answer, custom.reason), (Answer::Inconclusive, Some(Reason::OwnRuntimeOnly)));
}

/// The claims that facts alone decide.
fn by_facts() -> impl Iterator<Item = &'static Claim> {
    let facts = |rule: &Rule| matches!(rule, Rule::Facts { .. });
    claims().iter().filter(move |claim| !claim.rules.is_empty() && claim.rules.iter().all(facts))
}

/// A run in which docker took part in every mode.
fn with_docker() -> Synthetic {
    ["host", "container", "none", "bridge", "custom"]
        .into_iter()
        .fold(Synthetic::new(), |records, mode| records.peer(&format!("docker-{mode}")))
}

#[test]
fn every_claim_on_networks_has_a_rule() {
    let on_networks = |claim: &&Claim| !claim.id.starts_with("vm.");
    let without: Vec<&str> = claims()
        .iter()
        .filter(on_networks)
        .filter(|claim| claim.rules.is_empty())
        .map(|claim| claim.id.as_str())
        .collect();
    assert_eq!(without, Vec::<&str>::new());
    // What is asked of a unikernel as well is a claim of its own.
    let counted = |claim: &&Claim| !claim.id.ends_with(".unikernel");
    assert_eq!(claims().iter().filter(on_networks).filter(counted).count(), 24);
}

#[test]
fn every_claim_by_facts_is_confirmed_where_all_of_it_is_seen() {
    for claim in by_facts() {
        let id = &claim.id;
        let own = Synthetic::new().told(id, false, |told, _| Some(told.value(true))).verdict(id);
        let expected = if claim.kind == Kind::Choice { Answer::ShownByConstruction } else { Answer::Confirmed };
        assert_eq!((own.answer, &own.reason), (expected, &None), "{own:#?}");
        assert!(own.facts.iter().any(|fact| fact.control) || id == "bridge.default", "{id} has no control");
    }
}

#[test]
fn every_claim_by_facts_is_refuted_where_none_of_it_is_seen() {
    for claim in by_facts() {
        let id = &claim.id;
        let own = Synthetic::new().told(id, false, |told, _| Some(told.value(told.control))).verdict(id);
        let choice = claim.kind == Kind::Choice;
        let expected = if choice { Answer::Inconclusive } else { Answer::Refuted };
        assert_eq!(own.answer, expected, "{own:#?}");
        assert_eq!(own.reason, choice.then_some(Reason::OwnRuntimeOnly), "{id}");
    }
}

#[test]
fn peers_decide_every_claim_by_facts_in_which_they_take_part() {
    let mut decided = 0;
    for claim in by_facts() {
        let id = &claim.id;
        let peers = |rule: &Rule| matches!(rule, Rule::Facts { subjects, .. } if subjects.iter().any(|one| one.peer));
        if !claim.rules.iter().any(peers) {
            assert!(
                id == "bridge.cross-host" || id.ends_with(".unikernel"),
                "{id}: peers have neither a second host nor a unikernel"
            );
            continue;
        }
        let run = |holds: bool| {
            with_docker()
                .told(id, false, |told, _| Some(told.value(true)))
                .told(id, true, |told, _| Some(told.value(told.control || holds)))
                .verdict(id)
                .answer
        };
        assert_eq!(run(true), Answer::Confirmed, "{id}");
        let expected = if claim.kind == Kind::Choice { Answer::Refuted } else { Answer::Split };
        assert_eq!(run(false), expected, "{id}");
        decided += 1;
    }
    assert!(decided > 15, "{decided}");
}

#[test]
fn every_control_of_every_claim_keeps_it_open_where_it_is_broken() {
    let mut broken = 0;
    for claim in by_facts() {
        let id = &claim.id;
        let count = Synthetic::new().told(id, false, |told, _| Some(told.value(true))).verdict(id).facts.len();
        for index in 0..count {
            let mut metric = None;
            let verdict = Synthetic::new()
                .told(id, false, |told, _| {
                    let sabotaged = told.control && told.index == index;
                    metric = metric.take().or_else(|| sabotaged.then(|| told.fact.metric.clone()));
                    Some(told.value(!sabotaged))
                })
                .verdict(id);
            let Some(metric) = metric else { continue };
            assert_eq!(verdict.answer, Answer::Inconclusive, "{id}: {verdict:#?}");
            let named =
                matches!(&verdict.reason, Some(Reason::ControlBroken { metric: named, .. }) if *named == metric);
            assert!(named, "{id}: {:?} instead of {metric}", verdict.reason);
            broken += 1;
        }
    }
    assert!(broken > 40, "{broken}");
}

#[test]
fn every_claim_by_facts_stays_open_where_blocks_disagree_or_a_fact_is_missing() {
    for claim in by_facts() {
        let id = &claim.id;
        let disagreeing =
            Synthetic::new().told(id, false, |told, block| Some(told.value(told.index > 0 || block != 2))).verdict(id);
        assert_eq!(disagreeing.answer, Answer::Inconclusive, "{id}");
        assert!(matches!(disagreeing.reason, Some(Reason::Contradictory { .. })), "{id}: {:?}", disagreeing.reason);
        let missing =
            Synthetic::new().told(id, false, |told, _| (told.index > 0).then(|| told.value(true))).verdict(id);
        assert_eq!(missing.answer, Answer::Inconclusive, "{id}");
        assert!(matches!(missing.reason, Some(Reason::NoSamples { .. })), "{id}: {:?}", missing.reason);
    }
}

#[test]
fn every_claim_by_facts_is_not_measurable_without_its_sandbox() {
    for claim in by_facts() {
        let Rule::Facts { subjects, .. } = &claim.rules[0] else { continue };
        let mut records = Synthetic::new().told(&claim.id, false, |told, _| Some(told.value(true)));
        records.sandbox(&subjects[0].sandbox).unavailable = Some("it is not there".into());
        let verdict = records.verdict(&claim.id);
        let reason = Reason::Unavailable { sandbox: subjects[0].sandbox.clone(), why: "it is not there".into() };
        assert_eq!((verdict.answer, verdict.reason), (Answer::NotMeasurable, Some(reason)), "{}", claim.id);
    }
}

#[test]
fn facts_and_figures_decide_together() {
    let id = "custom.same-as-bridge";
    let records = |cost: f64, width: f64, holds: fn(&Told<'_>) -> bool| {
        let mut generator = fastrand::Rng::with_seed(6);
        Synthetic::new()
            .ratios(id, 12, false, |_, _| cost * noise(&mut generator, width))
            .told(id, false, |told, _| Some(told.value(holds(told))))
            .verdict(id)
    };
    let all = records(1.0, 0.02, |_| true);
    assert_eq!((all.answer, &all.reason), (Answer::Confirmed, &None), "{all:#?}");
    assert!(!all.figures.is_empty() && all.facts.is_sorted_by_key(|fact| fact.control));
    assert_eq!(records(1.3, 0.02, |_| true).answer, Answer::Split, "the same in kind, and slower");
    assert_eq!(records(1.3, 0.02, |told| told.control).answer, Answer::Refuted);
    let other = records(1.0, 0.02, |told| told.control || told.index != 0);
    assert_eq!(other.answer, Answer::Split, "as fast, and made otherwise");
    let noise = records(1.05, 0.6, |_| true);
    assert_eq!((noise.answer, noise.reason), (Answer::Inconclusive, Some(Reason::Undecided)));
    let broken = records(1.0, 0.02, |told| !told.control);
    assert_eq!(broken.answer, Answer::Inconclusive);
    assert!(matches!(broken.reason, Some(Reason::ControlBroken { .. })), "{:?}", broken.reason);
}

#[test]
fn a_peer_whose_figures_were_left_out_still_shows_its_facts() {
    let id = "custom.same-as-bridge";
    let run = |holds: bool| {
        with_docker()
            .ratios(id, 12, false, |_, block| 1.0 + 0.001 * f64::from(block))
            .told(id, false, |told, _| Some(told.value(true)))
            .told(id, true, |told, _| Some(told.value(told.control || holds)))
            .verdict(id)
    };
    let verdict = run(true);
    assert_eq!((verdict.answer, &verdict.reason), (Answer::Confirmed, &None), "{verdict:#?}");
    assert!(verdict.facts.iter().any(|fact| fact.sandbox == "docker-custom"));
    assert!(verdict.figures.iter().all(|figure| figure.sandbox == "container-custom"));
    assert_eq!(run(false).answer, Answer::Split);
}
