//! What a kernel file says of itself: by its kind and by its banner.

use super::kernel::Kernel;
use std::fmt;

/// Where a bzImage's compressed kernel begins, counted from the end of the setup code (boot.rst, "payload_offset").
const PAYLOAD_OFFSET: usize = 0x248;
/// Number of sectors of the setup code.
const SETUP_SECTORS: usize = 0x1f1;
/// The longest banner that is read.
const LONGEST_BANNER: usize = 400;
/// How a kernel's banner begins; a digit of its release follows (`init/version-timestamp.c`).
const BANNER: &[u8] = b"Linux version ";

/// The kinds of kernel files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An ELF file, entered directly.
    Vmlinux,
    /// A bzImage, which unpacks itself; with the compression that its payload shows.
    BzImage(Compression),
}

/// How the kernel in a bzImage is packed, by the first bytes of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the name of a format")]
pub enum Compression {
    None,
    Gzip,
    Bzip2,
    Lzma,
    Xz,
    Lzo,
    Lz4,
    Zstd,
    Unknown,
}

impl Compression {
    /// By the magic number of each format (`scripts/extract-vmlinux` of the kernel's source).
    fn of(payload: &[u8]) -> Self {
        const MAGIC: [(&[u8], Compression); 8] = [
            (b"\x7fELF", Compression::None),
            (&[0x1f, 0x8b], Compression::Gzip),
            (b"BZh", Compression::Bzip2),
            (&[0x5d, 0, 0], Compression::Lzma),
            (&[0xfd, b'7', b'z', b'X', b'Z'], Compression::Xz),
            (&[0x89, b'L', b'Z', b'O'], Compression::Lzo),
            (&[0x02, 0x21, 0x4c, 0x18], Compression::Lz4),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
        ];
        MAGIC
            .iter()
            .find(|(magic, _)| payload.starts_with(magic))
            .map_or(Self::Unknown, |(_, compression)| *compression)
    }

    /// Its usual name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Xz => "xz",
            Self::Lzo => "lzo",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vmlinux => formatter.write_str("ELF vmlinux"),
            Self::BzImage(compression) => write!(formatter, "bzImage ({})", compression.name()),
        }
    }
}

/// What a kernel file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its kind.
    pub format: Format,
    /// The release, such as `6.1.0-42-cloud-amd64`; `None` where the file does not tell.
    pub release: Option<String>,
    /// The whole banner after `Linux version`: release, builder, number and time of the build.
    pub banner: Option<String>,
}

impl Identity {
    /// What a kernel says of itself.
    pub fn of(kernel: &Kernel) -> Self {
        let bytes = kernel.bytes();
        let format = if bytes.starts_with(b"\x7fELF") {
            Format::Vmlinux
        } else {
            let setup = usize::from(bytes[SETUP_SECTORS].max(1)) * 512 + 512;
            let offset = bytes.get(PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4).and_then(|field| field.try_into().ok());
            let payload = setup.saturating_add(offset.map_or(0, u32::from_le_bytes) as usize);
            Format::BzImage(Compression::of(bytes.get(payload..).unwrap_or_default()))
        };
        let banner = match format {
            Format::Vmlinux => banner(bytes),
            Format::BzImage(_) => kernel.version().and_then(text),
        };
        let release = banner.as_deref().and_then(|banner| banner.split(' ').next()).map(str::to_owned);
        Self { format, release, banner }
    }

    /// Whether it runs several processors: `SMP` stands in the banner of a kernel that does. `None` where there is no banner.
    pub fn multiprocessor(&self) -> Option<bool> {
        self.banner.as_deref().map(|banner| banner.split_ascii_whitespace().any(|word| word == "SMP"))
    }
}

/// The banner in an uncompressed kernel's data. The same words, with `%s` after them, are also there for /proc/version.
fn banner(bytes: &[u8]) -> Option<String> {
    let mut rest = bytes;
    loop {
        let at = memchr::memmem::find(rest, BANNER)?;
        rest = &rest[at + BANNER.len()..];
        if rest.first().is_some_and(u8::is_ascii_digit) {
            return text(rest);
        }
    }
}

/// A text up to its end, without what a terminal would act on.
fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().take(LONGEST_BANNER).position(|byte| matches!(byte, 0 | b'\n'))?;
    let text = String::from_utf8_lossy(&bytes[..end]);
    let text: String = text.chars().filter(|letter| !letter.is_control()).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// As much of a bzImage as is looked at: one sector of setup code, the version in it, and a payload.
    fn bz_image(version: &str, payload: &[u8]) -> Kernel {
        let mut bytes = vec![0; 1024];
        bytes[SETUP_SECTORS] = 1;
        bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        bytes[0x300..0x300 + version.len()].copy_from_slice(version.as_bytes());
        bytes[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&16_u32.to_le_bytes());
        bytes.extend([0; 16]);
        bytes.extend(payload);
        Kernel::from_bytes(Path::new("vmlinuz"), bytes).unwrap()
    }

    #[test]
    fn a_bz_image_tells_release_processors_and_compression() {
        let kernel = bz_image("6.1.0-9-amd64 (a@b) #1 SMP PREEMPT_DYNAMIC Debian", &[0x28, 0xb5, 0x2f, 0xfd, 1]);
        let identity = Identity::of(&kernel);
        assert_eq!(identity.format.to_string(), "bzImage (zstd)");
        assert_eq!(identity.release.as_deref(), Some("6.1.0-9-amd64"));
        assert_eq!(identity.multiprocessor(), Some(true));
        assert_eq!(Identity::of(&bz_image("6.1 (a) #1 now", b"what")).multiprocessor(), Some(false));
        assert_eq!(Identity::of(&bz_image("6.1", b"what")).format, Format::BzImage(Compression::Unknown));
        assert_eq!(Identity::of(&bz_image("", b"")).release, None);
    }

    #[test]
    fn a_banner_is_told_from_its_pattern() {
        let data = b"xLinux version %s (%s)\0Linux version 6.1.9 (a@b) (gcc) #1 Thu\x1b Jan\n\0";
        assert_eq!(banner(data).as_deref(), Some("6.1.9 (a@b) (gcc) #1 Thu Jan"));
        assert_eq!(banner(b"Linux version "), None);
        // Without an end it is none.
        assert_eq!(banner(b"Linux version 6.1"), None);
    }
}
