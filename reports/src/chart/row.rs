//! What rows of charts have in common: the sandbox's label on the left, the strip of samples, the key below.

use super::canvas::{Canvas, Lettering, WIDTH};
use super::scale::Scale;
use crate::messages::Messages;
use crate::palette::{FAMILIES, Ink, family_name};
use crate::render::quantity;
use crate::render::remarks::translated;
use crate::render::view::View;
use crate::summary::Numbers;
use isobench_workload::Family;

/// Left edge of what is plotted.
pub(crate) const LEFT: f64 = 190.0;

/// Height of the key.
pub(crate) const KEY_HEIGHT: f64 = 52.0;

pub(crate) const LABEL: Lettering = Lettering::new(15.0, Ink::Text);
pub(crate) const SMALL: Lettering = Lettering::new(14.0, Ink::Muted);

/// A sandbox's label, fitted in before the plot, with what emulates it below.
pub(crate) fn label(canvas: &mut Canvas<'_>, view: &View<'_>, messages: &Messages, sandbox: &str, y: f64) {
    canvas.marker(view.family(sandbox), (17.0, y), 5.0, 1.0);
    name(canvas, view, messages, sandbox, (30.0, y), LEFT - 40.0);
}

/// A sandbox's name, fitted into a width, with what emulates it below.
pub(crate) fn name(
    canvas: &mut Canvas<'_>,
    view: &View<'_>,
    messages: &Messages,
    sandbox: &str,
    (x, y): (f64, f64),
    room: f64,
) {
    let (name, lettering) = fitted(sandbox, LABEL, room);
    if let Some(emulation) = view.emulation(sandbox) {
        canvas.centred(&name, (x, y - 7.5), lettering);
        let (emulation, lettering) = fitted(&translated(messages, emulation), SMALL, room);
        canvas.centred(&emulation, (x, y + 9.5), lettering);
    } else {
        canvas.centred(&name, (x, y), lettering);
    }
}

/// How small a label's letters become, at most, for it to be whole.
const SMALLEST: f64 = 0.8;

/// A text in letters that are made smaller for it, and cut where that is not enough.
fn fitted(text: &str, lettering: Lettering, limit: f64) -> (String, Lettering) {
    let factor = limit / lettering.width(text);
    let lettering = lettering.scaled(factor.clamp(SMALLEST, 1.0));
    (if factor < SMALLEST { cut(text, lettering, limit) } else { text.to_owned() }, lettering)
}

/// A text cut to a width, with an ellipsis where it was.
pub(crate) fn cut(text: &str, lettering: Lettering, limit: f64) -> String {
    if lettering.width(text) <= limit {
        return text.to_owned();
    }
    let mut cut = String::new();
    for character in text.chars() {
        cut.push(character);
        if lettering.width(&cut) + lettering.width("…") > limit {
            cut.pop();
            break;
        }
    }
    cut.push('…');
    cut
}

/// The highest value that a strip's scale must show: all samples, unless a few of them lie so far out that the others would
/// be pressed together; those are then counted at the edge ([`strip`]).
pub(crate) fn reach(numbers: &Numbers) -> f64 {
    let mut values: Vec<f64> = used(numbers).collect();
    values.sort_by(f64::total_cmp);
    let Some(highest) = values.last().copied() else { return 0.0 };
    let typical = values[(values.len() - 1) * 9 / 10];
    let high = numbers.estimate.and_then(|estimate| estimate.interval).map_or(0.0, |(_, high)| high);
    if highest > 2.5 * typical { (1.3 * typical).max(high) } else { highest.max(high) }
}

/// Samples that count.
pub(crate) fn used(numbers: &Numbers) -> impl Iterator<Item = f64> {
    numbers.points.iter().filter(|point| !point.warm_up).map(|point| point.value)
}

