//! A virtio device whose queues a thread of its own attends to: registers and thread, as one device on the bus.

use crate::bus::{Device, Reaction};
use crate::confinement::Role;
use crate::devices::virtio::attendant::{Active, Attendant, Service};
use crate::devices::virtio::configuration::Configuration;
use crate::devices::virtio::interrupt::Interrupt;
use crate::devices::virtio::mmio::{Effect, Identity, Transport, status};
use std::io;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// A device after reset, or in its driver's hands.
#[derive(Debug)]
pub struct QueueDevice {
    transport: Transport,
    memory: GuestMemoryMmap,
    interrupt: Interrupt,
    kick: EventFd,
    attendant: Attendant,
}

impl QueueDevice {
    /// A device after reset, whose thread carries this name and is confined to this role.
    pub fn new(
        name: &str,
        identity: Identity,
        service: impl Service,
        role: Role,
        memory: GuestMemoryMmap,
    ) -> io::Result<Self> {
        Self::with_registers(name, |interrupt| Transport::new(identity, interrupt), service, role, memory)
    }

    /// The same, with registers that are made for this interrupt.
    pub(super) fn with_registers(
        name: &str,
        registers: impl FnOnce(Interrupt) -> Transport,
        service: impl Service,
        role: Role,
        memory: GuestMemoryMmap,
    ) -> io::Result<Self> {
        let interrupt = Interrupt::new()?;
        let kick = EventFd::new(EFD_NONBLOCK)?;
        let attendant = Attendant::start(name, service, role, kick.try_clone()?, interrupt.clone())?;
        Ok(Self { transport: registers(interrupt.clone()), memory, interrupt, kick, attendant })
    }

    /// The device's configuration space.
    pub(super) fn configuration(&self) -> Configuration {
        self.transport.configuration()
    }

    /// The device's interrupt, to be wired to whatever the guest waits for.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// The event that a write to `QueueNotify` signals: it may be registered as an ioeventfd, which spares an exit.
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }
}

impl Device for QueueDevice {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if self.attendant.has_failed() && self.transport.status() & status::DEVICE_NEEDS_RESET == 0 {
            self.transport.needs_reset();
        }
        self.transport.read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Reaction {
        match self.transport.write(offset, data, &self.memory) {
            Effect::None => {}
            Effect::Activate => self.attendant.give(Active {
                memory: self.memory.clone(),
                queues: self.transport.queues(),
                features: self.transport.features(),
            }),
            Effect::Notify(_) => {
                // Full means pending.
                let _ = self.kick.write(1);
            }
            Effect::Reset => self.attendant.stop(),
        }
        Reaction::Continue
    }
}
