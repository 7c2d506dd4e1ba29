//! The initramfs of Linux guests that another project's program boots: the agent as /init with its arguments.

use crate::programs::Program;
use anyhow::Context;
use isobench_microvm::linux::initramfs::Archive;
use isobench_workload::{LaunchError, Unsupported, Workload};
use std::fs;
use std::path::{Path, PathBuf};

/// Makes initramfs files in a directory.
#[derive(Debug)]
pub(super) struct GuestArchive {
    agent: &'static [u8],
    path: PathBuf,
}

impl GuestArchive {
    /// One that is written into this directory, anew for each launch.
    pub(super) fn new(agent: &Program, directory: &Path) -> Self {
        Self { agent: agent.bytes(), path: directory.join("initramfs") }
    }

    /// Writes what our own monitor puts into a guest's memory, less the modules of devices, and gives the file.
    ///
    /// # Errors
    /// Where the workload is a program of the user's, or the file cannot be written.
    pub(super) fn write(&self, instance: &str, workload: &Workload) -> Result<&Path, LaunchError> {
        if matches!(workload, Workload::Program { .. }) {
            let what = "a program of your own in a guest that boots from an initramfs".into();
            return Err(Unsupported { what, why: "it holds the agent alone".into() }.into());
        }
        let mut archive = Archive::new();
        for directory in ["dev", "proc", "sys", "tmp", "isobench", "isobench/modules"] {
            archive.directory(directory);
        }
        archive.character_device("dev/console", 5, 1);
        archive.character_device("dev/null", 1, 3);
        archive.program("init", self.agent);
        archive.file("isobench/arguments", workload.arguments().join("\0").as_bytes());
        let written = fs::write(&self.path, archive.finish()).with_context(|| format!("write {}", self.path.display()));
        written.map_err(|source| LaunchError::Step {
            sandbox: instance.to_owned(),
            step: "make its initramfs".into(),
            source: source.into(),
        })?;
        Ok(&self.path)
    }
}
