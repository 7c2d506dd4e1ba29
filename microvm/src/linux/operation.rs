//! Running a machine that is ready to its guest's end.

use super::LinuxError;
use super::console::Shared;
use super::crew::{self, Shift};
use super::equipment::Equipment;
use super::kernel::KernelFile;
use super::session::Session;
use crate::control::{Asked, Server};
use crate::machine::Machine;
use crate::operation::Operation;
use crate::outcome::{Outcome, Registers};
use crate::snapshot::Guest;
use crate::snapshot::keeper::Keeper;
use crate::vcpu::{Crew, Stop, Vcpu, VcpuError};
use isobench_workload::Stage;
use kvm_ioctls::VcpuFd;
use std::fmt::Debug;
use std::io::Write;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};

/// How a guest ended, and what its kernel said last.
#[derive(Debug)]
pub struct Ending {
    /// How it ended.
    pub outcome: Outcome,
    /// The last lines of the console that were the kernel's or a program's error, for a report where the outcome is bad.
    pub log: Vec<String>,
}

/// A machine that is ready to run.
pub(super) struct Assembled<W> {
    pub(super) machine: Machine,
    pub(super) vcpus: Vec<VcpuFd>,
    pub(super) equipment: Equipment,
    pub(super) session: Option<Session>,
    pub(super) transcript: Shared<W>,
    /// What it is, for a snapshot.
    pub(super) guest: Guest,
    /// The kernel file, where it was booted and is to be named in a snapshot.
    pub(super) kernel: Option<KernelFile>,
    /// Why it cannot be saved, where it cannot.
    pub(super) refused: Option<&'static str>,
}

/// Runs a machine to its guest's end.
pub(super) fn operate<W: Write + Debug + Send + 'static>(
    assembled: Assembled<W>,
    operation: Operation,
) -> Result<Ending, LinuxError> {
    let Assembled { machine, vcpus, equipment, session, transcript, guest, kernel, refused } = assembled;
    let Equipment { ports, registers, balloon, .. } = equipment;
    let Operation { control, deadline, confined, .. } = operation;
    let (machine, ports, registers) = (Arc::new(machine), Arc::new(ports), Arc::new(registers));
    let crew = match (&control, vcpus.len()) {
        (Some(_), count) => Crew::pausable(Arc::clone(&machine), true, count)?,
        (None, 1) => Crew::default(),
        (None, _) => Crew::new()?,
    };
    let crew = Arc::new(crew);
    transcript.with(|transcript| transcript.heed(Arc::clone(&crew)));
    let server = control.map(|control| {
        let keeper = Keeper {
            crew: Arc::clone(&crew),
            ports: Arc::clone(&ports),
            registers: Arc::clone(&registers),
            memory: machine.memory().clone(),
            guest,
            kernel,
            awaits: Some(transcript.with(|transcript| transcript.awaits())),
            refused,
        };
        Server::start(control, Asked { balloon, keeper: Some(keeper) }).map_err(LinuxError::Control)
    });
    let _server = server.transpose()?;
    let mut vcpus = (0..).zip(vcpus).map(|(number, vcpu)| Vcpu::new(vcpu, number));
    // At least one, as was checked.
    let first = vcpus.next().ok_or(LinuxError::Processors { wanted: 0, most: 1 })?;
    let shift = Shift { ports: &ports, registers: &registers, deadline, confined };
    let ready = || transcript.with(|transcript| transcript.stamp(Stage::VmmReady));
    let (stop, vcpu) = crew::run(first, vcpus.collect(), shift, &crew, ready)?;
    if let Some(session) = session {
        session.finish();
    }
    let status = transcript.with(|transcript| transcript.status());
    let log = transcript.with(|transcript| transcript.log().map(str::to_owned).collect());
    Ok(Ending { outcome: outcome(stop, status, vcpu.fd(), &machine)?, log })
}

/// What the end of the run loop means: a guest whose agent took leave has exited, by whatever way it resets itself.
fn outcome(stop: Stop, status: Option<u8>, vcpu: &VcpuFd, machine: &Machine) -> Result<Outcome, VcpuError> {
    let at = || {
        let registers = vcpu.get_regs().map_err(VcpuError::system("read the registers"))?;
        let special = vcpu.get_sregs().map_err(VcpuError::system("read the special registers"))?;
        Ok(Box::new(Registers::new(&registers, &special)))
    };
    Ok(match (stop, status) {
        (Stop::Exit(_) | Stop::Shutdown, Some(status)) => Outcome::Exited(status),
        (Stop::Exit(_) | Stop::Shutdown | Stop::Crash | Stop::Panic, _) => Outcome::Reset,
        (Stop::Halted, _) => Outcome::Halted(at()?),
        (Stop::Deadline, _) => Outcome::Deadline(at()?),
        // None of them has dismissed the others.
        (Stop::Dismissed, _) => Outcome::Stopped,
        (Stop::Internal { suberror, .. }, _) => {
            let registers = vcpu.get_regs().map_err(VcpuError::system("read the registers"))?;
            // The page tables are the guest's own by now: only an address that is mapped one to one can be followed.
            let mut bytes = vec![0; 15];
            let known = machine.memory().read(&mut bytes, GuestAddress(registers.rip)).unwrap_or(0);
            bytes.truncate(known);
            Outcome::Internal { suberror, instruction_pointer: registers.rip, bytes }
        }
    })
}
