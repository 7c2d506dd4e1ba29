//! Start-up: one row a sandbox, the medians of its stages stacked from t0, and beneath them every sample of the total.

use super::canvas::{Canvas, Lettering, WIDTH};
use super::row::{self, LABEL, LEFT, Place, SMALL};
use super::scale::{Scale, panels};
use super::{Chart, Heading, Table, finding};
use crate::messages::Messages;
use crate::palette::Ink;
use crate::render::quantity::{self, NONE};
use crate::render::view::View;
use crate::summary::{Data, Numbers};
use isobench_workload::Stage;

/// Right edge of what is plotted; the median stands beyond it.
const RIGHT: f64 = 664.0;
const ROW: f64 = 54.0;
const AXIS: f64 = 30.0;
const BAR: f64 = 18.0;

struct Row<'a> {
    sandbox: &'a str,
    total: &'a Numbers,
    /// Median duration of each stage, by its place among all stages.
    stages: Vec<(usize, f64)>,
}

/// The stages up to ready, in order.
fn stages() -> impl Iterator<Item = Stage> {
    Stage::ALL.into_iter().filter(|stage| (Stage::Created..=Stage::Answered).contains(stage))
}

/// The chart, where anything started.
pub(crate) fn chart(view: &View<'_>, messages: &Messages) -> Option<Chart> {
    let rows: Vec<Row<'_>> = view.measured().filter_map(|sandbox| row(view, &sandbox.name)).collect();
    let title = finding::startup(view, messages, &|sandbox| view.numbers("start.ready", sandbox, &[]))?;
    let heading = Heading { title, section: messages.text("chart-startup-section") };
    let panels = panels(&rows.iter().map(Row::reach).collect::<Vec<_>>());
    let seen: Vec<usize> = (0..stages().count())
        .filter(|stage| rows.iter().any(|row| row.stages.iter().any(|(seen, _)| seen == stage)))
        .collect();
    let legend = Legend::new(messages, &seen);
    #[expect(clippy::cast_precision_loss, reason = "a handful of rows")]
    let heights: Vec<f64> = panels.iter().map(|panel| panel.len() as f64 * ROW + AXIS).collect();
    let body = legend.height + heights.iter().sum::<f64>() + 24.0 + row::KEY_HEIGHT;
    let table = table(view, messages, &rows);
    Some(heading.finish("startup".to_owned(), body, table, |canvas, head| {
        legend.paint(canvas, head);
        let mut top = head + legend.height;
        for (panel, height) in panels.iter().zip(&heights) {
            let rows: Vec<&Row<'_>> = panel.iter().map(|index| &rows[*index]).collect();
            let reach = paint_panel(canvas, view, messages, &rows, top);
            if panels.len() > 1 {
                let text = messages.format("chart-scale", &[("highest", &quantity::time(reach))]);
                canvas.text(&text, (30.0, top + height - AXIS + 16.0), SMALL);
            }
            top += height;
        }
        canvas.text(&messages.text("chart-startup-axis"), (LEFT, top + 10.0), LABEL);
        let shown: Vec<&str> = rows.iter().map(|row| row.sandbox).collect();
        row::key(canvas, messages, view, &shown, top + 24.0);
    }))
}

fn row<'a>(view: &'a View<'_>, sandbox: &'a str) -> Option<Row<'a>> {
    let total = view.numbers("start.ready", sandbox, &[])?;
    let stages = match view.find_series("start.stages", sandbox, &[]).map(|series| &series.data) {
        Some(Data::Stages(seen)) => stages()
            .enumerate()
            .filter_map(|(index, stage)| {
                let seen = seen.iter().find(|seen| seen.name == stage.name())?;
                Some((index, seen.duration.estimate?.value.max(0.0)))
            })
            .collect(),
        _ => Vec::new(),
    };
    Some(Row { sandbox, total, stages })
}

impl Row<'_> {
    fn reach(&self) -> f64 {
        row::reach(self.total).max(self.stages.iter().map(|(_, duration)| duration).sum())
    }
}

