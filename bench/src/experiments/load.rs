//! How long requests take at fixed rates, up to more than a sandbox can answer.
//!
//! The rates are the same in every sandbox and double from one to the next, so that sandboxes are compared at the same load
//! and each shows where it saturates: where it answers fewer than were due, and requests queue up.

use super::traffic::{Path, Served, Span, outcome, shared};
use super::{Experiment, Point, Scene, WarmUp};
use anyhow::{Context, bail};
use isobench_reports::record::Value;
use isobench_workload::Traffic;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "load",
    text: "one-byte requests on a constant schedule over four TCP connections, at rates that double up to saturation; \
           each one's time counts from when it was due",
    quick_blocks: 1,
    takes_program: false,
    warm_up: WarmUp::Block,
    metrics: &[LATENCY, RATE],
    points: |kind| {
        // What a custom network does is the bridge's, and the unikernel's code is measured in its machine: both would take a
        // second of each block and tell nothing new.
        let skipped = ["container-custom", "unikernel-process"].contains(&kind.name);
        let paths = Path::main(kind).into_iter().filter(|_| !skipped);
        paths.flat_map(|path| RATES.into_iter().flat_map(move |rate| points(path, rate))).collect()
    },
    measure,
};

const LATENCY: &str = "tcp.load";
const RATE: &str = "tcp.load.rate";

/// Requests a second.
const RATES: [u32; 5] = [16_000, 32_000, 64_000, 128_000, 256_000];

/// Connections that take turns: few enough for the unikernel.
const CONNECTIONS: u32 = 4;

/// Requests that one window has at least, so that a few blocks of it support a 99th percentile.
const REQUESTS: u64 = 3500;

fn points(path: Path, rate: u32) -> [Point; 2] {
    [LATENCY, RATE].map(|metric| Point::with(metric, &[("path", path.name()), ("rate", &rate.to_string())]))
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    let span = Span::of(ground).brief();
    let path = Path::main(kind).context("it has no network")?;
    let served = Served::launch(ground, kind, sandbox)?;
    for rate in RATES {
        let traffic = Traffic::Load { rate, connections: CONNECTIONS };
        let span = span.at_least(REQUESTS * 1000 / u64::from(rate));
        let driven = served.drive(ground, sandbox, path, traffic, span).and_then(|driven| {
            if driven.outcome.offered == 0 {
                bail!("no request was due within {} ms", span.window);
            }
            Ok(driven)
        });
        let [latency, answered] = points(path, rate);
        let histogram = shared(&driven).map(|driven| Value::Histogram(driven.outcome.histogram.clone()));
        sheet.write(&latency, 0, outcome(histogram));
        sheet.write(&answered, 0, outcome(driven.map(|driven| driven.completions())));
    }
    served.end()
}
