//! The plug for podman, which has no daemon: its program with a state of its own.

use super::client::Client;
use super::engine::Started;
use super::shield;
use super::spawn::find_program;
use crate::testbed::directory;
use anyhow::Context;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What it keeps while containers run.
const STATE: &str = "/run/podman";

/// Whether it is there.
pub(super) fn installed() -> Result<(), String> {
    find_program("podman")
        .map(drop)
        .ok_or_else(|| "podman is not installed: apt-get install podman aardvark-dns".into())
}

/// Whether netavark's name server is there, which answers for containers in networks of the user's own. It is looked for where
/// podman looks (`helper_binaries_dir` of
/// [containers.conf(5)](https://github.com/containers/common/blob/main/docs/containers.conf.5.md)).
pub(crate) fn has_name_server() -> bool {
    const HELPERS: [&str; 4] =
        ["/usr/local/libexec/podman", "/usr/local/lib/podman", "/usr/libexec/podman", "/usr/lib/podman"];
    HELPERS.iter().any(|directory| Path::new(directory).join("aardvark-dns").exists())
}

/// Where the number of a container's first process is written down, before it starts.
pub(super) fn process_file(id: &str) -> PathBuf {
    // The directory is named after the storage driver: overlay-containers.
    let containers = |driver: &str| Path::new(STATE).join(format!("{driver}-containers")).join(id);
    let drivers = ["overlay", "vfs", "btrfs", "zfs"];
    let there = drivers.into_iter().map(containers).find(|path| path.exists());
    there.unwrap_or_else(|| containers("overlay")).join("userdata/pidfile")
}

/// Finds out what it is. Its OCI runtime, its network and its storage are those that the distribution chose.
pub(super) fn start(data: &Path, deadline: Duration) -> anyhow::Result<Started> {
    shield::files(data)?;
    shield::unified_groups()?;
    let program = find_program("podman").context("podman has gone")?;
    let client = Client::new(program, &directory("home")?, deadline)
        .argument("--root")
        .argument(data.join("podman"))
        .argument("--runroot")
        .argument(STATE)
        .argument("--cgroup-manager=cgroupfs");
    let asked = "{{.Version.Version}} {{.Host.OCIRuntime.Name}} {{.Host.NetworkBackend}} {{.Store.GraphDriverName}}";
    let told = client.ask(&["info", "--format", asked], None)?;
    let mut words = told.split_whitespace().map(str::to_owned);
    let version = words.next().context("podman tells no version")?;
    let facts: BTreeMap<&'static str, String> = ["runtime", "network", "storage"].into_iter().zip(words).collect();
    let version = format!("podman {version}");
    let nameless = facts.get("network").filter(|network| *network == "netavark" && !has_name_server());
    let nameless = nameless.map(|_| "podman's name server is not installed: apt-get install aardvark-dns".to_owned());
    Ok(Started { client, daemon: None, version, facts, nameless, default_network: "podman" })
}
