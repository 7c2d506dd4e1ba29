//! The toolbox's directory tree, as it is filled.

use super::elf::Source;
use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Where the programs are that run outside of the toolbox too.
pub(super) const OUTSIDE: &str = "libexec/outside";

const DIRECTORIES: [&str; 15] = [
    "bin", "dev", "etc", "lib", "lib64", "libexec", OUTSIDE, "proc", "root", "run", "sys", "tmp", "usr", "var/tmp",
    "www",
];

/// One place for programs and one for libraries, under all names that there are for them.
const LINKS: [(&str, &str); 6] = [
    ("sbin", "bin"),
    ("usr/bin", "../bin"),
    ("usr/sbin", "../bin"),
    ("usr/lib", "../lib"),
    ("usr/lib64", "../lib64"),
    ("var/run", "../run"),
];

const FILES: [(&str, &str); 8] = [
    // tcpdump gives up its rights for those of a user of its own, which a user namespace may not have.
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\ntcpdump:x:0:0::/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    ),
    ("etc/group", "root:x:0:\ntcpdump:x:0:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ("etc/resolv.conf", ""),
    ("etc/services", "ftp 21/tcp\nssh 22/tcp\ndomain 53/tcp\ndomain 53/udp\nhttp 80/tcp\nhttps 443/tcp\n"),
    ("etc/os-release", "NAME=\"isobench toolbox\"\nID=isobench-toolbox\n"),
    ("www/index.html", "It works.\n"),
];

/// A toolbox as it is filled.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    programs: BTreeSet<String>,
    /// The loader of each program that has one.
    loaders: BTreeMap<String, PathBuf>,
    /// Where the libraries lie: beside the C library, where its loader looks by itself.
    libraries: Option<PathBuf>,
}

impl Tree {
    pub(super) fn create(root: &Path) -> anyhow::Result<Self> {
        let made = || -> std::io::Result<()> {
            for directory in DIRECTORIES {
                fs::create_dir_all(root.join(directory))?;
            }
            for (link, to) in LINKS {
                symlink(to, root.join(link))?;
            }
            for (file, text) in FILES {
                fs::write(root.join(file), text)?;
            }
            for temporary in ["tmp", "var/tmp"] {
                fs::set_permissions(root.join(temporary), fs::Permissions::from_mode(0o1777))?;
            }
            fs::set_permissions(root, fs::Permissions::from_mode(0o755))
        };
        made().with_context(|| format!("make the directories of {}", root.display()))?;
        Ok(Self { root: root.into(), programs: BTreeSet::new(), loaders: BTreeMap::new(), libraries: None })
    }

    /// Takes a program with all that it needs.
    pub(super) fn add(&mut self, name: &str, program: &Path, source: &Source) -> anyhow::Result<()> {
        let needs = source.needs(program)?;
        if let Some((path, file)) = needs.loader {
            self.copy(&file, &self.place(&path)?)?;
            self.loaders.insert(name.to_owned(), path);
        }
        if let Some(library) = needs.libraries.get("libc.so.6") {
            let directory = library.parent().unwrap_or(Path::new("/"));
            // In unpacked packages too, libraries lie below `lib`, `lib64` or their likes in `usr`.
            let parts: Vec<_> = directory.components().collect();
            let begin = parts.iter().rposition(|part| ["lib", "lib64"].iter().any(|name| part.as_os_str() == *name));
            let Some(begin) = begin else { bail!("the C library lies in an unusual place: {}", library.display()) };
            self.libraries.get_or_insert(parts[begin..].iter().collect());
        }
        for (library, file) in &needs.libraries {
            let Some(directory) = &self.libraries else { bail!("{name} has libraries but no C library") };
            let name = Path::new(library).file_name().unwrap_or_default();
            self.copy(file, &self.root.join(directory).join(name))?;
        }
        self.copy(program, &self.root.join("bin").join(name))?;
        self.programs.insert(name.to_owned());
        Ok(())
    }

