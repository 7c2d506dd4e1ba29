//! The experiments, one file each. They yield measurements and judge nothing.

mod accounting;
mod attachment;
mod beside;
mod connections;
mod crowd;
mod datagrams;
mod density;
mod hosts;
mod inside;
mod latency;
mod lifecycle;
mod load;
mod memory;
mod names;
mod network;
mod overhead;
mod patience;
mod publishing;
mod reservation;
mod separation;
mod sharing;
mod startup;
mod streams;
mod throughput;
mod traffic;
mod variants;
mod views;
mod visibility;

use crate::cell::{Cell, Measurement};
use crate::programs::Program;
use crate::sandboxes::spawn;
use crate::sandboxes::{Candidate, Kind, Networks};
use crate::testbed::Settings;
use crate::testbed::affinity::Affinity;
use crate::testbed::network::HostNetwork;
use anyhow::Context;
use isobench_reports::record::{Outcome, SandboxRecord, Value};
use isobench_runtime::network::Namespace;
use isobench_workload::{Instance, Sandbox, Workload};
pub(crate) use overhead::Calibration;
pub(crate) use patience::Patience;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

/// One experiment.
#[derive(Debug)]
pub struct Experiment {
    /// The name used in records and on the command line.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub text: &'static str,
    /// Randomised blocks of it in the quick suite.
    pub quick_blocks: u32,
    /// Whether it can run the user's own program in place of its workload.
    pub takes_program: bool,
    /// What comes before its samples, so that a first time does not colour them.
    pub(crate) warm_up: WarmUp,
    /// Names of what it measures, each defined in [`isobench_reports::metrics`].
    pub metrics: &'static [&'static str],
    /// The points that one cell of it yields in a sandbox: none where it does not apply.
    points: fn(&Kind) -> Vec<Point>,
    measure: fn(Scene<'_>) -> anyhow::Result<()>,
}

/// How an experiment warms up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WarmUp {
    /// By a block that is measured before all others and does not count.
    Block,
    /// By itself, in each cell.
    Cell,
    /// Not at all. A fact that is only seen does not depend on what is in a cache, and to see that something is not reached takes
    /// seconds.
    Nothing,
}

/// Every experiment, in the order of the report.
pub fn all() -> &'static [Experiment] {
    static ALL: &[Experiment] = &[
        startup::EXPERIMENT,
        lifecycle::EXPERIMENT,
        memory::EXPERIMENT,
        sharing::EXPERIMENT,
        reservation::EXPERIMENT,
        density::EXPERIMENT,
        overhead::EXPERIMENT,
        throughput::EXPERIMENT,
        streams::EXPERIMENT,
        datagrams::EXPERIMENT,
        latency::EXPERIMENT,
        load::EXPERIMENT,
        connections::EXPERIMENT,
        inside::EXPERIMENT,
        crowd::EXPERIMENT,
        crowd::THOUSAND,
        network::EXPERIMENT,
        visibility::EXPERIMENT,
        accounting::EXPERIMENT,
        publishing::EXPERIMENT,
        views::EXPERIMENT,
        attachment::EXPERIMENT,
        separation::EXPERIMENT,
        hosts::EXPERIMENT,
        names::EXPERIMENT,
    ];
    ALL
}

/// The experiment with this name.
pub fn named(name: &str) -> Option<&'static Experiment> {
    all().iter().find(|experiment| experiment.name == name)
}

impl Experiment {
    /// Whether it has anything to measure in a sandbox.
    pub fn applies(&self, sandbox: &SandboxRecord) -> bool {
        !sandbox.gaps.contains_key(self.name)
            && Kind::named(&sandbox.name).is_some_and(|kind| !self.points(kind).is_empty())
    }

