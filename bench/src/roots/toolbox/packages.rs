//! The distribution's packages, downloaded and unpacked into a private directory; nothing is installed, root is not needed.

use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the toolbox is made of; the libraries that they need are found by their dependencies.
const PACKAGES: [&str; 8] =
    ["bash", "busybox-static", "coreutils", "findutils", "iproute2", "nftables", "tcpdump", "util-linux"];

/// Unpacked packages.
pub(super) struct Unpacked {
    /// The directory that they are unpacked into.
    pub(super) root: PathBuf,
    /// The files' names, with the versions in them.
    pub(super) packages: Vec<String>,
}

/// Downloads and unpacks the packages below a directory.
pub(super) fn unpack(directory: &Path) -> anyhow::Result<Unpacked> {
    let (root, downloads) = (directory.join("root"), directory.join("downloads"));
    for path in [&root, &downloads] {
        fs::create_dir(path).with_context(|| format!("make {}", path.display()))?;
    }
    // The machine's own lists of packages, or where it has none, or such as are out of date, new ones in a private place.
    if download(&downloads, &[]).is_err() {
        let lists = directory.join("lists");
        fs::create_dir_all(lists.join("partial")).with_context(|| format!("make {}", lists.display()))?;
        let option = |name: &str, path: &Path| ["-o".to_owned(), format!("{name}={}", path.display())];
        let private = [option("Dir::State::Lists", &lists), option("Dir::Cache", &directory.join("cache"))].concat();
        run(Command::new("apt-get").args(&private).args(["-q", "update"]))?;
        download(&downloads, &private)?;
    }
    let mut packages = Vec::new();
    for entry in fs::read_dir(&downloads).with_context(|| format!("list {}", downloads.display()))? {
        let package = entry?.path();
        run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&root))?;
        packages.extend(package.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    packages.sort();
    Ok(Unpacked { root, packages })
}

fn download(into: &Path, options: &[String]) -> anyhow::Result<()> {
    let kinds =
        ["recommends", "suggests", "enhances", "conflicts", "breaks", "replaces"].map(|kind| format!("--no-{kind}"));
    let mut query = Command::new("apt-cache");
    query.args(options).args(["depends", "--recurse", "--important"]).args(kinds).args(PACKAGES);
    let names = libraries(&run(&mut query)?);
    for package in PACKAGES {
        if !names.iter().any(|name| name == package) {
            bail!("apt-cache knows no package {package}");
        }
    }
    run(Command::new("apt-get").args(options).args(["-q", "download"]).args(names).current_dir(into)).map(drop)
}

/// The packages and the libraries among what they depend on. The rest of what they depend on is for installing them.
fn libraries(dependencies: &str) -> Vec<String> {
    let names = dependencies.lines().filter(|line| !line.starts_with([' ', '<', '|']));
    let wanted = |name: &&str| PACKAGES.contains(name) || name.starts_with("lib") || name.starts_with("zlib");
    let mut names: Vec<String> = names.filter(wanted).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// Runs a program to its end and gives its output.
fn run(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.env("LC_ALL", "C").output().with_context(|| format!("start {name}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    let reason =
        told.lines().find(|line| line.starts_with("E:")).or_else(|| told.lines().last()).unwrap_or("without a word");
    bail!("{name} failed: {}", reason.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_told_from_what_installs_them() {
        let text =
            "iproute2\n  Depends: libc6\n    libc6:i386\nlibc6\n<debconf-2.0>\ndebconf\nzlib1g\nlibc6\ntcpdump\n";
        assert_eq!(libraries(text), ["iproute2", "libc6", "tcpdump", "zlib1g"]);
    }
}
