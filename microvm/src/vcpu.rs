//! The virtual processor and its run loop.

use crate::bus::{Bus, Reaction};
use crate::machine::Machine;
use crate::snapshot::processor::{self, ProcessorState, VmState};
use crate::system::{self, DeadlineGuard, Kick};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Why the run loop came to its end; what it means for a guest is the business of whoever set it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A device ended the guest with this status.
    Exit(u8),
    /// The guest's exception handler reports a crash.
    Crash,
    /// The guest's program reports a panic.
    Panic,
    /// `hlt` without interrupts that could end it.
    Halted,
    /// A triple fault.
    Shutdown,
    /// Time was up.
    Deadline,
    /// Another vCPU of the guest came to its end.
    Dismissed,
    /// KVM could not go on; the number says why, the words are KVM's.
    Internal {
        /// KVM's number for the cause.
        suberror: u32,
        /// Raw data.
        data: Vec<u64>,
    },
}

/// Why a virtual processor could not be made or run.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// A call on it failed.
    #[error("{operation} of the vCPU")]
    System {
        /// The operation.
        operation: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The guest cannot be paused.
    #[error("the guest cannot be paused: {0}")]
    Pause(String),
    /// An exit that no guest of ours should cause.
    #[error("the vCPU stopped for an unexpected reason: {0}")]
    Unexpected(String),
}

impl VcpuError {
    /// An error of one operation, from KVM's error number.
    pub fn system(operation: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |source| Self::System { operation, source: source.into() }
    }
}

/// The vCPUs of one guest, each on a thread of its own: when one comes to its end, so do all.
#[derive(Debug, Default)]
pub struct Crew {
    over: AtomicBool,
    members: Mutex<Vec<Kick>>,
    /// How many have ever been members.
    joined: AtomicUsize,
    pause: Option<Pause>,
}

/// How a crew is paused: each member comes to where nothing that it asked for is under way, and waits there.
#[derive(Debug)]
struct Pause {
    machine: Arc<Machine>,
    /// Whether the interrupt controllers are KVM's.
    shared: bool,
    processors: usize,
    wanted: AtomicBool,
    parked: Mutex<Parked>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Parked {
    /// Whether the members are to save themselves.
    saving: bool,
    /// How often the crew was saved or has gone on: a member may be saved anew before it has noticed.
    round: u64,
    arrived: usize,
    saved: Vec<Result<ProcessorState, VcpuError>>,
    vm: Option<Result<VmState, VcpuError>>,
}

/// Between two kicks of a member that has not come yet: a signal is lost on one that is about to wait outside of `KVM_RUN`. Between two
/// looks of one that waits and whose time should be up.
const AGAIN: Duration = Duration::from_millis(5);
/// How long members may take to come to a stop, or to save themselves.
const PATIENCE: Duration = Duration::from_secs(10);

impl Crew {
    /// A crew of several; a vCPU that is alone needs no more than the default.
    pub fn new() -> Result<Self, VcpuError> {
        Kick::prepare().map_err(|source| VcpuError::System { operation: "prepare to stop the threads", source })?;
        Ok(Self::default())
    }

    /// A crew of so many, one or more, that can be paused. `shared`: the machine's interrupt controllers are KVM's.
    pub fn pausable(machine: Arc<Machine>, shared: bool, processors: usize) -> Result<Self, VcpuError> {
        let (wanted, parked, changed) = (AtomicBool::new(false), Mutex::default(), Condvar::new());
        let pause = Pause { machine, shared, processors, wanted, parked, changed };
        Ok(Self { pause: Some(pause), ..Self::new()? })
    }

    /// Has every member come to a stop.
    ///
    /// # Errors
    /// Where it cannot be paused, is so already, has ended, or takes too long; it goes on then.
    pub fn pause(&self) -> Result<(), VcpuError> {
        let refused = |why: &str| Err(VcpuError::Pause(why.into()));
        let Some(pause) = &self.pause else { return refused("it was started without a control socket") };
        if pause.wanted.swap(true, Ordering::SeqCst) {
            return refused("it is paused already");
        }
        let began = Instant::now();
        loop {
            let members = self.members();
            members.iter().for_each(Kick::send);
            // One that is about to begin is waited for.
            let gone = self.is_over() || members.len() < self.joined.load(Ordering::SeqCst);
            drop(members);
            if gone || began.elapsed() > PATIENCE {
                self.resume();
                return refused(if gone { "it has ended" } else { "its processors do not stop" });
            }
            let waited =
                pause.changed.wait_timeout_while(pause.parked(), AGAIN, |parked| parked.arrived < pause.processors);
            if waited.unwrap_or_else(PoisonError::into_inner).0.arrived == pause.processors {
                return Ok(());
            }
        }
    }

