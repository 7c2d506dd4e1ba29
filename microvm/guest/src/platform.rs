//! What the server needs of the world around it.

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
}
