//! The one font of charts and page: a subset of Noto Sans CJK SC, in two weights, whose Latin glyphs serve English too
//! (`scripts/fonts` makes it, `fonts/OFL.txt` is its licence). The machine's own fonts are never looked at, so a chart looks
//! the same everywhere, an empty root directory included.

use resvg::usvg::fontdb;
use std::sync::{Arc, LazyLock};
use ttf_parser::Face;

/// The font's family name.
pub const FAMILY: &str = "Noto Sans CJK SC";

/// The regular weight, an OpenType file.
pub static REGULAR: &[u8] = include_bytes!("../fonts/NotoSansCJKsc-Regular.otf");

/// The bold weight, an OpenType file.
pub static BOLD: &[u8] = include_bytes!("../fonts/NotoSansCJKsc-Bold.otf");

static REGULAR_FACE: LazyLock<Face<'static>> =
    LazyLock::new(|| Face::parse(REGULAR, 0).expect("an embedded font that a test parses"));
static BOLD_FACE: LazyLock<Face<'static>> =
    LazyLock::new(|| Face::parse(BOLD, 0).expect("an embedded font that a test parses"));

/// Both weights, as resvg looks fonts up.
pub static DATABASE: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut database = fontdb::Database::new();
    for weight in [REGULAR, BOLD] {
        database.load_font_source(fontdb::Source::Binary(Arc::new(weight)));
    }
    database.set_sans_serif_family(FAMILY);
    Arc::new(database)
});

/// The width of a text, in the unit of `size` (the em).
///
/// Plotters' own estimate is not used: it takes the size as the line's height (1.448 em in this font) where the SVG backend
/// takes it as 1.24 em, and so comes out a seventh too small.
#[must_use]
pub fn width(text: &str, size: f64, bold: bool) -> f64 {
    let face = if bold { &BOLD_FACE } else { &REGULAR_FACE };
    let units: f64 = text.chars().map(|character| f64::from(advance(face, character))).sum();
    units * size / f64::from(face.units_per_em())
}

/// A character that the font lacks is given a full em: no fall-back font in use is wider.
fn advance(face: &Face<'_>, character: char) -> u16 {
    face.glyph_index(character).and_then(|glyph| face.glyph_hor_advance(glyph)).unwrap_or_else(|| face.units_per_em())
}

/// The characters of a text that the font cannot draw, each once.
#[must_use]
pub fn missing(text: &str) -> Vec<char> {
    let mut missing: Vec<char> = text
        .chars()
        .filter(|character| !character.is_control())
        .filter(|character| [&*REGULAR_FACE, &*BOLD_FACE].iter().any(|face| face.glyph_index(*character).is_none()))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// Breaks a text into lines no wider than `limit`: at spaces, and between Chinese characters. A longer word stays whole.
#[must_use]
pub fn wrap(text: &str, size: f64, bold: bool, limit: f64) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for piece in pieces(text) {
        let candidate = format!("{line}{piece}");
        if !line.is_empty() && width(candidate.trim_end(), size, bold) > limit {
            lines.push(line.trim_end().to_owned());
            line = piece.trim_start().to_owned();
        } else {
            line = candidate;
        }
    }
    lines.push(line.trim_end().to_owned());
    lines
}

/// Pieces that a line may be broken after. A closing mark stays with what is before it and an opening one with what follows.
fn pieces(text: &str) -> Vec<String> {
    let wide = |character: char| ('\u{2e80}'..'\u{ff60}').contains(&character);
    let mut pieces: Vec<String> = Vec::new();
    let mut previous = ' ';
    for character in text.chars() {
        let may_break =
            previous == ' ' || ((wide(previous) || wide(character)) && previous != '（' && character != ' ');
        match pieces.last_mut() {
            Some(piece) if !may_break || "，。；：、）？！%)".contains(character) => piece.push(character),
            _ => pieces.push(character.to_string()),
        }
        previous = character;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Language;

    #[test]
    fn both_weights_are_found_by_name() {
        let names: Vec<_> =
            DATABASE.faces().flat_map(|face| face.families.iter().map(|(name, _)| name.clone())).collect();
        assert_eq!(names, [FAMILY, FAMILY]);
        assert!(width("iii", 10.0, false) < width("mmm", 10.0, false));
        assert!((width("中文", 10.0, true) - 20.0).abs() < 1e-9);
    }

    #[test]
    fn lines_break_where_either_language_allows() {
        assert_eq!(wrap("one two three", 10.0, false, width("one two ", 10.0, false)), ["one two", "three"]);
        assert_eq!(wrap("一二三四，五", 10.0, false, 40.0), ["一二三", "四，五"]);
        assert_eq!(wrap("", 10.0, false, 40.0), [""]);
        assert_eq!(wrap("incomprehensibilities", 10.0, false, 1.0), ["incomprehensibilities"]);
    }

    #[test]
    fn no_message_has_a_character_that_the_font_lacks() {
        for language in Language::ALL {
            let text =
                std::fs::read_to_string(format!("{}/messages/{}.ftl", env!("CARGO_MANIFEST_DIR"), language.tag()));
            assert_eq!(missing(&text.unwrap()), [], "run scripts/fonts");
            assert_eq!(missing(language.name()), []);
        }
        assert_eq!(missing("a𝄞a"), ['𝄞']);
    }

    #[test]
    fn no_claim_has_a_character_that_the_font_lacks() {
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/claims")).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(missing(&std::fs::read_to_string(&path).unwrap()), [], "run scripts/fonts: {}", path.display());
        }
    }
}
