//! Files that are named by somebody else: whatever has such a name, nobody is held up by it, or reads more than there is room for.

use rustix::buffer::spare_capacity;
use rustix::fs::OFlags;
use rustix::io::{Errno, pread, retry_on_intr};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a regular file to read; its length is told too. A pipe is not waited for, since it is none (fifo(7)).
///
/// # Errors
/// Where it cannot be opened; [`ErrorKind::InvalidInput`] where it is something else than a file.
pub fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    let length = regular_length(&file)?;
    Ok((file, length))
}

/// Reads a regular file from its beginning, wherever it was read last. It may have so many bytes at most.
///
/// # Errors
/// Where it is larger, is something else than a file, or cannot be read.
pub fn read_whole(file: &File, most: u64) -> io::Result<Vec<u8>> {
    let length = regular_length(file)?;
    if length > most {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has {length} bytes, more than {most}")));
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length as usize)?;
    while (bytes.len() as u64) < length {
        let offset = bytes.len() as u64;
        if retry_on_intr(|| pread(file, spare_capacity(&mut bytes), offset))? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(bytes)
}

fn regular_length(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(Errno::ISDIR.into());
    }
    if !metadata.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file"));
    }
    Ok(metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"12345").unwrap();
        assert_eq!(read_whole(&file, 5).unwrap(), b"12345");
        assert_eq!(read_whole(&file, 4).unwrap_err().to_string(), "it has 5 bytes, more than 4");
        // More than there is memory, all of it a hole.
        file.set_len(1 << 43).unwrap();
        assert!(read_whole(&file, 1 << 20).is_err());
        assert_eq!(read_whole(&file, 1 << 43).unwrap_err().kind(), ErrorKind::OutOfMemory);
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for path in [&pipe, Path::new("/dev/zero"), directory.path()] {
            assert!(open_regular(path).is_err(), "{}", path.display());
        }
        std::fs::write(directory.path().join("file"), "text").unwrap();
        let (mut file, length) = open_regular(&directory.path().join("file")).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((&*text, length), ("text", 4));
    }
}
