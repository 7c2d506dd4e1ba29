//! Throughput, and the CPU time that it takes: one chart a path of each; upload and download side by side, one block of rows
//! for each kind of segmentation and for several streams.

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
pub(crate) const PATHS: [&str; 5] = ["host", "client", "loopback", "sibling", "out"];

/// What a block of rows is called in messages, and the parameters beside the path that its series have.
const BLOCKS: [(&str, &[(&str, &str)]); 3] = [
    ("offload", &[("segmentation", "offload")]),
    ("wire", &[("segmentation", "wire")]),
    ("streams", &[("segmentation", "offload"), ("streams", "4")]),
];

const GROUPS: [&str; 2] = ["chart-group-upload", "chart-group-download"];

/// What is drawn in this way.
struct Subject {
    /// Also the beginning of its messages' keys.
    name: &'static str,
    /// Upload and download.
    metrics: [&'static str; 2],
    unit: &'static str,
    /// What a value is multiplied by on the axis, so that its ticks are round.
    factor: f64,
}

const RATE: Subject =
    // Linear in bits, as the texts of the ticks are.
    Subject { name: "throughput", metrics: ["tcp.upload", "tcp.download"], unit: "B/s", factor: 8.0 };
const COST: Subject =
    Subject { name: "cost", metrics: ["tcp.upload.cost", "tcp.download.cost"], unit: "s/GB", factor: 1.0 };

const ROW: f64 = 36.0;
const HEAD: f64 = 40.0;
const AXIS: f64 = 38.0;
/// Width of one direction's strip, and of the median that stands beside it.
const STRIP: f64 = 190.0;
const VALUE: f64 = 92.0;

/// One block of rows: those that have samples of one path and set of parameters.
struct Block<'a> {
    name: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    rows: Vec<(&'a str, [Option<&'a Numbers>; 2])>,
}

/// One chart for each path that has samples, with the one of its cost beside it.
pub(crate) fn charts(view: &View<'_>, messages: &Messages) -> Vec<Chart> {
    PATHS
        .into_iter()
        .flat_map(|path| [RATE, COST].into_iter().filter_map(move |subject| chart(view, messages, &subject, path)))
        .collect()
}

fn with_path<'p>(path: &'p str, parameters: &[(&'p str, &'p str)]) -> Vec<(&'p str, &'p str)> {
    std::iter::once(("path", path)).chain(parameters.iter().copied()).collect()
}

fn chart(view: &View<'_>, messages: &Messages, subject: &Subject, path: &str) -> Option<Chart> {
    let blocks: Vec<Block<'_>> = BLOCKS
        .into_iter()
        .map(|(name, parameters)| block(view, subject, path, name, parameters))
        .filter(|block| !block.rows.is_empty())
        .collect();
    let parameters = with_path(path, blocks.first()?.parameters);
    let title = subject.metrics.iter().find_map(|metric| {
        let direction = words::metric(messages, metric, &Parameters::new());
        let numbers = |sandbox: &str| view.numbers(metric, sandbox, &parameters);
        finding::amounts(view, messages, subject.name, subject.unit, &direction, &numbers)
    })?;
    let path_text = messages.named("path-", path);
    let section = messages.format(&format!("chart-{}-section", subject.name), &[("path", &path_text)]);
    let heading = Heading { title, section };
    #[expect(clippy::cast_precision_loss, reason = "a handful of rows")]
    let heights: Vec<f64> = blocks.iter().map(|block| HEAD + block.rows.len() as f64 * ROW + AXIS).collect();
    let body = heights.iter().sum::<f64>() + 16.0 + row::KEY_HEIGHT;
    let table = table(view, messages, subject, &blocks);
    Some(heading.finish(format!("{}-{path}", subject.name), body, table, |canvas, head| {
        let mut top = head;
        let mut shown = Vec::new();
        for (block, height) in blocks.iter().zip(&heights) {
            paint(canvas, view, messages, subject, block, top);
            shown.extend(block.rows.iter().map(|(sandbox, _)| *sandbox));
            top += height;
        }
        canvas.text(&messages.text(&format!("chart-{}-axis", subject.name)), (LEFT, top), LABEL);
        row::key(canvas, messages, view, &shown, top + 16.0);
    }))
}

