//! The open loop: requests leave on a constant schedule, whatever became of those before.
//!
//! A request's time counts from when it was due. Where the server (or the generator itself) stalls, every request that was
//! due meanwhile shows it, which a closed loop would hide ("coordinated omission", Gil Tene, *How NOT to Measure Latency*).

use super::{PATIENCE, Window, encoded, histogram, open_several, reset};
use crate::protocol::Operation;
use crate::{Drive, DriveOutcome, clock};
use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::io::{Error, ErrorKind, Result};
use std::net::TcpStream;

/// The highest rate that can be asked for: one request each 100 ns.
const HIGHEST_RATE: u32 = 10_000_000;

/// The last stretch before a request is due is waited out awake, since a timer of the kernel's comes late by as much.
const AWAKE: u64 = 150_000;

pub(super) fn load(drive: &Drive, rate: u32, connections: u32, outcome: &mut DriveOutcome) -> Result<()> {
    if rate == 0 || rate > HIGHEST_RATE {
        let message = format!("{rate} requests a second; 1 to {HIGHEST_RATE} are possible");
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let streams = open_several(drive.server, connections, Operation::Echo)?;
    let window = Window::of(drive);
    let warm_up = drive.warm_up.saturating_mul(1_000_000);
    let schedule = Schedule {
        begin: window.begin - warm_up,
        rate: u64::from(rate),
        first_kept: window.begin,
        end: window.end,
        connections: u64::from(connections),
    };
    let mut ledger = Ledger::new(schedule)?;
    let result = exchange(&streams, &mut ledger);
    ledger.give_up(clock::now());
    ledger.tell(outcome)?;
    result?;
    streams.into_iter().try_for_each(reset)
}

/// When each request is due, and on which connection.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    begin: u64,
    rate: u64,
    /// Requests that are due before this are warm-up.
    first_kept: u64,
    end: u64,
    connections: u64,
}

impl Schedule {
    /// When a request is due.
    fn due(&self, request: u64) -> u64 {
        self.begin + (u128::from(request) * 1_000_000_000 / u128::from(self.rate)) as u64
    }

    /// How many requests are due by now, the one due at this instant included.
    fn due_by(&self, now: u64) -> u64 {
        let Some(passed) = now.min(self.end - 1).checked_sub(self.begin) else { return 0 };
        let mut count = (u128::from(passed) * u128::from(self.rate) / 1_000_000_000) as u64;
        // Division rounds down in both directions.
        while self.due(count) <= now.min(self.end - 1) {
            count += 1;
        }
        count
    }

    /// The request that goes as the nth over a connection: connections take turns.
    fn request(&self, connection: u64, nth: u64) -> u64 {
        nth * self.connections + connection
    }
}

/// Which requests were sent and answered.
struct Ledger {
    schedule: Schedule,
    /// For each connection: requests sent, and of those answered.
    connections: Vec<(u64, u64)>,
    histogram: Histogram<u64>,
    whole: u64,
    unanswered: u64,
    last_answer: u64,
}

impl Ledger {
    fn new(schedule: Schedule) -> Result<Self> {
        let connections = vec![(0, 0); schedule.connections as usize];
        Ok(Self { schedule, connections, histogram: histogram()?, whole: 0, unanswered: 0, last_answer: 0 })
    }

    /// How many requests are due on a connection and not sent yet.
    fn owed(&self, connection: usize, now: u64) -> u64 {
        let index = connection as u64;
        let due = self.schedule.due_by(now);
        let on_this = (due + self.schedule.connections - 1).saturating_sub(index) / self.schedule.connections;
        on_this - self.connections[connection].0
    }

    fn sent(&mut self, connection: usize, count: u64) {
        self.connections[connection].0 += count;
    }

