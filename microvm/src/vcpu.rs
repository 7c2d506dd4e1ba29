//! The virtual processor and its run loop.

use crate::bus::{Bus, Reaction};
use crate::system::{self, DeadlineGuard};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::io;
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
    pub fn run(&mut self, ports: &mut Bus, registers: &mut Bus, deadline: Option<Duration>) -> Result<Stop, VcpuError> {
        let guard = deadline
            .map(|deadline| DeadlineGuard::start(deadline, &mut self.0.get_kvm_run().immediate_exit))
            .transpose()
            .map_err(|source| VcpuError::System { operation: "set the deadline", source })?;
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
                Reaction::Continue if guard.is_some() && DeadlineGuard::expired() => return Ok(Stop::Deadline),
                Reaction::Continue => {}
                Reaction::Exit(status) => return Ok(Stop::Exit(status)),
                Reaction::Crash => return Ok(Stop::Crash),
                Reaction::Panic => return Ok(Stop::Panic),
            }
        }
    }
}