    /// What one cell of it yields in a sandbox. QEMU's machines are peers in starting alone, user-mode Linux in memory too; a machine
    /// that is another's with another start differs in that alone, and what waits in another way differs in how soon it answers.
    fn points(&self, kind: &Kind) -> Vec<Point> {
        let (start, memory) = (self.name == startup::EXPERIMENT.name, self.name == memory::EXPERIMENT.name);
        let takes_part = match kind {
            kind if kind.is_qemu() || kind.is_another_start() => start,
            kind if kind.is_user_mode() => start || memory,
            kind if kind.is_another_wait() => self.name == latency::EXPERIMENT.name,
            _ => true,
        };
        if takes_part { (self.points)(kind) } else { Vec::new() }
    }

    /// Measures one cell. Every point has a value or an error in its place; a failure is never a zero and never a stop.
    pub(crate) fn measure(&self, ground: &mut Ground, candidate: &mut Candidate, cell: &Cell) -> Vec<Measurement> {
        let mut sheet = Sheet::default();
        let outcome = match &mut candidate.sandbox {
            Ok(sandbox) => {
                let (kind, sandbox) = (candidate.kind, sandbox.as_mut());
                (self.measure)(Scene { ground, kind, sandbox, cell, sheet: &mut sheet })
            }
            Err(reason) => Err(anyhow::anyhow!(reason.clone())),
        };
        let reason = match outcome {
            Ok(()) => "it was not measured".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        for point in self.points(candidate.kind) {
            if !sheet.has(&point) {
                sheet.write(&point, 0, Outcome::Error(reason.clone()));
            }
        }
        sheet.measurements
    }
}

/// One cell in the hands of its experiment: where it is measured, what is measured, and the sheet for what comes of it.
pub(crate) struct Scene<'a> {
    pub(crate) ground: &'a mut Ground,
    pub(crate) kind: &'a Kind,
    pub(crate) sandbox: &'a mut dyn Sandbox,
    pub(crate) cell: &'a Cell,
    pub(crate) sheet: &'a mut Sheet,
}

/// What an experiment stands on: the simulated host's side.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) settings: Settings,
    pub(crate) agent: Rc<Program>,
    pub(crate) vmm: Rc<Program>,
    pub(crate) network: HostNetwork,
    pub(crate) networks: Networks,
    pub(crate) affinity: Option<Affinity>,
    /// How much work [`overhead`] orders, once that was found out.
    pub(crate) calibration: Option<Calibration>,
    pub(crate) patience: Patience,
}

/// Where a helper of an experiment runs: a load generator, or a server to connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On the simulated host.
    Host,
    /// On the outside client.
    Outside,
}

impl Ground {
    /// Runs the agent as a plain process.
    fn agent(&self, place: Place, workload: &Workload) -> anyhow::Result<Instance> {
        let mut command = Command::new(self.agent.path());
        command.args(workload.arguments());
        let name = format!("{place:?}-agent");
        let spawned = match place {
            Place::Host => spawn(name, &mut command)?,
            Place::Outside => self.network.outside().enter(|| spawn(name, &mut command))??,
        };
        Ok(spawned.instance(None)?)
    }

    /// Runs the agent as a plain process in another network namespace.
    fn agent_in(&self, namespace: &Namespace, workload: &Workload) -> anyhow::Result<Instance> {
        let mut command = Command::new(self.agent.path());
        command.args(workload.arguments());
        Ok(namespace.enter(|| spawn("joined-agent".into(), &mut command))??.instance(None)?)
    }
}

/// How long a probe waits for an answer that may never come, in milliseconds: long enough for one packet that is lost (a SYN is
/// sent again after a second, RFC 6298). What is there answers within one.
const PATIENCE: u64 = 1200;

/// What an instance says in one line of JSON; the instance is ended.
fn answer<T: DeserializeOwned>(mut instance: Instance, deadline: Duration) -> anyhow::Result<T> {
    let line =
        instance.output().line(deadline).with_context(|| format!("wait for the answer of {}", instance.name()))?;
    instance.destroy().map_err(ended)?;
    serde_json::from_str(&line)
        .with_context(|| format!("read the answer `{}`", line.chars().take(200).collect::<String>()))
}

