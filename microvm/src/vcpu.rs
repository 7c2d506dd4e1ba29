//! The virtual processor and its run loop.

use crate::bus::{Bus, Reaction};
use crate::system::{self, DeadlineGuard, Kick};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
}

impl Crew {
    /// A crew of several; a vCPU that is alone needs no more than the default.
    pub fn new() -> Result<Self, VcpuError> {
        Kick::prepare().map_err(|source| VcpuError::System { operation: "prepare to stop the threads", source })?;
        Ok(Self::default())
    }

    /// Ends all that run, and all that begin to run later.
    pub fn dismiss(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.members().iter().for_each(Kick::send);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn members(&self) -> MutexGuard<'_, Vec<Kick>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The calling thread's place in a crew, which it leaves when this is dropped.
struct Membership<'c>(&'c Crew);

impl<'c> Membership<'c> {
    fn new(crew: &'c Crew, kick: Kick) -> Self {
        crew.members().push(kick);
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
pub struct Vcpu(VcpuFd);

impl Vcpu {
    /// Takes over a processor whose registers are set.
    pub fn new(fd: VcpuFd) -> Self {
        Self(fd)
    }

    /// KVM's own interface to it.
    pub fn fd(&self) -> &VcpuFd {
        &self.0
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
        let _membership = Membership::new(crew, Kick::new(&mut self.0.get_kvm_run().immediate_exit));
        let guard = deadline
            .map(|deadline| DeadlineGuard::start(deadline, &mut self.0.get_kvm_run().immediate_exit))
            .transpose()
            .map_err(|source| VcpuError::System { operation: "set the deadline", source })?;
        // Whoever is dismissed before it became a member got no signal.
        if crew.is_over() {
            return Ok(Stop::Dismissed);
        }
        loop {
            let reaction = match self.0.run() {
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
                    let (suberror, data) = system::internal_error(self.0.get_kvm_run());
                    return Ok(Stop::Internal { suberror, data });
                }
                Ok(VcpuExit::Intr) => Reaction::Continue,
                Ok(other) => return Err(VcpuError::Unexpected(format!("{other:?}"))),
                Err(error) if error.errno() == libc::EINTR || error.errno() == libc::EAGAIN => Reaction::Continue,
                Err(error) => return Err(VcpuError::system("run")(error)),
            };
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
