//! Everything that people look at, written to a directory: [`write()`].
//!
//! The same records give the same bytes: nothing here asks for the time, the machine or its fonts.

pub mod facts;
pub mod published;
pub mod quantity;
pub mod remarks;
pub mod terminal;
pub mod view;
pub mod words;

use crate::chart::{Chart, PngError, charts};
use crate::messages::{Language, Messages};
use crate::reader::Records;
use crate::{csv, html, markdown};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use view::View;

/// The files of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The page: what to open.
    pub page: PathBuf,
    /// Every file, the page included, in the order in which they were written.
    pub paths: Vec<PathBuf>,
}

/// Why a report could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file or directory refused.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried: `create the directory`, `write`, `rename`.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A chart has no picture in pixels.
    #[error(transparent)]
    Png(#[from] PngError),
}

/// Writes `report.html`, `report.md`, `samples.csv`, `summary.csv`, `figures.csv` and `charts/*.svg` and `*.png` to a directory that is
/// made where it is missing. Each file is whole or not there: it is written beside its place and renamed. Page in both
/// languages, `language` shown first; the other files in `language`.
///
/// # Errors
/// [`WriteError`], with file and operation. What was written before stays.
pub fn write(directory: &Path, records: &Records, language: Language) -> Result<Written, WriteError> {
    let view = View::new(records);
    let sheets: Vec<(Messages, Vec<Chart>)> = Language::ALL
        .map(|language| {
            let messages = Messages::new(language);
            let charts = charts(&view, &messages);
            (messages, charts)
        })
        .into();
    let mut paths = Vec::new();
    let mut save = |name: String, bytes: &[u8]| {
        let path = directory.join(name);
        save(&path, bytes)?;
        paths.push(path);
        Ok::<(), WriteError>(())
    };
    let charts_directory = directory.join("charts");
    fs::create_dir_all(&charts_directory).map_err(|source| WriteError::File {
        operation: "create the directory",
        path: charts_directory,
        source,
    })?;
    for (messages, charts) in sheets.iter().filter(|(messages, _)| messages.language() == language) {
        for chart in charts {
            save(format!("charts/{}.svg", chart.name), chart.svg.as_bytes())?;
            save(format!("charts/{}.png", chart.name), &chart.png()?)?;
        }
        save("report.md".to_owned(), markdown::markdown(&view, messages, charts).as_bytes())?;
    }
    save("samples.csv".to_owned(), csv::samples(&view).as_bytes())?;
    save("summary.csv".to_owned(), csv::summary(&view).as_bytes())?;
    save("figures.csv".to_owned(), csv::figures(&view).as_bytes())?;
    save("report.html".to_owned(), html::page(&view, &sheets, language).as_bytes())?;
    Ok(Written { page: directory.join("report.html"), paths })
}

/// Writes a file beside its place, then renames it into it.
fn save(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let failed = |operation: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| WriteError::File { operation, path, source }
    };
    if let Err(source) = fs::write(&partial, bytes) {
        // Half a file is worth nothing; that it cannot be removed either adds nothing to the error.
        let _ = fs::remove_file(&partial);
        return Err(failed("write", path)(source));
    }
    fs::rename(&partial, path).map_err(failed("rename into place", path))
}
