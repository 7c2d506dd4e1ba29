//! A sheet to draw a chart on: plotters' SVG backend, with this crate's inks, font and units.
//!
//! Coordinates are in CSS pixels at the chart's natural width; plotters rounds to whole units, so that the SVG has four
//! units a pixel. The result refers to no style sheet: it is what the SVG and PNG files hold. [`for_page`] turns it into
//! what the page embeds.

use crate::font;
use crate::palette::{Ink, Marker, hexadecimal, marker};
use isobench_workload::Family;
use plotters::backend::{DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, FontFamily, FontStyle, RGBColor, ShapeStyle, TextStyle};

/// Natural width of every chart, in pixels.
pub(crate) const WIDTH: f64 = 760.0;

/// What stays free on the left and right, and is cut off in the page, which has margins of its own.
pub(crate) const MARGIN: f64 = 12.0;

/// SVG units in a pixel.
const UNITS: f64 = 4.0;

/// Where a text stands relative to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lettering {
    pub(crate) size: f64,
    pub(crate) bold: bool,
    pub(crate) ink: Ink,
    pub(crate) anchor: Anchor,
}

impl Lettering {
    pub(crate) const fn new(size: f64, ink: Ink) -> Self {
        Self { size, bold: false, ink, anchor: Anchor::Start }
    }

    pub(crate) const fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    pub(crate) const fn middle(self) -> Self {
        Self { anchor: Anchor::Middle, ..self }
    }

    pub(crate) const fn end(self) -> Self {
        Self { anchor: Anchor::End, ..self }
    }

    /// The same in letters of another size.
    pub(crate) const fn scaled(self, factor: f64) -> Self {
        Self { size: self.size * factor, ..self }
    }

    /// The width that a text takes.
    pub(crate) fn width(self, text: &str) -> f64 {
        font::width(text, self.size, self.bold)
    }
}

/// A sheet being drawn on.
pub(crate) struct Canvas<'a>(SVGBackend<'a>);

