//! The initramfs, built in memory: a cpio archive in the "new ASCII" format
//! ([Documentation/driver-api/early-userspace/buffer-format.rst](https://docs.kernel.org/driver-api/early-userspace/buffer-format.html)).
//! Raw, since unpacking costs the guest more than copying.

mod tree;

pub use tree::{Tree, TreeError};

/// File types and rights (inode(7)).
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// A growing archive.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory; those above it come first.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, &[], (0, 0));
    }

    /// Adds a program.
    pub fn program(&mut self, path: &str, content: &[u8]) {
        self.entry(path, PROGRAM, content, (0, 0));
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, FILE, content, (0, 0));
    }

    /// Adds a character device with its numbers.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, CHARACTER_DEVICE, &[], (major, minor));
    }

    /// What there is so far, to which more may be added elsewhere.
    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], device: (u32, u32)) {
        self.inode += 1;
        let length = content.len() as u32;
        let file = Attributes { inode: self.inode, mode, owner: (0, 0), links: 1, length, device };
        self.bytes.extend(head(path.as_bytes(), file));
        self.bytes.extend(content);
        pad(&mut self.bytes);
    }
}

/// What an entry says of a file.
#[derive(Clone, Copy, Debug)]
struct Attributes {
    inode: u32,
    mode: u32,
    /// User and group.
    owner: (u32, u32),
    links: u32,
    /// Of the content that follows.
    length: u32,
    /// Of a device file: major and minor.
    device: (u32, u32),
}

/// An entry up to its content, which begins at a multiple of 4 bytes where the entry does.
fn head(path: &[u8], file: Attributes) -> Vec<u8> {
    let fields = [
        file.inode,
        file.mode,
        file.owner.0,
        file.owner.1,
        file.links,
        0, // time
        file.length,
        0, // device of the archive, major and minor
        0,
        file.device.0,
        file.device.1,
        path.len() as u32 + 1,
        0, // checksum, of another format
    ];
    let mut bytes = b"070701".to_vec();
    for field in fields {
        bytes.extend(format!("{field:08x}").bytes());
    }
    bytes.extend(path);
    bytes.push(0);
    pad(&mut bytes);
    bytes
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_lie_as_the_format_says() {
        let mut archive = Archive::new();
        archive.directory("dev");
        archive.character_device("dev/console", 5, 1);
        archive.program("init", b"#!");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let header = std::str::from_utf8(&bytes[..110]).unwrap();
        assert_eq!(&header[..6], "070701");
        assert_eq!(&header[14..22], "000041ed");
        assert_eq!(&header[94..102], "00000004");
        assert_eq!(&bytes[110..114], b"dev\0");
        // 110 + 4 is padded to 116.
        let second = std::str::from_utf8(&bytes[116..226]).unwrap();
        assert_eq!(&second[14..22], "00002180");
        assert_eq!(&second[78..94], "0000000500000001");
        assert!(bytes.windows(11).any(|text| text == b"TRAILER!!!\0"));
    }

    proptest::proptest! {
        /// Whatever goes in is found by walking the headers.
        #[test]
        fn a_walk_finds_every_file(files in proptest::collection::vec(("[a-z]{1,40}", proptest::collection::vec(proptest::num::u8::ANY, 0..300)), 0..12)) {
            let mut archive = Archive::new();
            for (name, content) in &files {
                archive.file(name, content);
            }
            let bytes = archive.finish();
            let field = |at: usize, index: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + index * 8..at + 14 + index * 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let mut at = 0;
            for (name, content) in &files {
                let start = (at + 110 + field(at, 11)).next_multiple_of(4);
                proptest::prop_assert_eq!(&bytes[at + 110..at + 110 + name.len()], name.as_bytes());
                proptest::prop_assert_eq!(&bytes[start..start + field(at, 6)], &content[..]);
                at = (start + content.len()).next_multiple_of(4);
            }
            proptest::prop_assert_eq!(&bytes[at + 110..at + 120], b"TRAILER!!!");
        }
    }
}
