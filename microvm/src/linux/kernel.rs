//! A Linux kernel file: what it is, and loading it. A vmlinux (ELF) is entered directly; a bzImage unpacks itself first. Both
//! have a 64-bit entry.

use crate::files;
use crate::snapshot::manifest::hexadecimal;
use crate::snapshot::take::sha256;
use linux_loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, Elf, Error as LoaderError, KernelLoader, elf::Error as ElfError};
use rustix::fs::fstat;
use std::fs::File;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::layout;

/// Largest kernel file that is read: a distribution's are 10 to 20 MB, a vmlinux with debugging information 700 MB.
const LARGEST_FILE: u64 = 1 << 30;
/// Where the setup header of a bzImage lies, and its fields' offsets in the file (boot.rst, "The Real-Mode Kernel Header").
const HEADER_END: usize = 0x270;
const BOOT_FLAG: usize = 0x1fe;
const SYSTEM_SIZE: usize = 0x1f4;
const MAGIC: usize = 0x202;
const VERSION_STRING: usize = 0x20e;
/// `XLF_KERNEL_64`: the kernel has a 64-bit entry, 0x200 after its start.
const XLF_KERNEL_64: u16 = 1;
const ENTRY_64: u64 = 0x200;

/// Why a file can't be booted as a kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It can't be read.
    #[error("read the kernel {path} (`isobench vm kernel fetch` gets one)")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("{path} is no x86-64 Linux kernel: {why}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What gives it away.
        why: &'static str,
    },
    /// A part is missing.
    #[error(
        "the kernel {path} is truncated, it has {found} bytes of {wanted}: get it again (`isobench vm kernel fetch`)"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that there are.
        found: u64,
        /// Bytes that there should be.
        wanted: u64,
    },
    /// It can't be loaded.
    #[error("load the kernel {path} into {memory} bytes of memory: give the guest more, or another kernel")]
    Load {
        /// The file.
        path: PathBuf,
        /// The guest's memory in bytes.
        memory: u64,
        /// The cause.
        #[source]
        source: LoaderError,
    },
}

/// A kernel file that looks like one.
#[derive(Debug)]
pub struct Kernel {
    path: PathBuf,
    bytes: Vec<u8>,
    format: Format,
    file: Option<KernelFile>,
}

/// The file that a kernel was read from, held open so that its digest can be told when somebody wants to know: to work it out takes
/// longer than much of a boot. A file of the same name that takes its place is another one; one that is written to is told by its times.
#[derive(Debug)]
pub struct KernelFile {
    file: File,
    as_read: Times,
}

/// A file's length, and when its content and its inode were last changed (inode(7)). The last of them nobody can set, but it is changed
/// by the loss of a name as well. They move with the kernel's clock, so that a change within a tick of the reading (some milliseconds)
/// may be missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    length: i64,
    modified: (i64, i64),
    changed: (i64, i64),
    names: u64,
}

impl KernelFile {
    fn new(file: File) -> io::Result<Self> {
        let as_read = Times::of(&file)?;
        Ok(Self { file, as_read })
    }

    /// The SHA-256 of what was read, as `sha256sum` tells it; nothing where that cannot be told any more.
    pub fn digest(&self) -> Option<String> {
        let digest = sha256(&self.file, self.as_read.length.try_into().ok()?).ok()?;
        let now = Times::of(&self.file).ok()?;
        let unchanged = match now.names == self.as_read.names {
            true => now == self.as_read,
            false => (now.length, now.modified) == (self.as_read.length, self.as_read.modified),
        };
        unchanged.then(|| hexadecimal(&digest))
    }
}

