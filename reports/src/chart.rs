//! Charts: from a summary to SVG, PNG and a table of the same data.
//!
//! - [`startup`]: time to ready, stacked by stage, with every sample.
//! - [`memory`]: host memory over the number of instances.
//! - [`strips`]: numbers of one kind in several conditions, with every sample.
//! - [`throughput`]: rates by path, direction and segmentation, with every sample, and the CPU time that they take.
//! - [`latency`]: the distribution of round trips.
//! - [`load`]: a high percentile of the time of requests over their rate.
//!
//! All of them show every sample with median and interval, never a bar alone; a title states a finding in words made from
//! the figures, and states none that the interval does not carry ([`finding`]).

mod canvas;
mod finding;
mod latency;
mod load;
mod memory;
mod row;
mod scale;
mod startup;
mod strips;
mod throughput;

use crate::font;
use crate::messages::Messages;
use crate::palette::Ink;
use crate::render::view::View;
use canvas::{Canvas, Lettering, WIDTH};
use resvg::{tiny_skia, usvg};

/// One chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Its name, which is also that of its files.
    pub name: String,
    /// What it shows: a finding in words made from the figures.
    pub title: String,
    /// What is drawn.
    pub section: String,
    /// What a reader must know before he compares.
    pub note: Option<String>,
    /// The same data as a table.
    pub table: Table,
    /// The whole chart with its title, on light paper: what the SVG file holds.
    pub svg: String,
    /// Height of the title, which the page gives as a heading.
    head: f64,
}

/// A table of texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Column heads.
    pub head: Vec<String>,
    /// Rows, each as long as the head.
    pub rows: Vec<Vec<String>>,
    /// How many columns from the left hold words; the others hold numbers, set to the right.
    pub words: usize,
}

/// Why a chart has no picture in pixels.
#[derive(Debug, thiserror::Error)]
pub enum PngError {
    /// The SVG could not be read back.
    #[error("cannot read the chart {0} back as SVG")]
    Parse(String, #[source] Box<usvg::Error>),
    /// There is no memory for the pixels, or they could not be encoded.
    #[error("cannot encode the chart {0} as PNG")]
    Encode(String),
}

impl Chart {
    /// The chart as the page embeds it: without title, in colours of the page's style sheet.
    #[must_use]
    pub fn for_page(&self) -> String {
        canvas::for_page(&self.svg, self.head)
    }

    /// The same SVG in pixels, two a CSS pixel, drawn with the embedded font.
    ///
    /// # Errors
    /// Where resvg cannot read or encode it.
    pub fn png(&self) -> Result<Vec<u8>, PngError> {
        let options = usvg::Options {
            font_family: font::FAMILY.to_owned(),
            fontdb: font::DATABASE.clone(),
            ..usvg::Options::default()
        };
        let tree = usvg::Tree::from_str(&self.svg, &options)
            .map_err(|error| PngError::Parse(self.name.clone(), Box::new(error)))?;
        let size = tree.size().to_int_size().scale_by(2.0).ok_or_else(|| PngError::Encode(self.name.clone()))?;
        let mut pixels =
            tiny_skia::Pixmap::new(size.width(), size.height()).ok_or_else(|| PngError::Encode(self.name.clone()))?;
        resvg::render(&tree, tiny_skia::Transform::from_scale(2.0, 2.0), &mut pixels.as_mut());
        pixels.encode_png().map_err(|_| PngError::Encode(self.name.clone()))
    }
}

/// Every chart that the records have data for, in the order of the page.
#[must_use]
pub fn charts(view: &View<'_>, messages: &Messages) -> Vec<Chart> {
    let mut charts = Vec::new();
    charts.extend(startup::chart(view, messages));
    charts.extend(memory::chart(view, messages));
    charts.extend(strips::charts(view, messages));
    charts.extend(throughput::charts(view, messages));
    charts.extend(latency::charts(view, messages));
    charts.extend(load::charts(view, messages));
    charts
}

/// Title and section of a chart, broken into lines.
struct Heading {
    title: String,
    section: String,
}

const TITLE: Lettering = Lettering::new(21.0, Ink::Text).bold();
const SECTION: Lettering = Lettering::new(15.0, Ink::Muted);
const TITLE_LINE: f64 = 29.0;

impl Heading {
    fn lines(&self) -> Vec<String> {
        font::wrap(&self.title, TITLE.size, true, WIDTH - 24.0)
    }

    #[expect(clippy::cast_precision_loss, reason = "a handful of lines")]
    fn height(&self) -> f64 {
        12.0 + self.lines().len() as f64 * TITLE_LINE + 34.0
    }

    fn paint(&self, canvas: &mut Canvas<'_>) {
        let mut y = 12.0;
        for line in self.lines() {
            y += TITLE_LINE;
            canvas.text(&line, (12.0, y - 7.0), TITLE);
        }
        canvas.text(&self.section, (12.0, y + 16.0), SECTION);
    }

    fn finish(self, name: String, body: f64, table: Table, paint: impl FnOnce(&mut Canvas<'_>, f64)) -> Chart {
        let head = self.height();
        let svg = canvas::draw(head + body, |canvas| {
            self.paint(canvas);
            paint(canvas, head);
        });
        Chart { name, title: self.title, section: self.section, note: None, table, svg, head }
    }
}
