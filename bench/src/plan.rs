//! What a run measures: the suite, narrowed by the command line and by what this machine can do.

use crate::experiments::{self, Experiment};
use crate::sandboxes::{Engine, KINDS, Kind};
use isobench_reports::record::{Plan, SandboxRecord};
use std::collections::BTreeMap;

/// A named choice of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// Every experiment with few blocks: minutes.
    #[default]
    Quick,
    /// Three times the blocks, longer cells, and what takes minutes a block: hours where all peers are installed.
    Full,
}

impl Suite {
    /// Its name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Full => "full",
        }
    }

    fn blocks(self, experiment: &Experiment) -> u32 {
        match self {
            Self::Quick => experiment.quick_blocks,
            Self::Full => (experiment.quick_blocks * 3).max(FEWEST),
        }
    }
}

/// Blocks of the full suite at least: fewer carry no interval, and fewer than seven decide nothing in a family of four figures.
const FEWEST: u32 = 7;

/// What the command line asks for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The suite that the rest narrows.
    pub suite: Suite,
    /// Experiments by name; all where empty.
    pub experiments: Vec<String>,
    /// Sandboxes by name; all where empty.
    pub sandboxes: Vec<String>,
    /// Blocks of each experiment in place of the suite's.
    pub blocks: Option<u32>,
    /// Seed of the order.
    pub seed: u64,
    /// The user's own program and its arguments.
    pub program: Option<Vec<String>>,
}

/// A name that there is nothing of, or a choice that measures nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No such experiment or sandbox.
    #[error("there is no {kind} named `{name}`{}; `isobench list` shows all", suggestion(.close))]
    Unknown {
        /// `experiment` or `sandbox`.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// Names that are close to it.
        close: Vec<String>,
    },
    /// The experiment cannot run the user's own program.
    #[error("the experiment `{0}` has a workload of its own; a program of yours can be measured with: {1}")]
    NoProgram(String, String),
}

impl Request {
    /// Sees that every name is known, before anything is made.
    ///
    /// # Errors
    /// At the first name that is not.
    pub fn check(&self) -> Result<(), PlanError> {
        for name in &self.experiments {
            let experiment = experiments::named(name).ok_or_else(|| {
                unknown("experiment", name, experiments::all().iter().map(|experiment| experiment.name))
            })?;
            if self.program.is_some() && !experiment.takes_program {
                return Err(PlanError::NoProgram(name.clone(), names_taking_programs().join(", ")));
            }
        }
        self.sandboxes.iter().try_for_each(|name| check_sandbox(name))
    }

    /// Whether a sandbox is to be measured.
    pub fn wants(&self, sandbox: &str) -> bool {
        self.sandboxes.is_empty() || self.sandboxes.iter().any(|name| name == sandbox)
    }

    /// Blocks of those sandboxes that have few in the quick suite, unless they or a number of blocks were asked for.
    fn fewer_blocks(&self, experiment: &Experiment) -> BTreeMap<String, u32> {
        if !self.sandboxes.is_empty() {
            return BTreeMap::new();
        }
        let fewer = |kind: &Kind| match self.suite {
            // A number of blocks is for all but this one, unless it is asked for by its name.
            Suite::Quick if self.blocks.is_some() => kind.is_distribution().then_some(0),
            Suite::Full if self.blocks.is_some() => None,
            Suite::Quick => quick_blocks(experiment, kind),
            // A complete distribution boots for a minute where it is emulated.
            Suite::Full => (kind.is_distribution() && experiment.name == "startup").then_some(FEWEST),
        };
        KINDS.iter().filter_map(|kind| Some((kind.name.to_owned(), fewer(kind)?))).collect()
    }

