//! A directory as an archive: the root that a guest is to have. Owners, rights, links and device files are kept; what is mounted
//! below it is left out, and sockets, which mean nothing elsewhere.

use super::{Attributes, head, pad};
use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The first number of a file here: those before it are the monitor's own files.
const FIRST: u32 = 1 << 16;

/// Why a directory cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Something in it cannot be read.
    #[error("read {} for the guest", path.display())]
    Read {
        /// What it is.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file has more bytes than the archive can say.
    #[error("{} is too large for a guest's initramfs: 4 GiB is the most", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The archive cannot be written.
    #[error("write the guest's initramfs")]
    Write(#[source] io::Error),
}

/// A directory with all that is in it, as it was when it was looked at.
#[derive(Debug)]
pub struct Tree {
    entries: Vec<(PathBuf, Vec<u8>, Metadata)>,
}

impl Tree {
    /// Looks at a directory.
    ///
    /// # Errors
    /// Where something in it cannot be read.
    pub fn look(root: &Path) -> Result<Self, TreeError> {
        let metadata = root.metadata().map_err(|source| TreeError::Read { path: root.to_owned(), source })?;
        let mut tree = Self { entries: Vec::new() };
        let device = metadata.dev();
        tree.entries.push((root.to_owned(), Vec::new(), metadata));
        let mut next = 0;
        while let Some((path, name, metadata)) = tree.entries.get(next) {
            next += 1;
            if metadata.is_dir() && metadata.dev() == device {
                let below = list(path, name)?;
                tree.entries.extend(below);
            }
        }
        Ok(tree)
    }

    /// How many bytes its files have, links to one of them counted each.
    pub fn size(&self) -> u64 {
        self.entries.iter().filter(|(.., metadata)| metadata.is_file()).map(|(.., metadata)| metadata.len()).sum()
    }

    /// Writes it as entries of an archive, below a path.
    ///
    /// # Errors
    /// Where a file cannot be read any more, or the archive not written.
    pub fn write(&self, prefix: &str, output: &mut impl Write) -> Result<(), TreeError> {
        let mut links: HashMap<(u64, u64), u32> = HashMap::new();
        for (number, (path, name, metadata)) in (FIRST..).zip(&self.entries) {
            let mut whole = prefix.as_bytes().to_vec();
            if !name.is_empty() {
                whole.push(b'/');
                whole.extend(name);
            }
            let kind = metadata.file_type();
            if kind.is_socket() {
                continue;
            }
            let failed = |source| TreeError::Read { path: path.clone(), source };
            let linked = metadata.is_file() && metadata.nlink() > 1;
            let first = *links.entry((metadata.dev(), metadata.ino())).or_insert(number);
            let inode = if linked { first } else { number };
            let target = if kind.is_symlink() { fs::read_link(path).map_err(failed)? } else { PathBuf::new() };
            let length = match () {
                () if kind.is_symlink() => target.as_os_str().len() as u64,
                // The first link has the content.
                () if kind.is_file() && inode == number => metadata.len(),
                () => 0,
            };
            let length = u32::try_from(length).map_err(|_| TreeError::TooLarge { path: path.clone() })?;
            let device = if kind.is_char_device() || kind.is_block_device() { metadata.rdev() } else { 0 };
            let file = Attributes {
                inode,
                mode: metadata.mode(),
                owner: (metadata.uid(), metadata.gid()),
                links: if linked { 2 } else { 1 },
                length,
                device: (rustix::fs::major(device), rustix::fs::minor(device)),
            };
            let mut entry = head(&whole, file);
            if kind.is_symlink() {
                entry.extend(target.as_os_str().as_bytes());
                pad(&mut entry);
            }
            output.write_all(&entry).map_err(TreeError::Write)?;
            if kind.is_file() && length > 0 {
                let file = fs::File::open(path).map_err(failed)?;
                let copied = io::copy(&mut file.take(length.into()), output).map_err(failed)?;
                // A file that has shrunk meanwhile ends with zeros.
                let missing = u64::from(length) - copied + u64::from(length.next_multiple_of(4) - length);
                io::copy(&mut io::repeat(0).take(missing), output).map_err(TreeError::Write)?;
            }
        }
        Ok(())
    }
}

/// What a directory has, in the order of the names.
fn list(directory: &Path, name: &[u8]) -> Result<Vec<(PathBuf, Vec<u8>, Metadata)>, TreeError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| TreeError::Read { path, source }
    };
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(failed(directory))?.path();
        let metadata = match path.symlink_metadata() {
            // It has gone meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata.map_err(failed(&path))?,
        };
        let own = path.file_name().unwrap_or_default().as_bytes();
        let separator: &[u8] = if name.is_empty() { b"" } else { b"/" };
        entries.push((path.clone(), [name, separator, own].concat(), metadata));
    }
    entries.sort_by(|one, other| one.1.cmp(&other.1));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// Name, mode, links and content of each entry.
    fn walk(bytes: &[u8]) -> Vec<(String, u32, u32, Vec<u8>)> {
        let (mut at, mut entries) = (0, Vec::new());
        while at < bytes.len() {
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + index * 8..at + 14 + index * 8]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let name = &bytes[at + 110..at + 109 + field(11) as usize];
            let start = (at + 110 + field(11) as usize).next_multiple_of(4);
            let content = &bytes[start..start + field(6) as usize];
            entries.push((String::from_utf8_lossy(name).into_owned(), field(1), field(4), content.to_vec()));
            at = (start + content.len()).next_multiple_of(4);
        }
        entries
    }

    #[test]
    fn a_directory_is_packed_with_rights_and_links() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir(path("bin")).unwrap();
        fs::write(path("bin/tool"), b"12345").unwrap();
        fs::set_permissions(path("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::hard_link(path("bin/tool"), path("bin/twin")).unwrap();
        symlink("tool", path("bin/alias")).unwrap();
        fs::write(path("empty"), b"").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();

        let tree = Tree::look(root.path()).unwrap();
        assert_eq!(tree.size(), 10);
        let mut bytes = Vec::new();
        tree.write("a/b", &mut bytes).unwrap();
        let entries = walk(&bytes);
        let names: Vec<_> = entries.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["a/b", "a/b/bin", "a/b/empty", "a/b/bin/alias", "a/b/bin/tool", "a/b/bin/twin"]);
        assert_eq!(entries[3], ("a/b/bin/alias".into(), 0o120_777, 1, b"tool".to_vec()));
        assert_eq!(entries[4], ("a/b/bin/tool".into(), 0o104_755, 2, b"12345".to_vec()));
        assert_eq!(entries[5], ("a/b/bin/twin".into(), 0o104_755, 2, Vec::new()));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = Tree::look(Path::new("/no/such/root")).unwrap_err();
        assert_eq!(error.to_string(), "read /no/such/root for the guest");
    }
}
