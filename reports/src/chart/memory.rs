//! Memory: host memory over the number of idle instances, every sample, and the line through the median slope. Sandboxes
//! whose slopes are too far apart for one scale get panels of their own.

use super::canvas::{Canvas, WIDTH};
use super::row::{self, LABEL, SMALL};
use super::scale::{Scale, panels, spread};
use super::{Chart, Heading, Table, finding};
use crate::messages::Messages;
use crate::palette::Ink;
use crate::render::quantity::{self, NONE};
use crate::render::view::View;
use crate::summary::{Line, LinePoint};

const LEFT: f64 = 84.0;
const RIGHT: f64 = 440.0;
const PLOT: f64 = 210.0;
const AXIS: f64 = 34.0;
const LABEL_DISTANCE: f64 = 27.0;

/// The chart, where memory was measured with more than one number of instances.
pub(crate) fn chart(view: &View<'_>, messages: &Messages) -> Option<Chart> {
    let lines: Vec<&Line> = view
        .measured()
        .filter_map(|sandbox| view.memory(&sandbox.name))
        .filter(|line| used(line).count() > 0)
        .collect();
    let heading = Heading { title: finding::memory(view, messages)?, section: messages.text("chart-memory-section") };
    let panels = panels(&lines.iter().map(|line| highest(line)).collect::<Vec<_>>());
    let most = lines.iter().flat_map(|line| used(line)).map(|point| point.instances).max().unwrap_or(1);
    #[expect(clippy::cast_precision_loss, reason = "a handful of lines")]
    let heights: Vec<f64> =
        panels.iter().map(|panel| (panel.len() as f64 * LABEL_DISTANCE + 10.0).max(PLOT) + AXIS).collect();
    let body = 30.0 + heights.iter().sum::<f64>() + 30.0;
    let table = table(view, messages, &lines);
    Some(heading.finish("memory".to_owned(), body, table, |canvas, head| {
        canvas.text(&messages.text("chart-memory-axis-y"), (12.0, head + 12.0), LABEL);
        let mut top = head + 30.0;
        for (panel, height) in panels.iter().zip(&heights) {
            let lines: Vec<&Line> = panel.iter().map(|index| lines[*index]).collect();
            paint_panel(canvas, view, messages, &lines, most, (top, top + height - AXIS));
            top += height;
        }
        canvas.text(&messages.text("chart-memory-axis-x"), (LEFT, top + 12.0), LABEL);
    }))
}

fn used(line: &Line) -> impl Iterator<Item = &LinePoint> {
    line.points.iter().filter(|point| !point.warm_up)
}

/// The numbers of instances that were measured.
fn instances(lines: &[&Line]) -> Vec<u32> {
    let mut instances: Vec<u32> = lines.iter().flat_map(|line| used(line)).map(|point| point.instances).collect();
    instances.sort_unstable();
    instances.dedup();
    instances
}

fn highest(line: &Line) -> f64 {
    used(line).map(|point| point.value).fold(0.0, f64::max)
}

/// What else the machine gave back meanwhile may be more than instances took.
fn lowest(line: &Line) -> f64 {
    used(line).map(|point| point.value).chain(line.intercept).fold(0.0, f64::min)
}

fn paint_panel(
    canvas: &mut Canvas<'_>,
    view: &View<'_>,
    messages: &Messages,
    lines: &[&Line],
    most: u32,
    (top, bottom): (f64, f64),
) {
    let across = Scale::linear(f64::from(most), (LEFT, RIGHT));
    let reach = lines.iter().map(|line| highest(line)).fold(0.0, f64::max) * 1.05;
    let depth = lines.iter().map(|line| lowest(line)).fold(0.0, f64::min) * 1.05;
    let unit = row::binary_unit(reach.max(-depth));
    let up = Scale::linear_from(depth / unit, reach / unit, (bottom, top));
    let axes = Axes { across, most, up, unit };
    for tick in up.ticks(5) {
        let y = up.at(tick);
        canvas.line((LEFT, y), (RIGHT, y), Ink::Grid, 1.0);
        canvas.centred(&quantity::tick(tick * unit, "B"), (LEFT - 10.0, y), SMALL.end());
    }
    let mut last = f64::NEG_INFINITY;
    for count in std::iter::once(0).chain(instances(lines)) {
        let x = across.at(f64::from(count));
        if x - last >= 20.0 {
            canvas.text(&count.to_string(), (x, bottom + 18.0), SMALL.middle());
            last = x;
        }
    }
    let ends: Vec<f64> = lines.iter().map(|line| up.at(end(line, most) / unit).clamp(top, bottom)).collect();
    let labels = spread(&ends, LABEL_DISTANCE, (top + 6.0, bottom - 4.0));
    for ((line, end_y), label_y) in lines.iter().zip(&ends).zip(&labels) {
        paint_line(canvas, view, line, &axes);
        let ink = Ink::Family(view.family(&line.sandbox));
        canvas.path(&[(RIGHT + 3.0, *end_y), (RIGHT + 16.0, *label_y), (RIGHT + 24.0, *label_y)], ink, 0.8, 1.0);
        paint_label(canvas, view, messages, line, *label_y);
    }
}

