//! Waiting until a link is as it should be.

use super::{Link, Netlink, NetworkError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::time::{Duration, Instant};

/// How long a link may take to carry packets.
const PATIENCE: Duration = Duration::from_secs(10);

impl Netlink {
    /// Waits until a link carries packets.
    ///
    /// When the other end of a veth pair comes up, the kernel leaves it to a worker (net/core/link_watch.c) to let this end send, and
    /// to make a bridge's port forward. Until then packets are dropped, and a first one that is lost costs a second. Since
    /// Linux 6.8 the question for the link's state makes the kernel catch up.
    ///
    /// # Errors
    /// [`NetworkError::Silent`] if it never does.
    pub fn await_carrier(&mut self, name: &str) -> Result<(), NetworkError> {
        let namespace = self.namespace().duplicate()?;
        carries(name, || Netlink::watch_links(&namespace), || self.link(name))
    }
}

/// The same with another way to look at the link, and to subscribe to its changes.
pub(super) fn carries(
    name: &str,
    subscribe: impl FnOnce() -> Result<OwnedFd, NetworkError>,
    mut look: impl FnMut() -> Result<Option<Link>, NetworkError>,
) -> Result<(), NetworkError> {
    let running = until(name, PATIENCE, subscribe, || Ok(look()?.is_some_and(|link| link.running)))?;
    running.then_some(()).ok_or_else(|| NetworkError::Silent(name.into()))
}

/// Waits until a link is as it should be, told by the kernel of every change; false if it is not in time.
pub(super) fn until(
    name: &str,
    patience: Duration,
    subscribe: impl FnOnce() -> Result<OwnedFd, NetworkError>,
    mut reached: impl FnMut() -> Result<bool, NetworkError>,
) -> Result<bool, NetworkError> {
    if reached()? {
        return Ok(true);
    }
    // Subscribed before the next look: no change is missed in between.
    let watch = subscribe()?;
    let end = Instant::now() + patience;
    while !reached()? {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(NetworkError::system("watch link", name, errno)),
        }
        super::netlink::discard(&watch);
    }
    Ok(true)
}
