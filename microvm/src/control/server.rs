//! The thread that takes requests while a guest runs.

use super::clients::{ClientNumber, Clients, send_line};
use super::protocol::{self, Failure, FailureKind, Id, LONGEST_REQUEST, Request};
use super::{Description, Figures, State};
use crate::confinement::{self, Role};
use crate::devices::virtio::balloon::BalloonControl;
use crate::snapshot::keeper::Keeper;
use crate::system;
use isobench_workload::clock;
use nix::sys::resource::{UsageWho, getrusage};
use rustix::fs::{FileType, Stat, fstat};
use serde::Serialize;
use serde_json::{Value, json};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// How long the guest may take to tell its statistics; after that its last ones are given.
const GUEST_PATIENCE: Duration = Duration::from_millis(500);
/// Stack of the thread.
const STACK: usize = 256 << 10;

/// Where a machine takes requests, and what it says of itself.
#[derive(Debug)]
pub struct Control {
    clients: Clients,
    configuration: Value,
    starting: Option<Starting>,
}

impl Control {
    /// A socket on which requests come, and the machine's configuration.
    ///
    /// # Errors
    /// See [`Clients::new`].
    pub fn new(listener: UnixListener, configuration: Value) -> io::Result<Self> {
        Ok(Self { clients: Clients::new(listener)?, configuration, starting: None })
    }

    /// The same with those who are connected already, one of whom has asked for the start.
    pub fn begun(clients: Clients, configuration: Value, starting: Starting) -> Self {
        Self { clients, configuration, starting: Some(starting) }
    }
}

/// A client who has asked for the start and waits for the answer. There is one answer, whoever of those who share this gives it.
#[derive(Clone, Debug)]
pub struct Starting {
    client: Arc<UnixStream>,
    id: Id,
    answered: Arc<AtomicBool>,
}

impl Starting {
    /// One of these clients, who has named the request so.
    ///
    /// # Errors
    /// See [`Clients::handle`].
    pub fn new(clients: &Clients, client: ClientNumber, id: Id) -> io::Result<Self> {
        Ok(Self { client: Arc::new(clients.handle(client)?), id, answered: Arc::default() })
    }

    /// Gives the answer, where it was not given yet.
    pub fn answer(&self, answer: &Result<Value, Failure>) {
        if !self.answered.swap(true, Ordering::SeqCst) {
            // One that has gone again does not want to know.
            send_line(&self.client, &protocol::answer_line(&self.id, answer));
        }
    }
}

/// What of a machine can be asked for; what it has not is refused.
#[derive(Debug, Default)]
pub struct Asked {
    /// Its balloon.
    pub balloon: Option<BalloonControl>,
    /// What pauses it, ends it and takes snapshots of it.
    pub keeper: Option<Keeper>,
}

