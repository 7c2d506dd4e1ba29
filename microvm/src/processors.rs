//! On which of the machine's processors a guest's threads run.
//!
//! A guest that looks for frames uses a processor up, and so does the I/O thread that looks for its answers. Where both are on one
//! processor, or one of them is there with whoever sends the frames, each looks in vain for what another does only afterwards. The
//! scheduler is slow to part them: it moves threads that are ready and wait, and these hand each other the processor every few
//! microseconds.

use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The processor on which the thread runs that runs the guest, as far as it has told.
#[derive(Debug)]
pub(crate) struct GuestProcessor(AtomicUsize);

impl Default for GuestProcessor {
    fn default() -> Self {
        Self(AtomicUsize::new(usize::MAX))
    }
}

impl GuestProcessor {
    /// Called by that thread when it begins to move frames: goes to another processor, and tells which. Not at the first time, when the
    /// guest may have looked in vain because nobody has asked it anything yet.
    pub(crate) fn change(&self) {
        if self.0.load(Ordering::Relaxed) != usize::MAX {
            leave(sched_getcpu());
        }
        self.0.store(sched_getcpu(), Ordering::Relaxed);
    }

    /// Called by any other one: leaves that processor, where it is on it.
    pub(crate) fn avoid(&self) {
        let here = sched_getcpu();
        if here == self.0.load(Ordering::Relaxed) {
            leave(here);
        }
    }
}

/// Moves the calling thread from this processor to any other one that it may use, where there is one. It may use afterwards what it might
/// before, so that the scheduler is free to move it on.
fn leave(processor: usize) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let mut others = allowed;
    others.unset(processor);
    if others.count() > 0 && sched_setaffinity(None, &others).is_ok() {
        // It fails only where a control group takes processors away in this moment, which sets what is allowed anew.
        let _ = sched_setaffinity(None, &allowed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::CpuSet;

    /// Runs on a thread of its own, whose processors nobody else uses afterwards.
    fn on_thread(test: impl FnOnce() + Send) {
        std::thread::scope(|scope| scope.spawn(test).join().unwrap());
    }

    fn only(processor: usize) {
        let mut set = CpuSet::new();
        set.set(processor);
        sched_setaffinity(None, &set).unwrap();
    }

    #[test]
    fn what_is_allowed_stays() {
        on_thread(|| {
            let allowed = sched_getaffinity(None).unwrap();
            let guest = GuestProcessor::default();
            guest.change();
            guest.change();
            guest.avoid();
            assert_eq!(sched_getaffinity(None).unwrap(), allowed);
        });
    }

    #[test]
    fn a_thread_leaves_for_another_processor() {
        on_thread(|| {
            let allowed = sched_getaffinity(None).unwrap();
            let usable: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor)).collect();
            let [first, second, ..] = usable[..] else { return };
            let mut both = CpuSet::new();
            both.set(first);
            both.set(second);
            let leaves = || {
                only(first);
                sched_setaffinity(None, &both).unwrap();
                leave(first);
                sched_getcpu() == second
            };
            // The scheduler may move it back at once, but not each time.
            assert!((0..100).any(|_| leaves()));
        });
    }

    #[test]
    fn a_thread_with_one_processor_stays() {
        on_thread(|| {
            let here = sched_getcpu();
            only(here);
            let guest = GuestProcessor::default();
            guest.change();
            guest.change();
            guest.avoid();
            assert_eq!(sched_getcpu(), here);
        });
    }
}
