//! Networks made ahead of launches: the strategy *pooled*.
//!
//! Making a network namespace is more than half of what a launch costs. A container that joins one that is ready waits for
//! none of it. The price is paid elsewhere: by a thread that makes the next one, and by the memory of those that wait. So
//! it is a strategy with a name and with figures of its own, and never what is compared with a runtime that prepares nothing.
#![forbid(unsafe_code)]

use crate::network::{Configuration, Endpoint, Namespace, NetworkError, PeerNamespace};
use isobench_workload::Resource;
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// A network namespace that is ready for one container ([`crate::NetworkMode::Prepared`]).
#[derive(Debug)]
pub struct PreparedNetwork {
    pub(crate) namespace: Arc<OwnedFd>,
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) taken: Option<Taken>,
}

impl PreparedNetwork {
    /// One with nothing but `lo`.
    ///
    /// # Errors
    /// What the kernel refused; nothing is left then.
    pub fn alone() -> Result<Self, NetworkError> {
        let namespace = Namespace::create()?;
        configure(&namespace, &Configuration::loopback())?;
        Ok(Self::new(namespace, None))
    }

    /// One with a place in a network, attached, configured and carrying packets.
    ///
    /// # Errors
    /// As [`PreparedNetwork::alone`].
    pub fn attached(endpoint: Endpoint) -> Result<Self, NetworkError> {
        let namespace = Namespace::create()?;
        endpoint.attach(&PeerNamespace::Descriptor(namespace.as_fd()))?;
        configure(&namespace, endpoint.configuration())?;
        endpoint.await_carrier()?;
        Ok(Self::new(namespace, Some(endpoint)))
    }

    /// Its place in a network.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    /// Gives it up unused, and returns when its link has gone and its address is free.
    ///
    /// # Errors
    /// Where the link stays.
    pub fn release(self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        drop((self.namespace, self.taken));
        self.endpoint.map_or(Ok(()), |endpoint| Box::new(endpoint).release().map(drop))
    }

    fn new(namespace: Namespace, endpoint: Option<Endpoint>) -> Self {
        Self { namespace: Arc::new(namespace.into()), endpoint, taken: None }
    }
}

fn configure(namespace: &Namespace, configuration: &Configuration) -> Result<(), NetworkError> {
    let applied = namespace.enter(|| configuration.apply())?;
    applied.map_err(|(step, errno)| NetworkError::system(step.name(), "in a prepared network namespace", errno))
}

/// Prepared networks in stock. A thread makes the next one when the launch that took one is over, so that it does not compete with
/// that launch, or when somebody waits for one.
#[derive(Debug)]
pub struct Stock {
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    size: usize,
    shelf: Mutex<Shelf>,
    changed: Condvar,
}

/// The nice value of the thread that makes them.
const LAST: i32 = 19;

#[derive(Debug, Default)]
struct Shelf {
    ready: VecDeque<PreparedNetwork>,
    /// How many of those that were taken have not been launched with.
    taken: usize,
    /// How many wait for one, or for a full stock.
    waiting: usize,
    /// Why the last one could not be made: told to whoever waits for it.
    failed: Option<NetworkError>,
    closed: bool,
}

impl Shelf {
    /// Whether another one is to be made now.
    fn lacks(&self, size: usize) -> bool {
        self.ready.len() < size && self.failed.is_none() && (self.taken == 0 || self.waiting > 0)
    }
}

/// That a network was taken from a stock, until it is launched with or given up.
#[derive(Debug)]
pub(crate) struct Taken(Arc<Shared>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.lock().taken -= 1;
        self.0.changed.notify_all();
    }
}

