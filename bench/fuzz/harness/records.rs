//! Records of runs.

use super::{Input, damage, graft};
use isobench_reports::reader::parse;
use isobench_reports::record::{Machine, Outcome, Plan, Run, SCHEMA_VERSION, Sample, SandboxRecord, StageTime, Value};
use isobench_reports::{metrics, summary, verdict};
use isobench_workload::Family;
use std::collections::BTreeMap;
use std::path::Path;

/// Any bytes as the two files of a run: as they are, or in place of some of good ones. What can be read can be summed up and judged.
pub fn records(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (run, samples) = match input.byte() % 3 {
        0 => {
            let length = input.below(400);
            (input.bytes(length), input.bytes(usize::MAX))
        }
        1 => (good_run().to_string().into_bytes(), input.bytes(usize::MAX)),
        _ => {
            let mut run = good_run();
            if input.byte().is_multiple_of(4) {
                graft(&mut run, &mut input);
            }
            let (mut lines, changed) = (Vec::new(), input.below(8));
            for (number, sample) in good_samples().into_iter().enumerate() {
                let Ok(mut sample) = serde_json::to_value(sample) else { return };
                if number == changed {
                    graft(&mut sample, &mut input);
                }
                lines.extend(sample.to_string().into_bytes());
                lines.push(b'\n');
            }
            damage(&mut lines, &mut input);
            (run.to_string().into_bytes(), lines)
        }
    };
    match parse(Path::new("nowhere"), &run, &samples) {
        Ok(read) => {
            let _ = summary::lines(&summary::summary(&read.records));
            let _ = verdict::evaluate(&read.records);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn good_run() -> serde_json::Value {
    let sandbox = |name: &str, family| SandboxRecord {
        name: name.into(),
        family,
        version: None,
        unavailable: None,
        emulation: None,
        gaps: BTreeMap::new(),
    };
    let run = Run {
        schema: SCHEMA_VERSION,
        program: String::new(),
        program_digest: String::new(),
        started: "2026-01-01T00:00:00Z".into(),
        machine: Machine::default(),
        plan: Plan { experiments: ["startup", "throughput", "network"].map(Into::into).into(), ..Plan::default() },
        sandboxes: vec![sandbox("process", Family::Process), sandbox("container-none", Family::Container)],
        metrics: metrics::table(),
    };
    serde_json::to_value(run).unwrap_or_default()
}

fn good_samples() -> Vec<Sample> {
    let stages = ["started", "announced"].map(|stage| StageTime { stage: stage.into(), at: 70 });
    let values = [
        ("startup", "start.stages", Value::Stages(stages.into())),
        ("startup", "start.ready", Value::Integer(70)),
        ("network", "network.interfaces", Value::Texts(vec!["lo".into()])),
        ("throughput", "tcp.upload", Value::Transfer { amount: 10, nanoseconds: 20 }),
    ];
    let samples = values.into_iter().zip(0..).map(|((experiment, metric, value), sequence)| Sample {
        sequence,
        time: 0,
        experiment: experiment.into(),
        block: 0,
        position: 0,
        instance: 0,
        sandbox: "process".into(),
        metric: metric.into(),
        parameters: BTreeMap::new(),
        warm_up: false,
        outcome: Outcome::Value(value),
    });
    samples.collect()
}
