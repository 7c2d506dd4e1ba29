//! The summary in Markdown (GitHub's flavour, for tables).

use crate::chart::{Chart, Table};
use crate::literature;
use crate::messages::Messages;
use crate::render::remarks::translated;
use crate::render::view::View;
use crate::render::{facts, published, words};
use crate::verdict::Answer;
use std::fmt::Write;

/// The summary. `charts` are linked as files below `charts/`.
#[must_use]
pub fn markdown(view: &View<'_>, messages: &Messages, charts: &[Chart]) -> String {
    let mut text = String::new();
    let host = &view.records.run.machine.host;
    heading(&mut text, 1, &messages.format("page-title", &[("host", host)]));
    let count = view.sampled().to_string();
    paragraph(&mut text, &escape(&messages.format("page-lead", &[("sandboxes", &count)])));
    if view.records.run.machine.emulated {
        paragraph(&mut text, &format!("**{}**", messages.text("page-emulated")));
    }
    verdicts(&mut text, view, messages);
    heading(&mut text, 2, &messages.text("section-machine"));
    for (name, value) in facts::machine(view, messages) {
        let _ = writeln!(text, "- {}: {}", escape(&name), escape(&value));
    }
    text.push('\n');
    if !charts.is_empty() {
        heading(&mut text, 2, &messages.text("section-charts"));
    }
    for chart in charts {
        heading(&mut text, 3, &chart.title);
        paragraph(&mut text, &format!("![{}](charts/{}.svg)", escape(&chart.section), chart.name));
        if let Some(note) = &chart.note {
            paragraph(&mut text, &escape(note));
        }
        table(&mut text, &chart.table);
    }
    modes(&mut text, view, messages);
    lists(&mut text, view, messages);
    publications(&mut text, view, messages);
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn verdicts(text: &mut String, view: &View<'_>, messages: &Messages) {
    heading(text, 2, &messages.text("section-verdicts"));
    paragraph(text, &messages.text("verdicts-lead"));
    let rows: Vec<Vec<String>> = view
        .verdicts
        .iter()
        .filter(|verdict| words::is_answered(verdict))
        .map(|verdict| {
            let mut details: Vec<String> =
                verdict.reason.iter().map(|reason| words::reason(messages, reason)).collect();
            details.extend(verdict.figures.iter().map(|figure| {
                let (estimate, _) = words::figure_estimate(messages, figure);
                let (name, subject) = (words::figure_name(messages, figure), words::figure_subject(messages, figure));
                let interval = words::figure_interval(messages, figure);
                messages.format(
                    "markdown-figure",
                    &[
                        ("name", &name),
                        ("subject", &subject),
                        ("estimate", &estimate),
                        ("interval", &interval),
                        ("n", &figure.blocks.to_string()),
                        ("probability", &words::figure_probability(messages, figure)),
                    ],
                )
            }));
            // Those that hold are as the claim says, and controls are told of together.
            let doubted = verdict.facts.iter().filter(|fact| !fact.control && fact.answer != Answer::Confirmed);
            details.extend(doubted.map(|fact| {
                messages.format(
                    "markdown-fact",
                    &[
                        ("name", &words::fact_name(messages, fact)),
                        ("subject", &fact.sandbox),
                        ("seen", &words::seen(messages, fact)),
                        ("expected", &words::expected(messages, fact)),
                        ("answer", &words::fact_answer(messages, fact)),
                    ],
                )
            }));
            let claim = verdict.claim;
            let wording = words::wording(claim, messages.language()).to_owned();
            let mut answer = words::answer(messages, verdict.answer);
            if let Some(emulation) = &verdict.emulation {
                answer = format!("{answer} ({})", words::emulation(messages, emulation));
            }
            details.extend(words::controls(messages, verdict));
            details.extend(published::summary(messages, &claim.id));
            vec![claim.id.clone(), wording, answer, details.join("\n")]
        })
        .collect();
    if rows.is_empty() {
        paragraph(text, &messages.text("verdicts-none"));
        return;
    }
    let head = ["markdown-id", "markdown-claim", "markdown-answer", "markdown-details"].map(|key| messages.text(key));
    table(text, &Table { head: head.to_vec(), rows, words: 4 });
}

/// What was published on each claim, beside our own answer.
fn publications(text: &mut String, view: &View<'_>, messages: &Messages) {
    heading(text, 2, &messages.text("section-published"));
    paragraph(text, &escape(&messages.text("published-note")));
    for verdict in &view.verdicts {
        let id = &verdict.claim.id;
        let Some(summary) = published::summary(messages, id) else { continue };
        heading(text, 3, &format!("{id} ({})", words::answer(messages, verdict.answer)));
        paragraph(text, &escape(&summary));
        for (publication, direction) in literature::on(id) {
            let figures: Vec<String> = publication.figures.iter().map(published::figure).collect();
            let line = [
                published::direction(messages, direction),
                published::standing(messages, publication),
                published::citation(publication),
                publication.source.clone(),
                format!("{}: {}", publication.metric, figures.join("; ")),
            ];
            let _ = writeln!(text, "- {}", escape(&line.join(" · ")));
        }
        text.push('\n');
    }
}

fn modes(text: &mut String, view: &View<'_>, messages: &Messages) {
    heading(text, 2, &messages.text("section-modes"));
    for (mode, sandbox) in facts::MODES {
        heading(text, 3, &messages.text(&format!("mode-{mode}-title")));
        paragraph(text, &messages.text(&format!("mode-{mode}-when")));
        let figures = facts::mode_figures(view, messages, sandbox);
        for (name, value) in &figures {
            let _ = writeln!(text, "- {}: {}", escape(name), escape(value));
        }
        if !figures.is_empty() {
            text.push('\n');
        }
    }
}

fn lists(text: &mut String, view: &View<'_>, messages: &Messages) {
    if view.unavailable().next().is_some() {
        heading(text, 2, &messages.text("section-unavailable"));
        for gap in view.unavailable() {
            let _ = writeln!(text, "- {}: {}", escape(&gap.label()), escape(&translated(messages, gap.reason)));
        }
        text.push('\n');
    }
    let errors = facts::errors(view);
    if !errors.is_empty() {
        heading(text, 2, &messages.text("section-errors"));
        let head = ["sandbox-name", "errors-metric", "errors-count", "errors-first"].map(|key| messages.text(key));
        let rows = errors.into_iter().map(Vec::from).collect();
        table(text, &Table { head: head.to_vec(), rows, words: 2 });
    }
    let untested: Vec<_> = view.verdicts.iter().filter(|verdict| !words::is_answered(verdict)).collect();
    if !untested.is_empty() {
        heading(text, 2, &messages.text("section-untested"));
        for verdict in untested {
            let wording = words::wording(verdict.claim, messages.language());
            let reason = verdict.reason.as_ref().map(|reason| words::reason(messages, reason)).unwrap_or_default();
            let line = format!("- {}: {} {}", escape(&verdict.claim.id), escape(wording), escape(&reason));
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text.push('\n');
    }
}

fn heading(text: &mut String, level: usize, title: &str) {
    let _ = writeln!(text, "{} {}\n", "#".repeat(level), escape(title));
}

fn paragraph(text: &mut String, paragraph: &str) {
    let _ = writeln!(text, "{paragraph}\n");
}

fn table(text: &mut String, table: &Table) {
    let row = |cells: &[String]| cells.iter().fold("|".to_owned(), |row, cell| format!("{row} {} |", escape(cell)));
    let _ = writeln!(text, "{}", row(&table.head));
    let rule: Vec<&str> = (0..table.head.len()).map(|index| if index < table.words { "---" } else { "---:" }).collect();
    let _ = writeln!(text, "| {} |", rule.join(" | "));
    for cells in &table.rows {
        let _ = writeln!(text, "{}", row(cells));
    }
    text.push('\n');
}

/// Takes away every meaning that Markdown or HTML would give to a text from a record.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\n' => escaped.push_str("<br>"),
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '#' | '!' | '~' => {
                escaped.push('\\');
                escaped.push(character);
            }
            character if character.is_control() => escaped.push(' '),
            character => escaped.push(character),
        }
    }
    escaped
}