    /// The plan, with experiments in the order of the report.
    pub fn plan(&self, command_line: Vec<String>) -> Plan {
        let chosen: Vec<&Experiment> = experiments::all()
            .iter()
            .filter(|experiment| {
                self.experiments.is_empty() || self.experiments.iter().any(|name| name == experiment.name)
            })
            .filter(|experiment| self.program.is_none() || experiment.takes_program)
            // What takes too long for the quick suite is measured where it is asked for by name.
            .filter(|experiment| !self.experiments.is_empty() || self.suite.blocks(experiment) > 0)
            .collect();
        let blocks_of = |experiment: &Experiment| self.blocks.unwrap_or(self.suite.blocks(experiment).max(1));
        let blocks: BTreeMap<String, u32> =
            chosen.iter().map(|experiment| (experiment.name.to_owned(), blocks_of(experiment))).collect();
        let fewer = chosen.iter().map(|experiment| (experiment.name.to_owned(), self.fewer_blocks(experiment)));
        let sandbox_blocks = fewer.filter(|(_, sandboxes)| !sandboxes.is_empty()).collect();
        let narrowed = self.blocks.is_some()
            || self.program.is_some()
            || !self.experiments.is_empty()
            || !self.sandboxes.is_empty();
        Plan {
            suite: if narrowed { "custom" } else { self.suite.name() }.into(),
            narrowed: narrowed.then(|| self.suite.name().to_owned()),
            seed: self.seed,
            blocks,
            sandbox_blocks,
            experiments: chosen.iter().map(|experiment| experiment.name.to_owned()).collect(),
            command_line,
            program: self.program.clone(),
        }
    }

    /// Those sandboxes that were asked for, in the order of every table.
    pub fn choose(&self, all: &[SandboxRecord]) -> Vec<SandboxRecord> {
        all.iter().filter(|sandbox| self.wants(&sandbox.name)).cloned().collect()
    }
}

/// How many blocks of an experiment a sandbox has in the quick suite, where it is one that takes long: an engine's container takes
/// half a second, and a machine of QEMU's seconds.
fn quick_blocks(experiment: &Experiment, kind: &Kind) -> Option<u32> {
    if Engine::of(kind.name).is_some() {
        return Some(quick_engine_blocks(experiment.name, kind));
    }
    if kind.is_qemu() {
        return Some(quick_qemu_blocks(kind));
    }
    if experiment.quick_blocks == 1 {
        return Some(1);
    }
    // Whole lives of other projects' containers, and eight of them at once, take seconds a block and decide no claim.
    match (kind.name, experiment.name) {
        ("runc" | "crun" | "bubblewrap", "lifecycle") => Some(0),
        ("runc" | "crun" | "bubblewrap", "memory") => Some(1),
        ("vm-unikernel-none" | "runc" | "crun" | "bubblewrap", "startup") => Some(10),
        // Its first launch takes the snapshot. Seven decide within the family of `vm.start`.
        ("vm-unikernel-restored" | "vm-linux-restored", "startup") => Some(7),
        // They stand beside others, and decide no claim.
        ("container-bridge-polling" | "vm-unikernel-sleeping", "latency") => Some(6),
        // It boots for a second, and decides no claim.
        ("user-mode-linux", "startup" | "memory") => Some(0),
        _ => None,
    }
}

/// How many blocks of an experiment a sandbox of an engine has in the quick suite. Six are the least that give an interval, which
/// is shown for the start in the mode that most people use. Facts are seen in one block. Throughput and latency are left to the full suite: their claims are decided within
/// a family of many figures, where fewer than nine blocks decide nothing and would only cast doubt on our own sandboxes'.
fn quick_engine_blocks(experiment: &str, kind: &Kind) -> u32 {
    match experiment {
        "startup" if kind.is_default_bridge() => 6,
        "startup" => 2,
        "throughput" | "latency" | "streams" | "load" | "connections" | "lifecycle" | "overhead" => 0,
        "memory" => u32::from(kind.is_default_bridge()),
        _ => 1,
    }
}

/// How many blocks of its start one of QEMU's machines has in the quick suite, where each takes seconds: the least that give an
/// interval for the one that boots faster. The other one is left to the full suite.
fn quick_qemu_blocks(kind: &Kind) -> u32 {
    if kind.name == "qemu-microvm" { 6 } else { 0 }
}

/// Names of those sandboxes that can run here and that an experiment applies to.
pub fn taking_part(experiment: &str, sandboxes: &[SandboxRecord]) -> Vec<String> {
    let Some(experiment) = experiments::named(experiment) else { return Vec::new() };
    let available = sandboxes.iter().filter(|sandbox| sandbox.unavailable.is_none() && experiment.applies(sandbox));
    available.map(|sandbox| sandbox.name.clone()).collect()
}

/// Sees that a sandbox's name is known.
///
/// # Errors
/// Where it is not, with the names that are close.
pub fn check_sandbox(name: &str) -> Result<(), PlanError> {
    if KINDS.iter().any(|kind| kind.name == name) {
        return Ok(());
    }
    Err(unknown("sandbox", name, KINDS.iter().map(|kind| kind.name)))
}

