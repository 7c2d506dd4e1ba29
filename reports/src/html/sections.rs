//! The sections of the page, in one language.

use crate::chart::{Chart, Table};
use crate::literature;
use crate::messages::Messages;
use crate::render::remarks::translated;
use crate::render::view::{View, family_key};
use crate::render::{facts, published, words};
use crate::verdict::{Answer, FactResult, Figure, Verdict};
use maud::{Markup, PreEscaped, html};

/// The page's title.
pub(super) fn title(view: &View<'_>, messages: &Messages) -> String {
    messages.format("page-title", &[("host", &view.records.run.machine.host)])
}

/// The whole page in one language.
pub(super) fn sheet(view: &View<'_>, messages: &Messages, charts: &[Chart]) -> Markup {
    let tag = messages.language().tag();
    let run = &view.records.run;
    let sections = [
        ("verdicts", verdicts(view, messages)),
        ("machine", machine(view, messages)),
        ("charts", charts_section(charts, messages)),
        ("modes", modes(view, messages)),
        ("unavailable", unavailable(view, messages)),
        ("errors", errors(view, messages)),
        ("untested", untested(view, messages)),
    ];
    let shown: Vec<_> = sections.iter().filter_map(|(name, body)| Some((*name, body.as_ref()?))).collect();
    html! {
        main lang=(tag) {
            header {
                p.brand { "isobench" }
                h1 { (title(view, messages)) }
                p.lead { (messages.format("page-lead", &[("sandboxes", &view.sampled().to_string())])) }
                p.facts {
                    (run.machine.cpu) " · Linux " (run.machine.kernel) " · " (run.started) " · " (messages.text("fact-samples")) " " (facts::samples(view, messages))
                }
                @if run.machine.emulated { p.warning { (messages.text("page-emulated")) } }
                nav aria-label=(messages.text("page-contents")) {
                    @for (name, _) in &shown {
                        a href={ "#" (name) "-" (tag) } { (messages.text(&format!("section-{name}"))) }
                    }
                }
            }
            @for (name, body) in &shown {
                section id={ (name) "-" (tag) } {
                    h2 { (messages.text(&format!("section-{name}"))) }
                    (body)
                }
            }
            footer { p { (messages.format("page-footer", &[("program", &run.program)])) } }
        }
    }
}

fn verdicts(view: &View<'_>, messages: &Messages) -> Option<Markup> {
    let answered: Vec<&Verdict> = view.verdicts.iter().filter(|verdict| words::is_answered(verdict)).collect();
    Some(html! {
        p.lead { (messages.text("verdicts-lead")) }
        p.counts {
            @for (answer, text) in words::counts(messages, &view.verdicts) { (badge(answer, &text)) " " }
        }
        @if answered.is_empty() { p { (messages.text("verdicts-none")) } }
        @for verdict in answered { (card(messages, verdict)) }
    })
}

fn badge(answer: Answer, text: &str) -> Markup {
    html! { span class={ "badge " (answer.key()) } { (text) } }
}

fn card(messages: &Messages, verdict: &Verdict) -> Markup {
    let claim = verdict.claim;
    html! {
        article.verdict {
            div.answer {
                (badge(verdict.answer, &words::answer(messages, verdict.answer)))
                @if let Some(emulation) = &verdict.emulation {
                    span.badge.emulation { (words::emulation(messages, emulation)) }
                }
            }
            h3 { (words::wording(claim, messages.language())) }
            @if let Some(reason) = &verdict.reason { p.reason { (words::reason(messages, reason)) } }
            @if !verdict.figures.is_empty() { (figures(messages, &verdict.figures)) }
            @if !verdict.facts.is_empty() { (fact_table(messages, &verdict.facts)) }
            p.rule {
                code { (claim.id) } " · "
                span title=(messages.text(&format!("kind-{}-text", claim.kind.key()))) {
                    (messages.text(&format!("kind-{}", claim.kind.key())))
                }
                " · " (messages.format("verdict-rule", &[("rule", &words::rules(messages, &claim.rules))]))
            }
            @if let Some(markup) = publications(messages, &claim.id) { (markup) }
        }
    }
}

