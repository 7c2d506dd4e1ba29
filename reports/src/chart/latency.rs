//! Latency: the empirical distribution of single round trips on a logarithmic axis, one panel a family, so that each curve
//! can be told apart by its own label; the other families' curves stay behind in grey.

use super::canvas::{Canvas, WIDTH};
use super::row::{self, LABEL, SMALL};
use super::scale::Scale;
use super::throughput::PATHS;
use super::{Chart, Heading, Table, finding};
use crate::messages::Messages;
use crate::palette::{FAMILIES, Ink};
use crate::render::quantity::{self, NONE};
use crate::render::view::{View, family_key};
use crate::summary::{Data, Distribution};
use isobench_workload::Family;

const LEFT: f64 = 64.0;
const RIGHT: f64 = 500.0;
const AXIS: f64 = 34.0;
/// Points of a curve.
const STEPS: u32 = 240;
/// What the axis leaves out at either end, so that one request does not set the scale.
const TAIL: f64 = 0.002;

struct Curve<'a> {
    sandbox: &'a str,
    family: Family,
    distribution: &'a Distribution,
}

/// One chart for each path that has samples.
pub(crate) fn charts(view: &View<'_>, messages: &Messages) -> Vec<Chart> {
    PATHS.into_iter().filter_map(|path| chart(view, messages, path)).collect()
}

fn chart(view: &View<'_>, messages: &Messages, path: &str) -> Option<Chart> {
    let curves: Vec<Curve<'_>> = view.measured().filter_map(|sandbox| curve(view, &sandbox.name, path)).collect();
    let lowest = curves.iter().map(|curve| curve.quantile(TAIL)).reduce(f64::min)?;
    let highest = curves.iter().map(|curve| curve.quantile(1.0 - TAIL)).reduce(f64::max)?;
    let path_text = messages.named("path-", path);
    let section = messages.format("chart-latency-section", &[("path", &path_text)]);
    let median = |sandbox: &str| view.numbers("tcp.round-trip.median", sandbox, &[("path", path)]);
    let title = finding::latency(view, messages, &median).unwrap_or_else(|| section.clone());
    let heading = Heading { title, section };
    let families: Vec<Family> =
        FAMILIES.into_iter().filter(|family| curves.iter().any(|curve| curve.family == *family)).collect();
    let heights: Vec<f64> = families.iter().map(|family| panel_height(&curves, *family)).collect();
    let body = heights.iter().sum::<f64>() + AXIS - 6.0;
    let scale = Scale::logarithmic(lowest * 0.94, highest * 1.06, (LEFT, RIGHT));
    let table = table(view, messages, &curves);
    let spins = |curve: &Curve<'_>| {
        matches!(curve.family, Family::Unikernel | Family::Linux) || curve.sandbox == "unikernel-process"
    };
    let note = curves.iter().any(spins).then(|| messages.text("chart-latency-note"));
    let chart = heading.finish(format!("latency-{path}"), body, table, |canvas, head| {
        let mut top = head;
        for (family, height) in families.iter().zip(&heights) {
            paint_panel(
                canvas,
                view,
                messages,
                &curves,
                *family,
                &Frame { scale: &scale, top, bottom: top + height - 30.0 },
            );
            top += height;
        }
        let bottom = top - 30.0;
        for tick in scale.ticks(8) {
            canvas.text(&quantity::tick(tick, "ns"), (scale.at(tick), bottom + 18.0), SMALL.middle());
        }
        canvas.text(&messages.text("chart-latency-axis"), (LEFT, bottom + 42.0), LABEL);
    });
    Some(Chart { note, ..chart })
}

fn curve<'a>(view: &'a View<'_>, sandbox: &'a str, path: &str) -> Option<Curve<'a>> {
    match &view.find_series("tcp.round-trip", sandbox, &[("path", path)])?.data {
        Data::Distribution(distribution) if !distribution.histogram.is_empty() => {
            Some(Curve { sandbox, family: view.family(sandbox), distribution })
        }
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds below 2^53, a handful of curves")]
fn panel_height(curves: &[Curve<'_>], family: Family) -> f64 {
    let labels = curves.iter().filter(|curve| curve.family == family).count() as f64;
    (labels * 26.0 + 26.0).max(104.0) + 30.0
}

impl Curve<'_> {
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds below 2^53")]
    fn quantile(&self, quantile: f64) -> f64 {
        self.distribution.histogram.value_at_quantile(quantile) as f64
    }

    /// The median of the blocks' medians, as the title and every other chart have it: a block is what is repeated, and one
    /// with more requests does not count for more.
    fn median(&self) -> f64 {
        let median = self.distribution.quantiles.iter().find(|found| (found.quantile - 0.5).abs() < 1e-9);
        median.and_then(|found| found.over_blocks).map_or_else(|| self.quantile(0.5), |estimate| estimate.value)
    }

    fn points(&self, scale: &Scale, top: f64, bottom: f64) -> Vec<(f64, f64)> {
        let point = |quantile: f64| {
            let x = scale.at(self.quantile(quantile)).clamp(LEFT, RIGHT);
            (x, bottom - quantile * (bottom - top))
        };
        (0..=STEPS).map(|step| point(f64::from(step) / f64::from(STEPS))).collect()
    }
}

/// Where a panel is drawn.
struct Frame<'a> {
    scale: &'a Scale,
    top: f64,
    bottom: f64,
}

