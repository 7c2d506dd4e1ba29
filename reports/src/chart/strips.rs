//! Numbers of one kind in several conditions: one block of rows for each, a row a sandbox with every sample, median and
//! interval. What making and removing an instance takes, at what rate it goes, which pages are shared, what a virtual machine
//! holds of its memory, how many instances a budget is for, and what work takes inside.

use super::canvas::{Canvas, Lettering, WIDTH};
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

/// What is drawn in this way.
struct Subject {
    /// The chart's name, also the end of its messages' keys.
    name: &'static str,
    unit: &'static str,
    /// The metric and parameters of each block of rows, the most telling first.
    blocks: &'static [Condition],
}

type Condition = (&'static str, &'static [(&'static str, &'static str)]);

const SUBJECTS: [Subject; 7] = [
    Subject { name: "lifecycle", unit: "ns", blocks: &[("lifecycle.creation", &[]), ("lifecycle.deletion", &[])] },
    Subject {
        name: "rate",
        unit: "1/s",
        blocks: &[
            ("lifecycle.rate", &[("at-once", "8")]),
            ("lifecycle.rate", &[("at-once", "4")]),
            ("lifecycle.rate", &[("at-once", "2")]),
            ("lifecycle.rate", &[("at-once", "1")]),
        ],
    },
    Subject {
        name: "sharing",
        unit: "B",
        blocks: &[
            ("sharing.pages", &[("set", "private")]),
            ("sharing.pages", &[("set", "shared")]),
            ("sharing.pages", &[("set", "proportional")]),
        ],
    },
    Subject {
        name: "reservation",
        unit: "B",
        blocks: &[
            ("reservation.memory", &[("when", "boot")]),
            ("reservation.memory", &[("when", "touched")]),
            ("reservation.memory", &[("when", "freed")]),
            ("reservation.memory", &[("when", "ballooned")]),
            ("reservation.memory", &[("when", "assigned")]),
        ],
    },
    Subject { name: "density", unit: "", blocks: &[("density.instances", &[])] },
    Subject {
        name: "overhead",
        unit: "ns",
        blocks: &[
            ("overhead.call", &[]),
            ("overhead.file", &[("size", "small")]),
            ("overhead.file", &[("size", "large")]),
            ("overhead.chase", &[("memory", "large"), ("pages", "usual")]),
            ("overhead.chase", &[("memory", "large"), ("pages", "huge")]),
            ("overhead.chase", &[("memory", "cache"), ("pages", "usual")]),
            ("overhead.compute", &[("work", "integer")]),
            ("overhead.compute", &[("work", "floating")]),
        ],
    },
    Subject { name: "stream", unit: "B/s", blocks: &[("overhead.stream", &[])] },
];

/// Right edge of what is plotted; the median stands beyond it.
const RIGHT: f64 = 664.0;
const ROW: f64 = 34.0;
const HEAD: f64 = 34.0;
const AXIS: f64 = 30.0;
const VALUE: Lettering = LABEL.bold().end();

/// One block of rows: those that have samples in one condition.
struct Block<'a> {
    name: String,
    rows: Vec<(&'a str, &'a Numbers)>,
}

/// One chart for each subject that has samples.
pub(crate) fn charts(view: &View<'_>, messages: &Messages) -> Vec<Chart> {
    SUBJECTS.iter().filter_map(|subject| chart(view, messages, subject)).collect()
}

