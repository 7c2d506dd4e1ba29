//! A virtio device whose queues a thread of its own attends to: registers and thread, as one device on the bus.

use crate::bus::{Device, Reaction};
use crate::confinement::Role;
use crate::devices::virtio::attendant::{Active, Attendant, Service, Work};
use crate::devices::virtio::configuration::Configuration;
use crate::devices::virtio::interrupt::Interrupt;
use crate::devices::virtio::mmio::{Effect, Identity, Transport, status};
use crate::snapshot::devices::{DeviceState, RingState, StateError, VirtioState};
use std::io;
use virtio_queue::Queue;
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
    /// What the thread was stopped with, for as long as the machine is paused.
    paused: Option<Active>,
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
        Ok(Self { transport: registers(interrupt.clone()), memory, interrupt, kick, attendant, paused: None })
    }

    /// The device's configuration space.
    pub(super) fn configuration(&self) -> Configuration {
        self.transport.configuration()
    }

    /// The device's interrupt, to be wired to whatever the guest waits for.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    fn active(&self, queues: Vec<Queue>) -> Active {
        Active { memory: self.memory.clone(), queues, features: self.transport.features() }
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
            Effect::Activate => self.attendant.give(Work::Begin(self.active(self.transport.queues()))),
            Effect::Notify(_) => {
                // Full means pending.
                let _ = self.kick.write(1);
            }
            Effect::Reset => drop(self.attendant.stop()),
        }
        Reaction::Continue
    }

    fn save(&mut self) -> Option<DeviceState> {
        if self.attendant.has_failed() {
            self.transport.needs_reset();
        }
        let (active, service) = self.attendant.stop().unzip();
        self.paused = active;
        let rings = |active: &Active| active.queues.iter().map(|queue| RingState::from(queue.state())).collect();
        let active = self.paused.as_ref().map(rings).unwrap_or_default();
        let state = VirtioState { registers: self.transport.state(), active, service: service.flatten() };
        Some(DeviceState::Virtio(state))
    }

    fn resume(&mut self) {
        if let Some(active) = self.paused.take() {
            self.attendant.give(Work::Continue(active, None));
        }
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError> {
        let DeviceState::Virtio(state) = state else { return Err(StateError::Kind) };
        self.transport.restore(&state.registers, false, &self.memory)?;
        if self.transport.is_active() {
            let queues = state.active_queues(&self.transport.queues())?;
            if state.service.as_ref().is_some_and(|service| !service.is_valid()) {
                return Err(StateError::Held);
            }
            self.attendant.give(Work::Continue(self.active(queues), state.service.clone()));
            // As in the network card.
            self.interrupt.used_buffer();
        }
        Ok(())
    }
}
