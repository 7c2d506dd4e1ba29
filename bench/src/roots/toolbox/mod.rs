//! The toolbox: a small root directory with a shell and the usual commands, so that a container runs on a fresh machine.
//!
//! It is put together from the distribution's packages, which are unpacked and not installed; where there are none to be had,
//! from the machine's own programs with the libraries that they need. It is no image of a distribution: there is no package
//! manager in it, and every program is one that this machine trusts already.

mod elf;
mod packages;
mod tree;

use super::cache::{self, Unfinished};
use crate::{commands, home};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How the name of every toolbox in the cache begins.
const PREFIX: &str = "toolbox-";

/// The link in the cache that leads to the toolbox in use. Its number changes with what this file puts in: a toolbox that an
/// older version has made is not used any more.
const CURRENT: &str = "toolbox.2";

/// What a toolbox says of itself, in its own `/etc`.
const DESCRIPTION: &str = "etc/toolbox.json";

/// Programs that are taken as they are, in place of busybox's of the same name: those that can more, and those that start
/// others. Where busybox starts a program it takes its own of that name, so that `nsenter ... ip` would not be this `ip`.
const OWN: [&str; 16] = [
    "bash", "chroot", "env", "find", "ip", "nft", "nice", "nohup", "nsenter", "setsid", "ss", "tcpdump", "time",
    "timeout", "unshare", "xargs",
];

/// Programs that are taken from the machine where it has no busybox.
const USUAL: [&str; 58] = [
    "awk", "basename", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "df", "dirname", "du", "echo", "expr",
    "false", "free", "grep", "head", "hostname", "httpd", "id", "kill", "less", "ln", "ls", "mkdir", "mkfifo", "mount",
    "mv", "nc", "nslookup", "od", "ping", "printf", "ps", "pwd", "readlink", "rm", "rmdir", "sed", "seq", "sleep",
    "sort", "stat", "stty", "sysctl", "tail", "tar", "tee", "test", "top", "touch", "tr", "true", "umount", "uname",
    "wc", "wget",
];

/// What the lab sheets and examples count on.
const EXPECTED: [&str; 9] = ["sh", "ip", "ss", "nft", "nsenter", "ping", "wget", "httpd", "tcpdump"];

/// Where a toolbox's programs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The distribution's packages, downloaded by apt-get and unpacked.
    Packages,
    /// The programs that are installed on this machine.
    Machine,
}

/// What a toolbox says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    /// Where its programs come from.
    pub origin: Origin,
    /// The packages, with their versions as the files are named.
    pub packages: Vec<String>,
    /// Its programs.
    pub programs: BTreeSet<String>,
    /// What could not be had of the programs that are expected.
    pub missing: Vec<String>,
}

/// The toolbox in use, if there is one.
pub fn find() -> Option<PathBuf> {
    cache::place()?.join(CURRENT).canonicalize().ok().filter(|path| path.is_dir())
}

/// What a toolbox says of itself.
///
/// # Errors
/// Where it says nothing that can be read.
pub fn describe(toolbox: &Path) -> anyhow::Result<Description> {
    let path = toolbox.join(DESCRIPTION);
    let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))
}

/// The directory in a toolbox whose programs run outside of it too, by its own loader and libraries.
pub fn programs_for_outside(toolbox: &Path) -> PathBuf {
    toolbox.join(tree::OUTSIDE)
}

/// The toolbox in use; made now where there is none, with one line on the standard error.
pub(super) fn find_or_build() -> anyhow::Result<PathBuf> {
    if let Some(toolbox) = find() {
        return Ok(toolbox);
    }
    commands::note("putting the toolbox together (once; `isobench toolbox build` does it ahead)");
    build(None)
}

/// Puts a toolbox together and makes it the one in use.
///
/// # Errors
/// Where neither packages nor programs of the machine give a shell.
pub fn build(origin: Option<Origin>) -> anyhow::Result<PathBuf> {
    let cache = cache::directory()?;
    let made = match origin {
        Some(Origin::Packages) => from_packages(&cache)?,
        Some(Origin::Machine) => from_machine(&cache)?,
        // There is no way to the packages from inside a testbed.
        None if home::inside().is_some() => from_machine(&cache)?,
        None => match from_packages(&cache) {
            Ok(made) => made,
            Err(error) => {
                commands::note(&format!(
                    "no packages for the toolbox, so it gets this machine's own programs: {error:#}"
                ));
                from_machine(&cache)?
            }
        },
    };
    let name = format!("{PREFIX}{}", tree::digest(made.path())?);
    let path = made.finish(&name)?;
    // A link of another name is renamed over the old one: there is a toolbox at every moment.
    let link = cache.join(format!("{CURRENT}.{:016x}", fastrand::u64(..)));
    let linked = symlink(&name, &link).and_then(|()| fs::rename(&link, cache.join(CURRENT)));
    linked.with_context(|| format!("make {} the toolbox in use", path.display()))?;
    Ok(path)
}

fn from_packages(cache: &Path) -> anyhow::Result<Unfinished> {
    let scratch = Unfinished::create(cache)?;
    let unpacked = packages::unpack(scratch.path())?;
    assemble(cache, Origin::Packages, unpacked.packages, &elf::Source::packages(unpacked.root))
}

fn from_machine(cache: &Path) -> anyhow::Result<Unfinished> {
    assemble(cache, Origin::Machine, Vec::new(), &elf::Source::machine())
}

fn assemble(cache: &Path, origin: Origin, packages: Vec<String>, source: &elf::Source) -> anyhow::Result<Unfinished> {
    let made = Unfinished::create(cache)?;
    let mut tree = tree::Tree::create(made.path())?;
    let busybox = source.program("busybox");
    if let Some(busybox) = &busybox {
        tree.add("busybox", busybox, source)?;
        let output = Command::new(busybox).arg("--list").output().context("ask busybox for its applets")?;
        let list = String::from_utf8_lossy(&output.stdout).into_owned();
        tree.add_applets(list.split_whitespace())?;
    }
    let wanted: Vec<&str> = if busybox.is_some() { OWN.to_vec() } else { OWN.into_iter().chain(USUAL).collect() };
    for name in wanted {
        // What the packages do not have, busybox may.
        if let Some(program) = source.program(name) {
            tree.add(name, &program, source).with_context(|| format!("take {name} into the toolbox"))?;
        }
    }
    // busybox's own shell would take its own programs too, and bash can be typed into.
    if source.program("bash").is_some() {
        tree.link("sh", "bash")?;
    } else if let Some(shell) = source.program("sh") {
        tree.add("sh", &shell, source).context("take sh into the toolbox")?;
    }
    let programs = tree.finish()?;
    if !programs.contains("sh") {
        bail!("there is no shell to be had for the toolbox: install busybox-static");
    }
    let missing = EXPECTED.iter().filter(|name| !programs.contains(**name)).map(|name| (*name).to_owned()).collect();
    let description = Description { origin, packages, programs, missing };
    let path = made.path().join(DESCRIPTION);
    fs::write(&path, serde_json::to_vec_pretty(&description)?).with_context(|| format!("write {}", path.display()))?;
    Ok(made)
}
