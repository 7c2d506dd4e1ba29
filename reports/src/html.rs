//! The page: one self-contained HTML file in both languages, with charts inline and the font embedded. It asks for nothing
//! from outside and runs no script: the language switch is a pair of radio buttons that the style sheet looks at.

mod sections;

use crate::chart::Chart;
use crate::font;
use crate::messages::{Language, Messages};
use crate::palette::{Ink, variables};
use crate::render::view::View;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("html/style.css");

/// The page. `charts` gives each language's charts; `language` is the one that is shown first.
#[must_use]
pub fn page(view: &View<'_>, charts: &[(Messages, Vec<Chart>)], language: Language) -> String {
    let title = charts
        .iter()
        .find(|(messages, _)| messages.language() == language)
        .map_or_else(String::new, |(messages, _)| sections::title(view, messages));
    html! {
        (DOCTYPE)
        html lang=(language.tag()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content=(view.records.run.program);
                // Nothing from outside, no script, whatever a record may hold.
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; font-src data:";
                title { (title) }
                style { (style()) }
            }
            body {
                @for (messages, _) in charts {
                    (switch(messages.language(), language))
                }
                nav.switch aria-label="Language · 语言" {
                    @for (messages, _) in charts {
                        @let tag = messages.language().tag();
                        label for={ "language-" (tag) } lang=(tag) { (messages.language().name()) }
                    }
                }
                @for (messages, charts) in charts {
                    (sections::sheet(view, messages, charts))
                }
            }
        }
    }
    .into_string()
}

fn switch(own: Language, shown: Language) -> Markup {
    html! {
        input.language type="radio" name="language" id={ "language-" (own.tag()) } aria-label=(own.name()) checked[own == shown];
    }
}

/// Fonts, the two sets of colours, and the style sheet.
fn style() -> Markup {
    let mut css = String::new();
    for (weight, bytes) in [("400", font::REGULAR), ("700", font::BOLD)] {
        let data = STANDARD.encode(bytes);
        css.push_str(&format!(
            "@font-face{{font-family:\"{}\";font-weight:{weight};src:url(data:font/otf;base64,{data}) format(\"opentype\")}}\n",
            font::FAMILY
        ));
    }
    let (light, dark) = (variables(Ink::light), variables(Ink::dark));
    css.push_str(&format!(":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"));
    css.push_str(STYLE);
    PreEscaped(css)
}
