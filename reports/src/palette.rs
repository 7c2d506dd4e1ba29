//! Colour and marker of each family, and the few other colours of a chart.
//!
//! The families' colours are Okabe and Ito's, which people with any of the common kinds of colour blindness tell apart
//! (<https://jfly.uni-koeln.de/color/>); the marker is the second cue, for grey print. Each colour of a chart has one value
//! for light paper, which the SVG and PNG files hold, and one for dark, which the page's style sheet puts in its place by
//! [`Ink::variable`].

use isobench_workload::Family;
use std::fmt::Write;

/// What a colour stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// What is drawn on.
    Paper,
    /// Text.
    Text,
    /// Text and lines that step back.
    Muted,
    /// Lines that help the eye.
    Grid,
    /// A family's own colour.
    Family(Family),
}

/// The shape that marks a family's samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// Filled circle.
    Circle,
    /// Square on its side.
    Square,
    /// Triangle, point upwards.
    Triangle,
    /// Square on its point.
    Diamond,
    /// Two crossing lines.
    Cross,
}

/// The families in the order of keys.
pub const FAMILIES: [Family; 5] = [Family::Process, Family::Container, Family::Unikernel, Family::Linux, Family::Peer];

/// A family's name, as records and message keys have it.
#[must_use]
pub const fn family_name(family: Family) -> &'static str {
    match family {
        Family::Process => "process",
        Family::Container => "container",
        Family::Unikernel => "unikernel",
        Family::Linux => "linux",
        Family::Peer => "peer",
    }
}

/// A family's marker.
#[must_use]
pub const fn marker(family: Family) -> Marker {
    match family {
        Family::Process => Marker::Square,
        Family::Container => Marker::Circle,
        Family::Unikernel => Marker::Triangle,
        Family::Linux => Marker::Diamond,
        Family::Peer => Marker::Cross,
    }
}

impl Ink {
    /// Every ink.
    pub const ALL: [Self; 9] = [
        Self::Paper,
        Self::Text,
        Self::Muted,
        Self::Grid,
        Self::Family(Family::Process),
        Self::Family(Family::Container),
        Self::Family(Family::Unikernel),
        Self::Family(Family::Linux),
        Self::Family(Family::Peer),
    ];

    /// Red, green and blue on light paper. No two inks share a value, so that each can be found again in an SVG.
    #[must_use]
    pub const fn light(self) -> (u8, u8, u8) {
        match self {
            Self::Paper => (0xff, 0xff, 0xff),
            Self::Text => (0x1b, 0x20, 0x26),
            Self::Muted => (0x5a, 0x65, 0x70),
            Self::Grid => (0xdc, 0xe1, 0xe6),
            Self::Family(Family::Process) => (0x4a, 0x50, 0x58),
            Self::Family(Family::Container) => (0x00, 0x72, 0xb2),
            Self::Family(Family::Unikernel) => (0xd5, 0x5e, 0x00),
            Self::Family(Family::Linux) => (0xb2, 0x56, 0x89),
            Self::Family(Family::Peer) => (0x00, 0x8a, 0x65),
        }
    }

    /// Red, green and blue on dark paper.
    #[must_use]
    pub const fn dark(self) -> (u8, u8, u8) {
        match self {
            Self::Paper => (0x15, 0x19, 0x1e),
            Self::Text => (0xe7, 0xea, 0xee),
            Self::Muted => (0x9c, 0xa7, 0xb3),
            Self::Grid => (0x30, 0x38, 0x41),
            Self::Family(Family::Process) => (0xc3, 0xca, 0xd2),
            Self::Family(Family::Container) => (0x5a, 0xb4, 0xea),
            Self::Family(Family::Unikernel) => (0xff, 0x95, 0x4d),
            Self::Family(Family::Linux) => (0xe3, 0x9b, 0xc6),
            Self::Family(Family::Peer) => (0x3c, 0xc9, 0xa0),
        }
    }

    /// The name of its CSS variable, with the two hyphens.
    #[must_use]
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Paper => "--paper",
            Self::Text => "--text",
            Self::Muted => "--muted",
            Self::Grid => "--grid",
            Self::Family(Family::Process) => "--process",
            Self::Family(Family::Container) => "--container",
            Self::Family(Family::Unikernel) => "--unikernel",
            Self::Family(Family::Linux) => "--linux",
            Self::Family(Family::Peer) => "--peer",
        }
    }
}

/// A colour as SVG and CSS write it, in the capitals of plotters.
#[must_use]
pub fn hexadecimal((red, green, blue): (u8, u8, u8)) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// CSS declarations of every ink's variable.
#[must_use]
pub fn variables(value: fn(Ink) -> (u8, u8, u8)) -> String {
    Ink::ALL.iter().fold(String::new(), |mut css, ink| {
        let _ = write!(css, "{}:{};", ink.variable(), hexadecimal(value(*ink)));
        css
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inks_can_be_told_apart() {
        for (index, ink) in Ink::ALL.iter().enumerate() {
            for other in &Ink::ALL[..index] {
                assert_ne!(ink.light(), other.light(), "{ink:?} and {other:?}");
                assert_ne!(ink.variable(), other.variable());
            }
        }
    }

    #[test]
    fn text_and_families_stand_out_from_paper() {
        fn luminance((red, green, blue): (u8, u8, u8)) -> f64 {
            let linear = |channel: u8| {
                let value = f64::from(channel) / 255.0;
                if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
        }
        // WCAG 2.1, success criteria 1.4.3 (text, 4.5) and 1.4.11 (graphics, 3).
        let contrast = |one: f64, other: f64| (one.max(other) + 0.05) / (one.min(other) + 0.05);
        for value in [Ink::light, Ink::dark] {
            let paper = luminance(value(Ink::Paper));
            for ink in [Ink::Text, Ink::Muted] {
                assert!(contrast(luminance(value(ink)), paper) >= 4.5, "{ink:?}");
            }
            for family in FAMILIES {
                assert!(contrast(luminance(value(Ink::Family(family))), paper) >= 3.0, "{family:?}");
            }
        }
    }
}
