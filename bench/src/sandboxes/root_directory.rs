//! The root directory that peers get: the agent, and the empty directories on which they mount.

use crate::programs::Program;
use crate::testbed::directory;
use anyhow::Context;
use rustix::mount::mount_bind_recursive;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Path of the agent in it.
pub(super) const AGENT: &str = "/agent";

/// Makes the root directory, on the testbed's own tmpfs. All peers share it and none can write to it.
pub(super) fn make(agent: &Program) -> anyhow::Result<PathBuf> {
    let root = directory("root")?;
    for name in ["proc", "sys", "dev", "tmp", "run", "etc"] {
        make_directory(&root.join(name))?;
    }
    let file = root.join(AGENT.trim_start_matches('/'));
    fs::write(&file, agent.bytes()).with_context(|| format!("write {}", file.display()))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("make {} executable", file.display()))?;
    Ok(root)
}

/// Shows the host's own tree at another place, for a program of the user's own: a runtime cannot make `/` itself a
/// container's root, as pivot_root(2) wants another mount.
pub(super) fn show_host() -> anyhow::Result<PathBuf> {
    let place = directory("host")?;
    mount_bind_recursive("/", &place).with_context(|| format!("show the host's tree at {}", place.display()))?;
    Ok(place)
}

fn make_directory(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))
}
