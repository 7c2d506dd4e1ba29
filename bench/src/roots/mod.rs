//! Root directories of containers: a directory of the user's own, a tar file, or the toolbox.
//!
//! What is made here lies in the cache, `$XDG_CACHE_HOME/isobench` or `~/.cache/isobench`, under a name that its content gives
//! it, so that it is made once and never changes. It appears there by one rename: whatever happens meanwhile, a root is whole
//! or not there.

mod archive;
mod cache;
pub mod toolbox;
mod zstd;

pub use archive::unpack;

use crate::commands::BadInput;
use crate::home;
use anyhow::Context;
use std::path::{Path, PathBuf};

/// The word for the toolbox where a root is asked for.
pub const TOOLBOX: &str = "toolbox";

/// Makes what a root needs and what cannot be made inside a testbed, where there is no way to the distribution's packages: to
/// be called before [`Place::inside`](crate::commands::place::Place::inside). Inside it does nothing.
///
/// # Errors
/// Where the root cannot be had.
pub fn prepare(root: &str) -> anyhow::Result<()> {
    if root == TOOLBOX && home::inside().is_none() {
        toolbox::find_or_build()?;
    }
    Ok(())
}

/// The directory of a root: `toolbox`, a directory, or a tar file, which is unpacked into the cache where it is not there yet.
///
/// # Errors
/// [`BadInput`] where there is no such root or the archive is broken; nothing is left behind then.
pub fn resolve(root: &str) -> anyhow::Result<PathBuf> {
    if root == TOOLBOX {
        return toolbox::find_or_build();
    }
    let path = Path::new(root);
    let refused = || BadInput(format!("no root at {root}: give a directory, a tar file, or `{TOOLBOX}`"));
    let metadata = path.metadata().with_context(refused)?;
    if metadata.is_dir() {
        return path.canonicalize().with_context(refused);
    }
    if !metadata.is_file() {
        return Err(BadInput(format!("{root} is neither a directory nor a file: it can be no root")).into());
    }
    archive::unpacked(path)
}
