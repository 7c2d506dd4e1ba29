//! Bad records: each is an error that names file, line, what is wrong and the remedy; none a panic.

use crate::synthetic::{Synthetic, owned, texts};
use isobench_reports::metrics;
use isobench_reports::reader::{HalfLine, Interrupted, ReadError, parse, read, read_interrupted};
use isobench_reports::record::{Outcome, Sample, StageTime, Value};
use isobench_reports::statistics::distribution::{encode, new_histogram};
use proptest::prelude::*;
use std::path::Path;

fn records() -> Synthetic {
    let mut records = Synthetic::new();
    let stages = vec![StageTime { stage: "started".into(), at: 0 }, StageTime { stage: "announced".into(), at: 70 }];
    records.add(("startup", "process"), 1, "start.stages", &[], Value::Stages(stages));
    records.add(("network", "container-none"), 1, "network.interfaces", &[], texts(&["lo"]));
    records.add(("network", "container-none"), 1, "network.namespace-is-host", &[], Value::Boolean(false));
    records.outcome(("startup", "process"), 1, "start.ready", &owned(&[]), Outcome::Error("it did not start".into()));
    let transfer = Value::Transfer { amount: 10, nanoseconds: 20 };
    records.add(("throughput", "process"), 1, "tcp.upload", &[("path", "host"), ("segmentation", "wire")], transfer);
    let mut histogram = new_histogram();
    histogram.record(5_000).unwrap();
    records.add(("latency", "process"), 1, "tcp.round-trip", &[("path", "host")], Value::Histogram(encode(&histogram)));
    records.0.samples[2].warm_up = true;
    records
}

fn lines(samples: &[Sample]) -> Vec<u8> {
    let mut text = Vec::new();
    for sample in samples {
        serde_json::to_writer(&mut text, sample).unwrap();
        text.push(b'\n');
    }
    text
}

fn parse_records(records: &Synthetic) -> Result<Interrupted, ReadError> {
    let run = serde_json::to_vec(&records.0.run).unwrap();
    parse(Path::new("runs"), &run, &lines(&records.0.samples))
}

/// Changes good records and gives the sentence of the error that comes of it.
fn error(change: impl FnOnce(&mut Synthetic)) -> String {
    let mut records = records();
    change(&mut records);
    parse_records(&records).expect_err("the records are bad").to_string()
}

#[test]
fn what_was_written_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let records = records();
    std::fs::write(directory.path().join("run.json"), serde_json::to_vec_pretty(&records.0.run).unwrap()).unwrap();
    std::fs::write(directory.path().join("samples.jsonl"), lines(&records.0.samples)).unwrap();
    assert_eq!(read(directory.path()).unwrap(), records.0);
}

#[test]
fn a_missing_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = read(directory.path()).unwrap_err().to_string();
    assert!(error.contains("run.json") && error.contains("isobench run"), "{error}");
    std::fs::write(directory.path().join("run.json"), serde_json::to_vec(&records().0.run).unwrap()).unwrap();
    let error = read(directory.path()).unwrap_err().to_string();
    assert!(error.contains("samples.jsonl"), "{error}");
}

#[test]
fn a_half_written_line_is_told_of_and_may_be_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let records = records();
    std::fs::write(directory.path().join("run.json"), serde_json::to_vec(&records.0.run).unwrap()).unwrap();
    let whole = lines(&records.0.samples);
    let before = lines(&records.0.samples[..5]).len();
    for length in before + 1..whole.len() {
        std::fs::write(directory.path().join("samples.jsonl"), &whole[..length]).unwrap();
        let error = read(directory.path()).unwrap_err().to_string();
        assert!(error.contains("samples.jsonl line 6 is half written") && error.contains("--resume"), "{error}");
        let interrupted = read_interrupted(directory.path()).unwrap();
        assert_eq!(interrupted.incomplete, Some(HalfLine { line: 6, offset: before }));
        assert_eq!(interrupted.records.samples, records.0.samples[..5]);
    }
}

