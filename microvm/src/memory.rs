//! Guest memory.

use crate::system;
use std::io;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Why guest memory could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A size that no guest can have.
    #[error("guest memory of {size} bytes: it must be a multiple of 2 MiB, at least {least} and at most {most} bytes")]
    Size {
        /// What was asked for.
        size: u64,
        /// The smallest.
        least: u64,
        /// The largest.
        most: u64,
    },
    /// The kernel gave no memory.
    #[error("map {size} bytes of guest memory")]
    Map {
        /// How much.
        size: u64,
        /// The cause.
        #[source]
        source: vm_memory::mmap::FromRangesError,
    },
    /// The kernel refused advice on it.
    #[error("advise the kernel on guest memory")]
    Advise(#[source] io::Error),
    /// An address outside.
    #[error("access guest memory at {address:#x}")]
    Access {
        /// The address.
        address: u64,
        /// The cause.
        #[source]
        source: vm_memory::GuestMemoryError,
    },
}

/// Maps anonymous private memory for a guest, from address 0. It is not filled: pages come when they are first touched, and they
/// are small, so that a guest's resident memory is what it has used.
pub fn create(size: u64) -> Result<GuestMemoryMmap, MemoryError> {
    let memory = create_regions(&[(GuestAddress(0), size as usize)])?;
    // Where huge pages are always used, the few hundred kilobytes of a unikernel would take and clear four times two megabytes.
    advise(&memory, 0, size as usize, libc::MADV_NOHUGEPAGE)?;
    Ok(memory)
}

/// Maps anonymous private memory at several guest-physical ranges.
pub fn create_regions(ranges: &[(GuestAddress, usize)]) -> Result<GuestMemoryMmap, MemoryError> {
    let size = ranges.iter().map(|(_, size)| *size as u64).sum();
    GuestMemoryMmap::from_ranges(ranges).map_err(|source| MemoryError::Map { size, source })
}

/// Has the kernel provide these pages now, all at once: a page that the host has touched costs the guest a tenth of one that it
/// must fault in itself. Kernels before 5.14 do not know how, and then the guest faults.
pub fn populate(memory: &GuestMemoryMmap, address: u64, length: usize) -> Result<(), MemoryError> {
    advise(memory, address, length, libc::MADV_POPULATE_WRITE)
}

/// Gives the kernel advice that it need not know: a kernel that does not answers EINVAL.
fn advise(memory: &GuestMemoryMmap, address: u64, length: usize, advice: i32) -> Result<(), MemoryError> {
    let slice =
        memory.get_slice(GuestAddress(address), length).map_err(|source| MemoryError::Access { address, source })?;
    match system::advise(&slice, advice) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        other => other.map_err(MemoryError::Advise),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{GuestMemoryRegion, MemoryRegionAddress};

    #[test]
    fn a_guests_pages_are_small() {
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return;
        }
        let memory = create(16 << 20).unwrap();
        let start = memory.iter().next().unwrap().get_host_address(MemoryRegionAddress(0)).unwrap() as usize;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mapping = maps.split_once(&format!("{start:x}-")).unwrap().1;
        let flags = mapping.lines().find(|line| line.starts_with("VmFlags:")).unwrap();
        assert!(flags.split(' ').any(|flag| flag == "nh"), "{flags}");
    }
}
