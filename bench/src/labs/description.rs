//! What a lab asks, measures and looks for: `docs/labs/*.toml`.
//!
//! The experiments and sandboxes of a lab are those of its claims, so that a claim whose experiment changes needs no change
//! here.

use crate::experiments;
use isobench_reports::claims::{self, Rule, Subject, Wording};
use isobench_reports::messages::Language;
use isobench_reports::summary::Parameters;
use serde::Deserialize;
use std::collections::BTreeSet;

/// The data of one lab.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Its name on the command line and in records.
    pub id: String,
    /// The claims that it is about, the one in question first.
    pub claims: Vec<String>,
    /// Randomised blocks that are measured.
    pub blocks: u32,
    /// Its title.
    pub title: Wording,
    /// The question in one sentence.
    pub question: Wording,
    /// What the student predicts.
    pub prediction: Asked,
    /// What the records are looked through for.
    #[serde(rename = "observation")]
    pub observations: Vec<Observation>,
    /// The publications that the sheet quotes, by their names in [`isobench_reports::literature`].
    pub sources: Vec<String>,
}

/// What a student predicts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The question to which the prediction is an answer.
    pub ask: Wording,
    /// What answers it.
    pub measured: Measured,
}

/// What answers the question of a prediction.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Measured {
    /// Whether a claim holds: yes or no.
    Claim {
        /// The claim.
        claim: String,
    },
    /// A number.
    Number {
        /// The experiment that measures it.
        experiment: String,
        /// What is made of the two medians.
        quantity: Quantity,
        /// The unit in which the student answers: `%`, `us` or `ms`.
        unit: String,
        /// The metric.
        metric: String,
        /// The stage of a launch, where the metric has stages.
        #[serde(default)]
        stage: Option<String>,
        /// The sandbox.
        sandbox: String,
        /// Parameters of its series.
        #[serde(default)]
        parameters: Parameters,
        /// The sandbox that it is compared with.
        against: String,
        /// Parameters of that one's series, where they differ.
        #[serde(default, rename = "against-parameters")]
        against_parameters: Option<Parameters>,
    },
}

/// What is made of the two values of each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantity {
    /// By how many per cent the first is above the second.
    Change,
    /// The first in per cent of the second.
    Share,
    /// The first less the second.
    Difference,
}

/// Something that the records show, or do not.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    /// The claim whose facts or figures show it.
    pub claim: String,
    /// Of these, those of this metric only.
    #[serde(default)]
    pub metric: Option<String>,
    /// Of these, those of this sandbox only.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// The observation in one sentence.
    pub text: Wording,
}

impl Description {
    /// The experiments of its claims, as far as there are any yet, and that of its prediction.
    pub fn experiments(&self) -> BTreeSet<&str> {
        let of_claims = self.claims().flat_map(|claim| claim.experiments.iter().map(String::as_str));
        let own = match &self.prediction.measured {
            Measured::Number { experiment, .. } => Some(experiment.as_str()),
            Measured::Claim { .. } => None,
        };
        of_claims.chain(own).filter(|name| experiments::named(name).is_some()).collect()
    }

    /// The sandboxes of its claims and of its prediction, peers left out: an ordinary machine has none.
    pub fn sandboxes(&self) -> BTreeSet<&str> {
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for rule in self.claims().flat_map(|claim| &claim.rules) {
            match rule {
                Rule::Facts { subjects, .. } | Rule::Ratio { subjects, .. } | Rule::SlopeRatio { subjects, .. } => {
                    names.extend(subjects.iter().filter(|subject| !subject.peer).flat_map(places));
                }
                Rule::Threshold { limits } => names.extend(limits.iter().map(|limit| limit.sandbox.as_str())),
            }
        }
        if let Measured::Number { sandbox, against, .. } = &self.prediction.measured {
            names.extend([sandbox.as_str(), against.as_str()]);
        }
        names
    }

    fn claims(&self) -> impl Iterator<Item = &'static claims::Claim> {
        self.claims.iter().filter_map(|id| claims::find(id))
    }
}

fn places(subject: &Subject) -> impl Iterator<Item = &str> {
    [Some(&subject.sandbox), subject.against.as_ref(), subject.control.as_ref()]
        .into_iter()
        .flatten()
        .map(String::as_str)
}

/// A sentence in one language.
pub fn wording(wording: &Wording, language: Language) -> &str {
    match language {
        Language::English => &wording.en,
        Language::Chinese => &wording.zh,
    }
}