#[test]
fn each_fault_is_one_sentence_with_its_place_and_remedy() {
    type Change = fn(&mut Synthetic);
    let faults: [(Change, &str); 12] = [
        (
            |r| r.0.run.schema = 7,
            "run.json has schema version 7, and this program reads 1: use the isobench that wrote it",
        ),
        (|r| r.0.samples[3].sequence = 4, "samples.jsonl line 4: sequence 4 stands where 3 must"),
        (|r| drop(r.0.samples.remove(1)), "samples.jsonl line 2: sequence 2 stands where 1 must"),
        (|r| r.0.samples[1].sandbox = "jail".into(), "samples.jsonl line 2: unknown sandbox `jail`"),
        (|r| r.0.samples[1].experiment = "luck".into(), "samples.jsonl line 2: unknown experiment `luck`"),
        (|r| r.0.samples[1].metric = "luck".into(), "samples.jsonl line 2: unknown metric `luck`"),
        (|r| drop(r.0.run.metrics.remove("tcp.upload")), "samples.jsonl line 5: unknown metric `tcp.upload`"),
        (
            |r| r.0.samples[1].outcome = Outcome::Value(Value::Integer(1)),
            "line 2: metric `network.interfaces` has a value of kind integer where texts is expected",
        ),
        (
            |r| r.0.samples[4].outcome = Outcome::Value(Value::Transfer { amount: 1, nanoseconds: 0 }),
            "line 5: metric `tcp.upload` has a transfer that took no time",
        ),
        (
            |r| r.0.samples[5].outcome = Outcome::Value(Value::Histogram("AAAA".into())),
            "line 6: metric `tcp.round-trip`: the histogram's header is wrong: its cookie is not that of version 2",
        ),
        (
            |r| {
                r.0.samples[0].outcome = Outcome::Value(Value::Stages(vec![StageTime { stage: "lunch".into(), at: 1 }]))
            },
            "line 1: unknown stage `lunch`",
        ),
        (|r| r.0.run.sandboxes.push(r.0.run.sandboxes[0].clone()), "run.json line 1: sandbox `process` stands twice"),
    ];
    for (change, expected) in faults {
        let error = error(change);
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("restore the file from a copy, or measure again") || error.contains("schema version"));
        assert!(!error.contains('\n'));
    }
}

#[test]
fn a_metric_of_another_meaning_is_refused() {
    let error = error(|r| r.0.run.metrics.get_mut("start.ready").unwrap().unit = "ms".into());
    assert!(error.contains("metric `start.ready` has another unit or direction"), "{error}");
}

#[test]
fn text_that_is_no_record_is_refused() {
    let run = serde_json::to_vec(&records().0.run).unwrap();
    let error = |run: &[u8], samples: &[u8]| parse(Path::new("runs"), run, samples).unwrap_err().to_string();
    assert!(error(b"{", b"").contains("run.json line 1: it is no record of this version"));
    assert!(error(b"{}", b"").contains("missing field"));
    assert!(error(b"{\"schema\":\"one\"}", b"").contains("schema version \"one\""));
    assert!(error(&run, b"\n").contains("samples.jsonl line 1: it is no record of this version"));
    assert!(error(&run, b"{\"sequence\":0,\"surprise\":1}\n").contains("samples.jsonl line 1"));
}

#[test]
fn every_metric_has_its_own_name_and_a_sentence() {
    let mut names: Vec<_> = metrics::METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(metrics::table().len(), names.len());
    names.dedup();
    assert_eq!(names.len(), metrics::METRICS.len());
    assert!(metrics::METRICS.iter().all(|metric| metric.text.ends_with('.')));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_never_panic(run in prop::collection::vec(any::<u8>(), 0..200), samples in any::<Vec<u8>>()) {
        let _ = parse(Path::new("."), &run, &samples);
        let good = serde_json::to_vec(&records().0.run).unwrap();
        let _ = parse(Path::new("."), &good, &samples);
    }

    /// Good records with some bytes changed: an error or other records, never a panic, also not in what is made of them.
    #[test]
    fn damaged_records_never_panic(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let records = records();
        let run = serde_json::to_vec(&records.0.run).unwrap();
        let mut samples = lines(&records.0.samples);
        for (index, byte) in damage {
            let index = index.index(samples.len());
            samples[index] = byte;
        }
        if let Ok(interrupted) = parse(Path::new("."), &run, &samples) {
            let summary = isobench_reports::summary::summary(&interrupted.records);
            let _ = isobench_reports::summary::lines(&summary);
            let _ = isobench_reports::verdict::evaluate(&interrupted.records);
        }
    }
}
