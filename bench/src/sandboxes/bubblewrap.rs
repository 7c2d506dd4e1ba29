//! The peer bubblewrap: namespaces without a daemon, as Flatpak uses them.

use super::root_directory::AGENT;
use super::spawn::{find_program, spawn, version};
use isobench_workload::{Family, Instance, LaunchError, Sandbox, Workload};
use std::path::{Path, PathBuf};
use std::process::Command;

/// `bwrap --unshare-all` with the agent's root directory.
#[derive(Debug)]
pub(super) struct Bubblewrap {
    program: PathBuf,
    root: PathBuf,
    launched: u64,
}

impl Bubblewrap {
    pub(super) fn find(root: &Path) -> Result<(Self, Option<String>), String> {
        let program = find_program("bwrap").ok_or("bwrap is not installed: apt-get install bubblewrap")?;
        let version = version(&program);
        Ok((Self { program, root: root.to_owned(), launched: 0 }, version))
    }
}

impl Sandbox for Bubblewrap {
    fn name(&self) -> &str {
        "bubblewrap"
    }

    fn family(&self) -> Family {
        Family::Peer
    }

    fn launch(&mut self, workload: &Workload) -> Result<Instance, LaunchError> {
        self.launched += 1;
        let mut command = Command::new(&self.program);
        command.args(["--unshare-all", "--die-with-parent"]);
        // A program of the user's own needs the files of the host, which it cannot change.
        match workload {
            Workload::Program { .. } => command.args(["--ro-bind", "/", "/"]),
            _ => command.arg("--ro-bind").arg(&self.root).arg("/"),
        };
        command.args(["--proc", "/proc", "--dev", "/dev", "--"]);
        if !matches!(workload, Workload::Program { .. }) {
            command.arg(AGENT);
        }
        command.args(workload.arguments());
        spawn(format!("bubblewrap-{}", self.launched), &mut command)?.instance(None)
    }
}
