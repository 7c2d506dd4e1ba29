//! The table at the end of a run, for a terminal: plain text, columns aligned by what a terminal shows, where a Chinese
//! character takes two cells. Colours are the caller's business.

use super::quantity::{self, NONE};
use super::remarks::translated;
use super::view::View;
use super::words;
use crate::messages::Messages;
use crate::summary::Numbers;
use unicode_width::UnicodeWidthStr;

/// Sandboxes with their medians, then the answers.
#[must_use]
pub fn table(view: &View<'_>, messages: &Messages) -> String {
    let keys = ["table-sandbox", "table-ready", "table-memory", "table-upload", "table-round-trip"];
    let mut rows = vec![keys.map(|key| messages.text(key)).to_vec()];
    rows.extend(view.measured().map(|sandbox| row(view, messages, &sandbox.name)));
    let mut text = aligned(&rows);
    text.push_str(&format!("{}\n", messages.text("table-legend")));
    for gap in view.unavailable() {
        let reason = messages.format("table-unavailable", &[("reason", &plain(&translated(messages, gap.reason)))]);
        text.push_str(&format!("{}  {reason}\n", plain(&gap.label())));
    }
    let counts: Vec<String> = words::counts(messages, &view.verdicts).into_iter().map(|(_, text)| text).collect();
    if !counts.is_empty() {
        text.push_str(&format!("\n{}\n", counts.join("   ")));
    }
    text
}

fn row(view: &View<'_>, messages: &Messages, sandbox: &str) -> Vec<String> {
    let median = |numbers: Option<&Numbers>, unit: &str| {
        let estimate = numbers.and_then(|numbers| numbers.estimate);
        estimate.map_or_else(|| NONE.to_owned(), |estimate| quantity::quantity(estimate.value, unit))
    };
    let slope = view.memory(sandbox).and_then(|line| line.slope);
    vec![
        plain(&view.labelled(messages, sandbox)),
        median(view.numbers("start.ready", sandbox, &[]), "ns"),
        slope.map_or_else(|| NONE.to_owned(), |slope| quantity::bytes(slope.value)),
        median(view.numbers("tcp.upload", sandbox, &[("path", "host"), ("segmentation", "offload")]), "B/s"),
        median(view.numbers("tcp.round-trip.median", sandbox, &[("path", "host")]), "ns"),
    ]
}

/// Text without control characters: an escape sequence in a record must not reach the terminal.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

/// Rows with their first column to the left and the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let space = " ".repeat(width - cell.width());
            text.push_str(&if column == 0 { format!("{cell}{space}") } else { format!("   {space}{cell}") });
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_cells_of_the_terminal() {
        let rows = [["沙箱", "就绪"], ["process", "1\u{a0}ms"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "沙箱      就绪\nprocess   1\u{a0}ms\n");
    }

    #[test]
    fn escape_sequences_are_taken_out() {
        assert_eq!(plain("a\u{1b}[31mb"), "a\u{fffd}[31mb");
    }
}
