//! What a run says about each claim.
//!
//! One evaluator reads the rules of all claims. A figure is *confirmed* where its whole interval lies on the claim's side of
//! a margin that was fixed before any data (95 %, or 90 % for equality, which is what two one-sided tests at 5 % correspond
//! to) and the signed-rank probability, adjusted by Holm within the claim's family, is below 5 %; *refuted* where the same
//! holds for the other side; else *inconclusive*. False confirmations and false refutations are two kinds of error, each
//! held at 5 % in a family. A claim of several figures or facts is what they all say: *split* where some are confirmed and
//! some refuted.
//!
//! With k figures in a family, the smallest probability of n blocks, 2^-n, must be below 0.05 / k: 8 blocks for up to 12
//! figures.

mod evaluator;
mod facts;
mod figures;

pub use evaluator::{evaluate, evaluate_series};

use crate::claims::{Claim, Expected};
use crate::record::Value;
use crate::summary::Parameters;

/// The answer to one claim.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The claim.
    pub claim: &'static Claim,
    /// The answer.
    pub answer: Answer,
    /// Why the answer is not a plain yes or no, or what limits it.
    pub reason: Option<Reason>,
    /// The figures that decided, each with an answer of its own. Empty for claims decided by facts.
    pub figures: Vec<Figure>,
    /// The facts that decided, controls last. Empty for claims decided by figures.
    pub facts: Vec<FactResult>,
    /// What emulates a sandbox that takes part (`software KVM`): the verdict carries this label everywhere.
    pub emulation: Option<String>,
}

/// The answers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// All that was measured holds.
    Confirmed,
    /// None of what was measured holds.
    Refuted,
    /// Part of it holds and part does not: see each figure or fact.
    Split,
    /// The samples do not decide.
    Inconclusive,
    /// Our own runtime does it by choice, and no peer was there to decide.
    ShownByConstruction,
    /// It cannot be measured on this machine.
    NotMeasurable,
    /// No experiment of this run reaches it.
    NotTested,
}

impl Answer {
    /// The answer's name, which is its message key after `answer-`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Refuted => "refuted",
            Self::Split => "split",
            Self::Inconclusive => "inconclusive",
            Self::ShownByConstruction => "shown-by-construction",
            Self::NotMeasurable => "not-measurable",
            Self::NotTested => "not-tested",
        }
    }

    /// What several answers say together.
    fn all(answers: impl Iterator<Item = Self> + Clone) -> Self {
        let (confirmed, refuted) = (Self::Confirmed, Self::Refuted);
        let any = |sought: Self| answers.clone().any(|answer| answer == sought);
        let every = |sought: Self| any(sought) && answers.clone().all(|answer| answer == sought);
        match () {
            () if every(confirmed) => confirmed,
            () if every(refuted) => refuted,
            () if any(confirmed) && any(refuted) => Self::Split,
            () => Self::Inconclusive,
        }
    }
}

/// Why an answer is not a plain yes or no.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// There is no experiment for this claim yet.
    NoExperiment,
    /// The run did not include what the claim needs: an experiment or a sandbox.
    NotInRun {
        /// Name of the experiment or sandbox.
        name: String,
    },
    /// A sandbox that the claim needs cannot run here.
    Unavailable {
        /// The sandbox.
        sandbox: String,
        /// Why, in one sentence (from the run's record).
        why: String,
    },
    /// A sandbox that the claim needs is emulated here, so its figures cannot decide.
    Emulated {
        /// The sandbox.
        sandbox: String,
        /// What emulates it.
        emulation: String,
    },
    /// A claim on emulation needs a sandbox emulated that runs on hardware here.
    OnHardware {
        /// The sandbox.
        sandbox: String,
    },
    /// The control did not come out as it must, so the probe is not to be trusted.
    ControlBroken {
        /// Metric of the control.
        metric: String,
        /// Sandbox of the control.
        sandbox: String,
    },
    /// There is no usable sample of something that the rule needs.
    NoSamples {
        /// The metric.
        metric: String,
        /// The sandbox.
        sandbox: String,
    },
    /// What one compares with is nought or below in a block, or in the median of a draw, so that it has no multiples.
    NoRatio {
        /// The metric.
        metric: String,
        /// The sandbox measured.
        sandbox: String,
        /// The sandbox that it is compared with.
        against: String,
    },
    /// Too few complete blocks for an interval.
    TooFewBlocks {
        /// Complete blocks that there are.
        blocks: usize,
        /// Blocks needed.
        needed: usize,
    },
    /// Blocks contradict each other on a fact.
    Contradictory {
        /// The metric.
        metric: String,
        /// The sandbox.
        sandbox: String,
    },
    /// An interval reaches across its margin.
    Undecided,
    /// Every interval lies on one side of its margin, but an adjusted probability is too large.
    Improbable {
        /// The probability for that side.
        probability: f64,
        /// Complete blocks of that figure.
        blocks: usize,
    },
    /// A choice that only peers decide was not made by our own runtime, and no peer was there.
    OwnRuntimeOnly,
}

