//! What the tests that run the real binary from end to end share.

use libtest_mimic::Failed;
use std::time::{Duration, Instant};

/// How long what was begun may take: guests boot slowly on an emulated machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A failure in these words where something does not hold.
pub(crate) fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}

/// Asks again until it holds; the tests wait here, the program nowhere.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> Result<bool, Failed>) -> Result<(), Failed> {
    let begun = Instant::now();
    while !holds()? {
        check(begun.elapsed() < PATIENCE, || format!("{what} does not come"))?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
