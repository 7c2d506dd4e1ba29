//! What the server needs of the world around it.

use crate::contract::Network;
use smoltcp::phy::Device;
use smoltcp::time::{Duration, Instant};

/// A network device with a clock and a way to wait. There are two: the virtual machine, and a process on a tap.
pub trait Platform: Device {
    /// The time, from any beginning.
    fn now(&mut self) -> Instant;

    /// Tells the other side of frames transmitted since the last call.
    fn flush(&mut self);

    /// Returns when there is a frame, or after `limit` at the latest, or at once.
    fn wait(&mut self, limit: Option<Duration>);

    /// Who the server is from now on, with a random number, where it has become somebody else since the last call: a clone that goes on
    /// from a snapshot.
    fn renewed(&mut self) -> Option<(Network, u64)> {
        None
    }

    /// Says that the server listens as whom it has become.
    fn listens_again(&mut self) {}
}
