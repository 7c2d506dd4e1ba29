//! What a program needs to run: its loader and its libraries, as its own file names them
//! ([elf(5)](https://man7.org/linux/man-pages/man5/elf.5.html)), found where the loader would look
//! ([ld.so(8)](https://man7.org/linux/man-pages/man8/ld.so.8.html)).

use anyhow::Context;
use goblin::elf::Elf;
use goblin::elf::header::{EM_X86_64, ET_DYN, ET_EXEC};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where programs are looked for in a root.
const PROGRAMS: [&str; 6] = ["usr/sbin", "usr/bin", "sbin", "bin", "usr/local/sbin", "usr/local/bin"];

/// Where a loader looks by itself, on the distributions that there are.
const LIBRARIES: [&str; 6] =
    ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib"];

/// Where programs and libraries are taken from.
#[derive(Debug)]
pub(super) struct Source {
    /// `/`, or the directory that packages are unpacked into.
    root: PathBuf,
    programs: Vec<PathBuf>,
    libraries: Vec<PathBuf>,
}

/// What a program needs beside its own file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The loader's path as the program names it, and its file; none for a static program.
    pub(super) loader: Option<(PathBuf, PathBuf)>,
    /// Libraries by the names under which they are asked for.
    pub(super) libraries: BTreeMap<String, PathBuf>,
}

impl Source {
    /// Unpacked packages.
    pub(super) fn packages(root: PathBuf) -> Self {
        let below = |paths: [&str; 6]| paths.map(|path| root.join(path)).to_vec();
        Self { programs: below(PROGRAMS), libraries: below(LIBRARIES), root }
    }

    /// This machine.
    pub(super) fn machine() -> Self {
        let mut source = Self::packages("/".into());
        let path = std::env::var_os("PATH").unwrap_or_default();
        source.programs.splice(0..0, std::env::split_paths(&path).filter(|path| path.is_absolute()));
        source.libraries.splice(0..0, configured(Path::new("/etc/ld.so.conf")));
        source
    }

    /// The file of a program that can be executed here, if there is one.
    pub(super) fn program(&self, name: &str) -> Option<PathBuf> {
        let mut candidates = self.programs.iter().map(|directory| directory.join(name));
        candidates.find(|path| {
            let executable = path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
            // A script would need its interpreter, and more.
            executable && fs::read(path).is_ok_and(|bytes| parse(&bytes).is_some())
        })
    }

    /// Everything that a program needs, and what its libraries need.
    pub(super) fn needs(&self, program: &Path) -> anyhow::Result<Needs> {
        let mut needs = Needs::default();
        let mut pending = vec![program.to_owned()];
        while let Some(file) = pending.pop() {
            let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
            let elf =
                parse(&bytes).with_context(|| format!("{} is no program of this machine's kind", file.display()))?;
            if let Some(loader) = elf.interpreter {
                let path = PathBuf::from(loader);
                let found = self.root.join(loader.trim_start_matches('/'));
                let found = self.find_loader(&found, &path).with_context(|| format!("find the loader {loader}"))?;
                needs.loader.get_or_insert((path, found));
            }
            let own: Vec<PathBuf> = search_path(&elf, &file);
            for name in &elf.libraries {
                if needs.libraries.contains_key(*name) || needs.is_loader(name) {
                    continue;
                }
                let found = self.library(name, &own);
                let found =
                    found.with_context(|| format!("find the library {name}, which {} needs", file.display()))?;
                pending.push(found.clone());
                needs.libraries.insert((*name).to_owned(), found);
            }
        }
        Ok(needs)
    }

    /// Unpacked packages may have the loader elsewhere than where it is named: `/lib64` is made when they are installed.
    fn find_loader(&self, found: &Path, named: &Path) -> anyhow::Result<PathBuf> {
        if found.is_file() {
            return Ok(found.to_owned());
        }
        let name = named.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        self.library(name, &[]).with_context(|| format!("there is no {}", found.display()))
    }

