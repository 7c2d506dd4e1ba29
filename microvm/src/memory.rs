//! Guest memory.

use crate::system;
use std::io;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, MemoryRegionAddress,
};

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
    /// More than there is.
    #[error("guest memory of {size} bytes: this machine has {host} bytes")]
    BeyondHost {
        /// What was asked for.
        size: u64,
        /// The machine's memory.
        host: u64,
    },
    /// More than is free, where all is to be taken at once.
    #[error("take {size} bytes of guest memory at once: this machine has {available} bytes available")]
    NotAvailable {
        /// What was asked for.
        size: u64,
        /// What there is without swapping.
        available: u64,
    },
    /// A file that is to be mapped as guest memory has another length.
    #[error("guest memory of {size} bytes: its file has {length} bytes")]
    File {
        /// What it must have.
        size: u64,
        /// What it has.
        length: u64,
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

/// Maps anonymous private memory at several guest-physical ranges, the first of which begins at a multiple of [`LARGE`] in this
/// process, so that a large page of the host is one of the guest's too: a guest is stopped once for each page that KVM has to put into
/// its tables.
pub fn create_regions(ranges: &[(GuestAddress, usize)]) -> Result<GuestMemoryMmap, MemoryError> {
    let size = ranges.iter().map(|(_, size)| *size as u64).sum();
    let map = |ranges: &[_]| GuestMemoryMmap::from_ranges(ranges).map_err(|source| MemoryError::Map { size, source });
    let memory = map(ranges)?;
    let beyond = host_address(&memory) % LARGE;
    if beyond == 0 {
        return Ok(memory);
    }
    // Mappings are put one below the other (mmap(2) without an address). One that is larger by what there is too much takes the place
    // of this one, so that what comes next lies right; where it does not, nothing but speed is lost.
    drop(memory);
    let place: Result<GuestMemoryMmap, _> =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size as usize + beyond as usize)]);
    let memory = map(ranges);
    drop(place);
    memory
}

/// The large pages of x86-64, in bytes.
const LARGE: u64 = 2 << 20;

/// Where a guest's memory begins in this process.
fn host_address(memory: &GuestMemoryMmap) -> u64 {
    memory
        .iter()
        .next()
        .and_then(|region| region.get_host_address(MemoryRegionAddress(0)).ok())
        .map_or(0, |address| address as u64)
}

/// What pages guest memory is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pages {
    /// What the machine gives to programs that say nothing of it (`/sys/kernel/mm/transparent_hugepage/enabled`).
    #[default]
    System,
    /// 4 KiB: what the guest does not touch is never taken, and what it gives back is free at once.
    Small,
    /// 2 MiB wherever the kernel has them to give.
    Huge,
}

/// Says what pages memory is to be made of. A kernel without large ones has small ones.
pub fn choose_pages(memory: &GuestMemoryMmap, pages: Pages) -> Result<(), MemoryError> {
    let advice = match pages {
        Pages::System => return Ok(()),
        Pages::Small => libc::MADV_NOHUGEPAGE,
        Pages::Huge => libc::MADV_HUGEPAGE,
    };
    memory.iter().try_for_each(|region| advise(memory, region.start_addr().0, region.len() as usize, advice))
}

/// Takes all of a guest's memory now.
pub fn populate_all(memory: &GuestMemoryMmap) -> Result<(), MemoryError> {
    let size = memory.iter().map(GuestMemoryRegion::len).sum();
    // Without this, a machine that has less ends some program of its choice. Where /proc is hidden, it may.
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    if let Some(available) = available(&text).filter(|available| *available < size) {
        return Err(MemoryError::NotAvailable { size, available });
    }
    for region in memory.iter() {
        let failed = |source| MemoryError::Access { address: region.start_addr().0, source };
        let slice = memory.get_slice(region.start_addr(), region.len() as usize).map_err(failed)?;
        match system::advise(&slice, libc::MADV_POPULATE_WRITE) {
            // Kernels before 5.14: by hand.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => touch(memory, region).map_err(failed)?,
            other => other.map_err(MemoryError::Advise)?,
        }
    }
    Ok(())
}

/// Writes to each page what it holds.
fn touch(memory: &GuestMemoryMmap, region: &GuestRegionMmap) -> Result<(), vm_memory::GuestMemoryError> {
    for offset in (0..region.len()).step_by(4096) {
        let address = GuestAddress(region.start_addr().0 + offset);
        let byte: u8 = memory.read_obj(address)?;
        memory.write_obj(byte, address)?;
    }
    Ok(())
}

