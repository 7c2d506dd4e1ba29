//! Titles: one finding in words, made from the figures.
//!
//! Each kind of chart has pairs of sandboxes that are worth a sentence, the most telling first; the first pair that both
//! were measured is taken. A difference is stated only where its interval excludes none.

use crate::messages::{Language, Messages};
use crate::render::quantity;
use crate::render::view::{Comparison, View, emulated};
use crate::summary::Numbers;

/// Pairs in the order in which they are tried.
const PAIRS: [(&str, &str); 10] = [
    ("container-bridge", "container-host"),
    ("container-bridge", "process"),
    ("container-host", "process"),
    ("container-custom", "process"),
    ("container-none", "process"),
    ("container-container", "container-bridge"),
    ("vm-unikernel", "container-bridge"),
    ("vm-unikernel", "process"),
    ("vm-linux", "container-bridge"),
    ("vm-linux", "process"),
];

/// A sandbox in a sentence, with what emulates it where that is not the whole machine, of which the page says it. Names stand as
/// they are where there is no better word.
fn name(view: &View<'_>, messages: &Messages, sandbox: &str) -> String {
    let name = messages.named("sandbox-", sandbox);
    match view.emulation(sandbox).filter(|_| !view.records.run.machine.emulated) {
        Some(emulation) => emulated(messages, &name, emulation),
        None => name,
    }
}

/// The first pair that has numbers on both sides, compared.
fn compare<'n>(numbers: &dyn Fn(&str) -> Option<&'n Numbers>, pairs: &[(&'static str, &'static str)]) -> Option<Pair> {
    pairs.iter().find_map(|(first, second)| {
        let comparison = Comparison::new(numbers(first)?, numbers(second)?)?;
        Some(Pair { first, second, comparison })
    })
}

struct Pair {
    first: &'static str,
    second: &'static str,
    comparison: Comparison,
}

/// The first sandbox that has a number: what is left to say where nothing can be compared.
fn alone<'n>(view: &View<'_>, numbers: &dyn Fn(&str) -> Option<&'n Numbers>) -> Option<(String, f64)> {
    view.measured().find_map(|sandbox| Some((sandbox.name.clone(), numbers(&sandbox.name)?.estimate?.value)))
}

/// "A bridge-mode container is ready after 2.1 ms, 3.4 times a bare process (0.62 ms)"
pub(crate) fn startup<'n>(
    view: &View<'_>,
    messages: &Messages,
    numbers: &dyn Fn(&str) -> Option<&'n Numbers>,
) -> Option<String> {
    const STARTUP: [(&str, &str); 2] = [("vm-unikernel", "container-bridge"), ("container-bridge", "process")];
    if let Some(pair) = compare(numbers, &STARTUP).or_else(|| compare(numbers, &PAIRS)) {
        return Some(ratio(view, messages, &pair, ("startup", "time"), &quantity::time, None));
    }
    let (first, value) = alone(view, numbers)?;
    Some(sentence(
        messages,
        "chart-alone-startup",
        &[("first", &name(view, messages, &first)), ("time", &quantity::time(value))],
    ))
}

/// "Bridge mode reaches 0.77 times the upload of host mode"; `chart` begins the messages' keys, `unit` is that of the numbers.
pub(crate) fn amounts<'n>(
    view: &View<'_>,
    messages: &Messages,
    chart: &str,
    unit: &'static str,
    direction: &str,
    numbers: &dyn Fn(&str) -> Option<&'n Numbers>,
) -> Option<String> {
    let text = |value: f64| quantity::quantity(value, unit);
    if let Some(pair) = compare(numbers, &PAIRS) {
        return Some(ratio(view, messages, &pair, (chart, "rate"), &text, Some(direction)));
    }
    let (first, value) = alone(view, numbers)?;
    let (first, rate) = (name(view, messages, &first), text(value));
    let arguments = [("first", first.as_str()), ("rate", &rate), ("direction", direction)];
    Some(sentence(messages, &format!("chart-alone-{chart}"), &arguments))
}