fn paint_panel(
    canvas: &mut Canvas<'_>,
    view: &View<'_>,
    messages: &Messages,
    curves: &[Curve<'_>],
    family: Family,
    frame: &Frame<'_>,
) {
    let Frame { scale, bottom, .. } = *frame;
    canvas.text(&messages.text(&family_key(family)), (LEFT, frame.top + 10.0), LABEL.bold());
    let top = frame.top + 18.0;
    for tick in scale.ticks(8) {
        canvas.line((scale.at(tick), top), (scale.at(tick), bottom), Ink::Grid, 1.0);
    }
    for (share, text) in [(0.0, "0"), (0.5, "50 %"), (1.0, "100 %")] {
        let y = bottom - share * (bottom - top);
        canvas.line((LEFT, y), (RIGHT, y), Ink::Grid, 1.0);
        canvas.centred(text, (LEFT - 8.0, y), SMALL.end());
    }
    for curve in curves.iter().filter(|curve| curve.family != family) {
        canvas.path(&curve.points(scale, top, bottom), Ink::Muted, 0.28, 1.0);
    }
    let mut own: Vec<&Curve<'_>> = curves.iter().filter(|curve| curve.family == family).collect();
    own.sort_by(|one, other| one.quantile(0.5).total_cmp(&other.quantile(0.5)));
    for curve in &own {
        let points = curve.points(scale, top, bottom);
        if view.emulation(curve.sandbox).is_some() {
            canvas.dashed(&points, Ink::Family(family), 2.25, 6.0);
        } else {
            canvas.path(&points, Ink::Family(family), 1.0, 2.25);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a handful of curves")]
    let count = own.len() as f64;
    for (curve, rank) in own.iter().zip(0_u32..) {
        // Each label stands at a share of its own, so that its line meets its curve there.
        let share = 1.0 - (f64::from(rank) + 0.5) / count;
        let x = scale.at(curve.quantile(share)).clamp(LEFT, RIGHT);
        paint_label(canvas, view, messages, curve, (x, bottom - share * (bottom - top)));
    }
}

fn paint_label(canvas: &mut Canvas<'_>, view: &View<'_>, messages: &Messages, curve: &Curve<'_>, (x, y): (f64, f64)) {
    canvas.dashed(&[(x, y), (RIGHT + 12.0, y)], Ink::Muted, 0.75, 2.0);
    canvas.marker(curve.family, (x, y), 6.0, 1.0);
    let median = quantity::time(curve.median());
    let room = WIDTH - 12.0 - RIGHT - 18.0 - LABEL.bold().width(&median) - 8.0;
    canvas.centred(&median, (WIDTH - 12.0, y), LABEL.bold().end());
    row::name(canvas, view, messages, curve.sandbox, (RIGHT + 18.0, y), room);
}

fn table(view: &View<'_>, messages: &Messages, curves: &[Curve<'_>]) -> Table {
    let percentile = |percent: &str| messages.format("column-percentile", &[("percent", percent)]);
    Table {
        head: vec![
            messages.text("column-sandbox"),
            percentile("50"),
            messages.text("column-interval"),
            percentile("90"),
            percentile("99"),
            messages.text("column-requests"),
            messages.text("column-n"),
        ],
        rows: curves.iter().map(|curve| table_row(view, messages, curve)).collect(),
        words: 1,
    }
}

fn table_row(view: &View<'_>, messages: &Messages, curve: &Curve<'_>) -> Vec<String> {
    // Only the quantiles that the number of requests supports are there.
    let find = |wanted: f64| curve.distribution.quantiles.iter().find(|found| (found.quantile - wanted).abs() < 1e-9);
    let value = |wanted: f64| find(wanted).map_or_else(|| NONE.to_owned(), |found| quantity::time(found.value));
    let interval = find(0.5).and_then(|found| found.over_blocks).and_then(|estimate| estimate.interval);
    vec![
        view.labelled(messages, curve.sandbox),
        quantity::time(curve.median()),
        quantity::interval(interval, "ns", |low, high| {
            messages.format("value-interval", &[("low", low), ("high", high)])
        }),
        value(0.9),
        value(0.99),
        curve.distribution.histogram.len().to_string(),
        curve.distribution.blocks.to_string(),
    ]
}
