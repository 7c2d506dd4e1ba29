//! Series: grouping, estimates, order.

use crate::synthetic::{Synthetic, owned, texts};
use isobench_reports::record::{Outcome, StageTime, Value};
use isobench_reports::statistics::distribution::{encode, new_histogram};
use isobench_reports::summary::{Data, Numbers, lines, summary};

fn numbers(data: &Data) -> &Numbers {
    match data {
        Data::Numbers(numbers) => numbers,
        data => panic!("{data:?} are no numbers"),
    }
}

#[test]
fn a_block_counts_once_and_a_warm_up_never() {
    let mut records = Synthetic::new();
    for block in 0..=7 {
        for value in [100, 200, 900] {
            records.add(("startup", "process"), block, "start.ready", &[], Value::Integer(value * 1000));
            let warm_up = block == 0;
            let sample = records.0.samples.last_mut().unwrap();
            sample.warm_up = warm_up;
            if warm_up {
                sample.outcome = Outcome::Value(Value::Integer(u64::MAX));
            }
        }
    }
    records.outcome(("startup", "process"), 3, "start.ready", &owned(&[]), Outcome::Error("no".into()));
    let series = summary(&records.0);
    assert_eq!(series.len(), 1);
    let estimate = numbers(&series[0].data).estimate.unwrap();
    assert_eq!((estimate.value, estimate.blocks, estimate.interval), (200_000.0, 7, Some((200_000.0, 200_000.0))));
    assert_eq!(numbers(&series[0].data).points.len(), 24, "warm-ups are kept");
    assert_eq!(numbers(&series[0].data).points.iter().filter(|point| point.warm_up).count(), 3);
    assert_eq!(series[0].failures.len(), 1, "a failure is told of, and is no zero");
}

#[test]
fn series_stand_in_the_order_of_the_run() {
    let mut records = Synthetic::new();
    for (sandbox, path) in
        [("vm-unikernel", "host"), ("container-bridge", "host"), ("process", "host"), ("process", "client")]
    {
        records.number(sandbox, 1, "tcp.round-trip.median", &owned(&[("path", path)]), 1.0);
        records.number(sandbox, 1, "tcp.download", &owned(&[("path", path)]), 1.0);
    }
    records.number("process", 1, "start.ready", &owned(&[]), 1.0);
    let series = summary(&records.0);
    let order: Vec<String> = series
        .iter()
        .map(|series| format!("{} {} {:?}", series.metric, series.sandbox, series.parameters.get("path")))
        .collect();
    assert_eq!(
        order,
        [
            "start.ready process None",
            "tcp.download process Some(\"client\")",
            "tcp.download process Some(\"host\")",
            "tcp.download container-bridge Some(\"host\")",
            "tcp.download vm-unikernel Some(\"host\")",
            "tcp.round-trip.median process Some(\"client\")",
            "tcp.round-trip.median process Some(\"host\")",
            "tcp.round-trip.median container-bridge Some(\"host\")",
            "tcp.round-trip.median vm-unikernel Some(\"host\")",
        ]
    );
    assert_eq!(series[1].unit, "B/s");
}

#[test]
fn stages_have_times_and_durations() {
    let mut records = Synthetic::new();
    for block in 1..=6 {
        let stages = [("announced", 90), ("started", 0), ("created", 40)];
        let stages = stages.map(|(stage, at)| StageTime { stage: stage.into(), at: at * u64::from(block) });
        records.add(("startup", "process"), block, "start.stages", &[], Value::Stages(stages.to_vec()));
    }
    let series = summary(&records.0);
    let Data::Stages(stages) = &series[0].data else { panic!("{series:?}") };
    let found: Vec<_> = stages
        .iter()
        .map(|stage| (stage.name.as_str(), stage.at.estimate.unwrap().value, stage.duration.estimate.unwrap().value))
        .collect();
    assert_eq!(found, [("started", 0.0, 0.0), ("created", 140.0, 140.0), ("announced", 315.0, 175.0)]);
}

