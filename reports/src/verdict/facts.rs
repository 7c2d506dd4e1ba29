//! Facts against what a claim expects of them.

use super::{Answer, FactResult, Reason};
use crate::claims::{Expected, FactRule};
use crate::record::Value;
use crate::summary::{Data, Series};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Examines a rule in one sandbox.
pub(super) fn observe(series: &[Series], sandbox: &str, rule: &FactRule, control: bool) -> FactResult {
    let seen = by_block(series, sandbox, &rule.metric, |series| series.parameters == rule.parameters);
    let other = match &rule.expected {
        Expected::SameAs(metric) | Expected::DiffersFrom(metric) => by_block(series, sandbox, metric, |_| true),
        _ => BTreeMap::new(),
    };
    let held: Vec<Option<bool>> = seen
        .iter()
        .flat_map(|(block, values)| values.iter().map(|value| (value, other.get(block))))
        .map(|(value, other)| holds(&rule.expected, value, other.map(Vec::as_slice)))
        .collect();
    let answer = if !held.is_empty() && held.iter().all(|held| *held == Some(true)) {
        Answer::Confirmed
    } else if !held.is_empty() && held.iter().all(|held| *held == Some(false)) {
        Answer::Refuted
    } else {
        Answer::Inconclusive
    };
    let mut distinct: Vec<Value> = Vec::new();
    for value in seen.values().flatten() {
        if !distinct.contains(value) {
            distinct.push((*value).clone());
        }
    }
    FactResult {
        metric: rule.metric.clone(),
        parameters: rule.parameters.clone(),
        sandbox: sandbox.to_owned(),
        expected: rule.expected.clone(),
        seen: distinct,
        blocks: seen.len(),
        control,
        answer,
    }
}

/// Values of a fact by block, warm-ups left out.
fn by_block<'a>(
    series: &'a [Series],
    sandbox: &str,
    metric: &str,
    parameters: impl Fn(&Series) -> bool,
) -> BTreeMap<u32, Vec<&'a Value>> {
    let mut blocks: BTreeMap<u32, Vec<&Value>> = BTreeMap::new();
    for series in series.iter().filter(|series| series.sandbox == sandbox && series.metric == metric) {
        let Data::Facts(facts) = &series.data else { continue };
        for fact in facts.iter().filter(|fact| !fact.warm_up && parameters(series)) {
            blocks.entry(fact.block).or_default().push(&fact.value);
        }
    }
    blocks
}

/// Whether a value is what was expected; `None` where there is nothing to compare it with.
fn holds(expected: &Expected, value: &Value, other: Option<&[&Value]>) -> Option<bool> {
    Some(match (expected, value) {
        (Expected::Is(expected), Value::Boolean(seen)) => expected == seen,
        (Expected::Texts(expected), Value::Texts(seen)) => set(expected) == set(seen),
        (Expected::Contains(text), Value::Texts(seen)) => seen.iter().any(|seen| seen.contains(text)),
        (Expected::Excludes(text), Value::Texts(seen)) => !seen.iter().any(|seen| seen.contains(text)),
        (Expected::Within(subnet), Value::Texts(seen)) => {
            let subnet = parse_subnet(subnet)?;
            seen.iter().any(|seen| seen.split_whitespace().filter_map(parse_subnet).any(|seen| within(seen, subnet)))
        }
        (Expected::SameAs(_), Value::Texts(seen)) => {
            other?.iter().all(|other| matches!(other, Value::Texts(other) if set(other) == set(seen)))
        }
        (Expected::DiffersFrom(_), Value::Texts(seen)) => {
            other?.iter().all(|other| matches!(other, Value::Texts(other) if set(other) != set(seen)))
        }
        _ => return None,
    })
}

fn set(texts: &[String]) -> BTreeSet<&str> {
    texts.iter().map(String::as_str).collect()
}

/// An IPv4 address or subnet, `a.b.c.d` or `a.b.c.d/n`.
fn parse_subnet(text: &str) -> Option<(u32, u32)> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
    Some((address.parse::<Ipv4Addr>().ok()?.to_bits(), prefix))
}

/// Whether the address of the first lies in the second.
fn within((address, _): (u32, u32), (subnet, prefix): (u32, u32)) -> bool {
    let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
    address & mask == subnet & mask
}

/// The answer from all facts, each with whether a peer showed it.
pub(super) fn decide(facts: &[(FactResult, bool)], choice: bool) -> (Answer, Option<Reason>) {
    let by_peers = choice && facts.iter().any(|(_, peer)| *peer);
    let counted = || facts.iter().filter(|(_, peer)| !by_peers || *peer).map(|(fact, _)| fact);
    if let Some(reason) = broken(counted()) {
        return (Answer::Inconclusive, Some(reason));
    }
    let claimed = || counted().filter(|fact| !fact.control);
    let answer = Answer::all(claimed().map(|fact| fact.answer));
    match answer {
        Answer::Inconclusive => {
            (answer, claimed().find(|fact| fact.answer == Answer::Inconclusive).map(doubt).or(Some(Reason::Undecided)))
        }
        // Code that was written to a claim always confirms it, and where it does not, that refutes our code.
        Answer::Confirmed if choice && !by_peers => (Answer::ShownByConstruction, None),
        _ if choice && !by_peers => (Answer::Inconclusive, Some(Reason::OwnRuntimeOnly)),
        _ => (answer, None),
    }
}

/// Why the first control that did not come out as it must leaves the rest open.
pub(super) fn broken<'a>(mut facts: impl Iterator<Item = &'a FactResult>) -> Option<Reason> {
    facts.find(|fact| fact.control && fact.answer != Answer::Confirmed).map(doubt)
}

/// Why a fact decides nothing.
fn doubt(fact: &FactResult) -> Reason {
    let (metric, sandbox) = (fact.metric.clone(), fact.sandbox.clone());
    match fact.answer {
        _ if fact.blocks == 0 => Reason::NoSamples { metric, sandbox },
        Answer::Inconclusive => Reason::Contradictory { metric, sandbox },
        _ => Reason::ControlBroken { metric, sandbox },
    }
}
