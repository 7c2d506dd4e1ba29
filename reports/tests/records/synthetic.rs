//! Records made up for tests.

use isobench_reports::claims::{self, Comparison, Expected, FactRule, Rule};
use isobench_reports::metrics::{self, Better, Kind};
use isobench_reports::reader::Records;
use isobench_reports::record::*;
use isobench_reports::verdict::{Verdict, evaluate};
use isobench_workload::Family;
use std::collections::BTreeMap;

/// Experiments of every synthetic run.
pub(crate) const EXPERIMENTS: [&str; 18] = [
    "startup",
    "lifecycle",
    "memory",
    "sharing",
    "reservation",
    "density",
    "overhead",
    "throughput",
    "latency",
    "network",
    "visibility",
    "accounting",
    "publishing",
    "views",
    "attachment",
    "hosts",
    "separation",
    "names",
];

/// Records in the making.
pub(crate) struct Synthetic(pub(crate) Records);

impl Synthetic {
    /// A run of our own sandboxes, without samples.
    pub(crate) fn new() -> Self {
        let names = [
            ("process", Family::Process),
            ("container-host", Family::Container),
            ("container-container", Family::Container),
            ("container-none", Family::Container),
            ("container-bridge", Family::Container),
            ("container-custom", Family::Container),
            ("vm-unikernel", Family::Unikernel),
            ("vm-linux", Family::Linux),
            ("qemu-microvm", Family::Peer),
            ("vm-linux-restored", Family::Linux),
            ("qemu-distribution", Family::Peer),
        ];
        let sandboxes = names.map(|(name, family)| SandboxRecord {
            name: name.into(),
            family,
            version: None,
            unavailable: None,
            emulation: (name == "qemu-microvm").then(|| "software emulation (QEMU TCG)".to_owned()),
            gaps: BTreeMap::new(),
        });
        let run = Run {
            schema: SCHEMA_VERSION,
            program: "isobench 0.0.0".into(),
            program_digest: "00".into(),
            started: "2026-01-01T00:00:00Z".into(),
            machine: Machine { kvm: "hardware".into(), ..Machine::default() },
            plan: Plan { experiments: EXPERIMENTS.map(Into::into).to_vec(), ..Plan::default() },
            sandboxes: sandboxes.to_vec(),
            metrics: metrics::table(),
        };
        Self(Records { run, samples: Vec::new() })
    }

    /// Adds a peer to the run.
    pub(crate) fn peer(mut self, name: &str) -> Self {
        self.0.run.sandboxes.push(SandboxRecord {
            name: name.into(),
            family: Family::Peer,
            version: Some("1.0".into()),
            unavailable: None,
            emulation: None,
            gaps: BTreeMap::new(),
        });
        self
    }

    /// The record of a sandbox, to be changed.
    pub(crate) fn sandbox(&mut self, name: &str) -> &mut SandboxRecord {
        self.0.run.sandboxes.iter_mut().find(|sandbox| sandbox.name == name).unwrap()
    }

    /// Adds one sample.
    pub(crate) fn add(
        &mut self,
        place: (&str, &str),
        block: u32,
        metric: &str,
        parameters: &[(&str, &str)],
        value: Value,
    ) {
        self.outcome(place, block, metric, &owned(parameters), Outcome::Value(value));
    }

    /// Adds one sample, or an error in its place.
    pub(crate) fn outcome(
        &mut self,
        (experiment, sandbox): (&str, &str),
        block: u32,
        metric: &str,
        parameters: &BTreeMap<String, String>,
        outcome: Outcome,
    ) {
        self.0.samples.push(Sample {
            sequence: self.0.samples.len() as u64,
            time: self.0.samples.len() as u64 * 1000,
            experiment: experiment.into(),
            block,
            position: 0,
            instance: 0,
            sandbox: sandbox.into(),
            metric: metric.into(),
            parameters: parameters.clone(),
            warm_up: false,
            outcome,
        });
    }