/// The thread that takes requests. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Takes requests for a machine.
    ///
    /// # Errors
    /// Where there can be no such thread.
    pub fn start(control: Control, asked: Asked) -> io::Result<Self> {
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let stopped = stop.try_clone()?;
        let began = clock::now();
        let thread = std::thread::Builder::new().name("control".into()).stack_size(STACK).spawn(move || {
            system::block_alarm();
            // Unconfined it takes no orders: a client is told so by the end of its connection.
            if confinement::confine(Role::Control).is_ok() {
                let Control { clients, configuration, starting } = control;
                if let Some(starting) = starting {
                    starting.answer(&Ok(json!({})));
                }
                serve(clients, &stopped, &mut Running { configuration, asked, began });
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut clients: Clients, stop: &EventFd, running: &mut Running) {
    while let Ok(Some(received)) = clients.next(Some(system::borrow_event(stop))) {
        let (id, request) = match &received.line {
            Some(line) => protocol::read(line),
            None => (Id::default(), Err(too_long())),
        };
        let stays = request == Ok(Request::Snapshot { stay: true });
        let ends = request == Ok(Request::Stop);
        let paused = running.asked.keeper.as_ref().is_some_and(|keeper| keeper.crew.is_paused());
        let answer = request.and_then(|request| running.answer(request, received.descriptors));
        let told = clients.answer(received.client, &protocol::answer_line(&id, &answer));
        if let (Ok(_), Some(keeper)) = (&answer, &running.asked.keeper) {
            if ends {
                keeper.crew.stop();
            } else if stays && !told && !paused {
                // Whoever was to end a machine that this has paused is gone.
                keeper.resume();
            }
        }
    }
}

/// What is said to a line that is too long.
pub fn too_long() -> Failure {
    Failure::new(FailureKind::TooLong, format!("the request is longer than {LONGEST_REQUEST} bytes"))
}

/// A machine that runs.
struct Running {
    configuration: Value,
    asked: Asked,
    /// When its guest was started, on the host's monotonic clock.
    began: u64,
}

impl Running {
    fn answer(&mut self, request: Request, descriptors: Vec<OwnedFd>) -> Result<Value, Failure> {
        let failed = |message: String| Failure::new(FailureKind::Failed, message);
        match request {
            Request::Describe => answered(&self.describe()),
            Request::Guest => answered(self.keeper_mut("named")?.guest()),
            Request::Create(_) | Request::Start => {
                Err(Failure::new(FailureKind::State, "the guest was started already"))
            }
            Request::Balloon(target) => {
                let balloon = self.asked.balloon.as_ref().ok_or_else(|| unsupported("the machine has no balloon"))?;
                target.into_iter().for_each(|bytes| balloon.set_target(bytes));
                answered(&balloon.state(GUEST_PATIENCE))
            }
            Request::Pause => {
                let keeper = self.keeper("paused")?;
                if keeper.crew.is_paused() {
                    return Err(Failure::new(FailureKind::State, "the guest is paused already"));
                }
                keeper.crew.pause().map_err(|error| failed(error.to_string()))?;
                Ok(json!({}))
            }
            Request::Resume => {
                self.keeper("paused")?.resume();
                Ok(json!({}))
            }
            Request::Snapshot { stay } => {
                let keeper = self.keeper_mut("saved")?;
                let [memory, state] = <[OwnedFd; 2]>::try_from(descriptors)
                    .ok()
                    .filter(|files| two_empty_files(files).unwrap_or(false))
                    .ok_or_else(|| {
                        Failure::new(FailureKind::Arguments, "a snapshot needs two empty files to be written into")
                    })?;
                let paused = keeper.crew.is_paused();
                let guest = keeper.save(&File::from(memory), &File::from(state)).map_err(failed)?;
                if !stay && !paused {
                    keeper.resume();
                }
                answered(&guest)
            }
            Request::Stop => self.keeper("stopped").map(|_| json!({})),
        }
    }

    fn keeper(&self, done: &str) -> Result<&Keeper, Failure> {
        self.asked.keeper.as_ref().ok_or_else(|| unsupported(&format!("the machine cannot be {done}")))
    }

    fn keeper_mut(&mut self, done: &str) -> Result<&mut Keeper, Failure> {
        self.asked.keeper.as_mut().ok_or_else(|| unsupported(&format!("the machine cannot be {done}")))
    }

    fn describe(&self) -> Description {
        let paused = self.asked.keeper.as_ref().is_some_and(|keeper| keeper.crew.is_paused());
        // It fails for nobody who asks about himself (getrusage(2)); the kernel counts in KiB.
        let most = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss().max(0) as u64 * 1024);
        Description {
            version: protocol::VERSION,
            program: env!("CARGO_PKG_VERSION").into(),
            state: if paused { State::Paused } else { State::Running },
            configuration: Some(self.configuration.clone()),
            figures: Some(Figures {
                since_start: clock::now().saturating_sub(self.began),
                processor_time: clock::processor(),
                most_resident: most,
                balloon: self.asked.balloon.as_ref().map(|balloon| balloon.state(GUEST_PATIENCE)),
            }),
        }
    }
}

/// Whether what was sent can hold a snapshot: what was in a file before would be in the guest's memory, where that is a hole.
fn two_empty_files(files: &[OwnedFd; 2]) -> io::Result<bool> {
    let [one, other] = [fstat(&files[0])?, fstat(&files[1])?];
    let empty = |status: &Stat| FileType::from_raw_mode(status.st_mode) == FileType::RegularFile && status.st_size == 0;
    Ok(empty(&one) && empty(&other) && (one.st_dev, one.st_ino) != (other.st_dev, other.st_ino))
}

fn unsupported(message: &str) -> Failure {
    Failure::new(FailureKind::Unsupported, message)
}

fn answered<A: Serialize>(answer: &A) -> Result<Value, Failure> {
    serde_json::to_value(answer).map_err(|error| Failure::new(FailureKind::Failed, error.to_string()))
}