fn names_taking_programs() -> Vec<&'static str> {
    experiments::all().iter().filter(|experiment| experiment.takes_program).map(|experiment| experiment.name).collect()
}

fn unknown<'a>(kind: &'static str, name: &str, known: impl Iterator<Item = &'a str>) -> PlanError {
    PlanError::Unknown { kind, name: name.to_owned(), close: close(name, known) }
}

/// Up to five names that are like a name, best first: a part of it in common, or close by Jaro's measure.
pub(crate) fn close<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let likeness = |candidate: &str| {
        let within = name.len() >= 3 && candidate.contains(name) || name.contains(candidate);
        if within { 1.0 } else { strsim::jaro(name, candidate) }
    };
    let mut scored: Vec<(f64, &str)> = known.map(|candidate| (likeness(candidate), candidate)).collect();
    scored.retain(|(score, _)| *score > 0.7);
    scored.sort_by(|left, right| right.0.total_cmp(&left.0));
    scored.into_iter().take(5).map(|(_, candidate)| candidate.to_owned()).collect()
}

pub(crate) fn suggestion(close: &[String]) -> String {
    match close {
        [] => String::new(),
        [one] => format!(", did you mean `{one}`?"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|name| format!("`{name}`")).collect();
            format!(", did you mean {} or `{last}`?", first.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::FIRST;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_unknown_name_is_answered_with_close_ones() {
        let request = Request { sandboxes: names(&["process", "container-brigde"]), ..Request::default() };
        let error = request.check().unwrap_err().to_string();
        assert!(
            error.starts_with("there is no sandbox named `container-brigde`, did you mean `container-bridge`"),
            "{error}"
        );
        let error = check_sandbox("bridge").unwrap_err().to_string();
        assert!(error.contains("`container-bridge`"), "{error}");
        let error = Request { experiments: names(&["startpu"]), ..Request::default() }.check().unwrap_err().to_string();
        assert_eq!(error, "there is no experiment named `startpu`, did you mean `startup`?; `isobench list` shows all");
        let error = check_sandbox("zzz").unwrap_err().to_string();
        assert_eq!(error, "there is no sandbox named `zzz`; `isobench list` shows all");
    }

    #[test]
    fn the_quick_suite_has_twenty_blocks_of_startup() {
        let plan = Request::default().plan(Vec::new());
        assert_eq!(plan.suite, "quick");
        assert!(plan.blocks["startup"] >= 20);
        let full = Request { suite: Suite::Full, ..Request::default() }.plan(Vec::new());
        assert_eq!(full.blocks["startup"], 3 * plan.blocks["startup"]);
        assert!(!plan.blocks.contains_key("thousand") && full.blocks["thousand"] >= 6);
        let named = Request { experiments: names(&["thousand"]), ..Request::default() }.plan(Vec::new());
        assert_eq!(named.blocks["thousand"], 1);
    }

    #[test]
    fn a_narrowed_suite_says_so() {
        let request = Request { experiments: names(&["startup"]), blocks: Some(7), ..Request::default() };
        let plan = request.plan(names(&["isobench", "run"]));
        assert_eq!((plan.suite.as_str(), plan.scale()), ("custom", Some("quick")));
        assert_eq!((plan.experiments, plan.blocks["startup"]), (names(&["startup"]), 7));
        let full = Request { suite: Suite::Full, ..request }.plan(Vec::new());
        assert_eq!(
            (full.suite.as_str(), full.scale()),
            ("custom", Some("full")),
            "its cells are long when it goes on, too"
        );
        assert_eq!(Request::default().plan(Vec::new()).scale(), Some("quick"));
    }

    #[test]
    fn engines_have_few_blocks_unless_they_are_asked_for() {
        let blocks = |request: &Request| request.plan(Vec::new()).sandbox_blocks;
        let quick = blocks(&Request::default());
        assert_eq!((quick["startup"]["docker-bridge"], quick["startup"]["docker-none"]), (6, 2));
        assert_eq!(quick["load"]["container-bridge"], 1, "and so without a warm-up");
        assert_eq!((quick["throughput"]["docker-bridge"], quick["network"]["docker-bridge"]), (0, 1));
        assert!(!quick["startup"].contains_key("container-bridge"));
        assert_eq!((quick["startup"]["qemu-microvm"], quick["startup"]["qemu-q35"]), (6, 0));
        assert_eq!(quick["startup"]["vm-unikernel-restored"], 7);
        let full = blocks(&Request { suite: Suite::Full, ..Request::default() });
        assert_eq!(full, [("startup".to_owned(), [("qemu-distribution".to_owned(), FEWEST)].into())].into());
        assert!(blocks(&Request { sandboxes: names(&["docker-custom"]), ..Request::default() }).is_empty());
        let asked = blocks(&Request { blocks: Some(9), ..Request::default() });
        assert_eq!(asked["startup"], [("qemu-distribution".to_owned(), 0)].into());
        assert!(blocks(&Request { suite: Suite::Full, blocks: Some(9), ..Request::default() }).is_empty());
    }

    /// How many blocks of a sandbox a plan has in an experiment.
    fn blocks_of(plan: &Plan, experiment: &str, sandbox: &str) -> u32 {
        let fewer = plan.sandbox_blocks.get(experiment).and_then(|sandboxes| sandboxes.get(sandbox));
        fewer.or_else(|| plan.blocks.get(experiment)).copied().unwrap_or(0)
    }

    /// The figures of each family of claims that a plan decides on a machine with KVM in hardware, or in software: what each is, and
    /// the blocks it has. A figure that stands in several claims is there once.
    fn families(plan: &Plan, hardware: bool) -> BTreeMap<&'static str, BTreeMap<String, u32>> {
        use isobench_reports::claims::{Limit, Rule, claims};
        let mut families: BTreeMap<&str, BTreeMap<String, u32>> = BTreeMap::new();
        let here = claims().iter().filter(|claim| if hardware { &claim.emulated } else { &claim.hardware }.is_empty());
        for claim in here {
            let least = |sandboxes: &[&str], metric: &str| {
                let of_one = |sandbox: &&str| {
                    let record = SandboxRecord {
                        name: (*sandbox).to_owned(),
                        family: Kind::named(sandbox).unwrap().family,
                        version: None,
                        unavailable: None,
                        emulation: None,
                        gaps: BTreeMap::new(),
                    };
                    let applies = |name: &str| {
                        experiments::named(name)
                            .is_some_and(|known| known.metrics.contains(&metric) && known.applies(&record))
                    };
                    let of_each = claim.experiments.iter().filter(|name| applies(name));
                    of_each.map(|experiment| blocks_of(plan, experiment, sandbox)).min().unwrap_or(0)
                };
                sandboxes.iter().map(of_one).min().unwrap_or(0)
            };
            let mut figures = Vec::new();
            for rule in &claim.rules {
                match rule {
                    Rule::Facts { .. } => {}
                    Rule::Ratio { subjects, measures, expect, margin }
                    | Rule::SlopeRatio { subjects, measures, expect, margin } => {
                        for subject in subjects {
                            let against = subject.against.as_deref().unwrap_or(&subject.sandbox);
                            figures.extend(measures.iter().map(|measure| {
                                let name = format!("{} {against} {measure:?} {expect:?} {margin}", subject.sandbox);
                                (name, least(&[&subject.sandbox, against], &measure.metric))
                            }));
                        }
                    }
                    Rule::Threshold { limits } => {
                        let figure = |limit: &Limit| (format!("{limit:?}"), least(&[&limit.sandbox], &limit.metric));
                        figures.extend(limits.iter().map(figure));
                    }
                }
            }
            families.entry(&claim.family).or_default().extend(figures.into_iter().filter(|(_, blocks)| *blocks > 0));
        }
        families
    }

    #[test]
    fn a_family_has_blocks_enough_to_be_decided() {
        for suite in [Suite::Quick, Suite::Full] {
            let plan = Request { suite, ..Request::default() }.plan(Vec::new());
            for (family, figures) in [true, false].iter().flat_map(|hardware| families(&plan, *hardware)) {
                for (figure, blocks) in &figures {
                    // The least that the signed-rank test gives, times what Holm's method may multiply it by.
                    // A run whose time is out has the first blocks alone.
                    let least = 0.5_f64.powi((*blocks).min(FIRST) as i32) * figures.len() as f64;
                    assert!(
                        least < 0.05,
                        "{} {family}: {blocks} blocks, {} figures: {figure}",
                        suite.name(),
                        figures.len()
                    );
                }
            }
        }
    }

    #[test]
    fn a_program_narrows_to_what_can_run_it() {
        let request = Request { program: Some(names(&["/bin/true"])), ..Request::default() };
        let plan = request.plan(Vec::new());
        assert!(plan.experiments.iter().all(|name| experiments::named(name).unwrap().takes_program));
        assert_eq!(plan.suite, "custom");
    }
}