#[test]
fn a_distribution_has_the_quantiles_that_it_supports() {
    let mut records = Synthetic::new();
    for block in 1..=6_u32 {
        let mut histogram = new_histogram();
        for value in 1..=1_000 {
            histogram.record(value * u64::from(block)).unwrap();
        }
        records.add(("latency", "process"), block, "tcp.round-trip", &[], Value::Histogram(encode(&histogram)));
    }
    let series = summary(&records.0);
    let Data::Distribution(distribution) = &series[0].data else { panic!("{series:?}") };
    assert_eq!((distribution.histogram.len(), distribution.blocks), (6_000, 6));
    let quantiles: Vec<f64> = distribution.quantiles.iter().map(|quantile| quantile.quantile).collect();
    assert_eq!(quantiles, [0.5, 0.9], "6,000 requests have no p99");
    let over_blocks = distribution.quantiles[0].over_blocks.unwrap();
    assert!((over_blocks.value - 1750.0).abs() < 3.0, "{over_blocks:?}");
    let (low, high) = over_blocks.interval.unwrap();
    assert!(low >= 500.0 && high <= 3002.0);
}

#[test]
fn memory_is_a_line_whose_slope_is_bytes_for_each_instance() {
    let mut records = Synthetic::new();
    for block in 0..=8 {
        for instances in [8_u32, 1, 2, 4] {
            let noise = f64::from(block % 3) * 1000.0;
            let value = 1e6 + f64::from(instances) * (5e6 + noise);
            records.number(
                "container-none",
                block,
                "memory.host",
                &owned(&[("instances", &instances.to_string())]),
                value,
            );
            records.0.samples.last_mut().unwrap().warm_up = block == 0;
        }
    }
    records.add(("network", "process"), 1, "network.interfaces", &[], texts(&["lo"]));
    let lines = lines(&summary(&records.0));
    assert_eq!(lines.len(), 1);
    let slope = lines[0].slope.unwrap();
    assert_eq!((slope.value, slope.blocks), (5e6 + 1000.0, 8));
    assert!((lines[0].intercept.unwrap() - 1e6).abs() < 1.0);
    assert_eq!(lines[0].points.len(), 36);
    assert!(lines[0].points.is_sorted_by_key(|point| (point.instances, point.block)));
}

/// Absolute memory in use, while something else on the machine gives back or takes some.
#[test]
fn memory_that_something_else_gives_back_is_noise_and_no_bias() {
    let mut records = Synthetic::new();
    for block in 1..=9_u32 {
        for instances in [0_u32, 1, 2, 4, 8] {
            // Much is freed before the sample at two instances in some blocks, and taken in others.
            let other = if instances >= 2 { [0.0, -90e6, 60e6][block as usize % 3] } else { 0.0 };
            let value = 700e6 + f64::from(block) * 1e6 + f64::from(instances) * 1e5 + other;
            let parameters = owned(&[("instances", &instances.to_string())]);
            records.number("container-none", block, "memory.host", &parameters, value);
        }
    }
    let lines = lines(&summary(&records.0));
    let slope = lines[0].slope.unwrap();
    let (low, high) = slope.interval.unwrap();
    assert!(low <= 1e5 && 1e5 <= high && low < 0.0 && high > 2e5, "the noise is in the interval: {slope:?}");
    assert!((slope.value - 1e5).abs() < 1.0, "{slope:?}");
    let undisturbed: Vec<f64> =
        lines[0].points.iter().filter(|point| point.block == 3).map(|point| point.value).collect();
    assert_eq!(undisturbed, [1e5, 2e5, 4e5, 8e5], "each block's own baseline is taken off");
    let freed = lines[0].points.iter().filter(|point| point.value < 0.0).count();
    assert_eq!(freed, 3 * 3, "a sample below nought is shown");
}
