//! Lab sheets: a student predicts, builds the mechanism by hand, measures and compares.
//!
//! A lab is one data file and one sheet in each language below `docs/labs`, all embedded: [`Lab`]. What a student does with
//! it is kept in one directory: [`record`] says who predicted what and when, the records beside it are those of an ordinary
//! run, [`check`] compares both and writes one file to hand in, and [`collect`] makes a table of a class's files.

pub mod check;
pub mod collect;
mod description;
pub mod prediction;
pub mod record;
pub mod schema;
mod seal;
pub mod sheet;
pub mod words;

pub use description::{Description, Measured, Observation, Quantity, wording};

use crate::plan;
use isobench_reports::messages::Language;
use std::sync::LazyLock;

/// One lab: its data, and its sheet in both languages.
#[derive(Debug)]
pub struct Lab {
    /// What it asks, measures and looks for.
    pub description: Description,
    english: &'static str,
    chinese: &'static str,
}

/// Data and sheets of the lab of a name.
macro_rules! files {
    ($name:literal) => {
        [file!("", $name, ".toml"), file!("en/", $name, ".md"), file!("zh/", $name, ".md")]
    };
}

macro_rules! file {
    ($($path:literal),+) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/labs/", $($path),+))
    };
}

/// In the order of `isobench lab list`.
const FILES: &[[&str; 3]] = &[
    files!("host"),
    files!("container"),
    files!("none"),
    files!("bridge"),
    files!("custom"),
    files!("two-hosts"),
    files!("start"),
    files!("memory"),
    files!("reservation"),
    files!("overhead"),
];

/// Every lab.
pub fn labs() -> &'static [Lab] {
    static LABS: LazyLock<Vec<Lab>> = LazyLock::new(|| {
        let lab = |&[data, english, chinese]: &[&'static str; 3]| match toml::from_str(data) {
            Ok(description) => Lab { description, english, chinese },
            Err(error) => unreachable!("the labs are part of the program and tested: {error}"),
        };
        FILES.iter().map(lab).collect()
    });
    &LABS
}

/// There is no such lab.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no lab named `{name}`{}; `isobench lab list` shows all", plan::suggestion(.close))]
pub struct UnknownLab {
    name: String,
    close: Vec<String>,
}

/// The lab of a name.
///
/// # Errors
/// Where there is none, with the names that are close.
pub fn named(name: &str) -> Result<&'static Lab, UnknownLab> {
    let known = || labs().iter().map(|lab| lab.description.id.as_str());
    labs()
        .iter()
        .find(|lab| lab.description.id == name)
        .ok_or_else(|| UnknownLab { name: name.to_owned(), close: plan::close(name, known()) })
}

impl Lab {
    /// Its name on the command line and in records.
    pub fn id(&self) -> &str {
        &self.description.id
    }

    /// The sheet, in Markdown.
    pub fn sheet(&self, language: Language) -> &'static str {
        match language {
            Language::English => self.english,
            Language::Chinese => self.chinese,
        }
    }
}

#[cfg(test)]
mod tests;
