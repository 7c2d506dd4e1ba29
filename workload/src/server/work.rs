//! The server's side of [`crate::work`].

use super::kernel::KernelWork;
use super::{Advise, memory};
use crate::clock;
use crate::work::{Job, MOST_SECONDS, Refusal, Report, Rounds, Task};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::io::{ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a server at work looks whether its client is still there, in nanoseconds.
const LOOK: u64 = 50_000_000;

/// What a server has for work.
#[derive(Clone, Debug, Default)]
pub(super) struct Workshop {
    pub(super) advise: Option<Advise>,
    /// Whether a task is under way: one at a time, whoever asks.
    taken: Arc<AtomicBool>,
}

/// The place of the one task that may be under way.
#[derive(Debug)]
struct Place<'w>(&'w AtomicBool);

impl<'w> Place<'w> {
    fn take(workshop: &'w Workshop) -> Option<Self> {
        (!workshop.taken.swap(true, Ordering::AcqRel)).then_some(Self(&workshop.taken))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Takes a task and does rounds of it until the client closes.
pub(super) fn work(stream: &mut TcpStream, workshop: &Workshop) -> Result<()> {
    // Who says nothing for so long must not keep others from their work.
    stream.set_read_timeout(Some(Duration::from_secs(MOST_SECONDS)))?;
    let mut bytes = [0; Task::SIZE];
    stream.read_exact(&mut bytes)?;
    let refusal = match Task::decode(&bytes) {
        Ok(task) => match Place::take(workshop) {
            Some(_place) => match begin(stream, &task, workshop.advise) {
                Ok(result) => return result,
                Err(refusal) => refusal,
            },
            None => Refusal::Busy,
        },
        Err(refusal) => refusal,
    };
    stream.write_all(&Report::Refused(refusal).encode())
}

fn begin(stream: &mut TcpStream, task: &Task, advise: Option<Advise>) -> std::result::Result<Result<()>, Refusal> {
    if task.kind.needs_kernel() {
        task.check(0)?;
        let (mut work, value) = KernelWork::prepare(task.kind).map_err(failed)?;
        return Ok(rounds(stream, Report::Prepared { value }, task.seed, |before| {
            Ok(before.wrapping_add(work.round().map_err(failed)?))
        }));
    }
    let mut memory = memory::take(task, advise)?;
    let none = Refusal::Memory { least: task.kind.least_memory(), most: 0 };
    let mut job = Job::prepare(task, &mut memory).ok_or(none)?;
    Ok(rounds(stream, Report::Prepared { value: task.bytes }, task.seed, |_| {
        job.round(&mut memory);
        Ok(job.value())
    }))
}

fn failed(error: Errno) -> Refusal {
    Refusal::Failed { error: error.raw_os_error().unsigned_abs() }
}

/// Answers each number of rounds; `round` does one and gives what has come out, from what had before.
fn rounds(
    stream: &mut TcpStream,
    prepared: Report,
    mut value: u64,
    mut round: impl FnMut(u64) -> std::result::Result<u64, Refusal>,
) -> Result<()> {
    stream.write_all(&prepared.encode())?;
    loop {
        let mut bytes = [0; Rounds::SIZE];
        match stream.read_exact(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let Rounds(count) = Rounds::decode(bytes);
        let begun = clock::now();
        let (mut looked, mut refused) = (begun, None);
        for done in 0..count {
            match round(value) {
                Ok(new) => value = new,
                Err(refusal) => refused = Some(refusal),
            }
            let now = clock::now();
            if now - begun > MOST_SECONDS * 1_000_000_000 && done + 1 < count {
                refused = Some(Refusal::TooLong { done: done + 1 });
            }
            if refused.is_some() {
                break;
            }
            if now - looked > LOOK {
                looked = now;
                if gone(stream) {
                    return Ok(());
                }
            }
        }
        let report = match refused {
            Some(refusal) => Report::Refused(refusal),
            None => Report::Done { value, nanoseconds: clock::now() - begun },
        };
        stream.write_all(&report.encode())?;
        if refused.is_some() {
            return Ok(());
        }
    }
}

/// Whether the client has closed.
fn gone(stream: &TcpStream) -> bool {
    match rustix::net::recv(stream, &mut [0_u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((count, _)) => count == 0,
        Err(error) => !matches!(error, Errno::AGAIN | Errno::INTR),
    }
}

#[cfg(test)]
mod tests {
    use crate::client::{self, WorkError, Worker};
    use crate::server::tests::started;
    use crate::work::{Kind, MOST_MEMORY, Pages, Refusal, Report, Task};
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn task(kind: Kind) -> Task {
        // A number of lines that does not divide the loads of a round, or each would end where it began.
        let bytes = if kind == Kind::Chase { 67 * 64 } else { kind.least_memory() };
        Task { kind, pages: Pages::Usual, bytes, seed: 3 }
    }

    fn refused(result: Result<Worker, WorkError>) -> Refusal {
        match result {
            Err(WorkError::Refused { refusal, .. }) => refusal,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the place of a task whose client has just gone.
    fn begun(server: SocketAddr, task: &Task) -> Worker {
        loop {
            match Worker::begin(server, task, PATIENCE) {
                Err(WorkError::Refused { refusal: Refusal::Busy, .. }) => std::thread::yield_now(),
                other => return other.unwrap(),
            }
        }
    }

    #[test]
    fn every_kind_is_done_and_gives_the_same_again() {
        let server = started();
        for kind in Kind::ALL {
            let mut worker = begun(server, &task(kind));
            let [first, second] = [(); 2].map(|()| worker.work(2).unwrap());
            assert!(first.inside <= first.nanoseconds && first.inside > 0, "{kind:?}: {first:?}");
            drop(worker);
            let whole = begun(server, &task(kind)).work(4).unwrap();
            assert_eq!((whole.value == first.value, whole.value), (false, second.value), "{kind:?}");
        }
    }

    #[test]
    fn there_is_one_task_at_a_time_and_hello_is_answered_meanwhile() {
        let server = started();
        let worker = begun(server, &task(Kind::Chase));
        assert_eq!(refused(Worker::begin(server, &task(Kind::Integer), PATIENCE)), Refusal::Busy);
        assert!(client::hello(server, PATIENCE).is_ok());
        drop(worker);
        assert!(begun(server, &task(Kind::Integer)).work(1).is_ok());
    }

    #[test]
    fn a_client_that_goes_away_ends_its_work() {
        let server = started();
        let worker = begun(server, &task(Kind::Integer));
        let endless = std::thread::spawn(move || {
            let mut worker = worker;
            worker.stream().write_all(&u64::MAX.to_le_bytes()).unwrap();
        });
        endless.join().unwrap();
        assert!(begun(server, &task(Kind::Integer)).work(1).is_ok());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let server = started();
        let small = Task { bytes: 8, ..task(Kind::Chase) };
        assert!(matches!(refused(Worker::begin(server, &small, PATIENCE)), Refusal::Memory { least: 4096, .. }));
        let large = Task { bytes: MOST_MEMORY + 1, ..task(Kind::Stream) };
        assert!(matches!(refused(Worker::begin(server, &large, PATIENCE)), Refusal::Memory { .. }));
        let needless = Task { bytes: 1, ..task(Kind::SystemCalls) };
        assert_eq!(refused(Worker::begin(server, &needless, PATIENCE)), Refusal::Memory { least: 0, most: 0 });
        let huge = Task { pages: Pages::Huge, bytes: 4 << 20, ..task(Kind::Chase) };
        assert_eq!(refused(Worker::begin(server, &huge, PATIENCE)), Refusal::Unsupported);
        let mut stream = TcpStream::connect(server).unwrap();
        let request = crate::protocol::Request { operation: crate::protocol::Operation::Work, length: 0 };
        stream.write_all(&request.encode()).unwrap();
        stream.write_all(&[0xff; Task::SIZE]).unwrap();
        let mut bytes = [0; Report::SIZE];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(Report::decode(&bytes), Ok(Report::Refused(Refusal::Unknown)));
        assert!(begun(server, &task(Kind::Integer)).work(0).is_ok());
    }
}
