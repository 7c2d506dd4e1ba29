//! Published results in words: what page and Markdown both say beside a verdict.

use crate::literature::{self, Direction, Publication, PublishedFigure};
use crate::messages::Messages;

/// What the literature says of a claim in one line, such as `Published: confirms 5, refutes 1`; `None` where there is
/// nothing.
#[must_use]
pub fn summary(messages: &Messages, claim: &str) -> Option<String> {
    let found: Vec<Direction> = literature::on(claim).map(|(_, direction)| direction).collect();
    let counts: Vec<String> = Direction::ALL
        .into_iter()
        .filter_map(|wanted| {
            let count = found.iter().filter(|direction| **direction == wanted).count();
            let text = [("answer", &*self::direction(messages, wanted)), ("count", &count.to_string())];
            (count > 0).then(|| messages.format("verdict-count", &text))
        })
        .collect();
    (!counts.is_empty())
        .then(|| messages.format("published-summary", &[("counts", &counts.join(&messages.text("list-comma")))]))
}

/// What a publication says of a claim.
#[must_use]
pub fn direction(messages: &Messages, direction: Direction) -> String {
    messages.text(&format!("published-{}", direction.key()))
}

/// Authors, title, venue and year.
#[must_use]
pub fn citation(publication: &Publication) -> String {
    let Publication { authors, title, venue, year, .. } = publication;
    format!("{authors}: {title}. {venue}, {year}")
}

/// Who vouches for it, and what of it was read.
#[must_use]
pub fn standing(messages: &Messages, publication: &Publication) -> String {
    let grade = messages.text(&format!("grade-{}", publication.grade.key()));
    let read = messages.text(&format!("read-{}", publication.read.key()));
    [grade, read].join(&messages.text("list-comma"))
}

/// Value and unit of a figure, as published.
#[must_use]
pub fn value(figure: &PublishedFigure) -> String {
    format!("{} {}", figure.value, figure.unit).trim_end().to_owned()
}

/// A figure in one line, such as `native: 37.6 µs (netperf TCP_RR)`.
#[must_use]
pub fn figure(figure: &PublishedFigure) -> String {
    let condition = if figure.condition.is_empty() { String::new() } else { format!(" ({})", figure.condition) };
    format!("{}: {}{condition}", figure.system, value(figure))
}
