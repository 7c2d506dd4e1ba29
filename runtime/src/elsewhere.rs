//! Work on another processor.
//!
//! A kernel looks for an idle processor itself. But some of those that are made for guests pack threads onto as few processors
//! as possible: then what was to be done at once is done one after the other.
#![forbid(unsafe_code)]

use crate::system;
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread on another processor than the caller's, if there is one that it may run on, where it stays.
///
/// # Errors
/// Where the thread cannot be started.
pub fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    let thread = Builder::new().name(name.into()).spawn(work)?;
    // It is as good a thread where it is.
    let _ = move_away(&thread);
    Ok(thread)
}

fn move_away<T>(thread: &JoinHandle<T>) -> Result<(), Errno> {
    let allowed = sched_getaffinity(None)?;
    let mut others = allowed;
    others.unset(sched_getcpu());
    if others.count() == 0 {
        return Ok(());
    }
    let moved = system::set_affinity(thread, &others);
    // To musl a thread that has ended has the number 0, which is the calling one's to the kernel.
    if thread.is_finished() {
        sched_setaffinity(None, &allowed)?;
    }
    moved
}

/// The calling thread, kept on the processor that it runs on until this is dropped; so is what it starts meanwhile, until it is
/// allowed what this thread was before.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) before: CpuSet,
}

impl Kept {
    /// `None` where it may run nowhere else.
    pub(crate) fn here() -> Option<Self> {
        let before = sched_getaffinity(None).ok()?;
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        (before.count() > 1 && sched_setaffinity(None, &here).is_ok()).then_some(Self { before })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = sched_setaffinity(None, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_thread_runs_on_another_processor_and_the_caller_where_it_may() {
        let before = sched_getaffinity(None).unwrap();
        let (go, wait) = channel();
        let thread = spawn("elsewhere", move || {
            wait.recv().unwrap();
            sched_getaffinity(None).unwrap()
        })
        .unwrap();
        go.send(()).unwrap();
        let allowed = thread.join().unwrap();
        assert_eq!(allowed.count(), before.count().max(2) - 1, "{allowed:?} of {before:?}");
        // One that has ended at once has taken nothing from the caller.
        for _ in 0..50 {
            spawn("elsewhere", sched_getcpu).unwrap().join().unwrap();
        }
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
