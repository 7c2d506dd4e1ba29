//! Throughput: one chart a path; upload and download side by side, one block of rows for each kind of segmentation.

use super::canvas::{Canvas, WIDTH};
use super::row::{self, LABEL, LEFT, Place, SMALL};
use super::scale::Scale;
use super::startup::spread_cells;
use super::{Chart, Heading, Table, finding};
use crate::messages::Messages;
use crate::palette::Ink;
use crate::render::quantity;
use crate::render::view::View;
use crate::render::words;
use crate::summary::{Numbers, Parameters};

/// The paths, the most telling first.
pub(crate) const PATHS: [&str; 3] = ["host", "client", "loopback"];
const SEGMENTATIONS: [&str; 2] = ["offload", "wire"];
const DIRECTIONS: [(&str, &str); 2] = [("tcp.upload", "chart-group-upload"), ("tcp.download", "chart-group-download")];

const ROW: f64 = 36.0;
const HEAD: f64 = 40.0;
const AXIS: f64 = 38.0;
/// Width of one direction's strip, and of the median that stands beside it.
const STRIP: f64 = 190.0;
const VALUE: f64 = 92.0;

/// One block of rows: those that have samples of one path and segmentation.
struct Block<'a> {
    segmentation: &'static str,
    rows: Vec<(&'a str, [Option<&'a Numbers>; 2])>,
}

/// One chart for each path that has samples.
pub(crate) fn charts(view: &View<'_>, messages: &Messages) -> Vec<Chart> {
    PATHS.into_iter().filter_map(|path| chart(view, messages, path)).collect()
}

fn chart(view: &View<'_>, messages: &Messages, path: &str) -> Option<Chart> {
    let blocks: Vec<Block<'_>> = SEGMENTATIONS
        .into_iter()
        .map(|segmentation| block(view, path, segmentation))
        .filter(|block| !block.rows.is_empty())
        .collect();
    let segmentation = blocks.first()?.segmentation;
    let parameters = [("path", path), ("segmentation", segmentation)];
    let title = DIRECTIONS.iter().find_map(|(metric, _)| {
        let direction = words::metric(messages, metric, &Parameters::new());
        finding::throughput(view, messages, &direction, &|sandbox| view.numbers(metric, sandbox, &parameters))
    })?;
    let path_text = messages.named("path-", path);
    let heading = Heading { title, section: messages.format("chart-throughput-section", &[("path", &path_text)]) };
    #[expect(clippy::cast_precision_loss, reason = "a handful of rows")]
    let heights: Vec<f64> = blocks.iter().map(|block| HEAD + block.rows.len() as f64 * ROW + AXIS).collect();
    let body = heights.iter().sum::<f64>() + 16.0 + row::KEY_HEIGHT;
    let table = table(view, messages, &blocks);
    Some(heading.finish(format!("throughput-{path}"), body, table, |canvas, head| {
        let mut top = head;
        let mut shown = Vec::new();
        for (block, height) in blocks.iter().zip(&heights) {
            paint(canvas, view, messages, block, top);
            shown.extend(block.rows.iter().map(|(sandbox, _)| *sandbox));
            top += height;
        }
        canvas.text(&messages.text("chart-throughput-axis"), (LEFT, top), LABEL);
        row::key(canvas, messages, view, &shown, top + 16.0);
    }))
}

fn block<'a>(view: &'a View<'_>, path: &str, segmentation: &'static str) -> Block<'a> {
    let parameters = [("path", path), ("segmentation", segmentation)];
    let rows = view
        .measured()
        .map(|sandbox| {
            let name = sandbox.name.as_str();
            (name, DIRECTIONS.map(|(metric, _)| view.numbers(metric, name, &parameters)))
        })
        .filter(|(_, numbers)| numbers.iter().any(Option::is_some))
        .collect();
    Block { segmentation, rows }
}

fn paint(canvas: &mut Canvas<'_>, view: &View<'_>, messages: &Messages, block: &Block<'_>, top: f64) {
    let reach = block.rows.iter().flat_map(|(_, numbers)| numbers).flatten().map(|numbers| row::reach(numbers));
    let reach = reach.fold(0.0, f64::max) * 1.04;
    let segmentation = messages.named("chart-segmentation-", block.segmentation);
    canvas.text(&segmentation, (12.0, top + 20.0), LABEL.bold());
    let first = top + HEAD - 8.0;
    #[expect(clippy::cast_precision_loss, reason = "a handful of rows")]
    let bottom = first + block.rows.len() as f64 * ROW;
    for (column, (_, title)) in (0_u32..).zip(DIRECTIONS) {
        let left = LEFT + f64::from(column) * (STRIP + VALUE);
        canvas.text(&messages.text(title), (left, top + 20.0), SMALL);
        // Linear in bits, as the texts of the ticks are.
        let scale = Scale::linear(reach * 8.0, (left, left + STRIP));
        axis(canvas, &scale, first, bottom);
    }
    for ((sandbox, numbers), index) in block.rows.iter().zip(0_u32..) {
        let y = first + (f64::from(index) + 0.5) * ROW;
        row::label(canvas, view, sandbox, y);
        for (column, numbers) in (0_u32..).zip(numbers) {
            let left = LEFT + f64::from(column) * (STRIP + VALUE);
            let Some(numbers) = numbers else { continue };
            if view.emulation(sandbox).is_some() {
                canvas.hatch((left, y - 12.0), (left + STRIP, y + 12.0), Ink::Grid);
            }
            let scale = Scale::linear(reach, (left, left + STRIP));
            let place = Place { scale: &scale, y, half: 6.0, right: left + STRIP, unit: "B/s" };
            row::strip(canvas, messages, view.family(sandbox), numbers, &place);
            if let Some(estimate) = numbers.estimate {
                let end = (left + STRIP + VALUE - 14.0).min(WIDTH - 8.0);
                canvas.centred(&quantity::rate(estimate.value), (end, y), SMALL_VALUE);
            }
        }
    }
}

const SMALL_VALUE: super::canvas::Lettering = super::canvas::Lettering::new(13.5, Ink::Text).bold().end();

fn axis(canvas: &mut Canvas<'_>, scale: &Scale, top: f64, bottom: f64) {
    for tick in scale.ticks(3) {
        let x = scale.at(tick);
        canvas.line((x, top), (x, bottom), Ink::Grid, 1.0);
        canvas.text(&quantity::tick(tick / 8.0, "B/s"), (x, bottom + 16.0), SMALL.middle());
    }
}

fn table(view: &View<'_>, messages: &Messages, blocks: &[Block<'_>]) -> Table {
    let mut rows = Vec::new();
    for block in blocks {
        for (sandbox, numbers) in &block.rows {
            for ((metric, _), numbers) in DIRECTIONS.iter().zip(numbers) {
                let Some(numbers) = numbers else { continue };
                let segmentation = messages.named("chart-segmentation-", block.segmentation);
                let direction = words::metric(messages, metric, &Parameters::new());
                let mut row = vec![view.labelled(sandbox), segmentation, direction];
                row.extend(spread_cells(messages, numbers, "B/s"));
                rows.push(row);
            }
        }
    }
    let head = [
        "column-sandbox",
        "column-segmentation",
        "column-direction",
        "column-median",
        "column-interval",
        "column-lowest",
        "column-highest",
        "column-n",
    ];
    Table { head: head.into_iter().map(|key| messages.text(key)).collect(), rows, words: 3 }
}