fn chart(view: &View<'_>, messages: &Messages, subject: &Subject) -> Option<Chart> {
    let blocks: Vec<Block<'_>> = subject
        .blocks
        .iter()
        .map(|condition| block(view, messages, condition))
        .filter(|block| !block.rows.is_empty())
        .collect();
    let title = subject.blocks.iter().find_map(|(metric, parameters)| {
        let what = name(messages, metric, parameters);
        finding::amounts(view, messages, "strips", subject.unit, &what, &|sandbox| {
            view.numbers(metric, sandbox, parameters)
        })
    })?;
    let heading = Heading { title, section: messages.text(&format!("chart-strips-{}", subject.name)) };
    let heights: Vec<f64> = blocks.iter().map(Block::height).collect();
    let body = heights.iter().sum::<f64>() + 16.0 + row::KEY_HEIGHT;
    let table = table(view, messages, subject, &blocks);
    Some(heading.finish(subject.name.to_owned(), body, table, |canvas, head| {
        let mut top = head;
        let mut shown = Vec::new();
        for (block, height) in blocks.iter().zip(&heights) {
            block.paint(canvas, view, messages, subject.unit, top);
            shown.extend(block.rows.iter().map(|(sandbox, _)| *sandbox));
            top += height;
        }
        row::key(canvas, messages, view, &shown, top + 10.0);
    }))
}

fn name(messages: &Messages, metric: &str, parameters: &[(&str, &str)]) -> String {
    let parameters: Parameters =
        parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    words::metric(messages, metric, &parameters)
}

fn block<'a>(view: &'a View<'_>, messages: &Messages, (metric, parameters): &Condition) -> Block<'a> {
    let rows = view
        .measured()
        .filter_map(|sandbox| Some((sandbox.name.as_str(), view.numbers(metric, &sandbox.name, parameters)?)))
        .collect();
    Block { name: name(messages, metric, parameters), rows }
}

impl Block<'_> {
    #[expect(clippy::cast_precision_loss, reason = "a handful of rows")]
    fn height(&self) -> f64 {
        HEAD + self.rows.len() as f64 * ROW + AXIS
    }

    fn paint(&self, canvas: &mut Canvas<'_>, view: &View<'_>, messages: &Messages, unit: &str, top: f64) {
        canvas.text(&self.name, (12.0, top + 20.0), LABEL.bold());
        let reach = self.rows.iter().map(|(_, numbers)| row::reach(numbers)).fold(0.0, f64::max) * 1.04;
        // Bytes are counted in powers of two, so that ticks are round.
        let factor = if unit == "B" { row::binary_unit(reach) } else { 1.0 };
        let (scale, ticks) = (Scale::linear(reach, (LEFT, RIGHT)), Scale::linear(reach / factor, (LEFT, RIGHT)));
        let (first, bottom) = (top + HEAD - 4.0, top + self.height() - AXIS);
        for tick in ticks.ticks(6) {
            let x = ticks.at(tick);
            canvas.line((x, first), (x, bottom), Ink::Grid, 1.0);
            canvas.text(&quantity::tick(tick * factor, unit), (x, bottom + 16.0), SMALL.middle());
        }
        for ((sandbox, numbers), index) in self.rows.iter().zip(0_u32..) {
            let y = first + (f64::from(index) + 0.5) * ROW;
            row::label(canvas, view, messages, sandbox, y);
            if view.emulation(sandbox).is_some() {
                canvas.hatch((LEFT, y - 11.0), (RIGHT, y + 11.0), Ink::Grid);
            }
            let place = Place { scale: &scale, y, half: 6.0, right: RIGHT, unit };
            row::strip(canvas, messages, view.family(sandbox), numbers, &place);
            if let Some(estimate) = numbers.estimate {
                canvas.centred(&quantity::quantity(estimate.value, unit), (WIDTH - 12.0, y), VALUE);
            }
        }
    }
}

fn table(view: &View<'_>, messages: &Messages, subject: &Subject, blocks: &[Block<'_>]) -> Table {
    let rows = blocks.iter().flat_map(|block| {
        block.rows.iter().map(|(sandbox, numbers)| {
            let mut row = vec![view.labelled(messages, sandbox), block.name.clone()];
            row.extend(spread_cells(messages, numbers, subject.unit));
            row
        })
    });
    let head = [
        "column-sandbox",
        "figure-name",
        "column-median",
        "column-interval",
        "column-lowest",
        "column-highest",
        "column-n",
    ];
    Table { head: head.into_iter().map(|key| messages.text(key)).collect(), rows: rows.collect(), words: 2 }
}
