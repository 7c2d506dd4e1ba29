//! Closed loops: the next request follows the answer to the one before.

use super::{PATIENCE, Window, answer, encoded, histogram, open, open_several, receive, reset};
use crate::protocol::Operation;
use crate::{Drive, DriveOutcome, clock};
use hdrhistogram::Histogram;
use std::io::{Error, Result, Write};

pub(super) fn round_trips(drive: &Drive, bytes: u32, outcome: &mut DriveOutcome) -> Result<()> {
    let mut streams = open_several(drive.server, 1, Operation::Echo)?;
    let sent = vec![0x5a_u8; bytes.max(1) as usize];
    let mut received = vec![0_u8; sent.len()];
    let mut tally = Tally::new()?;
    let result = streams.iter_mut().try_for_each(|stream| {
        tally.repeat(Window::of(drive), || {
            stream.write_all(&sent)?;
            receive(stream, &mut received)
        })
    });
    tally.tell(outcome)?;
    outcome.bytes = outcome.completed * sent.len() as u64;
    result?;
    streams.into_iter().try_for_each(reset)
}

pub(super) fn connections(drive: &Drive, in_flight: u32, outcome: &mut DriveOutcome) -> Result<()> {
    // One that is opened beforehand tells a server that is not there by one error, and bounds the number.
    open_several(drive.server, in_flight, Operation::Hello)?.into_iter().try_for_each(reset)?;
    let window = Window::of(drive);
    let connect = || {
        let mut tally = Tally::new()?;
        let result = tally.repeat(window, || {
            let mut stream = open(drive.server, PATIENCE, Operation::Hello)?;
            answer(&mut stream)?;
            reset(stream)
        });
        Ok::<_, Error>((tally, result))
    };
    let tallies: Vec<_> = if in_flight == 1 {
        vec![connect()]
    } else {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..in_flight).map(|_| scope.spawn(connect)).collect();
            let panicked = |_| Err(Error::other("the thread of a connection panicked"));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        })
    };
    let (mut all, mut first_error) = (Tally::new()?, Ok(()));
    for tally in tallies {
        let (tally, result) = tally?;
        all.add(&tally)?;
        first_error = first_error.and(result);
    }
    all.tell(outcome)?;
    first_error
}

/// The requests of one loop.
struct Tally {
    histogram: Histogram<u64>,
    nanoseconds: u64,
    whole: u64,
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Self { histogram: histogram()?, nanoseconds: 0, whole: 0 })
    }

    /// Repeats a request until the window is over and keeps the time of each one that begins within it. A request of the
    /// warm-up that lasts longer than the warm-up moves the window: one that stalls must not leave nothing to measure.
    fn repeat(&mut self, window: Window, mut request: impl FnMut() -> Result<()>) -> Result<()> {
        let mut before = clock::now();
        while before < window.begin {
            request()?;
            self.whole += 1;
            before = clock::now();
        }
        let begun = before;
        while before < begun + window.length() {
            request()?;
            self.whole += 1;
            let now = clock::now();
            self.histogram.saturating_record(now - before);
            self.nanoseconds = now - begun;
            before = now;
        }
        Ok(())
    }

    fn add(&mut self, other: &Self) -> Result<()> {
        self.histogram.add(&other.histogram).map_err(Error::other)?;
        // Loops side by side: the time is that of the longest.
        self.nanoseconds = self.nanoseconds.max(other.nanoseconds);
        self.whole += other.whole;
        Ok(())
    }

    fn tell(&self, outcome: &mut DriveOutcome) -> Result<()> {
        outcome.completed = self.histogram.len();
        outcome.offered = outcome.completed;
        outcome.nanoseconds = self.nanoseconds;
        outcome.whole = self.whole;
        outcome.histogram = encoded(&self.histogram)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_request_of_the_warm_up_that_outlasts_the_window_moves_it() {
        // Far enough off that the first request is there before it, on a busy machine too.
        let begin = clock::now() + 200_000_000;
        let window = Window { begin, end: begin + 4_000_000 };
        let (mut tally, mut requests) = (Tally::new().unwrap(), 0);
        let stalls_at_first = || {
            requests += 1;
            let lasts = if requests == 1 { (window.end + 1_000_000).saturating_sub(clock::now()) } else { 1_000_000 };
            std::thread::sleep(Duration::from_nanos(lasts));
            Ok(())
        };
        tally.repeat(window, stalls_at_first).unwrap();
        assert!(!tally.histogram.is_empty() && tally.nanoseconds >= window.length());
        assert_eq!(tally.whole, tally.histogram.len() + 1, "the one that stalled is warm-up");
    }
}
