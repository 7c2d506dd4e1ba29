//! The calls that have no safe wrapper: all of the agent's `unsafe` code.
#![allow(unsafe_code)]

use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::ioctl::{NoArg, ioctl, opcode};
use rustix::mm::{Advice, madvise};

/// `RNDRESEEDCRNG` (linux/random.h).
const RESEED: rustix::ioctl::Opcode = opcode::none(b'R', 7);

/// Has the kernel's generator of random numbers take what was added to its pool (random(4)). One that was never ready does so by
/// itself, before it gives anything.
pub(crate) fn reseed(random: &impl AsFd) -> Result<(), Errno> {
    // SAFETY: the call takes no argument and touches no memory of ours.
    match unsafe { ioctl(random, NoArg::<RESEED>::new()) } {
        Err(Errno::NODATA) => Ok(()),
        other => other,
    }
}

/// Asks for huge pages under memory, [madvise(2)](https://man7.org/linux/man-pages/man2/madvise.2.html) with `MADV_HUGEPAGE`, as
/// far as it consists of whole ones; says whether the kernel has any to give.
pub(crate) fn huge_pages(memory: &mut [u64]) -> bool {
    /// Of x86-64, in bytes.
    const HUGE: usize = 2 << 20;
    let range = memory.as_mut_ptr_range();
    let (start, end) = (range.start.addr().next_multiple_of(HUGE), range.end.addr() / HUGE * HUGE);
    if start >= end {
        return false;
    }
    let start = range.start.with_addr(start);
    // SAFETY: the range lies within memory that is borrowed for this call alone, and the advice changes none of its contents.
    unsafe { madvise(start.cast(), end - start.addr(), Advice::LinuxHugepage) }.is_ok()
}