impl Times {
    fn of(file: &File) -> io::Result<Self> {
        let status = fstat(file)?;
        Ok(Self {
            length: status.st_size,
            modified: (status.st_mtime as i64, status.st_mtime_nsec as i64),
            changed: (status.st_ctime as i64, status.st_ctime_nsec as i64),
            names: status.st_nlink as u64,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Elf,
    BzImage,
}

/// A kernel in guest memory.
#[derive(Debug)]
pub struct Loaded {
    /// Its 64-bit entry.
    pub entry: u64,
    /// The first address that it does not need before it knows its own memory.
    pub end: u64,
    /// The setup header of a bzImage.
    pub header: Option<setup_header>,
}

impl Kernel {
    /// Reads a kernel file.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        let read = || -> io::Result<(Vec<u8>, KernelFile)> {
            // What becomes of it while it is read is told by its times as well.
            let file = KernelFile::new(files::open_regular(path)?.0)?;
            Ok((files::read_whole(&file.file, LARGEST_FILE)?, file))
        };
        let (bytes, file) = read().map_err(|source| KernelError::Read { path: path.to_owned(), source })?;
        Ok(Self { file: Some(file), ..Self::from_bytes(path, bytes)? })
    }

    /// Takes a file's content; the path is for messages.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, KernelError> {
        let foreign = |why| KernelError::Foreign { path: path.to_owned(), why };
        let format = if bytes.starts_with(b"\x7fELF") {
            check_elf(&bytes).map_err(foreign)?;
            let (found, wanted) = (bytes.len() as u64, elf_size(&bytes));
            if found < wanted {
                return Err(KernelError::Truncated { path: path.to_owned(), found, wanted });
            }
            Format::Elf
        } else if bytes.get(MAGIC..MAGIC + 4) == Some(b"HdrS")
            && bytes.get(BOOT_FLAG..BOOT_FLAG + 2) == Some(&[0x55, 0xaa])
        {
            let setup = u64::from(bytes[0x1f1].max(1)) * 512 + 512;
            let system = u64::from(number(&bytes, SYSTEM_SIZE)) * 16;
            let (found, wanted) = (bytes.len() as u64, (setup + system).max(HEADER_END as u64));
            // The size is counted in units of 16 bytes.
            if found + 15 < wanted {
                return Err(KernelError::Truncated { path: path.to_owned(), found, wanted });
            }
            Format::BzImage
        } else {
            return Err(foreign("it is neither an ELF file nor a bzImage"));
        };
        Ok(Self { path: path.to_owned(), bytes, format, file: None })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file itself, where it was read from one, for whoever needs nothing else of it.
    pub fn into_file(self) -> Option<KernelFile> {
        self.file
    }

    /// The file's content.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What a bzImage says of its version, and all that follows it (boot.rst, "kernel_version").
    pub(super) fn version(&self) -> Option<&[u8]> {
        if self.format != Format::BzImage {
            return None;
        }
        let start =
            usize::from(u16::from_le_bytes([self.bytes[VERSION_STRING], self.bytes[VERSION_STRING + 1]])) + 0x200;
        self.bytes.get(start..)
    }

    /// The release, such as `6.1.0-42-cloud-amd64`, where the file tells it; its modules lie in a directory of that name.
    pub fn release(&self) -> Option<&str> {
        let text = self.version()?;
        let end = text.iter().take(128).position(|byte| *byte == b' ' || *byte == 0)?;
        let release = std::str::from_utf8(&text[..end]).ok()?;
        // It becomes a part of a path.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+~".contains(&byte);
        (!release.is_empty() && !release.starts_with('.') && release.bytes().all(plain)).then_some(release)
    }

    /// Loads the kernel into guest memory.
    pub fn load(&self, memory: &GuestMemoryMmap) -> Result<Loaded, KernelError> {
        let failed = |source| KernelError::Load {
            path: self.path.clone(),
            memory: memory.iter().map(vm_memory::GuestMemoryRegion::len).sum(),
            source,
        };
        let mut image = Cursor::new(&self.bytes);
        let lowest = Some(GuestAddress(layout::HIGH_MEMORY));
        match self.format {
            Format::Elf => {
                let loaded = Elf::load(memory, None, &mut image, lowest).map_err(failed)?;
                Ok(Loaded { entry: loaded.kernel_load.0, end: loaded.kernel_end, header: None })
            }
            Format::BzImage => {
                let loaded = BzImage::load(memory, None, &mut image, lowest).map_err(failed)?;
                let header = loaded.setup_header.ok_or_else(|| failed(ElfError::ReadKernelImage.into()))?;
                if header.version < 0x20c || header.xloadflags & XLF_KERNEL_64 == 0 {
                    let why = "it has no 64-bit entry (boot protocol 2.12)";
                    return Err(KernelError::Foreign { path: self.path.clone(), why });
                }
                // It unpacks itself to its preferred address and works in `init_size` bytes from there.
                let unpacked = header.pref_address.saturating_add(header.init_size.into());
                let end = loaded.kernel_end.max(unpacked);
                Ok(Loaded { entry: loaded.kernel_load.0 + ENTRY_64, end, header: Some(header) })
            }
        }
    }
}

/// Where kernels are kept: `isobench/kernels` in the user's cache. It need not be there.
pub fn cache() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("isobench/kernels"))
}

