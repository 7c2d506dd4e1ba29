//! Load: a high percentile of the time of requests over the rate at which they were due, both axes logarithmic, so that one
//! sees from where on requests queue up. Each rate that a sandbox no longer kept up with is drawn hollow.

use super::canvas::{Canvas, WIDTH};
use super::row::{self, LABEL, SMALL};
use super::scale::{self, Scale};
use super::throughput::PATHS;
use super::{Chart, Heading, Table, finding};
use crate::messages::Messages;
use crate::palette::Ink;
use crate::render::quantity::{self, NONE};
use crate::render::view::View;
use crate::summary::{Data, Distribution};
use isobench_workload::Family;

const LEFT: f64 = 76.0;
const RIGHT: f64 = 520.0;
/// Height of the plot, where its labels need no more.
const HEIGHT: f64 = 300.0;
const AXIS: f64 = 60.0;
/// Distance between two labels, each with room for what emulates the sandbox.
const LINE: f64 = 34.0;
/// Distance between two rates that both stand at the axis.
const RATE: f64 = 64.0;
/// A sandbox keeps up with a rate where it answers at least this share of what was due.
const KEPT: f64 = 0.95;

/// One sandbox under all rates.
struct Curve<'a> {
    sandbox: &'a str,
    family: Family,
    rungs: Vec<Rung<'a>>,
}

struct Rung<'a> {
    rate: f64,
    distribution: &'a Distribution,
    /// Answers a second: the median over blocks.
    answered: f64,
}

impl Rung<'_> {
    fn kept(&self) -> bool {
        self.answered >= KEPT * self.rate
    }

    fn quantile(&self, wanted: f64) -> Option<f64> {
        let found = self.distribution.quantiles.iter().find(|found| (found.quantile - wanted).abs() < 1e-9);
        found.map(|found| found.value)
    }
}

impl Curve<'_> {
    /// The highest rate up to which it kept up with all.
    fn highest(&self) -> Option<f64> {
        self.rungs.iter().take_while(|rung| rung.kept()).last().map(|rung| rung.rate)
    }
}

/// One chart for each path that has samples.
pub(crate) fn charts(view: &View<'_>, messages: &Messages) -> Vec<Chart> {
    PATHS.into_iter().filter_map(|path| chart(view, messages, path)).collect()
}

fn chart(view: &View<'_>, messages: &Messages, path: &str) -> Option<Chart> {
    let curves: Vec<Curve<'_>> = view.measured().filter_map(|sandbox| curve(view, &sandbox.name, path)).collect();
    let rungs = || curves.iter().flat_map(|curve| &curve.rungs);
    // The highest percentile that every rate has enough requests for, so that no point is missing.
    let wanted = [0.99, 0.9].into_iter().find(|wanted| rungs().all(|rung| rung.quantile(*wanted).is_some()))?;
    let percent = format!("{:.0}", wanted * 100.0);
    let times = || rungs().filter_map(|rung| rung.quantile(wanted));
    let (fastest, slowest) = (times().reduce(f64::min)?, times().reduce(f64::max)?);
    let mut rates: Vec<f64> = rungs().map(|rung| rung.rate).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    let (lowest, highest) = (*rates.first()?, *rates.last()?);
    let path_text = messages.named("path-", path);
    let section = messages.format("chart-load-section", &[("path", &path_text), ("percent", &percent)]);
    let kept = |sandbox: &str| curves.iter().find(|curve| curve.sandbox == sandbox)?.highest();
    let title = finding::load(view, messages, &kept, highest).unwrap_or_else(|| section.clone());
    let table = table(view, messages, &curves);
    #[expect(clippy::cast_precision_loss, reason = "a handful of curves")]
    let height = (curves.len() as f64 * LINE + 20.0).max(HEIGHT);
    let body = height + AXIS;
    let chart = Heading { title, section }.finish(format!("load-{path}"), body, table, |canvas, head| {
        let frame = Frame {
            x: Scale::logarithmic(lowest * 0.9, highest * 1.1, (LEFT, RIGHT)),
            y: Scale::logarithmic(fastest * 0.8, slowest * 1.25, (head + height, head + 10.0)),
            top: head + 10.0,
            bottom: head + height,
        };
        axes(canvas, messages, &frame, &rates, &percent);
        paint(canvas, view, messages, &curves, wanted, &frame);
    });
    Some(Chart { note: Some(messages.text("chart-load-note")), ..chart })
}

