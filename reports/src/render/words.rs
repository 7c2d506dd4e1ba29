//! Verdicts in words: what page and Markdown both say.

use super::quantity::{self, NONE, quantity};
use super::remarks::translated;
use crate::claims::{Claim, Expected, Rule};
use crate::messages::{Language, Messages};
use crate::record::Value;
use crate::summary::Parameters;
use crate::verdict::{Answer, Expectation, FactResult, Figure, FigureKind, Reason, Verdict};

/// A claim in the language's words.
#[must_use]
pub fn wording(claim: &'static Claim, language: Language) -> &'static str {
    match language {
        Language::English => &claim.wording.en,
        Language::Chinese => &claim.wording.zh,
    }
}

/// An answer.
#[must_use]
pub fn answer(messages: &Messages, answer: Answer) -> String {
    messages.text(&format!("answer-{}", answer.key()))
}

/// How a claim's rules decide.
#[must_use]
pub fn rules(messages: &Messages, rules: &[Rule]) -> String {
    let rule = |rule: &Rule| {
        messages.text(match rule {
            Rule::Facts { .. } => "rule-facts",
            Rule::Ratio { .. } => "rule-ratio",
            Rule::SlopeRatio { .. } => "rule-slope-ratio",
            Rule::Threshold { .. } => "rule-threshold",
        })
    };
    rules.iter().map(rule).collect::<Vec<_>>().join(" ")
}

/// Answers in the order in which they are counted and listed.
pub const ANSWERS: [Answer; 7] = [
    Answer::Confirmed,
    Answer::Refuted,
    Answer::Split,
    Answer::Inconclusive,
    Answer::ShownByConstruction,
    Answer::NotMeasurable,
    Answer::NotTested,
];

/// How many verdicts there are of each answer, those that there are none of left out.
#[must_use]
pub fn counts(messages: &Messages, verdicts: &[Verdict]) -> Vec<(Answer, String)> {
    ANSWERS
        .into_iter()
        .filter_map(|wanted| {
            let count = verdicts.iter().filter(|verdict| verdict.answer == wanted).count();
            let text = messages
                .format("verdict-count", &[("answer", &answer(messages, wanted)), ("count", &count.to_string())]);
            (count > 0).then_some((wanted, text))
        })
        .collect()
}

/// Whether a verdict belongs among the answers, and not in the list of what was not tested.
#[must_use]
pub fn is_answered(verdict: &Verdict) -> bool {
    verdict.answer != Answer::NotTested
}

/// What emulates a sandbox that takes part, as a label of the verdict.
#[must_use]
pub fn emulation(messages: &Messages, emulation: &str) -> String {
    messages.format("verdict-emulation", &[("emulation", &translated(messages, emulation))])
}

/// Whether the controls of a verdict came out as they must, with the sandboxes in which they were looked at; `None` where
/// it has none.
#[must_use]
pub fn controls(messages: &Messages, verdict: &Verdict) -> Option<String> {
    let mut sandboxes: Vec<&str> = Vec::new();
    let controls = || verdict.facts.iter().filter(|fact| fact.control);
    for fact in controls() {
        if !sandboxes.contains(&fact.sandbox.as_str()) {
            sandboxes.push(&fact.sandbox);
        }
    }
    let holds = controls().all(|fact| fact.answer == Answer::Confirmed);
    let key = if holds { "controls-hold" } else { "controls-broken" };
    let names = sandboxes.join(&messages.text("list-comma"));
    (!sandboxes.is_empty()).then(|| messages.format(key, &[("sandboxes", &names)]))
}

/// The answer of one fact: for a control, whether it came out as it must.
#[must_use]
pub fn fact_answer(messages: &Messages, fact: &FactResult) -> String {
    match (fact.control, fact.answer) {
        (false, answer) => self::answer(messages, answer),
        (true, Answer::Confirmed) => messages.text("control-holds"),
        (true, Answer::Refuted) => messages.text("control-broken"),
        (true, _) => messages.text("control-open"),
    }
}

/// A metric under its parameters, such as `upload, from the simulated host, wire-size packets`.
#[must_use]
pub fn metric(messages: &Messages, name: &str, parameters: &Parameters) -> String {
    let mut text = messages.lookup_named("metric-", &name.replace('.', "-")).unwrap_or_else(|| name.to_owned());
    for (name, value) in parameters {
        let value = match name.as_str() {
            "path" => messages.named("path-", value),
            "segmentation" => messages.named("chart-segmentation-", value),
            "target" => messages.named("target-", value),
            _ => {
                messages.lookup_named(&format!("parameter-{name}-"), value).unwrap_or_else(|| format!("{name} {value}"))
            }
        };
        text.push_str(&messages.text("list-comma"));
        text.push_str(&value);
    }
    text
}

/// What a figure measures, with both sets of parameters where they differ.
#[must_use]
pub fn figure_name(messages: &Messages, figure: &Figure) -> String {
    let name = metric(messages, &figure.metric, &figure.parameters);
    match &figure.against_parameters {
        Some(parameters) if *parameters != figure.parameters => {
            let against = metric(messages, &figure.metric, parameters);
            messages.format("figure-medians", &[("first", &name), ("second", &against)])
        }
        _ => name,
    }
}

/// Whom a figure is about.
#[must_use]
pub fn figure_subject(messages: &Messages, figure: &Figure) -> String {
    figure.against.as_deref().map_or_else(
        || figure.sandbox.clone(),
        |against| messages.format("figure-compared", &[("sandbox", &figure.sandbox), ("against", against)]),
    )
}

/// A figure's estimate; for a ratio with both medians.
#[must_use]
pub fn figure_estimate(messages: &Messages, figure: &Figure) -> (String, Option<String>) {
    let medians = figure.against_median.map(|against| {
        let (first, second) = (quantity(figure.median, figure.median_unit), quantity(against, figure.median_unit));
        messages.format("figure-medians", &[("first", &first), ("second", &second)])
    });
    match figure.kind {
        FigureKind::Ratio | FigureKind::SlopeRatio => (quantity(figure.value, ""), medians),
        FigureKind::Value => (quantity(figure.value, figure.unit), None),
    }
}

/// A figure's interval with its level.
#[must_use]
pub fn figure_interval(messages: &Messages, figure: &Figure) -> String {
    let interval = quantity::interval(Some(figure.interval), figure.unit, |low, high| {
        messages.format("value-interval", &[("low", low), ("high", high)])
    });
    let level = percent(figure.level);
    messages.format("interval-level", &[("level", &level), ("interval", &interval)])
}

/// A figure's deciding probability, adjusted: `p = 0.0123`, or that it is below a thousandth.
#[must_use]
pub fn figure_probability(messages: &Messages, figure: &Figure) -> String {
    match figure.probability() {
        probability if probability < 0.001 => messages.text("probability-small"),
        probability => messages.format("probability", &[("probability", &quantity(probability, ""))]),
    }
}

/// What the claim says of a figure.
#[must_use]
pub fn expectation(messages: &Messages, figure: &Figure) -> String {
    let margin = |key: &str, margin: f64| messages.format(key, &[("percent", &percent(margin - 1.0))]);
    let limit = |key: &str, limit: f64| messages.format(key, &[("limit", &quantity(limit, figure.unit))]);
    match figure.expectation {
        Expectation::Worse { margin: ratio } => margin("expect-worse", ratio),
        Expectation::Better { margin: ratio } => margin("expect-better", ratio),
        Expectation::Equal { margin: ratio } => margin("expect-equal", ratio),
        Expectation::Reaches { ratio } => messages.format("expect-reaches", &[("ratio", &quantity(ratio, ""))]),
        Expectation::Below { limit: bound } => limit("expect-below", bound),
        Expectation::AtLeast { limit: bound } => limit("expect-at-least", bound),
    }
}

fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// What a probe looked at.
#[must_use]
pub fn fact_name(messages: &Messages, fact: &FactResult) -> String {
    metric(messages, &fact.metric, &fact.parameters)
}

/// What was expected of a fact.
#[must_use]
pub fn expected(messages: &Messages, fact: &FactResult) -> String {
    let text = |key: &str, text: &str| messages.format(key, &[("text", text)]);
    let other =
        |key: &str, name: &str| messages.format(key, &[("metric", &metric(messages, name, &Parameters::new()))]);
    match &fact.expected {
        Expected::Is(seen) => value(messages, &Value::Boolean(*seen)),
        Expected::Texts(texts) => value(messages, &Value::Texts(texts.clone())),
        Expected::Contains(wanted) => text("expected-contains", wanted.trim()),
        Expected::Excludes(unwanted) => text("expected-excludes", unwanted.trim()),
        Expected::Within(subnet) => text("expected-within", subnet),
        Expected::SameAs(name) => other("expected-same-as", name),
        Expected::DiffersFrom(name) => other("expected-differs-from", name),
    }
}

/// What was seen of a fact, over all blocks.
#[must_use]
pub fn seen(messages: &Messages, fact: &FactResult) -> String {
    if fact.seen.is_empty() {
        return NONE.to_owned();
    }
    fact.seen.iter().map(|seen| value(messages, seen)).collect::<Vec<_>>().join(" | ")
}

/// A fact in words.
fn value(messages: &Messages, value: &Value) -> String {
    match value {
        Value::Boolean(true) => messages.text("value-yes"),
        Value::Boolean(false) => messages.text("value-no"),
        Value::Texts(texts) if texts.is_empty() => messages.text("value-nothing"),
        Value::Texts(texts) => {
            texts.iter().map(|text| translated(messages, text)).collect::<Vec<_>>().join(&messages.text("list-comma"))
        }
        Value::Integer(integer) => integer.to_string(),
        Value::Transfer { .. } | Value::Stages(_) | Value::Histogram(_) => NONE.to_owned(),
    }
}

/// Why an answer is not a plain yes or no.
#[must_use]
pub fn reason(messages: &Messages, reason: &Reason) -> String {
    let name = |name: &str| metric(messages, name, &Parameters::new());
    let key = format!("reason-{}", reason.key());
    match reason {
        Reason::NoExperiment | Reason::Undecided | Reason::OwnRuntimeOnly => messages.text(&key),
        Reason::OnHardware { sandbox } => messages.format(&key, &[("sandbox", sandbox)]),
        Reason::NotInRun { name } => messages.format(&key, &[("name", name)]),
        Reason::Unavailable { sandbox, why } => {
            let why = translated(messages, why);
            messages.format(&key, &[("sandbox", sandbox), ("why", why.trim_end_matches('.'))])
        }
        Reason::Emulated { sandbox, emulation } => {
            messages.format(&key, &[("sandbox", sandbox), ("emulation", &translated(messages, emulation))])
        }
        Reason::ControlBroken { metric, sandbox }
        | Reason::NoSamples { metric, sandbox }
        | Reason::Contradictory { metric, sandbox } => {
            messages.format(&key, &[("metric", &name(metric)), ("sandbox", sandbox)])
        }
        Reason::NoRatio { metric, sandbox, against } => {
            messages.format(&key, &[("metric", &name(metric)), ("sandbox", sandbox), ("against", against)])
        }
        Reason::Improbable { probability, blocks } => {
            let percent = format!("{:.1}", probability * 100.0);
            messages.format(&key, &[("probability", &percent), ("blocks", &blocks.to_string())])
        }
        Reason::TooFewBlocks { blocks, needed } => {
            messages.format(&key, &[("blocks", &blocks.to_string()), ("needed", &needed.to_string())])
        }
    }
}