/// What /proc/meminfo says is available without swapping (proc_meminfo(5)), in bytes.
fn available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1 << 10)
}

/// Refuses what no guest of this machine can ever use.
pub fn check_against_host(size: u64) -> Result<(), MemoryError> {
    let info = rustix::system::sysinfo();
    let host = (info.totalram as u64).saturating_mul(info.mem_unit.into());
    if size > host { Err(MemoryError::BeyondHost { size, host }) } else { Ok(()) }
}

/// Has the kernel provide these pages now, all at once: a page that the host has touched costs the guest a tenth of one that it
/// must fault in itself. Kernels before 5.14 do not know how, and then the guest faults.
pub fn populate(memory: &GuestMemoryMmap, address: u64, length: usize) -> Result<(), MemoryError> {
    advise(memory, address, length, libc::MADV_POPULATE_WRITE)
}

/// Has the kernel map these pages of a file now, all at once, to be read; likewise.
pub(crate) fn populate_for_reading(memory: &GuestMemoryMmap, address: u64, length: usize) -> Result<(), MemoryError> {
    advise(memory, address, length, libc::MADV_POPULATE_READ)
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

    /// Whether the mapping in which a guest's memory begins has a flag (proc_pid_smaps(5)).
    fn has(memory: &GuestMemoryMmap, flag: &str) -> bool {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let mut lines = maps.lines().skip_while(|line| {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let range = range.and_then(|(from, to)| Some(number(from)?..number(to)?));
            !range.is_some_and(|range| range.contains(&host_address(memory)))
        });
        lines.find_map(|line| line.strip_prefix("VmFlags:")).unwrap().split(' ').any(|each| each == flag)
    }

    /// How many of the first so many pages of a guest's memory there are (proc_pid_pagemap(5)).
    fn present(memory: &GuestMemoryMmap, pages: usize) -> usize {
        use std::os::unix::fs::FileExt;
        let mut entries = vec![0; pages * 8];
        let map = std::fs::File::open("/proc/self/pagemap").unwrap();
        map.read_exact_at(&mut entries, host_address(memory) / 4096 * 8).unwrap();
        entries.chunks(8).filter(|entry| entry[7] & 1 << 7 != 0).count()
    }

    #[test]
    fn pages_are_as_they_were_asked_for() {
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return;
        }
        assert!(has(&create(16 << 20).unwrap(), "nh"));
        for (pages, small, huge) in
            [(Pages::System, false, false), (Pages::Small, true, false), (Pages::Huge, false, true)]
        {
            let memory = create_regions(&[(GuestAddress(0), 4 << 20)]).unwrap();
            choose_pages(&memory, pages).unwrap();
            assert_eq!((has(&memory, "nh"), has(&memory, "hg")), (small, huge), "{pages:?}");
        }
    }

    #[test]
    fn memory_is_taken_when_it_is_touched_or_all_at_once() {
        let memory = create_regions(&[(GuestAddress(0), 4 << 20), (GuestAddress(1 << 32), 2 << 20)]).unwrap();
        choose_pages(&memory, Pages::Small).unwrap();
        assert_eq!(present(&memory, 1024), 0);
        touch(&memory, memory.iter().next().unwrap()).unwrap();
        assert_eq!(present(&memory, 1024), 1024);
        let memory = create_regions(&[(GuestAddress(0), 4 << 20), (GuestAddress(1 << 32), 2 << 20)]).unwrap();
        choose_pages(&memory, Pages::Small).unwrap();
        memory.write_obj(1_u8, GuestAddress(4096)).unwrap();
        assert_eq!(present(&memory, 1024), 1);
        populate_all(&memory).unwrap();
        assert_eq!(present(&memory, 1024), 1024);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(4096)).unwrap(), 1);
    }

    #[test]
    fn large_pages_of_the_host_are_the_guests_too() {
        for ranges in
            [&[(GuestAddress(0), 4 << 20)][..], &[(GuestAddress(0), 64 << 20), (GuestAddress(1 << 32), 2 << 20)]]
        {
            // Another thread's mapping may come between, once.
            let aligned = |_| host_address(&create_regions(ranges).unwrap()).is_multiple_of(LARGE);
            assert!((0..16).any(aligned), "{ranges:?}");
        }
    }

    #[test]
    fn more_than_there_is_is_refused() {
        assert!(matches!(check_against_host(1 << 60), Err(MemoryError::BeyondHost { size, .. }) if size == 1 << 60));
        check_against_host(1 << 20).unwrap();
        assert_eq!(available("MemFree: 1 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(available("MemAvailable: none\n"), None);
    }
}
