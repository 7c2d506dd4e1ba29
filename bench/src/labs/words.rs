//! What the lab's commands say, in both languages side by side.

use super::check::{CheckRecord, Comparison, Evidence};
use super::prediction::{Prediction, digits};
use isobench_reports::messages::Language;

/// One of two texts.
pub fn either(language: Language, english: &'static str, chinese: &'static str) -> &'static str {
    match language {
        Language::English => english,
        Language::Chinese => chinese,
    }
}

/// A prediction, or what was measured in its place.
pub fn answer(language: Language, answer: &Prediction) -> String {
    match answer {
        Prediction::Yes(true) => either(language, "yes", "是").to_owned(),
        Prediction::Yes(false) => either(language, "no", "否").to_owned(),
        Prediction::Number { .. } => answer.to_string(),
    }
}

/// What was measured, with its interval.
pub fn measured(language: Language, check: &CheckRecord) -> String {
    let Some(measured) = &check.measured else {
        return either(language, "not decided by the records", "记录中没有定论").to_owned();
    };
    let text = answer(language, &measured.answer);
    match (measured.interval, measured.blocks) {
        (Some((low, high)), Some(blocks)) => {
            let (low, high) = (digits(low), digits(high));
            match language {
                Language::English => format!("{text} (95 % interval {low} to {high}, {blocks} blocks)"),
                Language::Chinese => format!("{text}（95% 区间 {low} 至 {high}，{blocks} 个区组）"),
            }
        }
        (None, Some(blocks)) => match language {
            Language::English => format!("{text} ({blocks} blocks, too few for an interval)"),
            Language::Chinese => format!("{text}（{blocks} 个区组，不足以给出区间）"),
        },
        _ => text,
    }
}

/// How the two compare.
pub fn comparison(language: Language, prediction: &Prediction, comparison: &Comparison) -> String {
    match (prediction, comparison) {
        // A wide interval is hit easily: it is the interval that is named, not the student that is praised.
        (Prediction::Number { .. }, Comparison { hit: true, .. }) => {
            either(language, "the prediction lies within the interval", "预测落在区间内").to_owned()
        }
        (_, Comparison { hit: true, .. }) => either(language, "as predicted", "与预测相符").to_owned(),
        (Prediction::Number { unit, .. }, Comparison { off_by: Some(off), .. }) => {
            let unit = if unit == "%" { either(language, "percentage points", "个百分点") } else { unit };
            let size = format!("{} {unit}", digits(off.abs()));
            match (language, *off > 0.0) {
                (Language::English, true) => format!("predicted {size} too much"),
                (Language::English, false) => format!("predicted {size} too little"),
                (Language::Chinese, true) => format!("预测偏高 {size}"),
                (Language::Chinese, false) => format!("预测偏低 {size}"),
            }
        }
        _ => either(language, "not as predicted", "与预测不符").to_owned(),
    }
}

/// What the records say about an observation.
pub fn evidence(language: Language, evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::Supported => either(language, "supported", "有证据支持"),
        Evidence::Contradicted => either(language, "contradicted", "证据相反"),
        Evidence::Undecided => either(language, "undecided", "证据不足以判定"),
        Evidence::Missing => either(language, "missing", "缺少证据"),
    }
}