/// What was published on a claim. Texts of publications are in English on every page.
fn publications(messages: &Messages, claim: &str) -> Option<Markup> {
    let summary = published::summary(messages, claim)?;
    Some(html! {
        details.published {
            summary { (summary) }
            p { small { (messages.text("published-note")) } }
            ul {
                @for (publication, direction) in literature::on(claim) {
                    li {
                        span.direction { (published::direction(messages, direction)) }
                        " · " (published::standing(messages, publication))
                        p lang="en" { (published::citation(publication)) " " small { (publication.source) } }
                        p lang="en" { (publication.metric) }
                        table lang="en" { tbody {
                            @for figure in &publication.figures {
                                tr {
                                    td { (figure.system) }
                                    td { strong { (published::value(figure)) } }
                                    td { (figure.condition) }
                                }
                            }
                        } }
                    }
                }
            }
        }
    })
}

fn figures(messages: &Messages, figures: &[Figure]) -> Markup {
    let heads = [
        "figure-name",
        "column-sandbox",
        "figure-estimate",
        "figure-interval",
        "figure-n",
        "figure-expected",
        "figure-answer",
    ]
    .map(|key| messages.text(key));
    html! {
        div.scroll { table.stack.figures {
            thead { tr { @for (index, head) in heads.iter().enumerate() { th.number[(2..5).contains(&index)] { (head) } } } }
            tbody {
                @for figure in figures {
                    @let (estimate, medians) = words::figure_estimate(messages, figure);
                    tr {
                        td { (words::figure_name(messages, figure)) }
                        td {
                            span.name { (figure.sandbox) }
                            @if let Some(against) = &figure.against { " / " span.name { (against) } }
                        }
                        td.number { strong { (estimate) } @if let Some(medians) = medians { br; small { (medians) } } }
                        td.number data-label=(heads[3]) {
                            (words::figure_interval(messages, figure)) br; small { (words::figure_probability(messages, figure)) }
                        }
                        td.number data-label=(heads[4]) { (figure.blocks) }
                        td data-label=(heads[5]) { (words::expectation(messages, figure)) }
                        td { (badge(figure.answer, &words::answer(messages, figure.answer))) }
                    }
                }
            }
        } }
    }
}

fn fact_table(messages: &Messages, facts: &[FactResult]) -> Markup {
    let heads = ["figure-probe", "column-sandbox", "figure-expected", "figure-seen", "figure-blocks", "figure-answer"]
        .map(|key| messages.text(key));
    html! {
        div.scroll { table.stack.probes {
            thead { tr { @for (index, head) in heads.iter().enumerate() { th.number[index == 4] { (head) } } } }
            tbody {
                @for fact in facts {
                    tr.control[fact.control] {
                        td {
                            (words::fact_name(messages, fact))
                            @if fact.control { " " small { "(" (messages.text("figure-is-control")) ")" } }
                        }
                        td { span.name { (fact.sandbox) } }
                        td data-label=(heads[2]) { (words::expected(messages, fact)) }
                        td data-label=(heads[3]) { (words::seen(messages, fact)) }
                        td.number data-label=(heads[4]) { (fact.blocks) }
                        td { (badge(fact.answer, &words::fact_answer(messages, fact))) }
                    }
                }
            }
        } }
    }
}

fn machine(view: &View<'_>, messages: &Messages) -> Option<Markup> {
    const METHOD: [&str; 6] =
        ["method-network", "method-blocks", "method-interval", "method-ready", "method-closed", "method-kept"];
    Some(html! {
        dl.facts {
            @for (name, value) in facts::machine(view, messages) {
                div { dt { (name) } dd { (value) } }
            }
        }
        h3 { (messages.text("method-title")) }
        ul { @for key in METHOD { li { (messages.text(key)) } } }
        h3 { (messages.text("sandboxes-title")) }
        div.scroll { table {
            thead { tr {
                @for key in ["sandbox-name", "sandbox-family", "sandbox-version", "sandbox-emulation"] { th { (messages.text(key)) } }
            } }
            tbody {
                @for sandbox in view.measured() {
                    tr {
                        td { code { (sandbox.name) } }
                        td { (messages.text(&family_key(sandbox.family))) }
                        td { (sandbox.version.as_deref().unwrap_or("–")) }
                        td { (sandbox.emulation.as_deref().map_or_else(|| "–".to_owned(), |text| translated(messages, text))) }
                    }
                }
            }
        } }
    })
}

