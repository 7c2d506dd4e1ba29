//! The processor's time stamp counter (Intel SDM, volume 3, "Time-Stamp Counter").

use crate::system;
use std::time::{Duration, Instant};

/// How long it is watched: what lies between two readings of clock and counter is a ten-thousandth of that.
const WATCHED: Duration = Duration::from_millis(10);

/// How often it counts, in kilohertz, measured beside the kernel's clock: no file tells it, and a guest under emulation, which has the
/// host's, cannot always find it out.
pub fn kilohertz() -> u64 {
    let (begun, from) = (Instant::now(), system::counter());
    std::thread::sleep(WATCHED);
    let counted = system::counter().wrapping_sub(from);
    (u128::from(counted) * 1_000_000 / begun.elapsed().as_nanos().max(1)) as u64
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_the_same_each_time_and_that_of_a_processor() {
        let [first, second] = [(); 2].map(|()| super::kilohertz() as f64);
        assert!((100_000.0..10_000_000.0).contains(&first), "{first} kHz");
        assert!((first / second - 1.0).abs() < 0.1, "{first} and {second} kHz");
    }
}
