//! Where a run writes: as asked for, or a new directory below `./isobench-results`.

use crate::commands::BadInput;
use crate::machine;
use anyhow::bail;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The directory of a run. One that was made and holds nothing yet goes again when it is dropped.
pub(super) struct Directory {
    pub(super) path: PathBuf,
    made: bool,
}

impl Directory {
    /// That of a run that goes on.
    pub(super) fn existing(path: &Path) -> Self {
        Self { path: path.to_owned(), made: false }
    }

    /// As asked for, where that is empty or not there; else a new one below ./isobench-results.
    pub(super) fn fresh(asked: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = asked else { return Self::named_after_now() };
        let made = match std::fs::create_dir(path) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(error) => {
                let shown = format!(
                    "cannot make the output directory {}: give one that you may write with --out",
                    path.display()
                );
                return Err(BadInput::because(&shown, error));
            }
        };
        let directory = Self { path: path.to_owned(), made };
        if !made {
            let unusable = |error| {
                let shown = path.display();
                BadInput::because(
                    &format!("cannot write to {shown}: give a directory that you may write with --out"),
                    error,
                )
            };
            let mut entries = std::fs::read_dir(path).map_err(unusable)?;
            if entries.next().is_some() {
                let shown = path.display();
                return Err(BadInput(format!("the output directory {shown} is not empty: give another one with --out, or go on with its run with --resume {shown}")).into());
            }
            tempfile::tempfile_in(path).map_err(unusable)?;
        }
        Ok(directory)
    }

    fn named_after_now() -> anyhow::Result<Self> {
        let parent = Path::new("isobench-results");
        let refused = |error| {
            BadInput::because(
                "cannot make ./isobench-results here: give a directory that you may write with --out",
                error,
            )
        };
        std::fs::create_dir_all(parent).map_err(refused)?;
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        // 2026-01-31T09:30:00Z: colons are a nuisance in paths.
        let stamp: String = now.chars().take(16).filter(|character| *character != ':').collect();
        for number in 1..100 {
            let suffix = if number == 1 { String::new() } else { format!("-{number}") };
            let path = parent.join(format!("{stamp}-{}{suffix}", machine::host()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path, made: true }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(refused(error)),
            }
        }
        bail!("isobench-results has 99 runs of this minute: give another directory with --out")
    }

    /// Keeps it from here on, also where it is empty.
    pub(super) fn keep(mut self) -> PathBuf {
        self.made = false;
        std::mem::take(&mut self.path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.made {
            // Only an empty directory goes; what was written stays.
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}