impl Reason {
    /// The reason's message key after `reason-`.
    pub const fn key(&self) -> &'static str {
        match self {
            Self::NoExperiment => "no-experiment",
            Self::NotInRun { .. } => "not-in-run",
            Self::Unavailable { .. } => "unavailable",
            Self::Emulated { .. } => "emulated",
            Self::OnHardware { .. } => "on-hardware",
            Self::ControlBroken { .. } => "control-broken",
            Self::NoSamples { .. } => "no-samples",
            Self::NoRatio { .. } => "no-ratio",
            Self::TooFewBlocks { .. } => "too-few-blocks",
            Self::Contradictory { .. } => "contradictory",
            Self::Undecided => "undecided",
            Self::Improbable { .. } => "improbable",
            Self::OwnRuntimeOnly => "own-runtime-only",
        }
    }
}

/// One figure of a verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What the value is.
    pub kind: FigureKind,
    /// The metric.
    pub metric: String,
    /// Parameters of the series.
    pub parameters: Parameters,
    /// The sandbox measured.
    pub sandbox: String,
    /// The sandbox that it is compared with.
    pub against: Option<String>,
    /// Parameters of the series compared with, where they differ from `parameters`.
    pub against_parameters: Option<Parameters>,
    /// The estimate: a ratio without unit (sandbox / against, of rates for transfers), or a value in `unit`.
    pub value: f64,
    /// Bounds of its interval. With fewer than 6 blocks there is none, and no figure.
    pub interval: (f64, f64),
    /// Level of the interval: 0.95, or 0.90 where equality is tested by two one-sided tests at 5 %.
    pub level: f64,
    /// Complete blocks used.
    pub blocks: usize,
    /// Unit of `value`, empty for a ratio.
    pub unit: &'static str,
    /// What the claim expects of it.
    pub expectation: Expectation,
    /// Median of the sandbox itself, in the metric's unit (`B/s` for transfers, bytes per instance for slopes).
    pub median: f64,
    /// Median of the sandbox compared with.
    pub against_median: Option<f64>,
    /// Unit of `median` and `against_median`.
    pub median_unit: &'static str,
    /// Probability, under chance, of evidence this strong for the claim; adjusted by Holm within the claim's family.
    pub p_confirm: f64,
    /// The same for evidence against the claim.
    pub p_refute: f64,
    /// Whether its whole interval lies on one side of the margin.
    pub clear: bool,
    /// What this figure alone says: confirmed, refuted or inconclusive.
    pub answer: Answer,
}

impl Figure {
    /// The adjusted probability of the side that has the stronger evidence: what decides, once the interval is clear.
    #[must_use]
    pub const fn probability(&self) -> f64 {
        self.p_confirm.min(self.p_refute)
    }
}

/// What the value of a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FigureKind {
    /// Median of ratios paired within blocks.
    Ratio,
    /// Ratio of slopes over the number of instances.
    SlopeRatio,
    /// Median of the values themselves.
    Value,
}

/// What a claim expects of a figure, with the margin that was fixed beforehand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expectation {
    /// The sandbox is worse (slower, larger) by more than the margin: the cost ratio lies above it (1.05 is 5 %).
    Worse {
        /// Ratio of costs.
        margin: f64,
    },
    /// The sandbox is better by more than the margin: the cost ratio lies below its reciprocal.
    Better {
        /// Ratio of costs.
        margin: f64,
    },
    /// The ratio lies between the margin and its reciprocal.
    Equal {
        /// Ratio.
        margin: f64,
    },
    /// The ratio of the numbers themselves lies at or above this.
    Reaches {
        /// Ratio.
        ratio: f64,
    },
    /// The value lies below a limit.
    Below {
        /// In the metric's base unit.
        limit: f64,
    },
    /// The value lies at or above a limit.
    AtLeast {
        /// In the metric's base unit.
        limit: f64,
    },
}

/// One fact of a verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct FactResult {
    /// The metric.
    pub metric: String,
    /// Parameters of the series.
    pub parameters: Parameters,
    /// The sandbox observed.
    pub sandbox: String,
    /// What was expected.
    pub expected: Expected,
    /// What was seen: the distinct values over all blocks (more than one where blocks contradict each other).
    pub seen: Vec<Value>,
    /// Blocks in which it was observed.
    pub blocks: usize,
    /// Whether it is a control: what must hold for the probe to be trusted.
    pub control: bool,
    /// Confirmed where it holds in every block, refuted where in none, else inconclusive.
    pub answer: Answer,
}