    /// The state of each member of a paused crew, and of what they share.
    pub fn save(&self) -> Result<(Vec<ProcessorState>, VmState), VcpuError> {
        let lacking = || VcpuError::Pause("its processors do not answer".into());
        let pause = self.pause.as_ref().ok_or_else(lacking)?;
        let mut parked = pause.parked();
        parked.saving = true;
        pause.changed.notify_all();
        // One that has left, since its time is up, answers no more.
        let under_way = |parked: &mut Parked| {
            (parked.saved.len() < pause.processors || parked.vm.is_none()) && parked.arrived == pause.processors
        };
        let waited = pause.changed.wait_timeout_while(parked, PATIENCE, under_way);
        let mut parked = waited.unwrap_or_else(PoisonError::into_inner).0;
        // Those who stay may be saved again.
        parked.saving = false;
        parked.round += 1;
        let (vm, processors) = (parked.vm.take(), std::mem::take(&mut parked.saved));
        drop(parked);
        let vm = vm.ok_or_else(lacking)??;
        let mut processors = processors.into_iter().collect::<Result<Vec<_>, _>>()?;
        processors.sort_by_key(|processor| processor.number);
        Ok((processors, vm))
    }

    /// Lets a paused crew go on.
    pub fn resume(&self) {
        if let Some(pause) = &self.pause {
            let mut parked = pause.parked();
            pause.wanted.store(false, Ordering::SeqCst);
            (parked.saving, parked.vm) = (false, None);
            parked.saved.clear();
            parked.round += 1;
            pause.changed.notify_all();
        }
    }

    /// Where the calling member's processor waits while the crew is paused, but no longer than to its deadline.
    fn park(&self, vcpu: &VcpuFd, number: u8, deadline: Option<&DeadlineGuard>) {
        let Some(pause) = &self.pause else { return };
        let mut parked = pause.parked();
        parked.arrived += 1;
        pause.changed.notify_all();
        let mut saved = None;
        let in_time = || deadline.is_none() || !DeadlineGuard::expired();
        while pause.wanted.load(Ordering::SeqCst) && !self.is_over() && in_time() {
            if parked.saving && saved != Some(parked.round) {
                saved = Some(parked.round);
                // All have come: nothing changes any more.
                let (machine, shared) = (&pause.machine, pause.shared);
                let state = processor::save(machine.kvm(), vcpu, number, shared);
                parked.saved.push(state);
                if parked.saved.len() == pause.processors {
                    let vm = if shared { processor::save_shared(machine.vm()) } else { Ok(VmState::default()) };
                    parked.vm = Some(vm);
                }
                pause.changed.notify_all();
            }
            parked = match deadline {
                // The alarm interrupts no wait for a condition, which the standard library begins again.
                Some(deadline) => {
                    let waited = pause.changed.wait_timeout(parked, deadline.left().max(AGAIN));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => pause.changed.wait(parked).unwrap_or_else(PoisonError::into_inner),
            };
        }
        parked.arrived -= 1;
        pause.changed.notify_all();
    }

    /// Whether it was told to pause and not to go on.
    pub fn is_paused(&self) -> bool {
        self.pause.as_ref().is_some_and(|pause| pause.wanted.load(Ordering::SeqCst))
    }

    /// Ends all that run, and all that begin to run later.
    pub fn dismiss(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.members().iter().for_each(Kick::send);
        if let Some(pause) = &self.pause {
            // Under the lock, so that nobody is about to wait.
            let _parked = pause.parked();
            pause.changed.notify_all();
        }
    }

    /// Ends all, and comes back when none runs any more. It is for a crew that can be paused.
    pub fn stop(&self) {
        self.dismiss();
        let Some(pause) = &self.pause else { return };
        while !self.members().is_empty() {
            let waited = pause.changed.wait_timeout(pause.parked(), AGAIN);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            self.dismiss();
        }
    }

    /// Whether it was dismissed.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn members(&self) -> MutexGuard<'_, Vec<Kick>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pause {
    fn parked(&self) -> MutexGuard<'_, Parked> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The calling thread's place in a crew, which it leaves when this is dropped.
struct Membership<'c>(&'c Crew);

impl<'c> Membership<'c> {
    fn new(crew: &'c Crew, kick: Kick) -> Self {
        let mut members = crew.members();
        members.push(kick);
        crew.joined.fetch_add(1, Ordering::SeqCst);
        drop(members);
        Self(crew)
    }
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        self.0.members().retain(|kick| !kick.is_for_this_thread());
    }
}

/// A virtual processor. It runs on the thread that calls [`Vcpu::run`].
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    number: u8,
}