    /// Adds a number: an integer, or for a transfer a rate per second.
    pub(crate) fn number(
        &mut self,
        sandbox: &str,
        block: u32,
        metric: &str,
        parameters: &BTreeMap<String, String>,
        value: f64,
    ) {
        let definition = metrics::find(metric).unwrap();
        let whole = value.round() as u64;
        let value = match (definition.kind, definition.better) {
            (Kind::Transfer, Better::Higher) => Value::Transfer { amount: whole, nanoseconds: 1_000_000_000 },
            // A cost: time for each of so many.
            (Kind::Transfer, _) => Value::Transfer { amount: 1000, nanoseconds: (value * 1000.0).round() as u64 },
            _ => Value::Integer(whole),
        };
        let experiment = match metric.split('.').next() {
            Some("start") => "startup",
            Some(name @ ("memory" | "lifecycle" | "sharing" | "reservation" | "density" | "overhead")) => name,
            _ if metric.starts_with("tcp.upload") || metric.starts_with("tcp.download") => "throughput",
            _ => "latency",
        };
        self.outcome((experiment, sandbox), block, metric, parameters, Outcome::Value(value));
    }

    /// Adds what a claim that is decided by ratios needs, so that the sandbox's cost is `cost(measure, block)` times that
    /// of what it is compared with. Values drift from block to block, and by much, as machines do.
    pub(crate) fn ratios(
        mut self,
        id: &str,
        blocks: u32,
        peers: bool,
        mut cost: impl FnMut(usize, u32) -> f64,
    ) -> Self {
        let rules: Vec<_> = rules_of(id)
            .filter_map(|rule| match rule {
                Rule::Ratio { subjects, measures, .. } => Some((subjects, measures, false)),
                Rule::SlopeRatio { subjects, measures, .. } => Some((subjects, measures, true)),
                Rule::Facts { .. } | Rule::Threshold { .. } => None,
            })
            .collect();
        let [(subjects, measures, linear)] = rules[..] else { panic!("{id} has another number of ratios than one") };
        for block in 1..=blocks {
            let drift = 1e6 * (1.0 + f64::from(block % 5));
            for subject in subjects.iter().filter(|subject| subject.peer == peers) {
                for (index, measure) in measures.iter().enumerate() {
                    let higher = metrics::find(&measure.metric).unwrap().better == Better::Higher;
                    let factor = cost(index, block);
                    let value = if higher { drift / factor } else { drift * factor };
                    let against = measure.against_parameters.as_ref().unwrap_or(&measure.parameters);
                    if linear {
                        for instances in [1_u32, 2, 4] {
                            let n = f64::from(instances);
                            let mut parameters = measure.parameters.clone();
                            parameters.insert("instances".into(), instances.to_string());
                            let other = subject.against.as_ref().unwrap();
                            self.number(&subject.sandbox, block, &measure.metric, &parameters, 5e6 + value * n);
                            self.number(other, block, &measure.metric, &parameters, 7e6 + drift * n);
                        }
                    } else {
                        self.number(&subject.sandbox, block, &measure.metric, &measure.parameters, value);
                        let other = subject.against.as_ref().unwrap_or(&subject.sandbox);
                        self.number(other, block, &measure.metric, against, drift);
                    }
                }
            }
        }
        self
    }

    /// Adds facts of one sandbox in each of three blocks.
    pub(crate) fn facts(&mut self, sandbox: &str, facts: &[(&str, Value)]) {
        for block in 1..=3 {
            for (metric, value) in facts {
                let parameters: &[(&str, &str)] =
                    if *metric == "network.connects" { &[("target", "outside")] } else { &[] };
                self.add(("network", sandbox), block, metric, parameters, value.clone());
            }
        }
    }

