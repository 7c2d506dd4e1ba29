//! Files of JSON in which something is kept that others read at any time.

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Reads one; `None` where it is not there.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    let bytes = match fs::read(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        bytes => bytes.with_context(|| format!("read {}", path.display()))?,
    };
    serde_json::from_slice(&bytes).map(Some).with_context(|| format!("understand {}", path.display()))
}

/// Writes one, whole or not at all.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let written = fs::write(&new, serde_json::to_vec(value)?).and_then(|()| fs::rename(&new, path));
    written.with_context(|| format!("write {}", path.display()))
}