    /// Answers came on a connection, in the order of its requests. Those that nobody asked for are refused.
    fn answered(&mut self, connection: usize, count: u64, now: u64) -> Result<()> {
        for _ in 0..count {
            let (sent, answered) = self.connections[connection];
            if answered == sent {
                return Err(Error::new(ErrorKind::InvalidData, "the server answered more than it was asked"));
            }
            self.connections[connection].1 += 1;
            self.whole += 1;
            self.last_answer = now;
            self.keep(self.schedule.request(connection as u64, answered), now);
        }
        Ok(())
    }

    fn keep(&mut self, request: u64, now: u64) -> bool {
        let due = self.schedule.due(request);
        let kept = due >= self.schedule.first_kept;
        if kept {
            self.histogram.saturating_record(now.saturating_sub(due));
        }
        kept
    }

    /// Whether anything that is due is still to be sent or answered.
    fn is_waiting(&self, now: u64) -> bool {
        let due = self.schedule.due_by(now);
        self.connections.iter().map(|(_, answered)| answered).sum::<u64>() < due
    }

    /// What is due and has no answer yet took at least until now; it is part of the distribution, and told apart.
    fn give_up(&mut self, now: u64) {
        for connection in 0..self.connections.len() {
            let due = self.connections[connection].0 + self.owed(connection, now);
            for nth in self.connections[connection].1..due {
                let request = self.schedule.request(connection as u64, nth);
                self.unanswered += u64::from(self.keep(request, now));
            }
        }
    }

    fn tell(&self, outcome: &mut DriveOutcome) -> Result<()> {
        outcome.offered = self.histogram.len();
        outcome.completed = outcome.offered - self.unanswered;
        outcome.bytes = outcome.completed;
        outcome.nanoseconds = self.last_answer.max(self.schedule.end) - self.schedule.first_kept;
        outcome.whole = self.whole;
        outcome.histogram = encoded(&self.histogram)?;
        Ok(())
    }
}

