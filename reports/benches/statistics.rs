//! What a report's statistics cost: the parts that run once for each series, and a whole run of the quick suite's size.

use criterion::{Criterion, criterion_group, criterion_main};
use isobench_reports::metrics::{self, Kind};
use isobench_reports::reader::Records;
use isobench_reports::record::{Machine, Outcome, Plan, Run, SCHEMA_VERSION, Sample, SandboxRecord, Value};
use isobench_reports::statistics::{median_estimate, rank_sum::rank_sum, signed_rank::signed_rank};
use isobench_reports::summary::summary;
use isobench_reports::verdict::evaluate;
use isobench_workload::Family;
use std::collections::BTreeMap;
use std::hint::black_box;

const SANDBOXES: [&str; 8] = [
    "process",
    "container-host",
    "container-container",
    "container-none",
    "container-bridge",
    "container-custom",
    "vm-unikernel",
    "vm-linux",
];

/// Parameters by name.
type Parameters = &'static [(&'static str, &'static str)];

/// Records of so many blocks, with every number that the claims ask for.
fn records(blocks: u32) -> Records {
    let mut generator = fastrand::Rng::with_seed(1);
    let sandbox = |name: &&str| SandboxRecord {
        name: (*name).to_owned(),
        family: Family::Container,
        version: None,
        unavailable: None,
        emulation: None,
        gaps: BTreeMap::new(),
    };
    let experiments = ["startup", "memory", "throughput", "latency", "network"];
    let run = Run {
        schema: SCHEMA_VERSION,
        program: String::new(),
        program_digest: String::new(),
        started: String::new(),
        machine: Machine::default(),
        plan: Plan { experiments: experiments.map(String::from).to_vec(), ..Plan::default() },
        sandboxes: SANDBOXES.iter().map(sandbox).collect(),
        metrics: metrics::table(),
    };
    let series: [(&str, &str, &[Parameters]); 5] = [
        ("startup", "start.ready", &[&[]]),
        ("memory", "memory.host", &[&[("instances", "1")], &[("instances", "2")], &[("instances", "4")]]),
        ("throughput", "tcp.upload", &[&[("path", "client"), ("segmentation", "offload")]]),
        ("throughput", "tcp.download", &[&[("path", "client"), ("segmentation", "wire")]]),
        ("latency", "tcp.round-trip.median", &[&[("path", "client")], &[("path", "host")]]),
    ];
    let mut samples = Vec::new();
    for block in 1..=blocks {
        for sandbox in SANDBOXES {
            for (experiment, metric, parameters) in series {
                for parameters in parameters {
                    let amount = generator.u64(1_000_000..2_000_000);
                    let value = match metrics::find(metric).map(|metric| metric.kind) {
                        Some(Kind::Transfer) => Value::Transfer { amount, nanoseconds: 1_000_000 },
                        _ => Value::Integer(amount),
                    };
                    samples.push(Sample {
                        sequence: samples.len() as u64,
                        time: 0,
                        experiment: experiment.to_owned(),
                        block,
                        position: 0,
                        instance: 0,
                        sandbox: sandbox.to_owned(),
                        metric: metric.to_owned(),
                        parameters: BTreeMap::from_iter(
                            parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
                        ),
                        warm_up: false,
                        outcome: Outcome::Value(value),
                    });
                }
            }
        }
    }
    Records { run, samples }
}

fn statistics(criterion: &mut Criterion) {
    let mut generator = fastrand::Rng::with_seed(2);
    let values: Vec<f64> = (0..20).map(|_| generator.f64() - 0.3).collect();
    criterion.bench_function("interval of a median, 20 blocks", |bencher| {
        bencher.iter(|| median_estimate(black_box(&values), 0.95));
    });
    criterion.bench_function("signed rank, 20 pairs", |bencher| bencher.iter(|| signed_rank(black_box(&values))));
    criterion.bench_function("rank sum, 20 against 20", |bencher| {
        bencher.iter(|| rank_sum(black_box(&values), black_box(&values)));
    });
    let records = records(20);
    criterion.bench_function("summary, 20 blocks", |bencher| bencher.iter(|| summary(black_box(&records))));
    criterion.bench_function("verdicts, 20 blocks", |bencher| bencher.iter(|| evaluate(black_box(&records))));
}

criterion_group!(benches, statistics);
criterion_main!(benches);
