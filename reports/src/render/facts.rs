//! What a report says beside verdicts and charts: the run's facts, what failed, and the figures that bear on each network
//! mode.

use super::quantity;
use super::remarks::translated;
use super::view::View;
use crate::messages::Messages;
use crate::record::Outcome;
use std::collections::BTreeMap;

/// One row of a list: name and value.
pub type Fact = (String, String);

/// How many samples there are: used, warm-ups, errors.
#[must_use]
pub fn samples(view: &View<'_>, messages: &Messages) -> String {
    let samples = &view.records.samples;
    let errors = samples.iter().filter(|sample| matches!(sample.outcome, Outcome::Error(_))).count();
    let warm_ups =
        samples.iter().filter(|sample| sample.warm_up && matches!(sample.outcome, Outcome::Value(_))).count();
    let used = samples.len() - errors - warm_ups;
    let [used, warm_ups, errors] = [used, warm_ups, errors].map(grouped);
    messages.format("fact-samples-value", &[("used", &used), ("warm-ups", &warm_ups), ("errors", &errors)])
}

/// A count with its thousands set apart.
fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{a0}');
        }
        text.push(digit);
    }
    text
}

/// Machine and plan.
#[must_use]
pub fn machine(view: &View<'_>, messages: &Messages) -> Vec<Fact> {
    let run = &view.records.run;
    let (machine, plan) = (&run.machine, &run.plan);
    let fact = |key: &str, value: String| (messages.text(key), value);
    #[expect(clippy::cast_precision_loss, reason = "memory to three digits")]
    let memory = quantity::bytes(machine.memory as f64);
    let cpus = messages.format("machine-cpus", &[("cpu", &machine.cpu), ("count", &machine.cpus.to_string())]);
    let blocks: Vec<String> = plan.blocks.iter().map(|(name, blocks)| format!("{name} {blocks}")).collect();
    let suite = plan.narrowed.as_ref().map_or_else(|| plan.suite.clone(), |from| format!("{} ({from})", plan.suite));
    let plan_text = messages.format(
        "machine-plan-value",
        &[("suite", &suite), ("blocks", &blocks.join(", ")), ("seed", &plan.seed.to_string())],
    );
    let privilege = messages.text(if machine.rootless { "machine-rootless" } else { "machine-root" });
    let mut facts = vec![
        fact("machine-host", machine.host.clone()),
        fact("machine-cpu", cpus),
        fact("machine-memory", memory),
        fact("machine-kernel", machine.kernel.clone()),
        fact("machine-kvm", translated(messages, &machine.kvm)),
        fact("machine-cgroups", machine.cgroups.clone()),
        fact("machine-privilege", privilege),
        fact("fact-started", run.started.clone()),
        fact("machine-plan", plan_text),
        fact("fact-samples", samples(view, messages)),
        fact("machine-command", command_line(&plan.command_line)),
        fact(
            "machine-program",
            format!("{}, SHA-256 {}", run.program, run.program_digest.get(..16).unwrap_or(&run.program_digest)),
        ),
    ];
    facts.extend(plan.program.as_deref().map(|program| fact("machine-own-program", command_line(program))));
    facts.extend(machine.facts.iter().map(|(name, value)| (name.clone(), value.clone())));
    facts
}

/// A command line as a shell takes it.
fn command_line(arguments: &[String]) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./=:,@%+".contains(character);
    let quote = |argument: &String| {
        if !argument.is_empty() && argument.chars().all(plain) {
            argument.clone()
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    };
    arguments.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// What failed: sandbox, metric, how many times, and the first error.
#[must_use]
pub fn errors(view: &View<'_>) -> Vec<[String; 4]> {
    let mut errors: BTreeMap<(usize, &str, &str), (usize, &str)> = BTreeMap::new();
    let order = |name: &str| view.records.run.sandboxes.iter().position(|sandbox| sandbox.name == name);
    for sample in &view.records.samples {
        if let Outcome::Error(error) = &sample.outcome {
            let place = order(&sample.sandbox).unwrap_or(usize::MAX);
            errors.entry((place, &sample.sandbox, &sample.metric)).or_insert((0, error)).0 += 1;
        }
    }
    let row = |((_, sandbox, metric), (count, first)): ((usize, &str, &str), (usize, &str))| {
        [sandbox.to_owned(), metric.to_owned(), count.to_string(), first.to_owned()]
    };
    errors.into_iter().map(row).collect()
}

/// The network modes, in the order of every list, each with its sandbox.
pub const MODES: [(&str, &str); 5] = [
    ("host", "container-host"),
    ("container", "container-container"),
    ("none", "container-none"),
    ("bridge", "container-bridge"),
    ("custom", "container-custom"),
];

/// What a mode's figures are read beside: what one would have instead.
fn reference(sandbox: &str) -> Option<&'static str> {
    Some(match sandbox {
        "container-host" => "process",
        "container-none" | "container-bridge" => "container-host",
        "container-container" | "container-custom" => "container-bridge",
        _ => return None,
    })
}

/// The figures that bear on the choice of a mode: what it is and its median, with that of its [`reference()`] where there is
/// one.
#[must_use]
pub fn mode_figures(view: &View<'_>, messages: &Messages, sandbox: &str) -> Vec<Fact> {
    /// Message, metric, parameters.
    type Wanted = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
    const FIGURES: [Wanted; 9] = [
        ("mode-ready", "start.ready", &[]),
        ("mode-upload-host", "tcp.upload", &[("path", "host"), ("segmentation", "offload")]),
        ("mode-upload-client", "tcp.upload", &[("path", "client"), ("segmentation", "offload")]),
        ("mode-upload-loopback", "tcp.upload", &[("path", "loopback"), ("segmentation", "offload")]),
        ("mode-cost-client", "tcp.upload.cost", &[("path", "client"), ("segmentation", "offload")]),
        ("mode-round-trip-host", "tcp.round-trip.median", &[("path", "host")]),
        ("mode-round-trip-client", "tcp.round-trip.median", &[("path", "client")]),
        ("mode-connection-client", "tcp.connection.median", &[("path", "client")]),
        ("mode-loopback", "tcp.round-trip.median", &[("path", "loopback")]),
    ];
    let beside = |value: String, other: Option<String>| match (reference(sandbox), other) {
        (Some(sandbox), Some(other)) => {
            messages.format("mode-beside", &[("value", &value), ("reference", sandbox), ("other", &other)])
        }
        _ => value,
    };
    let mut figures: Vec<Fact> = FIGURES
        .iter()
        .filter_map(|(key, metric, parameters)| {
            let unit = crate::metrics::find(metric).map_or("", |metric| metric.shown_unit);
            let of = |sandbox: &str, parameters: &[(&str, &str)]| {
                let estimate = view.numbers(metric, sandbox, parameters)?.estimate?;
                Some(quantity::quantity(estimate.value, unit))
            };
            // Whoever shares no loopback with a neighbour would go over the bridge.
            let instead = |(name, value): &(&'static str, &'static str)| {
                (*name, if *value == "loopback" && sandbox == "container-container" { "host" } else { *value })
            };
            let instead: Vec<(&str, &str)> = parameters.iter().map(instead).collect();
            let other = reference(sandbox).and_then(|reference| of(reference, &instead));
            Some((messages.text(key), beside(of(sandbox, parameters)?, other)))
        })
        .collect();
    let memory = |sandbox: &str| Some(quantity::bytes(view.memory(sandbox)?.slope?.value));
    figures.extend(
        memory(sandbox).map(|value| (messages.text("mode-memory"), beside(value, reference(sandbox).and_then(memory)))),
    );
    figures
}
