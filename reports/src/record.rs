//! The types of `run.json` and `samples.jsonl`: the one thing that measuring and reporting share.
//!
//! `run.json` is written once at the start of a run and says what is to be measured, on what machine and how;
//! `samples.jsonl` gets one line for each raw sample, flushed at once. Nothing derived is stored, a failure is never a zero,
//! and nothing is dropped: a warm-up is kept and marked.

use isobench_workload::Family;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the schema that this program writes. Readers refuse any other.
pub const SCHEMA_VERSION: u32 = 1;

/// What was to be measured, on what machine and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema: u32,
    /// Version of the program, and git revision where it was built from a checkout.
    pub program: String,
    /// SHA-256 of the program's own file, hexadecimal.
    pub program_digest: String,
    /// When the run began, RFC 3339, UTC.
    pub started: String,
    /// Where it ran.
    pub machine: Machine,
    /// What was planned.
    pub plan: Plan,
    /// The sandboxes that take part, in the order of every table and chart.
    pub sandboxes: Vec<SandboxRecord>,
    /// What each metric's values mean.
    pub metrics: BTreeMap<String, Metric>,
}

impl Run {
    /// What emulates a sandbox, or the whole machine.
    #[must_use]
    pub fn emulation(&self, sandbox: &str) -> Option<&str> {
        let own = self.sandboxes.iter().find(|record| record.name == sandbox);
        own.and_then(|record| record.emulation.as_deref()).or_else(|| self.machine.emulation())
    }
}

/// Facts of the machine and its kernel that bear on a figure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Host name.
    pub host: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// Kernel release.
    pub kernel: String,
    /// CPU model name.
    pub cpu: String,
    /// CPUs online.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// The layout of control groups: `v1`, `v2` or `hybrid`.
    pub cgroups: String,
    /// What KVM is here, in one sentence.
    pub kvm: String,
    /// Whether the whole machine is emulated, so that every figure carries that label.
    pub emulated: bool,
    /// Whether an ordinary user ran it.
    pub rootless: bool,
    /// Other facts by name: governor, turbo, huge pages, congestion control, MTU, versions of peers.
    pub facts: BTreeMap<String, String>,
}

impl Machine {
    /// What emulates everything that is measured here, where something does.
    #[must_use]
    pub fn emulation(&self) -> Option<&'static str> {
        self.emulated.then_some("emulated machine")
    }
}

/// What was planned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The suite's name: `quick`, `full`, or `custom` where the command line narrowed it.
    pub suite: String,
    /// Which suite was narrowed, where one was: how long traffic is made and how large the large memory is are that one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub narrowed: Option<String>,
    /// The seed of the order of cells.
    pub seed: u64,
    /// Measured randomised blocks by experiment; a warm-up block comes before those that time something. A run that was stopped
    /// has fewer.
    pub blocks: BTreeMap<String, u32>,
    /// Fewer blocks of an experiment (0 for none) for those sandboxes that take long to launch, by experiment and sandbox.
    #[serde(default)]
    pub sandbox_blocks: BTreeMap<String, BTreeMap<String, u32>>,
    /// Experiments by name.
    pub experiments: Vec<String>,
    /// The command line, as typed.
    pub command_line: Vec<String>,
    /// The user's own program, where one is measured.
    pub program: Option<Vec<String>>,
}

impl Plan {
    /// The suite whose lengths and sizes cells have; `None` for a narrowed run of a version that did not record it.
    #[must_use]
    pub fn scale(&self) -> Option<&str> {
        self.narrowed.as_deref().or_else(|| (self.suite != "custom").then_some(&self.suite))
    }
}

/// One sandbox that takes part or that cannot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxRecord {
    /// Its name, such as `container-bridge`.
    pub name: String,
    /// Its family, which gives it colour and marker.
    #[schemars(with = "String")]
    pub family: Family,
    /// Version of the program behind it, where it has one.
    pub version: Option<String>,
    /// Why it cannot be measured on this machine, in one sentence, where it cannot.
    pub unavailable: Option<String>,
    /// What emulates it, where something does (`software KVM`, `TCG`); its figures carry this label everywhere.
    pub emulation: Option<String>,
    /// Experiments that it cannot take part in on this machine, each with the reason in one sentence.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gaps: BTreeMap<String, String>,
}

/// What a metric's values mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Base unit: `ns`, `B`, `count`, or empty for facts. A rate is never stored, only its parts.
    pub unit: String,
    /// Which way is better: `lower`, `higher`, or `neither`.
    pub better: String,
    /// What it is, in one English sentence.
    pub text: String,
}

/// One raw sample: one line of `samples.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// 0, 1, 2... without gaps.
    pub sequence: u64,
    /// Nanoseconds since the run began, on the monotonic clock.
    pub time: u64,
    /// The experiment that took it.
    pub experiment: String,
    /// The randomised block: the unit of replication. Every sandbox is measured once in each block.
    pub block: u32,
    /// Position of the cell within its block.
    pub position: u32,
    /// Instance within the cell, 0 where there is one.
    pub instance: u32,
    /// The sandbox's name.
    pub sandbox: String,
    /// The metric's name.
    pub metric: String,
    /// Parameters of the cell that tell samples of one metric apart: `path`, `segmentation`, `instances`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// Whether it is a warm-up, kept but never used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warm_up: bool,
    /// The value, or the error that stands in its place.
    pub outcome: Outcome,
}

/// A value or an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// What was measured.
    Value(Value),
    /// What failed, in one sentence.
    Error(String),
}

/// A measured value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    /// An amount in the metric's base unit.
    Integer(u64),
    /// An amount moved and the time that it took: a rate is their ratio, never stored.
    Transfer {
        /// Bytes or completions.
        amount: u64,
        /// Nanoseconds.
        nanoseconds: u64,
    },
    /// A fact: seen or not.
    Boolean(bool),
    /// Texts, such as a list of interfaces.
    Texts(Vec<String>),
    /// Stages of one launch: name and nanoseconds since t0.
    Stages(Vec<StageTime>),
    /// An HDR histogram of nanoseconds (V2 serialization, base64).
    Histogram(String),
}

/// One stage of one launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageTime {
    /// The stage's name.
    pub stage: String,
    /// Nanoseconds since t0.
    pub at: u64,
}