    fn library(&self, name: &str, own: &[PathBuf]) -> Option<PathBuf> {
        // A name with a slash is a path (ld.so(8)).
        if name.contains('/') {
            return Some(self.root.join(name.trim_start_matches('/'))).filter(|path| path.is_file());
        }
        let mut candidates = own.iter().chain(&self.libraries).map(|directory| directory.join(name));
        // A directory may have libraries of another machine's kind.
        candidates.find(|path| fs::read(path).is_ok_and(|bytes| parse(&bytes).is_some()))
    }
}

impl Needs {
    fn is_loader(&self, name: &str) -> bool {
        self.loader.as_ref().is_some_and(|(path, _)| path.file_name().is_some_and(|loader| loader == name))
    }
}

/// A program or library of this machine's kind.
fn parse(bytes: &[u8]) -> Option<Elf<'_>> {
    if bytes.get(..4) != Some(b"\x7fELF") {
        return None;
    }
    let elf = Elf::parse(bytes).ok()?;
    let kind = matches!(elf.header.e_type, ET_EXEC | ET_DYN);
    (elf.is_64 && elf.header.e_machine == EM_X86_64 && kind).then_some(elf)
}

/// Where a file itself says that its libraries are.
fn search_path(elf: &Elf<'_>, file: &Path) -> Vec<PathBuf> {
    let origin = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let origin = origin.parent().unwrap_or(Path::new("/")).display().to_string();
    let paths = elf.runpaths.iter().chain(&elf.rpaths).flat_map(|paths| paths.split(':'));
    paths.map(|path| path.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin).into()).collect()
}

/// The directories that an ld.so.conf names, with the files that it includes.
fn configured(path: &Path) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    for line in fs::read_to_string(path).unwrap_or_default().lines().map(str::trim) {
        if line.starts_with('/') {
            directories.push(line.into());
        } else if let Some(pattern) = line.strip_prefix("include ")
            && let Some((directory, "*.conf")) = pattern.trim().rsplit_once('/')
        {
            let mut files: Vec<PathBuf> = fs::read_dir(path.parent().unwrap_or(Path::new("/")).join(directory))
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|kind| kind == "conf"))
                .collect();
            files.sort();
            // One level is all that distributions use, and a file that includes itself must end.
            for file in files {
                let text = fs::read_to_string(file).unwrap_or_default();
                directories.extend(text.lines().map(str::trim).filter(|line| line.starts_with('/')).map(PathBuf::from));
            }
        }
    }
    directories
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_is_static_and_the_shell_of_the_machine_is_whole() {
        let source = Source::machine();
        let own = std::env::current_exe().unwrap();
        assert_eq!(source.needs(&own).unwrap(), Needs::default());
        let Some(shell) = source.program("sh") else { return };
        let needs = source.needs(&shell).unwrap();
        assert_eq!(needs.loader.is_some(), needs.libraries.keys().any(|name| name.starts_with("libc.so")));
    }

    #[test]
    fn what_is_missing_is_named() {
        let Some(shell) = Source::machine().program("bash") else { return };
        let empty = tempfile::tempdir().unwrap();
        let error = format!("{:#}", Source::packages(empty.path().into()).needs(&shell).unwrap_err());
        assert!(error.contains("find the lo") || error.contains("find the library"), "{error}");
    }

    #[test]
    fn directories_are_read_from_the_loaders_configuration() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("d")).unwrap();
        fs::write(place.path().join("d/b.conf"), "# c\n/opt/b\n").unwrap();
        fs::write(place.path().join("d/a.conf"), "/opt/a\n").unwrap();
        fs::write(place.path().join("d/c.txt"), "/opt/c\n").unwrap();
        fs::write(place.path().join("ld.so.conf"), "include d/*.conf\n/opt/z\n").unwrap();
        let expected = ["/opt/a", "/opt/b", "/opt/z"].map(PathBuf::from);
        assert_eq!(configured(&place.path().join("ld.so.conf")), expected);
    }
}
