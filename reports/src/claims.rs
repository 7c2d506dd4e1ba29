//! The claims that are tested, as data: `reports/claims/*.toml`. One evaluator reads their rules ([`crate::verdict`]); there
//! is no code for a single claim.

use crate::summary::Parameters;
use serde::Deserialize;
use std::sync::LazyLock;

/// The files, in the order of reports.
const FILES: [&str; 6] = [
    include_str!("../claims/host.toml"),
    include_str!("../claims/container.toml"),
    include_str!("../claims/none.toml"),
    include_str!("../claims/bridge.toml"),
    include_str!("../claims/custom.toml"),
    include_str!("../claims/vm.toml"),
];

/// Every claim, in the order of reports.
pub fn claims() -> &'static [Claim] {
    static CLAIMS: LazyLock<Vec<Claim>> = LazyLock::new(|| FILES.into_iter().flat_map(parse).collect());
    &CLAIMS
}

/// The claim of an id.
pub fn find(id: &str) -> Option<&'static Claim> {
    claims().iter().find(|claim| claim.id == id)
}

fn parse(file: &str) -> Vec<Claim> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        claim: Vec<Claim>,
    }
    match toml::from_str::<File>(file) {
        Ok(file) => file.claim,
        Err(error) => unreachable!("the claims are part of the program and tested: {error}"),
    }
}

/// One claim.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Claim {
    /// Its name everywhere: in reports, in experiments, on the lab sheet.
    pub id: String,
    /// Who may decide it.
    pub kind: Kind,
    /// What is claimed, in each language.
    pub wording: Wording,
    /// The experiments whose samples decide it.
    #[serde(default)]
    pub experiments: Vec<String>,
    /// The family of claims within which probabilities are adjusted, where figures decide.
    #[serde(default)]
    pub family: String,
    /// Sandboxes that must be there on hardware, without emulation, or nothing is decided.
    #[serde(default)]
    pub hardware: Vec<String>,
    /// Sandboxes that must be emulated in software, or nothing is decided: on hardware they say nothing of emulation.
    #[serde(default)]
    pub emulated: Vec<String>,
    /// What decides it, all of them together; empty where nothing does yet.
    #[serde(default, rename = "rule")]
    pub rules: Vec<Rule>,
}

/// Who may decide a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A behaviour that a runtime chooses: only peers decide.
    Choice,
    /// What follows from the kernel's mechanism: a probe decides, beside its control.
    Consequence,
    /// A measurement decides.
    Figure,
}

impl Kind {
    /// The kind's name, which is its message key after `kind-`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Choice => "choice",
            Self::Consequence => "consequence",
            Self::Figure => "figure",
        }
    }
}

/// One sentence in each language.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wording {
    /// English.
    pub en: String,
    /// Simplified Chinese.
    pub zh: String,
}

/// One rule that decides a claim. Every expectation is examined for every subject that takes part in the run: our own sandbox, and
/// peers in the same role where they were measured.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", tag = "type", deny_unknown_fields)]
pub enum Rule {
    /// Facts seen by a probe.
    Facts {
        /// Whom the probe looks at, and the sandbox that is its control.
        subjects: Vec<Subject>,
        /// What the claim says; empty where figures decide and these are their control alone.
        #[serde(default)]
        expect: Vec<FactRule>,
        /// What must hold in the control for the probe to be trusted.
        #[serde(default)]
        control: Vec<FactRule>,
    },
    /// Ratios paired within blocks.
    Ratio {
        /// Who is compared with whom.
        subjects: Vec<Subject>,
        /// What is measured.
        measures: Vec<Measure>,
        /// What the claim says of each.
        expect: Comparison,
        /// The smallest ratio that counts: 1.05 is 5 %.
        margin: f64,
    },
    /// Ratios of slopes over the number of instances.
    SlopeRatio {
        /// Who is compared with whom.
        subjects: Vec<Subject>,
        /// What is measured.
        measures: Vec<Measure>,
        /// What the claim says of each.
        expect: Comparison,
        /// The smallest ratio that counts.
        margin: f64,
    },
    /// Values on either side of a limit.
    Threshold {
        /// What is measured, where, and its limit.
        limits: Vec<Limit>,
    },
}

/// Whom a rule looks at.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The sandbox.
    pub sandbox: String,
    /// What it is compared with.
    #[serde(default)]
    pub against: Option<String>,
    /// Where the control is looked at; the sandbox itself where none is named.
    #[serde(default)]
    pub control: Option<String>,
    /// Whether this is a peer, which takes part only where it was measured.
    #[serde(default)]
    pub peer: bool,
}

/// A fact that must hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FactRule {
    /// The metric.
    pub metric: String,
    /// Parameters that the sample must have.
    #[serde(default)]
    pub parameters: Parameters,
    /// What is expected of it.
    pub expected: Expected,
    /// For a control: whether it is looked at in the subject itself, though the others are in another sandbox.
    #[serde(default)]
    pub in_subject: bool,
}

/// What is expected of a fact.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Expected {
    /// It is seen, or not.
    Is(bool),
    /// Exactly these texts, in any order.
    Texts(Vec<String>),
    /// One of the texts contains this one.
    Contains(String),
    /// None of the texts contains this one.
    Excludes(String),
    /// One of the texts ends in an IPv4 address or subnet within this subnet, `a.b.c.d/n`.
    Within(String),
    /// The same texts as another metric of the same sandbox in the same block.
    SameAs(String),
    /// Other texts than another metric of the same sandbox in the same block.
    DiffersFrom(String),
}

/// A number to compare.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Measure {
    /// The metric.
    pub metric: String,
    /// Parameters of the series.
    #[serde(default)]
    pub parameters: Parameters,
    /// Parameters of the series compared with, where they differ.
    #[serde(default)]
    pub against_parameters: Option<Parameters>,
}

/// A number with its limit.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Limit {
    /// The sandbox.
    pub sandbox: String,
    /// The metric.
    pub metric: String,
    /// Parameters of the series.
    #[serde(default)]
    pub parameters: Parameters,
    /// The value must lie below this, in the metric's base unit.
    #[serde(default)]
    pub below: Option<f64>,
    /// The value must lie at or above this.
    #[serde(default)]
    pub at_least: Option<f64>,
}

/// What a claim says of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// The sandbox is worse by more than the margin.
    Worse,
    /// The sandbox is better by more than the margin.
    Better,
    /// Neither differs from the other by more than the margin.
    Equal,
    /// The sandbox's number is the margin times the other's or more, whichever way is better.
    Reaches,
}