/// Draws one panel and gives back what its scale reaches to.
fn paint_panel(canvas: &mut Canvas<'_>, view: &View<'_>, messages: &Messages, rows: &[&Row<'_>], top: f64) -> f64 {
    let reach = rows.iter().map(|row| row.reach()).fold(0.0, f64::max);
    let scale = Scale::linear(reach * 1.02, (LEFT, RIGHT));
    #[expect(clippy::cast_precision_loss, reason = "a handful of rows")]
    let bottom = top + rows.len() as f64 * ROW;
    row::horizontal_axis(canvas, &scale, "ns", (top, bottom), 6);
    for (row, index) in rows.iter().zip(0_u32..) {
        let y = top + f64::from(index) * ROW + 6.0;
        row::label(canvas, view, messages, row.sandbox, y + 20.0);
        paint_stages(canvas, view, messages, row, &scale, y);
        let place = Place { scale: &scale, y: y + BAR + 13.0, half: 5.5, right: RIGHT, unit: "ns" };
        row::strip(canvas, messages, view.family(row.sandbox), row.total, &place);
        if let Some(estimate) = row.total.estimate {
            canvas.centred(&quantity::time(estimate.value), (WIDTH - 12.0, y + BAR + 3.0), LABEL.bold().end());
        }
    }
    reach
}

fn paint_stages(canvas: &mut Canvas<'_>, view: &View<'_>, messages: &Messages, row: &Row<'_>, scale: &Scale, y: f64) {
    let ink = Ink::Family(view.family(row.sandbox));
    let mut start = 0.0;
    for (stage, duration) in &row.stages {
        let (left, right) = (scale.at(start), scale.at(start + duration));
        start += duration;
        let inner = (left + 0.5).min(right);
        canvas.rectangle((left, y), (right, y + BAR), Ink::Paper, 1.0);
        canvas.rectangle((inner, y), (right, y + BAR), ink, alpha(*stage));
        if view.emulation(row.sandbox).is_some() {
            canvas.hatch((inner, y), (right, y + BAR), Ink::Paper);
        }
        let name = stage_text(messages, *stage);
        let paint = if alpha(*stage) > 0.6 { Ink::Paper } else { Ink::Text };
        let lettering = Lettering::new(12.5, paint);
        if lettering.width(&name) + 8.0 < right - left {
            if view.emulation(row.sandbox).is_some() {
                let half = lettering.width(&name) / 2.0 + 3.0;
                let middle = f64::midpoint(left, right);
                canvas.rectangle((middle - half, y + 1.0), (middle + half, y + BAR - 1.0), Ink::Paper, 1.0);
                canvas.centred(&name, (middle, y + BAR / 2.0), Lettering::new(12.5, Ink::Text).middle());
            } else {
                canvas.centred(&name, (f64::midpoint(left, right), y + BAR / 2.0), lettering.middle());
            }
        }
    }
}

/// A stage is the fainter the earlier it is; neighbours differ more than by one step.
fn alpha(stage: usize) -> f64 {
    const ALPHAS: [f64; 8] = [0.22, 0.85, 0.36, 0.95, 0.5, 0.75, 0.3, 1.0];
    ALPHAS[stage % ALPHAS.len()]
}

fn stage_text(messages: &Messages, stage: usize) -> String {
    stages().nth(stage).map_or_else(String::new, |stage| messages.named("stage-", stage.name()))
}

/// Which shade is which stage, in as many lines as it takes.
struct Legend {
    entries: Vec<(f64, f64, Option<usize>, String)>,
    height: f64,
}

impl Legend {
    fn new(messages: &Messages, seen: &[usize]) -> Self {
        if seen.is_empty() {
            return Self { entries: Vec::new(), height: 8.0 };
        }
        let title = messages.text("chart-stages-key");
        let (mut x, mut y) = (12.0 + SMALL.width(&title) + 14.0, 8.0);
        let mut entries = vec![(12.0, y, None, title)];
        for stage in seen {
            let text = stage_text(messages, *stage);
            let width = 18.0 + SMALL.width(&text) + 16.0;
            if x + width > WIDTH - 12.0 {
                (x, y) = (12.0, y + 21.0);
            }
            entries.push((x, y, Some(*stage), text));
            x += width;
        }
        Self { entries, height: y + 26.0 }
    }

    fn paint(&self, canvas: &mut Canvas<'_>, top: f64) {
        for (x, y, stage, text) in &self.entries {
            let y = top + y;
            let Some(stage) = stage else {
                canvas.centred(text, (*x, y), SMALL);
                continue;
            };
            canvas.rectangle((*x, y - 6.0), (x + 13.0, y + 6.0), Ink::Muted, alpha(*stage));
            canvas.centred(text, (x + 18.0, y), SMALL);
        }
    }
}

fn table(view: &View<'_>, messages: &Messages, rows: &[Row<'_>]) -> Table {
    let head = [
        "column-sandbox",
        "column-stages",
        "column-median",
        "column-interval",
        "column-lowest",
        "column-highest",
        "column-n",
    ];
    Table {
        head: head.into_iter().map(|key| messages.text(key)).collect(),
        rows: rows.iter().map(|row| table_row(view, messages, row)).collect(),
        words: 2,
    }
}

fn table_row(view: &View<'_>, messages: &Messages, row: &Row<'_>) -> Vec<String> {
    let stages: Vec<String> = row
        .stages
        .iter()
        .map(|(stage, duration)| format!("{} {}", stage_text(messages, *stage), quantity::time(*duration)))
        .collect();
    let mut cells = vec![view.labelled(messages, row.sandbox), stages.join(" · ")];
    cells.extend(spread_cells(messages, row.total, "ns"));
    cells
}

/// Median, interval, lowest, highest and number of samples.
pub(crate) fn spread_cells(messages: &Messages, numbers: &Numbers, unit: &str) -> [String; 5] {
    let values: Vec<f64> = row::used(numbers).collect();
    let of = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), |value| quantity::quantity(value, unit));
    [
        of(numbers.estimate.map(|estimate| estimate.value)),
        quantity::interval(numbers.estimate.and_then(|estimate| estimate.interval), unit, |low, high| {
            messages.format("value-interval", &[("low", low), ("high", high)])
        }),
        of(values.iter().copied().reduce(f64::min)),
        of(values.iter().copied().reduce(f64::max)),
        values.len().to_string(),
    ]
}
