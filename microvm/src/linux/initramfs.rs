//! The initramfs, built in memory: a cpio archive in the "new ASCII" format
//! ([Documentation/driver-api/early-userspace/buffer-format.rst](https://docs.kernel.org/driver-api/early-userspace/buffer-format.html)).
//! Raw, since unpacking costs the guest more than copying.

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

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], device: (u32, u32)) {
        self.inode += 1;
        let fields = [
            self.inode,
            mode,
            0, // user
            0, // group
            1, // links
            0, // time
            content.len() as u32,
            0, // device of the archive, major and minor
            0,
            device.0,
            device.1,
            path.len() as u32 + 1,
            0, // checksum, of another format
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
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
