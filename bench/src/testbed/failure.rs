//! Why a testbed could not do as it was asked, in a form that goes from one process to another.

use serde::{Deserialize, Serialize};

/// The machine forbids it: one sentence that says what, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Forbidden(pub(crate) String);

/// What a testbed answers where it fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Failure {
    Forbidden(Forbidden),
    /// Something broke: every cause, on one line.
    Broken(String),
}

impl Failure {
    pub(super) fn of(error: &anyhow::Error) -> Self {
        match error.downcast_ref::<Forbidden>() {
            Some(forbidden) => Self::Forbidden(forbidden.clone()),
            None => Self::Broken(format!("{error:#}")),
        }
    }
}

impl From<Failure> for anyhow::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Forbidden(forbidden) => forbidden.into(),
            Failure::Broken(message) => Self::msg(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forbidden_is_told_from_what_broke_behind_a_process_too() {
        let through = |error: anyhow::Error| {
            let words = serde_json::to_string(&Failure::of(&error)).expect("words");
            anyhow::Error::from(serde_json::from_str::<Failure>(&words).expect("the same failure"))
        };
        let sentence = "docker makes control groups, which this user may not: run isobench as root";
        let forbidden = through(Forbidden(sentence.into()).into());
        assert_eq!(forbidden.downcast_ref(), Some(&Forbidden(sentence.into())));
        let broken = through(anyhow::anyhow!("no room").context(sentence));
        assert!(!broken.is::<Forbidden>());
        assert_eq!(broken.to_string(), format!("{sentence}: no room"));
    }
}