fn curve<'a>(view: &'a View<'_>, sandbox: &'a str, path: &str) -> Option<Curve<'a>> {
    let mut rungs: Vec<Rung<'_>> = view
        .series
        .iter()
        .filter(|series| series.metric == "tcp.load" && series.sandbox == sandbox)
        .filter(|series| series.parameters.get("path").is_some_and(|found| found == path))
        .filter_map(|series| {
            let rate = series.parameters.get("rate")?;
            let answered = view.numbers("tcp.load.rate", sandbox, &[("path", path), ("rate", rate)])?.estimate?.value;
            match &series.data {
                Data::Distribution(distribution) if !distribution.histogram.is_empty() => Some(Rung {
                    rate: rate.parse().ok().filter(|rate: &f64| *rate > 0.0 && rate.is_finite())?,
                    distribution,
                    answered,
                }),
                _ => None,
            }
        })
        .collect();
    rungs.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    (!rungs.is_empty()).then(|| Curve { sandbox, family: view.family(sandbox), rungs })
}

/// Where the curves are drawn.
struct Frame {
    x: Scale,
    y: Scale,
    top: f64,
    bottom: f64,
}

fn axes(canvas: &mut Canvas<'_>, messages: &Messages, frame: &Frame, rates: &[f64], percent: &str) {
    let mut last = f64::NEG_INFINITY;
    for rate in rates {
        let x = frame.x.at(*rate);
        canvas.line((x, frame.top), (x, frame.bottom), Ink::Grid, 1.0);
        if x - last >= RATE {
            canvas.text(&quantity::tick(*rate, "1/s"), (x, frame.bottom + 18.0), SMALL.middle());
            last = x;
        }
    }
    for tick in frame.y.ticks(6) {
        let y = frame.y.at(tick);
        canvas.line((LEFT, y), (RIGHT, y), Ink::Grid, 1.0);
        canvas.centred(&quantity::tick(tick, "ns"), (LEFT - 8.0, y), SMALL.end());
    }
    canvas.text(&messages.format("chart-load-axis", &[("percent", percent)]), (LEFT, frame.bottom + 44.0), LABEL);
}

fn paint(
    canvas: &mut Canvas<'_>,
    view: &View<'_>,
    messages: &Messages,
    curves: &[Curve<'_>],
    wanted: f64,
    frame: &Frame,
) {
    let mut ends = Vec::new();
    for curve in curves {
        let points: Vec<((f64, f64), bool)> = curve
            .rungs
            .iter()
            .filter_map(|rung| Some(((frame.x.at(rung.rate), frame.y.at(rung.quantile(wanted)?)), rung.kept())))
            .collect();
        let line: Vec<(f64, f64)> = points.iter().map(|(at, _)| *at).collect();
        if view.emulation(curve.sandbox).is_some() {
            canvas.dashed(&line, Ink::Family(curve.family), 2.0, 6.0);
        } else {
            canvas.path(&line, Ink::Family(curve.family), 1.0, 2.0);
        }
        for (at, kept) in points {
            canvas.marker(curve.family, at, 5.0, 1.0);
            if !kept {
                canvas.rectangle((at.0 - 2.0, at.1 - 2.0), (at.0 + 2.0, at.1 + 2.0), Ink::Paper, 1.0);
            }
        }
        ends.extend(line.last().map(|end| (curve, *end)));
    }
    let wanted: Vec<f64> = ends.iter().map(|(_, (_, y))| *y).collect();
    let places = scale::spread(&wanted, LINE, (frame.top + 8.0, frame.bottom));
    for ((curve, end), y) in ends.iter().zip(places) {
        canvas.dashed(&[*end, (RIGHT + 12.0, y)], Ink::Muted, 0.75, 2.0);
        row::name(canvas, view, messages, curve.sandbox, (RIGHT + 18.0, y), WIDTH - RIGHT - 30.0);
    }
}

fn table(view: &View<'_>, messages: &Messages, curves: &[Curve<'_>]) -> Table {
    let percentile = |percent: &str| messages.format("column-percentile", &[("percent", percent)]);
    let mut rows = Vec::new();
    for curve in curves {
        for rung in &curve.rungs {
            let value = |wanted: f64| rung.quantile(wanted).map_or_else(|| NONE.to_owned(), quantity::time);
            rows.push(vec![
                view.labelled(messages, curve.sandbox),
                quantity::quantity(rung.rate, "1/s"),
                quantity::quantity(rung.answered, "1/s"),
                value(0.5),
                value(0.9),
                value(0.99),
                rung.distribution.histogram.len().to_string(),
                rung.distribution.blocks.to_string(),
            ]);
        }
    }
    let head = vec![
        messages.text("column-sandbox"),
        messages.text("column-rate"),
        messages.text("column-answered"),
        percentile("50"),
        percentile("90"),
        percentile("99"),
        messages.text("column-requests"),
        messages.text("column-n"),
    ];
    Table { head, rows, words: 1 }
}
