//! The memory in which the launching process and the child talk until the child has become the program.
#![forbid(unsafe_code)]

use crate::child::Step;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::thread::futex::{self, Timespec};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// A step that failed, at which item of its list, and the system's word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) item: usize,
    pub(crate) errno: Errno,
}

/// The memory in which parent and child talk: a few words.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// [`Self::BUSY`], [`Self::CONFIGURED`] or [`Self::WAITING`] while the child is in this memory; the kernel clears it when
    /// the child leaves (`CLONE_CHILD_CLEARTID`).
    present: AtomicU32,
    /// How far the parent is with the network: 0, [`Self::ATTACHED`], [`Self::SETTLED`], or [`Self::FAILED`].
    network: AtomicU32,
    step: AtomicU32,
    item: AtomicU32,
    errno: AtomicI32,
}

impl Shared {
    const BUSY: u32 = 1;
    const CONFIGURED: u32 = 2;
    const WAITING: u32 = 3;

    const ATTACHED: u32 = 1;
    const SETTLED: u32 = 2;
    const FAILED: u32 = 3;

    /// How often, and how long each time, the child waits for its parent. One that was killed never answers, and the child must
    /// not stay behind: until exec it has all descriptors of its parent's, and so its locks.
    const WAITS: u32 = 100;
    const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

    pub(crate) fn begin(&self) {
        self.present.store(Self::BUSY, Ordering::Release);
    }

    pub(crate) fn departure_word(&self) -> *const AtomicU32 {
        &self.present
    }

    /// Waits until the child has become the program or ended.
    pub(crate) fn await_departure(&self) {
        self.await_beyond(Self::WAITING);
    }

    /// Waits until the child waits for its order to start, or has left.
    pub(crate) fn await_set_up(&self) {
        self.await_beyond(Self::CONFIGURED);
    }

    /// Waits until the child has configured its network, or has left.
    pub(crate) fn await_configuration(&self) {
        self.await_beyond(Self::BUSY);
    }

    /// Waits until the child is further than a state, or has left.
    fn await_beyond(&self, state: u32) {
        // The kernel wakes without FUTEX_PRIVATE when the child leaves, so the wait must be without it too.
        loop {
            match self.present.load(Ordering::Acquire) {
                present if (1..=state).contains(&present) => {
                    let _ = futex::wait(&self.present, futex::Flags::empty(), present, None);
                }
                _ => return,
            }
        }
    }

    /// The child's word that it has configured its network.
    pub(crate) fn configured(&self) {
        say(&self.present, Self::CONFIGURED);
    }

    /// The child's word that it waits for its order to start.
    pub(crate) fn set_up(&self) {
        say(&self.present, Self::WAITING);
    }

    /// The parent's word that the network is attached.
    pub(crate) fn attached(&self) {
        say(&self.network, Self::ATTACHED);
    }

    /// The parent's word that the network carries packets.
    pub(crate) fn settled(&self) {
        say(&self.network, Self::SETTLED);
    }

    /// The parent's word that there will be no network.
    pub(crate) fn give_up(&self) {
        say(&self.network, Self::FAILED);
    }

    /// Waits until the network is attached.
    ///
    /// # Errors
    /// `ECANCELED` where there will be none, `ESRCH` where the parent has ended, as far as its pidfd tells, and `ETIMEDOUT` where
    /// it says nothing.
    pub(crate) fn await_attached(&self, parent: Option<&OwnedFd>) -> Result<(), Errno> {
        self.await_network(Self::ATTACHED, parent)
    }

    /// Waits until the network carries packets.
    ///
    /// # Errors
    /// As [`Shared::await_attached`].
    pub(crate) fn await_settled(&self, parent: Option<&OwnedFd>) -> Result<(), Errno> {
        self.await_network(Self::SETTLED, parent)
    }

    fn await_network(&self, state: u32, parent: Option<&OwnedFd>) -> Result<(), Errno> {
        let mut waits = 0;
        loop {
            match self.network.load(Ordering::Acquire) {
                Self::FAILED => return Err(Errno::CANCELED),
                present if present < state => {
                    if futex::wait(&self.network, futex::Flags::empty(), present, Some(&Self::WAIT))
                        != Err(Errno::TIMEDOUT)
                    {
                        continue;
                    }
                    waits += 1;
                    if parent.map_or(Ok(false), has_ended)? {
                        return Err(Errno::SRCH);
                    }
                    if waits == Self::WAITS {
                        return Err(Errno::TIMEDOUT);
                    }
                }
                _ => return Ok(()),
            }
        }
    }

    pub(crate) fn fail(&self, failure: Failure) {
        self.errno.store(failure.errno.raw_os_error(), Ordering::Relaxed);
        self.item.store(failure.item as u32, Ordering::Relaxed);
        self.step.store(failure.step as u32, Ordering::Release);
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        let number = self.step.load(Ordering::Acquire);
        let step = *Step::ALL.get((number as usize).checked_sub(1)?)?;
        let errno = Errno::from_raw_os_error(self.errno.load(Ordering::Relaxed));
        Some(Failure { step, item: self.item.load(Ordering::Relaxed) as usize, errno })
    }
}

/// Puts a state into a word and wakes whoever waits for it.
fn say(word: &AtomicU32, state: u32) {
    word.store(state, Ordering::Release);
    let _ = futex::wake(word, futex::Flags::empty(), 1);
}

/// Whether the process behind a pidfd has ended.
pub(crate) fn has_ended(process: &OwnedFd) -> Result<bool, Errno> {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&at_once)).map(|ended| ended > 0)
}