/// The file in [`cache`] that tells which kernel the user chose: its path there, or an absolute one.
pub const CHOICE: &str = "default";

/// The kernel that runs on this machine, as a file in /boot. It need not be there.
pub fn of_host() -> PathBuf {
    Path::new("/boot").join(format!("vmlinuz-{}", rustix::system::uname().release().to_string_lossy()))
}

/// The kernel for a guest where none is named: the one that the user chose, whether or not it is still there; else ours, else the
/// distribution's cloud kernel, both where `scripts/guest-kernel` puts them, else the machine's own where it can be read.
pub fn find() -> Option<PathBuf> {
    find_for(1)
}

/// The same for a guest with so many processors: there are two of ours, of which one runs several.
pub fn find_for(processors: u8) -> Option<PathBuf> {
    let cache = cache();
    let cached = |file: &str| cache.as_ref().map(|cache| cache.join(file));
    if let Some(chosen) = cached(CHOICE).and_then(|file| std::fs::read_to_string(file).ok()) {
        return cached(chosen.trim_end_matches('\n'));
    }
    let ours = if processors > 1 { "microvm-smp/vmlinux" } else { "microvm/vmlinux" };
    let candidates = [cached(ours), cached("cloud/vmlinuz"), Some(of_host())];
    candidates.into_iter().flatten().find(|file| File::open(file).is_ok())
}

/// A few fields of the ELF header: 64 bits, little-endian, executable, x86-64 (elf(5)).
fn check_elf(bytes: &[u8]) -> Result<(), &'static str> {
    let header = bytes.get(..64).ok_or("its ELF header is cut short")?;
    match (header[4], header[5], header[16], header[18]) {
        (2, 1, 2, 62) => Ok(()),
        (2, 1, 2, _) => Err("it is for another processor"),
        _ => Err("it is no 64-bit ELF executable"),
    }
}

/// How long an ELF file whose header is whole must be to hold its program headers and all that they name.
fn elf_size(bytes: &[u8]) -> u64 {
    let table = long(bytes, 32).unwrap_or(0);
    let (size, count) =
        (u64::from(bytes[54]) | u64::from(bytes[55]) << 8, u64::from(bytes[56]) | u64::from(bytes[57]) << 8);
    let mut wanted = table.saturating_add(size * count);
    for index in 0..count {
        let header = usize::try_from(table.saturating_add(size * index)).unwrap_or(usize::MAX);
        let field = |at: usize| long(bytes, header.saturating_add(at));
        // p_offset and p_filesz; a header outside the file is missed by the table's own size.
        if let (Some(offset), Some(length)) = (field(8), field(32)) {
            wanted = wanted.max(offset.saturating_add(length));
        }
    }
    wanted
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let word = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(word.try_into().ok()?))
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn a_kernel_is_named_by_what_was_read_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("kernel"), directory.path().join("other"));
        let one = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
        std::fs::write(&path, "one").unwrap();
        let read = KernelFile::new(File::open(&path).unwrap()).unwrap();
        assert_eq!(read.digest().as_deref(), Some(one));
        // Another one takes its name.
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(read.digest().as_deref(), Some(one));
        // Something else is written into it.
        let read = KernelFile::new(File::open(&path).unwrap()).unwrap();
        assert!(read.digest().is_some());
        std::fs::write(&path, "six").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(read.digest(), None);
        std::fs::write(&path, "longer").unwrap();
        assert_eq!(read.digest(), None);
    }
}