impl Stock {
    /// Keeps `size` networks ready, at least one, which `make` makes, on a thread that lives as long as this.
    ///
    /// # Errors
    /// Where the thread cannot be started.
    pub fn new(
        size: usize,
        make: impl Fn() -> Result<PreparedNetwork, NetworkError> + Send + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { size: size.max(1), shelf: Mutex::default(), changed: Condvar::new() });
        let kept = Arc::clone(&shared);
        let keeper = thread::Builder::new().name("prepared networks".into()).spawn(move || kept.keep(&make))?;
        Ok(Self { shared, keeper: Some(keeper) })
    }

    /// The next one; where the stock is empty, as soon as it is made.
    ///
    /// # Errors
    /// Why it could not be made. The next call tries again.
    pub fn take(&self) -> Result<PreparedNetwork, NetworkError> {
        let mut shelf = self.shared.lock();
        loop {
            if let Some(network) = shelf.ready.pop_front() {
                shelf.taken += 1;
                return Ok(PreparedNetwork { taken: Some(Taken(Arc::clone(&self.shared))), ..network });
            }
            shelf = self.shared.await_keeper(shelf)?;
        }
    }

    /// Waits until the stock is full.
    ///
    /// # Errors
    /// Why one could not be made.
    pub fn fill(&self) -> Result<(), NetworkError> {
        let mut shelf = self.shared.lock();
        while shelf.ready.len() < self.shared.size {
            shelf = self.shared.await_keeper(shelf)?;
        }
        Ok(())
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(keeper) = self.keeper.take() {
            // It holds the namespaces, which go with it.
            let _ = keeper.join();
        }
    }
}

impl Shared {
    fn keep(&self, make: &impl Fn() -> Result<PreparedNetwork, NetworkError>) {
        // Whoever has taken one is about to launch with it, and goes first where both want the same processor. A nice value is
        // a thread's own here, against POSIX (setpriority(2)), and may always be raised.
        let _ = setpriority_process(Some(gettid()), LAST);
        loop {
            let mut shelf = self.lock();
            while !shelf.closed && !shelf.lacks(self.size) {
                shelf = self.wait(shelf);
            }
            if shelf.closed {
                return;
            }
            drop(shelf);
            let made = make();
            let mut shelf = self.lock();
            match made {
                Ok(network) => shelf.ready.push_back(network),
                Err(error) => shelf.failed = Some(error),
            }
            self.changed.notify_all();
        }
    }

    /// Waits until the keeper has done something, and gives the reason where that came to nothing.
    fn await_keeper<'a>(&self, mut shelf: MutexGuard<'a, Shelf>) -> Result<MutexGuard<'a, Shelf>, NetworkError> {
        shelf.waiting += 1;
        self.changed.notify_all();
        if shelf.failed.is_none() {
            shelf = self.wait(shelf);
        }
        shelf.waiting -= 1;
        match shelf.failed.take() {
            Some(error) => {
                self.changed.notify_all();
                Err(error)
            }
            None => Ok(shelf),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        // Whole values go in and out: a panic elsewhere leaves nothing half changed.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, shelf: MutexGuard<'a, Shelf>) -> MutexGuard<'a, Shelf> {
        self.changed.wait(shelf).unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    #[test]
    fn whoever_waits_is_told_why_there_is_none_and_may_try_again() {
        let attempts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&attempts);
        let stock = Stock::new(2, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Err(NetworkError::system("create", "a network namespace", Errno::NOSPC))
        })
        .unwrap();
        assert_eq!(stock.take().unwrap_err().errno(), Some(Errno::NOSPC));
        assert!(stock.fill().is_err());
        drop(stock);
        // It waits for somebody to listen before it tries again, and does not spin.
        assert!((2..=3).contains(&attempts.load(Ordering::Relaxed)));
    }

    #[test]
    fn the_next_one_is_made_when_a_launch_is_over_or_somebody_waits() {
        let (made, held) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, competes) = (Arc::clone(&made), Arc::new(AtomicBool::new(false)));
        let (launching, competed) = (Arc::clone(&held), Arc::clone(&competes));
        let stock = Stock::new(2, move || {
            counted.fetch_add(1, Ordering::SeqCst);
            competed.fetch_or(launching.load(Ordering::SeqCst), Ordering::SeqCst);
            let namespace = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
            Ok(PreparedNetwork { namespace, endpoint: None, taken: None })
        })
        .unwrap();
        stock.fill().unwrap();
        assert_eq!(made.load(Ordering::SeqCst), 2);
        held.store(true, Ordering::SeqCst);
        let first = stock.take().unwrap();
        let second = stock.take().unwrap();
        held.store(false, Ordering::SeqCst);
        assert!(!competes.load(Ordering::SeqCst), "one is made while somebody launches");
        let third = stock.take().unwrap();
        assert!(made.load(Ordering::SeqCst) >= 3, "whoever waits gets one");
        drop((first, second, third));
        stock.fill().unwrap();
        assert_eq!(made.load(Ordering::SeqCst), 5);
    }
}
