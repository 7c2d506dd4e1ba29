//! Guest memory as a file: region after region, pages of zeros as holes.

use crate::memory::MemoryError;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use vm_memory::mmap::{FromRangesError, MmapRegionBuilder};
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
};

/// Memory is looked at in pieces of this many bytes, of which those that hold zeros alone are not written.
pub const PIECE: usize = 4096;
/// So much is read at once.
const BATCH: usize = 64 * PIECE;
static ZEROS: [u8; PIECE] = [0; PIECE];

/// Writes all memory of a guest that is not running; gives the file's length.
pub(crate) fn write(memory: &GuestMemoryMmap, file: &File) -> io::Result<u64> {
    let mut buffer = vec![0; BATCH];
    let mut offset = 0;
    for region in memory.iter() {
        let (mut address, end) = (region.start_addr().0, region.start_addr().0 + region.len());
        while address < end {
            let batch = &mut buffer[..(end - address).min(BATCH as u64) as usize];
            memory.read_slice(batch, GuestAddress(address)).map_err(io::Error::other)?;
            write_batch(file, batch, offset)?;
            address += batch.len() as u64;
            offset += batch.len() as u64;
        }
    }
    file.set_len(offset)?;
    Ok(offset)
}

/// Writes what of a batch is not zero, neighbours in one call.
fn write_batch(file: &File, batch: &[u8], offset: u64) -> io::Result<()> {
    let mut begun = None;
    for at in (0..=batch.len()).step_by(PIECE) {
        let used = batch.get(at..at + PIECE).is_some_and(|piece| piece != ZEROS);
        match (begun, used) {
            (None, true) => begun = Some(at),
            (Some(from), false) => {
                file.write_all_at(&batch[from..at], offset + from as u64)?;
                begun = None;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Maps a file as a guest's memory, for the guest alone: what it writes is never seen by anybody else, and what it does not touch is
/// never read.
pub(crate) fn map(file: &File, regions: &[(u64, u64)]) -> Result<GuestMemoryMmap, MemoryError> {
    let size = regions.iter().map(|(_, length)| length).sum();
    let failed = |source| MemoryError::Map { size, source };
    // A guest that touches what lies behind the file's end would end its monitor.
    let length = file.metadata().map_err(MemoryError::Advise)?.len();
    if length != size {
        return Err(MemoryError::File { size, length });
    }
    let mut offset = 0;
    let mut mapped = Vec::new();
    for (start, length) in regions {
        let part = FileOffset::new(file.try_clone().map_err(MemoryError::Advise)?, offset);
        let region = MmapRegionBuilder::new(*length as usize)
            .with_file_offset(part)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_NORESERVE | libc::MAP_PRIVATE)
            .build()
            .map_err(|source| failed(FromRangesError::MmapRegion(source)))?;
        mapped.push(GuestRegionMmap::new(region, GuestAddress(*start)).ok_or(MemoryError::Size {
            size,
            least: 0,
            most: u64::MAX,
        })?);
        offset += length;
    }
    GuestMemoryMmap::from_regions(mapped).map_err(|_| MemoryError::Size { size, least: 0, most: u64::MAX })
}

/// The digest of a memory file: the SHA-256 of the number and the content of each piece that is not all zeros. It says the same of two
/// files whose content is the same, wherever they have holes, and holes cost nothing.
pub(crate) fn digest(file: &File, length: u64) -> io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; BATCH];
    let mut at = 0;
    while let Some(data) = next(file, SeekFrom::Data(at))?.filter(|data| *data < length) {
        // A piece may begin in a hole.
        let from = data / PIECE as u64 * PIECE as u64;
        let end = next(file, SeekFrom::Hole(data))?.unwrap_or(length).next_multiple_of(PIECE as u64).min(length);
        let mut offset = from;
        while offset < end {
            let batch = &mut buffer[..(end - offset).min(BATCH as u64) as usize];
            file.read_exact_at(batch, offset)?;
            for (number, piece) in (offset / PIECE as u64..).zip(batch.chunks(PIECE)) {
                if piece != &ZEROS[..piece.len()] {
                    digest.update(number.to_le_bytes());
                    digest.update(piece);
                }
            }
            offset += batch.len() as u64;
        }
        at = end;
    }
    Ok(digest.finalize().into())
}

/// Where the next data or the next hole begins (lseek(2)); `None` where there is none.
fn next(file: &File, to: SeekFrom) -> io::Result<Option<u64>> {
    match seek(file, to) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_and_zeros_take_no_room() {
        use std::os::unix::fs::MetadataExt;
        let regions = [(GuestAddress(0), 4 << 20), (GuestAddress(1 << 32), 2 << 20)];
        let memory = crate::memory::create_regions(&regions).unwrap();
        let places = [0, 5000, (4 << 20) - 8, (1 << 32) + 70_000];
        for (number, place) in (1_u64..).zip(places) {
            memory.write_obj(number, GuestAddress(place)).unwrap();
        }
        let file = tempfile::tempfile().unwrap();
        assert_eq!(write(&memory, &file).unwrap(), 6 << 20);
        assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20);
        let mapped = map(&file, &[(0, 4 << 20), (1 << 32, 2 << 20)]).unwrap();
        for (number, place) in (1_u64..).zip(places) {
            assert_eq!(mapped.read_obj::<u64>(GuestAddress(place)).unwrap(), number);
        }
        // What a clone writes is its own.
        mapped.write_obj(77_u64, GuestAddress(0)).unwrap();
        let other = map(&file, &[(0, 4 << 20), (1 << 32, 2 << 20)]).unwrap();
        assert_eq!(other.read_obj::<u64>(GuestAddress(0)).unwrap(), 1);
    }

    #[test]
    fn the_digest_sees_each_byte_and_no_hole() {
        let length = 1 << 20;
        let (sparse, full) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        sparse.set_len(length).unwrap();
        full.write_all_at(&vec![0; length as usize], 0).unwrap();
        assert_eq!(digest(&sparse, length).unwrap(), digest(&full, length).unwrap());
        let mut seen = vec![digest(&sparse, length).unwrap()];
        for place in [0, 1, 4095, 4096, 300_000, length - 1] {
            for file in [&sparse, &full] {
                file.write_all_at(&[1], place).unwrap();
            }
            let now = digest(&sparse, length).unwrap();
            assert_eq!(now, digest(&full, length).unwrap());
            assert!(!seen.contains(&now), "a byte at {place}");
            seen.push(now);
        }
    }
}
