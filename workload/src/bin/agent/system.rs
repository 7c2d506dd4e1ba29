//! The calls that have no safe wrapper: all of the agent's `unsafe` code.
#![allow(unsafe_code)]

use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::ioctl::{NoArg, ioctl, opcode};

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