/// Sends what is due and takes in what comes, until the schedule is over and all is answered.
fn exchange(streams: &[TcpStream], ledger: &mut Ledger) -> Result<()> {
    let end = ledger.schedule.end;
    // After the schedule an overloaded server gets as much time again for what has queued up, within bounds.
    let patience = (end - ledger.schedule.begin).clamp(200_000_000, PATIENCE.as_nanos() as u64);
    // It counts from when this has sent what it could, which may be later than the schedule's end where this was held up itself.
    let mut give_up = None;
    let mut buffer = vec![0x5a_u8; 64 * 1024];
    loop {
        let mut now = clock::now();
        let over = now >= end;
        let mut owing = false;
        for (index, stream) in streams.iter().enumerate() {
            let owed = ledger.owed(index, now);
            if owed > 0 {
                let count = usize::try_from(owed).unwrap_or(usize::MAX).min(buffer.len());
                let sent =
                    or_nothing(rustix::net::send(stream, &buffer[..count], SendFlags::DONTWAIT | SendFlags::NOSIGNAL))?;
                ledger.sent(index, sent as u64);
                owing |= (sent as u64) < owed;
            }
        }
        for (index, stream) in streams.iter().enumerate() {
            match rustix::net::recv(stream, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Error::new(ErrorKind::UnexpectedEof, "the server stopped answering")),
                Ok((count, _)) => ledger.answered(index, count as u64, clock::now())?,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        now = now.max(clock::now());
        if over {
            give_up.get_or_insert(now + patience);
        }
        // What became due since it was looked at is sent in the next turn, late as it may be.
        if now >= end && !ledger.is_waiting(now) || give_up.is_some_and(|at| now >= at) {
            return Ok(());
        }
        let next = give_up.unwrap_or_else(|| ledger.schedule.due(ledger.schedule.due_by(now)).min(end));
        if let Some(spare) = next.checked_sub(now + AWAKE).filter(|spare| *spare > 0) {
            let events = if owing { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            let mut polled: Vec<PollFd<'_>> = streams.iter().map(|stream| PollFd::new(stream, events)).collect();
            let limit = Timespec { tv_sec: (spare / 1_000_000_000) as i64, tv_nsec: (spare % 1_000_000_000) as i64 };
            match poll(&mut polled, Some(&limit)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn or_nothing(result: rustix::io::Result<usize>) -> Result<usize> {
    match result {
        Ok(count) => Ok(count),
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MILLISECOND: u64 = 1_000_000;

    fn schedule(rate: u64, connections: u64) -> Schedule {
        Schedule { begin: 1000, rate, first_kept: 1000, end: 1000 + 100 * MILLISECOND, connections }
    }

    /// A fake server that answers each request 10 us after it gets it, but is away from `stall.0` to `stall.1`.
    fn served(ledger: &mut Ledger, stall: (u64, u64)) {
        let schedule = ledger.schedule;
        for request in 0..schedule.due_by(u64::MAX) {
            let due = schedule.due(request);
            let connection = (request % schedule.connections) as usize;
            assert_eq!(ledger.owed(connection, due), 1, "request {request}");
            ledger.sent(connection, 1);
            let began = if (stall.0..stall.1).contains(&due) { stall.1 } else { due };
            ledger.answered(connection, 1, began + 10_000).unwrap();
        }
    }

    #[test]
    fn a_stall_counts_against_every_request_that_it_delayed() {
        // 1000 requests a second for 100 ms; the server is away for 50 ms, in which 50 were due.
        let mut ledger = Ledger::new(schedule(1000, 1)).unwrap();
        served(&mut ledger, (1000 + 20 * MILLISECOND, 1000 + 70 * MILLISECOND));
        assert_eq!(ledger.histogram.len(), 100);
        let at_least = |latency: u64| ledger.histogram.count_between(latency, u64::MAX);
        assert_eq!(at_least(MILLISECOND), 50);
        assert_eq!(at_least(24 * MILLISECOND), 27, "and each by what it waited");
        assert!(ledger.histogram.max() >= 50 * MILLISECOND);
    }

    #[test]
    fn what_is_never_answered_counts_too() {
        let mut ledger = Ledger::new(schedule(1000, 4)).unwrap();
        let end = ledger.schedule.end;
        ledger.sent(0, 10);
        ledger.answered(0, 5, 1000 + 60 * MILLISECOND).unwrap();
        ledger.give_up(end + 100 * MILLISECOND);
        let mut outcome = DriveOutcome::default();
        ledger.tell(&mut outcome).unwrap();
        assert_eq!((outcome.offered, outcome.completed), (100, 5));
        assert!(ledger.histogram.value_at_quantile(0.5) >= 100 * MILLISECOND);
    }

    #[test]
    fn warm_up_is_not_kept() {
        let mut ledger = Ledger::new(Schedule { first_kept: 1000 + 40 * MILLISECOND, ..schedule(1000, 2) }).unwrap();
        served(&mut ledger, (0, 0));
        assert_eq!((ledger.histogram.len(), ledger.whole), (60, 100));
    }

    #[test]
    fn an_answer_that_was_not_asked_for_is_refused() {
        let mut ledger = Ledger::new(schedule(1000, 1)).unwrap();
        ledger.sent(0, 1);
        assert!(ledger.answered(0, 2, 5000).is_err());
    }

    proptest! {
        #[test]
        fn every_request_is_due_once(rate in 1_u64..HIGHEST_RATE.into(), connections in 1_u64..9, now in 0_u64..200 * MILLISECOND) {
            let schedule = schedule(rate, connections);
            let due = schedule.due_by(now);
            prop_assert!(due == 0 || schedule.due(due - 1) <= now);
            prop_assert!(schedule.due(due) > now || now >= schedule.end);
            let ledger = Ledger::new(schedule).unwrap();
            prop_assert_eq!((0..connections as usize).map(|index| ledger.owed(index, now)).sum::<u64>(), due);
        }
    }
}
