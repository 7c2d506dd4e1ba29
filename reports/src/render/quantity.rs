//! Quantities as people read them: three significant digits and a unit, the same in both languages.

/// What stands where there is no value.
pub const NONE: &str = "–";

/// Between number and unit, so that they stay on one line.
const SPACE: char = '\u{a0}';

/// A quantity by the unit of its series: `ns`, `B`, `B/s`, `1/s`, `s/GB`, or none for a ratio or count.
#[must_use]
pub fn quantity(value: f64, unit: &str) -> String {
    match unit {
        "ns" => scaled(value, 1e3, &["ns", "µs", "ms", "s"]),
        "B" => scaled(value, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"]),
        "B/s" => scaled(value * 8.0, 1e3, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]),
        "1/s" => scaled(value, 1e3, &["/s", "k/s", "M/s"]),
        "" | "count" => digits(value),
        other => format!("{}{SPACE}{other}", digits(value)),
    }
}

/// A time in nanoseconds.
#[must_use]
pub fn time(nanoseconds: f64) -> String {
    quantity(nanoseconds, "ns")
}

/// An amount of memory in bytes.
#[must_use]
pub fn bytes(bytes: f64) -> String {
    quantity(bytes, "B")
}

/// A rate in bytes a second.
#[must_use]
pub fn rate(bytes_per_second: f64) -> String {
    quantity(bytes_per_second, "B/s")
}

/// A tick of an axis: no digits after the point that are all noughts.
#[must_use]
pub fn tick(value: f64, unit: &str) -> String {
    let text = quantity(value, unit);
    let (number, unit) = text.split_once(SPACE).unwrap_or((&text, ""));
    let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    if unit.is_empty() || value == 0.0 { number.to_owned() } else { format!("{number}{SPACE}{unit}") }
}

/// Both bounds of an interval.
#[must_use]
pub fn interval(bounds: Option<(f64, f64)>, unit: &str, text: impl Fn(&str, &str) -> String) -> String {
    bounds.map_or_else(|| NONE.to_owned(), |(low, high)| text(&quantity(low, unit), &quantity(high, unit)))
}

fn scaled(value: f64, factor: f64, units: &[&str]) -> String {
    let mut scaled = value;
    let mut index = 0;
    // 999.6 would be rounded to 1000, which the next unit writes shorter.
    while scaled.abs() >= factor.min(999.5) && index + 1 < units.len() {
        scaled /= factor;
        index += 1;
    }
    let number = if index == 0 && scaled.fract() == 0.0 { signed(scaled, 0) } else { digits(scaled) };
    format!("{number}{SPACE}{}", units[index])
}

/// Three significant digits, and none after the point from 100 up.
fn digits(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let size = value.abs();
    let places = match size {
        _ if size == 0.0 || size >= 99.95 => 0,
        _ if size >= 9.995 => 1,
        _ if size >= 0.9995 => 2,
        _ if size >= 0.0995 => 3,
        _ => 4,
    };
    signed(value, places)
}

fn signed(value: f64, places: usize) -> String {
    let number = format!("{:.places$}", value.abs());
    if value < 0.0 && number.contains(|digit: char| ('1'..='9').contains(&digit)) {
        format!("−{number}")
    } else {
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        assert_eq!(time(0.0), "0\u{a0}ns");
        assert_eq!(time(412.0), "412\u{a0}ns");
        assert_eq!(time(9_400.0), "9.40\u{a0}µs");
        assert_eq!(time(999_700.0), "1.00\u{a0}ms");
        assert_eq!(time(2_104_000.0), "2.10\u{a0}ms");
        assert_eq!(time(1.5e11), "150\u{a0}s");
        assert_eq!(bytes(1_300_000.0), "1.24\u{a0}MiB");
        assert_eq!(bytes(-5000.0), "−4.88\u{a0}KiB");
        assert_eq!(rate(1.9625e9), "15.7\u{a0}Gbit/s");
        assert_eq!(quantity(1.0512, ""), "1.05");
        assert_eq!(quantity(0.0512, ""), "0.0512");
        assert_eq!(quantity(f64::NAN, ""), "–");
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!(tick(2_000_000.0, "ns"), "2\u{a0}ms");
        assert_eq!(tick(0.0, "ns"), "0");
        assert_eq!(tick(100_000.0, "ns"), "100\u{a0}µs");
        assert_eq!(tick(2_500_000.0, "ns"), "2.5\u{a0}ms");
    }
}