/// Draws a chart of the given height and gives the SVG back.
pub(crate) fn draw(height: f64, paint: impl FnOnce(&mut Canvas<'_>)) -> String {
    let mut svg = String::new();
    let size = (unsigned(WIDTH), unsigned(height));
    {
        let mut canvas = Canvas(SVGBackend::with_string(&mut svg, size));
        canvas.rectangle((0.0, 0.0), (WIDTH, height), Ink::Paper, 1.0);
        paint(&mut canvas);
        canvas.0.present().expect("writing to a string cannot fail");
    }
    let natural = format!("<svg width=\"{WIDTH:.0}\" height=\"{height:.0}\"");
    svg.replacen(&format!("<svg width=\"{}\" height=\"{}\"", size.0, size.1), &natural, 1)
        .replace(" opacity=\"1\"", "")
        // Texts are placed by their base line, in every viewer alike, and not by an estimate of the font's x-height.
        .replace(" dy=\"-0.5ex\"", "")
        .replace(
            &format!("font-family=\"{}\"", font::FAMILY),
            &format!("font-family=\"{}, Noto Sans SC, Noto Sans, sans-serif\"", font::FAMILY),
        )
}

/// What the page embeds: colours become variables of its style sheet, and the first `skip` pixels, which hold the title
/// that the page gives as a heading, are cut off.
pub(crate) fn for_page(svg: &str, skip: f64) -> String {
    let mut page = svg.to_owned();
    for ink in Ink::ALL {
        page = page.replace(&format!("\"{}\"", hexadecimal(ink.light())), &format!("\"var({})\"", ink.variable()));
    }
    let body = page.split_once('>').map_or("", |(_, body)| body);
    let height = natural_height(svg) - skip;
    let view =
        [MARGIN, skip, WIDTH - 2.0 * MARGIN, height].map(|length| (length * UNITS).round().to_string()).join(" ");
    format!("<svg class=\"chart\" role=\"img\" viewBox=\"{view}\">{body}")
}

fn natural_height(svg: &str) -> f64 {
    svg.split("height=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .and_then(|text| text.parse().ok())
        .unwrap_or(0.0)
}

#[expect(clippy::cast_possible_truncation, reason = "a chart's coordinates are far below 2^31")]
fn units(length: f64) -> i32 {
    (length * UNITS).round() as i32
}

fn unsigned(length: f64) -> u32 {
    u32::try_from(units(length)).unwrap_or(0)
}

fn point((x, y): (f64, f64)) -> (i32, i32) {
    (units(x), units(y))
}

fn shape(ink: Ink, alpha: f64, width: f64) -> ShapeStyle {
    let (red, green, blue) = ink.light();
    ShapeStyle { color: RGBColor(red, green, blue).mix(alpha), filled: true, stroke_width: unsigned(width) }
}

impl Canvas<'_> {
    pub(crate) fn text(&mut self, text: &str, at: (f64, f64), lettering: Lettering) {
        let style = if lettering.bold { FontStyle::Bold } else { FontStyle::Normal };
        // The backend divides the size by 1.24 to get at the em.
        let font = FontDesc::new(FontFamily::Name(font::FAMILY), lettering.size * UNITS * 1.24, style);
        let horizontal = match lettering.anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        let (red, green, blue) = lettering.ink.light();
        let style = TextStyle {
            font,
            color: RGBColor(red, green, blue).to_backend_color(),
            pos: Pos::new(horizontal, VPos::Bottom),
        };
        self.0.draw_text(text, &style, point(at)).expect("writing to a string cannot fail");
    }

    /// A text whose capitals are centred on a height.
    pub(crate) fn centred(&mut self, text: &str, at: (f64, f64), lettering: Lettering) {
        self.text(text, (at.0, at.1 + lettering.size * 0.36), lettering);
    }

    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), ink: Ink, width: f64) {
        self.0.draw_line(point(from), point(to), &shape(ink, 1.0, width)).expect("writing to a string cannot fail");
    }

    pub(crate) fn path(&mut self, points: &[(f64, f64)], ink: Ink, alpha: f64, width: f64) {
        let points = points.iter().copied().map(point);
        self.0.draw_path(points, &shape(ink, alpha, width)).expect("writing to a string cannot fail");
    }

    /// A path of dashes of `dash` pixels with gaps as long: what is emulated.
    pub(crate) fn dashed(&mut self, points: &[(f64, f64)], ink: Ink, width: f64, dash: f64) {
        let mut left = dash;
        let mut drawn = true;
        let mut piece: Vec<(f64, f64)> = points.first().copied().into_iter().collect();
        for pair in points.windows(2) {
            let (mut from, to) = (pair[0], pair[1]);
            loop {
                let length = (to.0 - from.0).hypot(to.1 - from.1);
                if length < left {
                    left -= length;
                    piece.push(to);
                    break;
                }
                let share = left / length;
                from = (from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share);
                piece.push(from);
                if drawn {
                    self.path(&piece, ink, 1.0, width);
                }
                (piece, drawn, left) = (vec![from], !drawn, dash);
            }
        }
        if drawn && piece.len() > 1 {
            self.path(&piece, ink, 1.0, width);
        }
    }

    pub(crate) fn rectangle(&mut self, from: (f64, f64), to: (f64, f64), ink: Ink, alpha: f64) {
        self.0
            .draw_rect(point(from), point(to), &shape(ink, alpha, 0.0), true)
            .expect("writing to a string cannot fail");
    }

    /// Lines across a rectangle, from bottom left to top right: what is emulated.
    pub(crate) fn hatch(&mut self, (left, top): (f64, f64), (right, bottom): (f64, f64), ink: Ink) {
        let height = bottom - top;
        let mut offset = left - height + 3.0;
        while offset < right {
            let (from, to) = (offset.max(left), (offset + height).min(right));
            if to > from {
                self.line((from, bottom - (from - offset)), (to, bottom - (to - offset)), ink, 1.0);
            }
            offset += 5.0;
        }
    }

    /// A family's marker. A hollow one shows the paper inside.
    pub(crate) fn marker(&mut self, family: Family, at: (f64, f64), radius: f64, alpha: f64) {
        let ink = Ink::Family(family);
        let (x, y) = at;
        let corner = |dx: f64, dy: f64| (x + dx * radius, y + dy * radius);
        let corners: &[(f64, f64)] = match marker(family) {
            Marker::Circle => {
                let style = shape(ink, alpha, 0.0);
                self.0.draw_circle(point(at), unsigned(radius), &style, true).expect("writing to a string cannot fail");
                return;
            }
            Marker::Cross => {
                for (dx, dy) in [(0.85, 0.85), (0.85, -0.85)] {
                    self.path(&[corner(-dx, -dy), corner(dx, dy)], ink, alpha, radius * 0.5);
                }
                return;
            }
            Marker::Square => &[corner(-0.85, -0.85), corner(0.85, -0.85), corner(0.85, 0.85), corner(-0.85, 0.85)],
            Marker::Triangle => &[corner(0.0, -1.15), corner(1.05, 0.8), corner(-1.05, 0.8)],
            Marker::Diamond => &[corner(0.0, -1.25), corner(1.25, 0.0), corner(0.0, 1.25), corner(-1.25, 0.0)],
        };
        let corners = corners.iter().copied().map(point);
        self.0.fill_polygon(corners, &shape(ink, alpha, 0.0)).expect("writing to a string cannot fail");
    }

    /// A median with its interval: a tall bar with whiskers, on a halo of paper so that it stands out from the samples.
    pub(crate) fn estimate(&mut self, y: f64, median: f64, interval: Option<(f64, f64)>, half: f64) {
        if let Some((low, high)) = interval {
            self.line((low, y), (high, y), Ink::Paper, 5.0);
        }
        self.rectangle((median - 3.0, y - half - 1.0), (median + 3.0, y + half + 1.0), Ink::Paper, 1.0);
        if let Some((low, high)) = interval {
            self.line((low, y), (high, y), Ink::Text, 1.75);
            for end in [low, high] {
                self.line((end, y - half * 0.55), (end, y + half * 0.55), Ink::Text, 1.5);
            }
        }
        self.rectangle((median - 1.25, y - half), (median + 1.25, y + half), Ink::Text, 1.0);
    }
}