/// Where a line ends: at the largest number of instances.
fn end(line: &Line, most: u32) -> f64 {
    match (line.slope, line.intercept) {
        (Some(slope), Some(intercept)) => intercept + slope.value * f64::from(most),
        _ => highest(line),
    }
}

/// The scales of a panel.
struct Axes {
    /// Over instances, from none to this many.
    across: Scale,
    most: u32,
    /// Over host memory, in this many bytes, so that ticks are round.
    up: Scale,
    unit: f64,
}

fn paint_line(canvas: &mut Canvas<'_>, view: &View<'_>, line: &Line, axes: &Axes) {
    let Axes { across, most, up, unit } = axes;
    let most = *most;
    let family = view.family(&line.sandbox);
    for point in used(line) {
        canvas.marker(family, (across.at(f64::from(point.instances)), up.at(point.value / unit)), 3.5, 0.5);
    }
    if let (Some(_), Some(intercept)) = (line.slope, line.intercept) {
        let ends =
            [(across.at(0.0), up.at(intercept / unit)), (across.at(f64::from(most)), up.at(end(line, most) / unit))];
        if view.emulation(&line.sandbox).is_some() {
            canvas.dashed(&ends, Ink::Family(family), 2.0, 6.0);
        } else {
            canvas.path(&ends, Ink::Family(family), 1.0, 2.0);
        }
    }
}

fn paint_label(canvas: &mut Canvas<'_>, view: &View<'_>, messages: &Messages, line: &Line, y: f64) {
    let left = RIGHT + 28.0;
    let slope = line.slope.map_or_else(String::new, |slope| {
        messages.format("chart-memory-each", &[("slope", &quantity::bytes(slope.value))])
    });
    let room = WIDTH - 12.0 - left - LABEL.bold().width(&slope) - 10.0;
    canvas.centred(&slope, (WIDTH - 12.0, y), LABEL.bold().end());
    row::name(canvas, view, messages, &line.sandbox, (left, y), room);
}

fn table(view: &View<'_>, messages: &Messages, lines: &[&Line]) -> Table {
    let instances = instances(lines);
    let mut head =
        vec![messages.text("column-sandbox"), messages.text("column-slope"), messages.text("column-interval")];
    head.push(messages.text("column-n"));
    head.extend(instances.iter().map(|count| messages.format("column-at-instances", &[("count", &count.to_string())])));
    let rows = lines.iter().map(|line| {
        let interval = line.slope.and_then(|slope| slope.interval);
        let mut row = vec![
            view.labelled(messages, &line.sandbox),
            line.slope.map_or_else(|| NONE.to_owned(), |slope| quantity::bytes(slope.value)),
            quantity::interval(interval, "B", |low, high| {
                messages.format("value-interval", &[("low", low), ("high", high)])
            }),
            line.slope.map_or(0, |slope| slope.blocks).to_string(),
        ];
        row.extend(instances.iter().map(|count| {
            let values: Vec<f64> =
                used(line).filter(|point| point.instances == *count).map(|point| point.value).collect();
            crate::statistics::median(&values).map_or_else(|| NONE.to_owned(), quantity::bytes)
        }));
        row
    });
    Table { head, rows: rows.collect(), words: 1 }
}