impl Vcpu {
    /// Takes over a processor whose registers are set, the one with this number.
    pub fn new(fd: VcpuFd, number: u8) -> Self {
        Self { fd, number }
    }

    /// KVM's own interface to it.
    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Runs the guest until it ends or its time is up. Ports and registers are answered by the buses' devices.
    pub fn run(&mut self, ports: &Bus, registers: &Bus, deadline: Option<Duration>) -> Result<Stop, VcpuError> {
        self.run_in(&Crew::default(), ports, registers, deadline)
    }

    /// The same as one of a crew, of which one has the deadline. Whoever called it dismisses the crew when it comes back.
    pub fn run_in(
        &mut self,
        crew: &Crew,
        ports: &Bus,
        registers: &Bus,
        deadline: Option<Duration>,
    ) -> Result<Stop, VcpuError> {
        // It is dropped before the vCPU, which the caller has.
        let _membership = Membership::new(crew, Kick::new(&mut self.fd.get_kvm_run().immediate_exit));
        let guard = deadline
            .map(|deadline| DeadlineGuard::start(deadline, &mut self.fd.get_kvm_run().immediate_exit))
            .transpose()
            .map_err(|source| VcpuError::System { operation: "set the deadline", source })?;
        // Whoever is dismissed before it became a member got no signal.
        if crew.is_over() {
            return Ok(Stop::Dismissed);
        }
        loop {
            let mut interrupted = false;
            let reaction = match self.fd.run() {
                Ok(VcpuExit::IoOut(port, data)) => ports.write(port.into(), data),
                Ok(VcpuExit::IoIn(port, data)) => {
                    ports.read(port.into(), data);
                    Reaction::Continue
                }
                Ok(VcpuExit::MmioWrite(address, data)) => registers.write(address, data),
                Ok(VcpuExit::MmioRead(address, data)) => {
                    registers.read(address, data);
                    Reaction::Continue
                }
                Ok(VcpuExit::Hlt) => return Ok(Stop::Halted),
                Ok(VcpuExit::Shutdown) => return Ok(Stop::Shutdown),
                Ok(VcpuExit::InternalError) => {
                    let (suberror, data) = system::internal_error(self.fd.get_kvm_run());
                    return Ok(Stop::Internal { suberror, data });
                }
                Ok(VcpuExit::Intr) => Reaction::Continue,
                Ok(other) => return Err(VcpuError::Unexpected(format!("{other:?}"))),
                Err(error) if error.errno() == libc::EINTR || error.errno() == libc::EAGAIN => {
                    // What an exit had left to do is done now, and only now (api.rst, "KVM_RUN").
                    interrupted = error.errno() == libc::EINTR;
                    Reaction::Continue
                }
                Err(error) => return Err(VcpuError::system("run")(error)),
            };
            if interrupted {
                // Whoever sets it from here on has said why before, and that is looked at below; it may have come too late for a pause that
                // was given up.
                self.fd.get_kvm_run().immediate_exit = 0;
                fence(Ordering::SeqCst);
                if crew.is_paused() {
                    crew.park(&self.fd, self.number, guard.as_ref());
                }
                // Also after a pause that was given up.
                ports.go_on();
            }
            match reaction {
                Reaction::Continue if crew.is_over() => return Ok(Stop::Dismissed),
                Reaction::Continue if guard.is_some() && DeadlineGuard::expired() => return Ok(Stop::Deadline),
                Reaction::Continue => {}
                Reaction::Exit(status) => return Ok(Stop::Exit(status)),
                Reaction::Crash => return Ok(Stop::Crash),
                Reaction::Panic => return Ok(Stop::Panic),
            }
        }
    }
}
