//! The server's side of [`isobench_workload::work`]: one round a turn, so that all other connections are served in between.

use crate::order::{Progress, Received, receive};
use isobench_workload::work::{Job, MOST_SECONDS, Pages, Refusal, Report, Rounds, Task};
use smoltcp::socket::tcp::Socket;
use smoltcp::time::{Duration, Instant};

/// How long work may take, and how long a client may leave its place unused.
const MOST: Duration = Duration::from_secs(MOST_SECONDS);

/// The one place for work, with its memory.
#[derive(Debug, Default)]
pub(crate) struct Labour<'a> {
    memory: &'a mut [u64],
    /// What is under way, and how much of the memory it has.
    job: Option<(Job, usize)>,
}

impl<'a> Labour<'a> {
    pub(crate) fn new(memory: &'a mut [u64]) -> Self {
        Self { memory, job: None }
    }

    /// Gives up whatever is under way.
    pub(crate) fn end(&mut self) {
        self.job = None;
    }

    /// Prepares a task, where nobody else's is under way.
    fn begin(&mut self, task: &Task) -> Result<u64, Refusal> {
        // Nothing inside could be asked for other pages than there are.
        if task.kind.needs_kernel() || task.pages == Pages::Huge {
            return Err(Refusal::Unsupported);
        }
        if self.job.is_some() {
            return Err(Refusal::Busy);
        }
        task.check(size_of_val(self.memory) as u64)?;
        let length = task.bytes as usize / size_of::<u64>();
        // There is enough memory, as just checked.
        let job = Job::prepare(task, &mut self.memory[..length]).ok_or(Refusal::Unsupported)?;
        self.job = Some((job, length));
        Ok(task.bytes)
    }

    /// Does one round; says whether there is anything under way.
    fn round(&mut self) -> bool {
        let Some((job, length)) = &mut self.job else { return false };
        job.round(&mut self.memory[..*length]);
        true
    }
}

/// How far a client of the place is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Its task is awaited.
    Task,
    /// An order is awaited.
    Order { since: Instant },
    /// Rounds are being done.
    Rounds { left: u64, done: u64, begun: Instant },
}

impl Step {
    /// Whether the next thing that it does is a round.
    pub(crate) fn is_at_work(&self) -> bool {
        matches!(self, Self::Rounds { .. })
    }

    /// Gives up the place, where this client has it.
    pub(crate) fn leave(&self, labour: &mut Labour<'_>) {
        if !matches!(self, Self::Task) {
            labour.end();
        }
    }

    pub(crate) fn advance(&mut self, socket: &mut Socket<'_>, labour: &mut Labour<'_>, now: Instant) -> Progress {
        // No report is begun that has no room: a client that does not read waits.
        if socket.send_capacity() - socket.send_queue() < Report::SIZE {
            return Progress::None;
        }
        match *self {
            Self::Task => {
                let mut bytes = [0; Task::SIZE];
                match receive(socket, &mut bytes) {
                    Received::All => {}
                    Received::Less => return Progress::None,
                    Received::Closed => return self.quit(socket, labour),
                }
                match Task::decode(&bytes).and_then(|task| labour.begin(&task)) {
                    Ok(value) => {
                        say(socket, Report::Prepared { value });
                        *self = Self::Order { since: now };
                        Progress::Some
                    }
                    Err(refusal) => self.refuse(socket, labour, refusal),
                }
            }
            Self::Order { since } => {
                let mut bytes = [0; Rounds::SIZE];
                match receive(socket, &mut bytes) {
                    Received::All => {
                        *self = Self::Rounds { left: Rounds::decode(bytes).0, done: 0, begun: now };
                        Progress::Some
                    }
                    Received::Less if now - since < MOST => Progress::None,
                    Received::Less | Received::Closed => self.quit(socket, labour),
                }
            }
            Self::Rounds { left: 0, begun, .. } => {
                let Some((job, _)) = labour.job else { return self.quit(socket, labour) };
                let nanoseconds = (now - begun).total_micros() * 1000;
                say(socket, Report::Done { value: job.value(), nanoseconds });
                *self = Self::Order { since: now };
                Progress::Some
            }
            Self::Rounds { done, begun, .. } if now - begun > MOST => {
                self.refuse(socket, labour, Refusal::TooLong { done })
            }
            Self::Rounds { left, done, begun } => {
                // Who has closed waits for no result.
                if !socket.may_recv() || !labour.round() {
                    return self.quit(socket, labour);
                }
                *self = Self::Rounds { left: left - 1, done: done + 1, begun };
                Progress::Some
            }
        }
    }

    fn refuse(self, socket: &mut Socket<'_>, labour: &mut Labour<'_>, refusal: Refusal) -> Progress {
        say(socket, Report::Refused(refusal));
        self.quit(socket, labour)
    }

    fn quit(self, socket: &mut Socket<'_>, labour: &mut Labour<'_>) -> Progress {
        self.leave(labour);
        socket.close();
        Progress::Ended
    }
}

fn say(socket: &mut Socket<'_>, report: Report) {
    // There is room, as was seen.
    let _ = socket.send_slice(&report.encode());
}