/// A metric with the parameters that tell its samples apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Point {
    metric: &'static str,
    parameters: BTreeMap<String, String>,
}

impl Point {
    fn plain(metric: &'static str) -> Self {
        Self { metric, parameters: BTreeMap::new() }
    }

    fn with(metric: &'static str, parameters: &[(&str, &str)]) -> Self {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { metric, parameters }
    }
}

/// The measurements of one cell as they are taken.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    measurements: Vec<Measurement>,
}

impl Sheet {
    fn write(&mut self, point: &Point, instance: u32, outcome: Outcome) {
        let metric = point.metric.to_owned();
        self.measurements.push(Measurement { instance, metric, parameters: point.parameters.clone(), outcome });
    }

    fn value(&mut self, point: &Point, value: Value) {
        self.write(point, 0, Outcome::Value(value));
    }

    fn has(&self, point: &Point) -> bool {
        self.measurements
            .iter()
            .any(|measurement| measurement.metric == point.metric && measurement.parameters == point.parameters)
    }
}

/// Every error of an instance's end, in one sentence.
fn ended(errors: isobench_workload::Errors) -> anyhow::Error {
    let texts: Vec<String> =
        errors.into_iter().map(|error| format!("{:#}", anyhow::Error::from_boxed(error))).collect();
    anyhow::anyhow!(texts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandboxes::KINDS;
    use isobench_reports::metrics;

    #[test]
    fn every_metric_is_defined_and_every_point_declared() {
        for experiment in all() {
            for name in experiment.metrics {
                assert!(metrics::find(name).is_some(), "{name} is not defined");
            }
            for kind in KINDS {
                for point in (experiment.points)(kind) {
                    assert!(
                        experiment.metrics.contains(&point.metric),
                        "{} declares no {}",
                        experiment.name,
                        point.metric
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_only_seen_has_no_warm_up() {
        for experiment in all() {
            let facts =
                experiment.metrics.iter().all(|name| metrics::find(name).is_some_and(|metric| metric.is_fact()));
            assert_eq!(experiment.warm_up == WarmUp::Nothing, facts, "{}", experiment.name);
        }
    }

    #[test]
    fn every_claim_names_experiments_that_there_are_and_looks_at_what_they_measure() {
        use isobench_reports::claims::{self, Rule};
        for claim in claims::claims() {
            for name in &claim.experiments {
                assert!(named(name).is_some(), "{} names the experiment {name}", claim.id);
            }
            for rule in &claim.rules {
                let Rule::Facts { subjects, expect, control } = rule else { continue };
                let own = subjects.iter().filter(|subject| !subject.peer);
                for subject in own {
                    for (fact, of_control) in
                        expect.iter().map(|fact| (fact, false)).chain(control.iter().map(|fact| (fact, true)))
                    {
                        let elsewhere = subject.control.as_ref().filter(|_| of_control && !fact.in_subject);
                        let sandbox = elsewhere.unwrap_or(&subject.sandbox);
                        let kind = Kind::named(sandbox).expect("a sandbox that there is");
                        let experiments = claim.experiments.iter().filter_map(|name| named(name));
                        let measured = experiments
                            .flat_map(|experiment| (experiment.points)(kind))
                            .any(|point| point.metric == fact.metric && point.parameters == fact.parameters);
                        assert!(
                            measured,
                            "{}: nothing measures {} {:?} in {sandbox}",
                            claim.id, fact.metric, fact.parameters
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_point_that_was_not_measured_gets_the_error() {
        let mut sheet = Sheet::default();
        let (one, other) = (Point::plain("start.ready"), Point::with("start.ready", &[("path", "host")]));
        sheet.value(&one, Value::Integer(1));
        assert!(sheet.has(&one) && !sheet.has(&other));
    }
}