/// "Bridge mode keeps up with 64.0 k/s of requests, host mode with 128 k/s or more"; `highest` is the highest rate that a
/// sandbox kept up with, and `most` the highest that was tried.
pub(crate) fn load(
    view: &View<'_>,
    messages: &Messages,
    highest: &dyn Fn(&str) -> Option<f64>,
    most: f64,
) -> Option<String> {
    let text = |rate: f64| match quantity::quantity(rate, "1/s") {
        rate_text if rate >= most => messages.format("chart-load-or-more", &[("rate", &rate_text)]),
        rate_text => rate_text,
    };
    let pair = PAIRS.iter().find_map(|(first, second)| Some((*first, highest(first)?, *second, highest(second)?)));
    if let Some((first, first_rate, second, second_rate)) = pair {
        let (first, second) = (name(view, messages, first), name(view, messages, second));
        let (first_rate, second_rate) = (text(first_rate), text(second_rate));
        let arguments =
            [("first", &*first), ("second", &second), ("first-rate", &first_rate), ("second-rate", &second_rate)];
        return Some(sentence(messages, "chart-load-title", &arguments));
    }
    let (first, rate) = view.measured().find_map(|sandbox| Some((&sandbox.name, highest(&sandbox.name)?)))?;
    Some(sentence(messages, "chart-alone-load", &[("first", &*name(view, messages, first)), ("rate", &text(rate))]))
}

fn ratio(
    view: &View<'_>,
    messages: &Messages,
    pair: &Pair,
    (chart, suffix): (&str, &str),
    text: &dyn Fn(f64) -> String,
    direction: Option<&str>,
) -> String {
    let Pair { first, second, comparison } = pair;
    let (first, second) = (name(view, messages, first), name(view, messages, second));
    let first_value = (format!("first-{suffix}"), text(comparison.first));
    let second_value = (format!("second-{suffix}"), text(comparison.second));
    let ratio = quantity::quantity(comparison.ratio.value, "");
    let mut arguments = vec![("first", first.as_str()), ("second", &second)];
    arguments.extend([&first_value, &second_value].map(|(key, value)| (key.as_str(), value.as_str())));
    arguments.extend(direction.map(|direction| ("direction", direction)));
    if comparison.differs() {
        arguments.push(("ratio", &ratio));
        sentence(messages, &format!("chart-{chart}-title"), &arguments)
    } else {
        sentence(messages, &format!("chart-{chart}-same"), &arguments)
    }
}

/// "Bridge mode adds 9 µs to a round trip"
pub(crate) fn latency<'n>(
    view: &View<'_>,
    messages: &Messages,
    numbers: &dyn Fn(&str) -> Option<&'n Numbers>,
) -> Option<String> {
    let Some(Pair { first, second, comparison }) = compare(numbers, &PAIRS) else {
        let (first, value) = alone(view, numbers)?;
        let arguments = [("first", &*name(view, messages, &first)), ("time", &quantity::time(value))];
        return Some(sentence(messages, "chart-alone-latency", &arguments));
    };
    let (first, second) = (name(view, messages, first), name(view, messages, second));
    let (first_time, second_time) = (quantity::time(comparison.first), quantity::time(comparison.second));
    let difference = quantity::time(comparison.difference.value.abs());
    let mut arguments = vec![("first", first.as_str()), ("second", &second)];
    arguments.push(("second-time", &second_time));
    if !comparison.differs() {
        arguments.push(("first-time", &first_time));
        return Some(sentence(messages, "chart-latency-same", &arguments));
    }
    arguments.push(("difference", &difference));
    let key = if comparison.difference.value > 0.0 { "chart-latency-title-more" } else { "chart-latency-title-less" };
    Some(sentence(messages, key, &arguments))
}

/// "Each instance of the unikernel VM takes 5.1 MiB, of none mode 1.2 MiB"
pub(crate) fn memory(view: &View<'_>, messages: &Messages) -> Option<String> {
    const MEMORY: [(&str, &str); 4] = [
        ("vm-linux", "container-bridge"),
        ("vm-unikernel", "container-bridge"),
        ("vm-unikernel", "container-none"),
        ("container-bridge", "process"),
    ];
    let slope = |sandbox: &str| view.memory(sandbox)?.slope.map(|slope| quantity::bytes(slope.value));
    let pair = MEMORY.iter().find_map(|(first, second)| Some((*first, slope(first)?, *second, slope(second)?)));
    if let Some((first, first_slope, second, second_slope)) = pair {
        let (first, second) = (name(view, messages, first), name(view, messages, second));
        let arguments =
            [("first", &*first), ("second", &second), ("first-slope", &first_slope), ("second-slope", &second_slope)];
        return Some(sentence(messages, "chart-memory-title", &arguments));
    }
    let (first, slope) = view.measured().find_map(|sandbox| Some((&sandbox.name, slope(&sandbox.name)?)))?;
    Some(sentence(messages, "chart-alone-memory", &[("first", &*name(view, messages, first)), ("slope", &slope)]))
}

/// An English sentence begins with a capital.
fn sentence(messages: &Messages, key: &str, arguments: &[(&str, &str)]) -> String {
    let text = messages.format(key, arguments);
    if messages.language() != Language::English {
        return text;
    }
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}
