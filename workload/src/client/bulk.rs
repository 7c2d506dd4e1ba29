//! Bulk transfers over one or several connections at the same time, each in a thread of its own.

use super::progress::Progress;
use super::{BULK_BUFFER, Window, open_several, reset};
use crate::protocol::{Answer, Operation};
use crate::{Drive, DriveOutcome, clock};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;

pub(super) fn upload(drive: &Drive, streams: u32, outcome: &mut DriveOutcome) -> Result<()> {
    transfer(drive, streams, Operation::Meter, send, outcome)
}

pub(super) fn download(drive: &Drive, streams: u32, outcome: &mut DriveOutcome) -> Result<()> {
    transfer(drive, streams, Operation::Source, receive, outcome)
}

/// Works on one connection until the window is over; gives what arrived when, and what arrived in all.
type Work = fn(&mut TcpStream, Window) -> Result<(Progress, u64)>;

fn transfer(drive: &Drive, streams: u32, operation: Operation, work: Work, outcome: &mut DriveOutcome) -> Result<()> {
    let streams = open_several(drive.server, streams, operation)?;
    let window = Window::of(drive);
    let on_one = |mut stream: TcpStream| {
        let (progress, whole) = work(&mut stream, window)?;
        reset(stream)?;
        let bytes = progress.between(window.begin, window.end);
        Ok((bytes.ok_or_else(|| Error::other("what arrived by the end of the window is not known"))?, whole))
    };
    let results: Vec<Result<(u64, u64)>> = match <[TcpStream; 1]>::try_from(streams) {
        // A single stream needs no other thread.
        Ok([stream]) => vec![on_one(stream)],
        Err(streams) => std::thread::scope(|scope| {
            let threads: Vec<_> = streams.into_iter().map(|stream| scope.spawn(move || on_one(stream))).collect();
            let ended = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|_| Err(Error::other("the thread of a stream panicked")))
            };
            threads.into_iter().map(ended).collect()
        }),
    };
    for result in results {
        let (bytes, whole) = result?;
        outcome.bytes += bytes;
        outcome.whole += whole;
    }
    outcome.nanoseconds = window.length();
    Ok(())
}

/// Sends, and reads between two writes how much has arrived.
fn send(stream: &mut TcpStream, window: Window) -> Result<(Progress, u64)> {
    let buffer = vec![0x5a_u8; BULK_BUFFER];
    let mut meter = Meter::default();
    meter.progress.mark(clock::now(), 0);
    while meter.progress.last() < window.end {
        stream.write_all(&buffer)?;
        meter.read(stream)?;
    }
    Ok((meter.progress, meter.count))
}

/// The server's answers as they come in.
#[derive(Debug, Default)]
struct Meter {
    progress: Progress,
    count: u64,
    begun: Vec<u8>,
}

impl Meter {
    /// Takes in what answers there are, without waiting for one.
    fn read(&mut self, stream: &TcpStream) -> Result<()> {
        let mut bytes = [0; 64 * Answer::SIZE];
        let count = match rustix::net::recv(stream, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(Error::new(ErrorKind::UnexpectedEof, "the server stopped counting")),
            Ok((count, _)) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.take(&bytes[..count], clock::now())
    }

    fn take(&mut self, bytes: &[u8], now: u64) -> Result<()> {
        self.begun.extend_from_slice(bytes);
        let mut answers = self.begun.chunks_exact(Answer::SIZE);
        for bytes in &mut answers {
            let Some(bytes) = bytes.first_chunk() else { continue };
            let answer = Answer::decode(bytes).map_err(|malformed| Error::new(ErrorKind::InvalidData, malformed))?;
            if answer.value < self.count {
                return Err(Error::new(ErrorKind::InvalidData, "the server counted backwards"));
            }
            self.count = answer.value;
        }
        let complete = self.begun.len() - answers.remainder().len();
        if complete > 0 {
            self.progress.mark(now, self.count);
        }
        self.begun.drain(..complete);
        Ok(())
    }
}

fn receive(stream: &mut TcpStream, window: Window) -> Result<(Progress, u64)> {
    let mut buffer = vec![0_u8; BULK_BUFFER];
    let (mut progress, mut whole) = (Progress::default(), 0);
    progress.mark(clock::now(), 0);
    while progress.last() < window.end {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "the server stopped sending"));
        }
        whole += count as u64;
        progress.mark(clock::now(), whole);
    }
    Ok((progress, whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answers(counts: &[u64]) -> Vec<u8> {
        counts.iter().flat_map(|value| Answer { value: *value }.encode()).collect()
    }

    proptest! {
        #[test]
        fn answers_are_read_however_they_are_cut(counts in prop::collection::vec(0_u64..1_000_000, 1..20), piece in 1_usize..40) {
            let mut sums = counts.clone();
            sums.iter_mut().fold(0, |sum, count| { *count += sum; *count });
            let mut meter = Meter::default();
            for (time, part) in (0_u64..).zip(answers(&sums).chunks(piece)) {
                meter.take(part, time * 1_000_000).unwrap();
            }
            prop_assert_eq!(meter.count, counts.iter().sum::<u64>());
            prop_assert!(meter.begun.is_empty());
        }

        #[test]
        fn a_hostile_server_is_refused_and_holds_no_memory(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut meter = Meter::default();
            let _ = meter.take(&bytes, 1);
            let _ = meter.take(&bytes, 2);
            prop_assert!(meter.count == 0 || bytes.len() >= Answer::SIZE);
        }
    }

    #[test]
    fn a_server_that_counts_backwards_is_refused() {
        assert!(Meter::default().take(&answers(&[2, 1]), 1).is_err());
    }
}