    /// Gives a program another name.
    pub(super) fn link(&mut self, name: &str, program: &str) -> anyhow::Result<()> {
        let link = self.root.join("bin").join(name);
        // Busybox may have it.
        let _ = fs::remove_file(&link);
        symlink(program, link).with_context(|| format!("make {name} another name of {program}"))?;
        self.programs.insert(name.to_owned());
        Ok(())
    }

    /// Makes busybox known by its other names.
    pub(super) fn add_applets<'a>(&mut self, names: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
        for name in names.filter(|name| *name != "busybox" && !name.contains('/')) {
            self.link(name, "busybox")?;
        }
        Ok(())
    }

    /// Makes the programs usable outside too; gives their names.
    pub(super) fn finish(self) -> anyhow::Result<BTreeSet<String>> {
        for name in &self.programs {
            let outside = self.root.join(OUTSIDE).join(name);
            let path = self.root.join("bin").join(name);
            let target = fs::read_link(&path).ok().and_then(|target| target.to_str().map(str::to_owned));
            let real = target.as_deref().unwrap_or(name);
            let made = match (self.loaders.get(real), &self.libraries) {
                (Some(loader), Some(libraries)) => {
                    let script = format!(
                        "#!/bin/sh\nroot=${{0%/*}}/../..\nexec \"$root{}\" --library-path \"$root/{}\" \"$root/bin/{name}\" \"$@\"\n",
                        loader.display(),
                        libraries.display()
                    );
                    fs::write(&outside, script)
                        .and_then(|()| fs::set_permissions(&outside, fs::Permissions::from_mode(0o755)))
                }
                _ => symlink(format!("../../bin/{name}"), &outside),
            };
            made.with_context(|| format!("make {}", outside.display()))?;
        }
        Ok(self.programs)
    }

    /// Where a path is in the tree, with its directory.
    fn place(&self, path: &Path) -> anyhow::Result<PathBuf> {
        let inside = path.strip_prefix("/").unwrap_or(path);
        let inside = inside.strip_prefix("usr").unwrap_or(inside);
        Ok(self.root.join(inside))
    }

    fn copy(&self, file: &Path, to: &Path) -> anyhow::Result<()> {
        let copied = || -> std::io::Result<()> {
            fs::create_dir_all(to.parent().unwrap_or(&self.root))?;
            // An applet's link would lead the copy to busybox.
            match fs::remove_file(to) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::copy(file, to)?;
            fs::set_permissions(to, fs::Permissions::from_mode(0o755))
        };
        copied().with_context(|| format!("copy {} to {}", file.display(), to.display()))
    }
}

/// A digest of a tree's names, links, modes and contents, in 16 digits.
pub(super) fn digest(root: &Path) -> anyhow::Result<String> {
    let mut digest = Sha256::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = path.symlink_metadata().with_context(|| format!("look at {}", path.display()))?;
        digest.update(path.strip_prefix(root).unwrap_or(&path).as_os_str().as_bytes());
        digest.update([0]);
        digest.update(metadata.permissions().mode().to_le_bytes());
        if metadata.is_dir() {
            let mut entries: Vec<PathBuf> =
                fs::read_dir(&path)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
            entries.sort();
            pending.extend(entries);
        } else if metadata.is_symlink() {
            digest.update(fs::read_link(&path)?.as_os_str().as_bytes());
        } else {
            let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            digest.update((content.len() as u64).to_le_bytes());
            digest.update(content);
        }
    }
    Ok(digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_follows_content_mode_and_names() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("a");
        fs::write(&file, "one").unwrap();
        let first = digest(place.path()).unwrap();
        assert_eq!(first.len(), 16);
        assert_eq!(digest(place.path()).unwrap(), first);
        fs::write(&file, "two").unwrap();
        let second = digest(place.path()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).unwrap();
        let third = digest(place.path()).unwrap();
        fs::rename(&file, place.path().join("b")).unwrap();
        let fourth = digest(place.path()).unwrap();
        let all = BTreeSet::from([first, second, third, fourth]);
        assert_eq!(all.len(), 4);
    }
}