fn block<'a>(
    view: &'a View<'_>,
    subject: &Subject,
    path: &str,
    name: &'static str,
    parameters: &'static [(&'static str, &'static str)],
) -> Block<'a> {
    let wanted = with_path(path, parameters);
    let rows = view
        .measured()
        .map(|sandbox| {
            let name = sandbox.name.as_str();
            (name, subject.metrics.map(|metric| view.numbers(metric, name, &wanted)))
        })
        .filter(|(_, numbers)| numbers.iter().any(Option::is_some))
        .collect();
    Block { name, parameters, rows }
}

fn paint(
    canvas: &mut Canvas<'_>,
    view: &View<'_>,
    messages: &Messages,
    subject: &Subject,
    block: &Block<'_>,
    top: f64,
) {
    let reach = block.rows.iter().flat_map(|(_, numbers)| numbers).flatten().map(|numbers| row::reach(numbers));
    let reach = reach.fold(0.0, f64::max) * 1.04;
    let segmentation = messages.named("chart-segmentation-", block.name);
    canvas.text(&segmentation, (12.0, top + 20.0), LABEL.bold());
    let first = top + HEAD - 8.0;
    #[expect(clippy::cast_precision_loss, reason = "a handful of rows")]
    let bottom = first + block.rows.len() as f64 * ROW;
    for (column, title) in (0_u32..).zip(GROUPS) {
        let left = LEFT + f64::from(column) * (STRIP + VALUE);
        canvas.text(&messages.text(title), (left, top + 20.0), SMALL);
        let scale = Scale::linear(reach * subject.factor, (left, left + STRIP));
        axis(canvas, subject, &scale, first, bottom);
    }
    for ((sandbox, numbers), index) in block.rows.iter().zip(0_u32..) {
        let y = first + (f64::from(index) + 0.5) * ROW;
        row::label(canvas, view, messages, sandbox, y);
        for (column, numbers) in (0_u32..).zip(numbers) {
            let left = LEFT + f64::from(column) * (STRIP + VALUE);
            let Some(numbers) = numbers else { continue };
            if view.emulation(sandbox).is_some() {
                canvas.hatch((left, y - 12.0), (left + STRIP, y + 12.0), Ink::Grid);
            }
            let scale = Scale::linear(reach, (left, left + STRIP));
            let place = Place { scale: &scale, y, half: 6.0, right: left + STRIP, unit: subject.unit };
            row::strip(canvas, messages, view.family(sandbox), numbers, &place);
            if let Some(estimate) = numbers.estimate {
                let end = (left + STRIP + VALUE - 14.0).min(WIDTH - 8.0);
                canvas.centred(&quantity::quantity(estimate.value, subject.unit), (end, y), SMALL_VALUE);
            }
        }
    }
}

const SMALL_VALUE: super::canvas::Lettering = super::canvas::Lettering::new(13.5, Ink::Text).bold().end();

fn axis(canvas: &mut Canvas<'_>, subject: &Subject, scale: &Scale, top: f64, bottom: f64) {
    for tick in scale.ticks(3) {
        let x = scale.at(tick);
        canvas.line((x, top), (x, bottom), Ink::Grid, 1.0);
        canvas.text(&quantity::tick(tick / subject.factor, subject.unit), (x, bottom + 16.0), SMALL.middle());
    }
}

fn table(view: &View<'_>, messages: &Messages, subject: &Subject, blocks: &[Block<'_>]) -> Table {
    let mut rows = Vec::new();
    for block in blocks {
        for (sandbox, numbers) in &block.rows {
            for (metric, numbers) in subject.metrics.iter().zip(numbers) {
                let Some(numbers) = numbers else { continue };
                let segmentation = messages.named("chart-segmentation-", block.name);
                let direction = words::metric(messages, metric, &Parameters::new());
                let mut row = vec![view.labelled(messages, sandbox), segmentation, direction];
                row.extend(spread_cells(messages, numbers, subject.unit));
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
