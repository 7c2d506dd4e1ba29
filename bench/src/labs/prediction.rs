//! What a student predicts: read from what was typed, in the unit that the lab asks for.

use super::{Description, Measured};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A prediction, or what was measured in its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Prediction {
    /// Yes or no.
    Yes(bool),
    /// A number.
    Number {
        /// The number.
        value: f64,
        /// Its unit: `%`, `us` or `ms`.
        unit: String,
    },
}

/// What was typed is no answer to the question.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PredictionError {
    /// The question wants yes or no.
    #[error("`{0}` is no answer to it: say yes or no")]
    YesOrNo(String),
    /// The question wants a number.
    #[error("`{typed}` is no answer to it: give a number in {unit}, such as `12 {unit}`")]
    Number {
        /// What was typed.
        typed: String,
        /// The unit.
        unit: String,
    },
}

impl Prediction {
    /// Reads what was typed.
    ///
    /// # Errors
    /// Where it is no answer to the lab's question.
    pub fn parse(lab: &Description, typed: &str) -> Result<Self, PredictionError> {
        let text = typed.trim();
        match &lab.prediction.measured {
            Measured::Claim { .. } => match text.to_lowercase().as_str() {
                "yes" | "y" | "true" | "是" | "能" | "会" => Ok(Self::Yes(true)),
                "no" | "n" | "false" | "否" | "不是" | "不能" | "不会" => Ok(Self::Yes(false)),
                _ => Err(PredictionError::YesOrNo(typed.to_owned())),
            },
            Measured::Number { unit, .. } => match number(text, unit) {
                Some(value) => Ok(Self::Number { value, unit: unit.clone() }),
                None => Err(PredictionError::Number { typed: typed.to_owned(), unit: unit.clone() }),
            },
        }
    }
}

impl std::fmt::Display for Prediction {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Yes(true) => formatter.write_str("yes"),
            Self::Yes(false) => formatter.write_str("no"),
            Self::Number { value, unit } => write!(formatter, "{} {unit}", digits(*value)),
        }
    }
}

/// Three significant digits.
pub fn digits(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 99.95 || size == 0.0 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A number with a unit or none, in the unit wanted.
fn number(text: &str, wanted: &str) -> Option<f64> {
    // A decimal comma, and the micro sign, the Greek letter and the fullwidth per cent sign that keyboards have for them.
    let text = text.replace(',', ".").replace(['µ', 'μ'], "u").replace('％', "%");
    let end = text.find(|character: char| !matches!(character, '0'..='9' | '.' | '-' | '+')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let value: f64 = number.parse().ok().filter(|value: &f64| value.is_finite())?;
    let given = match unit.trim() {
        "" => wanted,
        unit => unit,
    };
    let scale = if given == wanted { 1.0 } else { nanoseconds(given)? / nanoseconds(wanted)? };
    Some(value * scale)
}

/// Nanoseconds in a unit of time.
pub(super) fn nanoseconds(unit: &str) -> Option<f64> {
    match unit {
        "ns" => Some(1.0),
        "us" => Some(1e3),
        "ms" => Some(1e6),
        "s" => Some(1e9),
        _ => None,
    }
}