/// Every sample that counts, as markers of its family along a line, with median and interval on top. Samples beyond `right`
/// are counted there in words.
pub(crate) fn strip(
    canvas: &mut Canvas<'_>,
    messages: &Messages,
    family: Family,
    numbers: &Numbers,
    place: &Place<'_>,
) {
    let mut beyond = 0_usize;
    let mut highest = 0.0_f64;
    for (index, value) in used(numbers).enumerate() {
        let x = place.scale.at(value);
        if x > place.right + 0.5 {
            beyond += 1;
            highest = highest.max(value);
        } else {
            // Samples that coincide are moved apart across the strip, always in the same way.
            let lane = [0.0, 0.55, -0.55, 0.28, -0.28, 0.8, -0.8][index % 7];
            canvas.marker(family, (x, place.y + lane * place.half), 3.0, 0.5);
        }
    }
    if let Some(estimate) = numbers.estimate {
        let interval =
            estimate.interval.map(|(low, high)| (place.scale.at(low), place.scale.at(high).min(place.right)));
        canvas.estimate(place.y, place.scale.at(estimate.value), interval, place.half + 3.0);
    }
    if beyond > 0 {
        let count = beyond.to_string();
        let highest = quantity::quantity(highest, place.unit);
        let text = messages.format("chart-beyond", &[("count", &count), ("highest", &highest)]);
        let lettering = SMALL.end();
        let y = place.y + place.half + 3.0;
        canvas.text(&format!("{text} →"), (place.right, y + 9.0), lettering);
    }
}

/// Where a strip is drawn.
pub(crate) struct Place<'a> {
    pub(crate) scale: &'a Scale,
    /// Middle of the strip.
    pub(crate) y: f64,
    /// Half of its height.
    pub(crate) half: f64,
    /// Where the plot ends.
    pub(crate) right: f64,
    /// Unit of the values.
    pub(crate) unit: &'a str,
}

/// Vertical lines at the ticks of a horizontal scale, with their texts below.
pub(crate) fn horizontal_axis(
    canvas: &mut Canvas<'_>,
    scale: &Scale,
    unit: &str,
    (top, bottom): (f64, f64),
    count: u32,
) {
    for tick in scale.ticks(count) {
        let x = scale.at(tick);
        canvas.line((x, top), (x, bottom), Ink::Grid, 1.0);
        canvas.text(&quantity::tick(tick, unit), (x, bottom + 16.0), SMALL.middle());
    }
}

/// What the marks mean, and which marker is which family's.
pub(crate) fn key(canvas: &mut Canvas<'_>, messages: &Messages, view: &View<'_>, shown: &[&str], y: f64) {
    canvas.line((12.0, y), (WIDTH - 12.0, y), Ink::Grid, 1.0);
    let mut x = 17.0;
    let first = y + 17.0;
    for family in FAMILIES.into_iter().filter(|family| shown.iter().any(|name| view.family(name) == *family)) {
        canvas.marker(family, (x, first), 4.5, 1.0);
        let text = messages.text(&format!("key-{}", family_name(family)));
        canvas.centred(&text, (x + 10.0, first), SMALL);
        x += SMALL.width(&text) + 30.0;
    }
    let mut x = 17.0;
    let second = y + 37.0;
    canvas.estimate(second, x + 7.0, Some((x - 5.0, x + 19.0)), 5.0);
    let text = messages.text("chart-key-median");
    canvas.centred(&text, (x + 27.0, second), SMALL);
    x += SMALL.width(&text) + 50.0;
    if shown.iter().any(|name| view.emulation(name).is_some()) {
        canvas.hatch((x - 4.0, second - 6.0), (x + 18.0, second + 6.0), Ink::Muted);
        canvas.centred(&messages.text("chart-key-hatched"), (x + 26.0, second), SMALL);
    }
}

/// The power of 1024 that a number of bytes is written in.
pub(crate) fn binary_unit(bytes: f64) -> f64 {
    let mut unit = 1.0;
    while bytes / unit >= 1000.0 {
        unit *= 1024.0;
    }
    unit
}