fn charts_section(charts: &[Chart], messages: &Messages) -> Option<Markup> {
    let tag = messages.language().tag();
    let markup = html! {
        @for chart in charts {
            figure id={ "chart-" (chart.name) "-" (tag) } {
                figcaption { h3 { (chart.title) } p { (chart.section) } }
                (PreEscaped(chart.for_page()))
                @if let Some(note) = &chart.note { p { (note) } }
                details { summary { (messages.text("chart-data")) } (table(&chart.table)) }
            }
        }
    };
    (!charts.is_empty()).then_some(markup)
}

fn table(table: &Table) -> Markup {
    html! {
        div.scroll { table.stack {
            thead { tr { @for (index, cell) in table.head.iter().enumerate() { th.number[index >= table.words] { (cell) } } } }
            tbody {
                @for row in &table.rows {
                    tr {
                        @for (index, (cell, head)) in row.iter().zip(&table.head).enumerate() {
                            td.number[index >= table.words] data-label=[(index > 0).then_some(head)] { (cell) }
                        }
                    }
                }
            }
        } }
    }
}

fn modes(view: &View<'_>, messages: &Messages) -> Option<Markup> {
    let verdict = |mode: &str| {
        let prefix = format!("{mode}.");
        view.verdicts.iter().filter(move |verdict| verdict.claim.id.starts_with(&prefix) && words::is_answered(verdict))
    };
    Some(html! {
        p.lead { (messages.text("modes-lead")) }
        div.modes {
            @for (mode, sandbox) in facts::MODES {
                @let figures = facts::mode_figures(view, messages, sandbox);
                article.mode {
                    h3 { (messages.text(&format!("mode-{mode}-title"))) }
                    p { (messages.text(&format!("mode-{mode}-when"))) }
                    h4 { (messages.text("mode-figures")) }
                    @if figures.is_empty() {
                        p { (messages.text("mode-figures-none")) }
                    } @else {
                        dl { @for (name, value) in figures { div { dt { (name) } dd { (value) } } } }
                    }
                    ul.claims {
                        @for verdict in verdict(mode) {
                            li {
                                (badge(verdict.answer, &words::answer(messages, verdict.answer))) " "
                                (words::wording(verdict.claim, messages.language()))
                                @if let Some(controls) = words::controls(messages, verdict) { " " small { (controls) } }
                            }
                        }
                    }
                }
            }
        }
    })
}

fn unavailable(view: &View<'_>, messages: &Messages) -> Option<Markup> {
    let markup = html! {
        p.lead { (messages.text("unavailable-lead")) }
        div.scroll { table {
            thead { tr { th { (messages.text("sandbox-name")) } th { (messages.text("unavailable-reason")) } } }
            tbody {
                @for gap in view.unavailable() { tr { td { code { (gap.label()) } } td { (translated(messages, gap.reason)) } } }
            }
        } }
    };
    (view.unavailable().next().is_some()).then_some(markup)
}

fn errors(view: &View<'_>, messages: &Messages) -> Option<Markup> {
    let errors = facts::errors(view);
    let markup = html! {
        p.lead { (messages.text("errors-lead")) }
        div.scroll { table {
            thead { tr {
                th { (messages.text("sandbox-name")) }
                th { (messages.text("errors-metric")) }
                th.number { (messages.text("errors-count")) }
                th { (messages.text("errors-first")) }
            } }
            tbody {
                @for [sandbox, metric, count, first] in &errors {
                    tr { td { code { (sandbox) } } td { (metric) } td.number { (count) } td { (first) } }
                }
            }
        } }
    };
    (!errors.is_empty()).then_some(markup)
}

fn untested(view: &View<'_>, messages: &Messages) -> Option<Markup> {
    let untested: Vec<&Verdict> = view.verdicts.iter().filter(|verdict| !words::is_answered(verdict)).collect();
    let markup = html! {
        p.lead { (messages.text("untested-lead")) }
        ul.untested {
            @for verdict in &untested {
                li {
                    code { (verdict.claim.id) } " " (words::wording(verdict.claim, messages.language()))
                    @if let Some(reason) = &verdict.reason { " " small { (words::reason(messages, reason)) } }
                    @if let Some(markup) = publications(messages, &verdict.claim.id) { (markup) }
                }
            }
        }
    };
    (!untested.is_empty()).then_some(markup)
}
