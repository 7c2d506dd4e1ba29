//! The monitor's side of a snapshot: it pauses its guest and writes it down.

use super::{Guest, GuestKind, MachineState, memory, open};
use crate::bus::Bus;
use crate::linux::kernel::KernelFile;
use crate::vcpu::Crew;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vm_memory::GuestMemoryMmap;

/// All that a snapshot of a running machine is made of.
#[derive(Debug)]
pub struct Keeper {
    /// Its processors.
    pub crew: Arc<Crew>,
    /// Its devices at ports.
    pub ports: Arc<Bus>,
    /// Its devices with registers in memory.
    pub registers: Arc<Bus>,
    /// Its memory.
    pub memory: GuestMemoryMmap,
    /// What it is. A unikernel's image is known without being told.
    pub guest: Guest,
    /// The kernel file that a Linux guest was booted from, until its digest is wanted.
    pub kernel: Option<KernelFile>,
    /// Whether the guest can be told that it is a clone; `None` where it always can.
    pub awaits: Option<Arc<AtomicBool>>,
    /// Why it cannot be saved at all, where it cannot.
    pub refused: Option<&'static str>,
}

impl Keeper {
    /// What the guest is. Its kernel's digest is worked out when this is first asked for: most guests are never saved.
    pub fn guest(&mut self) -> &Guest {
        if let (Some(kernel), Some(linux)) = (self.kernel.take(), &mut self.guest.linux) {
            linux.kernel_sha256 = kernel.digest();
        }
        if self.guest.kind == GuestKind::Unikernel && self.guest.program.is_empty() {
            self.guest.program = open::unikernel_digest();
        }
        &self.guest
    }

    /// Pauses the machine, where it is not paused already, and writes its memory and its state into these files. It stays paused until
    /// [`Keeper::resume`]; where this fails, it is as it was.
    pub fn save(&mut self, memory: &File, state: &File) -> Result<Guest, String> {
        if let Some(why) = self.refused {
            return Err(why.into());
        }
        if self.awaits.as_ref().is_some_and(|awaits| !awaits.load(Ordering::SeqCst)) {
            return Err("its agent is not ready yet".into());
        }
        // Before it stands still.
        self.guest();
        let paused = self.crew.is_paused();
        if paused {
            // After an earlier snapshot the devices stand still as well, and cannot do so twice.
            self.resume_devices();
        } else {
            self.crew.pause().map_err(|error| error.to_string())?;
        }
        let written = self.write(memory, state);
        if written.is_err() {
            self.resume_devices();
            if !paused {
                self.crew.resume();
            }
        }
        written
    }

    fn write(&self, memory: &File, state: &File) -> Result<Guest, String> {
        let (ports, registers) = (self.ports.save(), self.registers.save());
        let (processors, vm) = self.crew.save().map_err(|error| crate::chain(&error))?;
        memory::write(&self.memory, memory).map_err(|error| format!("write the guest's memory: {error}"))?;
        let saved = MachineState { guest: self.guest.clone(), vm, processors, ports, registers };
        let bytes = saved.to_bytes().map_err(|error| format!("write the guest's state: {error}"))?;
        state.write_all_at(&bytes, 0).map_err(|error| format!("write the guest's state: {error}"))?;
        Ok(saved.guest)
    }

    /// Lets the machine go on.
    pub fn resume(&self) {
        self.resume_devices();
        self.crew.resume();
    }

    fn resume_devices(&self) {
        self.ports.resume();
        self.registers.resume();
    }
}