    /// Adds in each of three blocks what a claim's rules of facts look at, as `tell` has it: a fact that stands in two places
    /// of the rules is told once.
    pub(crate) fn told(mut self, id: &str, peers: bool, mut tell: impl FnMut(&Told<'_>, u32) -> Option<Value>) -> Self {
        let experiment = &claims::find(id).unwrap().experiments[0];
        for rule in rules_of(id) {
            let Rule::Facts { subjects, expect, control } = rule else { continue };
            for subject in subjects.iter().filter(|subject| subject.peer == peers) {
                let place = |fact: &FactRule| match &subject.control {
                    Some(elsewhere) if !fact.in_subject => elsewhere.clone(),
                    _ => subject.sandbox.clone(),
                };
                let expected = expect.iter().map(|fact| (fact, subject.sandbox.clone(), false));
                let controls = control.iter().map(|fact| (fact, place(fact), true));
                for (index, (fact, sandbox, control)) in expected.chain(controls).enumerate() {
                    let told = Told { fact, control, index };
                    let there = self.0.samples.iter().any(|sample| {
                        (&sample.sandbox, &sample.metric) == (&sandbox, &fact.metric)
                            && sample.parameters == fact.parameters
                    });
                    if there {
                        continue;
                    }
                    for block in 1..=3 {
                        let Some(value) = tell(&told, block) else { continue };
                        let place = (experiment.as_str(), sandbox.as_str());
                        self.outcome(place, block, &fact.metric, &fact.parameters, Outcome::Value(value));
                        if let Expected::SameAs(other) | Expected::DiffersFrom(other) = &fact.expected {
                            self.outcome(place, block, other, &owned(&[]), Outcome::Value(texts(&["as it is"])));
                        }
                    }
                }
            }
        }
        self
    }

    /// The verdict on one claim.
    pub(crate) fn verdict(&self, id: &str) -> Verdict {
        evaluate(&self.0).into_iter().find(|verdict| verdict.claim.id == id).unwrap()
    }
}

fn rules_of(id: &str) -> impl Iterator<Item = &'static Rule> {
    claims::find(id).unwrap().rules.iter()
}

/// A fact that a rule looks at, and its place among all of the claim's.
pub(crate) struct Told<'a> {
    pub(crate) fact: &'a FactRule,
    pub(crate) control: bool,
    pub(crate) index: usize,
}

impl Told<'_> {
    /// A value that is as expected, or one that is not.
    pub(crate) fn value(&self, holds: bool) -> Value {
        let other = || texts(&["something else"]);
        match (&self.fact.expected, holds) {
            (Expected::Is(expected), holds) => Value::Boolean(*expected == holds),
            (Expected::Texts(expected), true) => Value::Texts(expected.clone()),
            (Expected::Contains(text), true) | (Expected::Excludes(text), false) => texts(&[&format!("x{text}y")]),
            (Expected::Within(subnet), true) => texts(&[&format!("eth0 {subnet}")]),
            (Expected::SameAs(_), true) | (Expected::DiffersFrom(_), false) => texts(&["as it is"]),
            (Expected::Contains(_) | Expected::Within(_) | Expected::Texts(_) | Expected::SameAs(_), false) => other(),
            (Expected::Excludes(_) | Expected::DiffersFrom(_), true) => other(),
        }
    }
}

/// What a claim says of its ratios.
pub(crate) fn comparison(id: &str) -> Comparison {
    rules_of(id)
        .find_map(|rule| match rule {
            Rule::Ratio { expect, .. } | Rule::SlopeRatio { expect, .. } => Some(*expect),
            Rule::Facts { .. } | Rule::Threshold { .. } => None,
        })
        .unwrap_or_else(|| panic!("{id} has no ratio"))
}

/// Texts as a value.
pub(crate) fn texts(texts: &[&str]) -> Value {
    Value::Texts(texts.iter().map(|text| (*text).to_owned()).collect())
}

/// Parameters.
pub(crate) fn owned(parameters: &[(&str, &str)]) -> BTreeMap<String, String> {
    parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
