//! Where a guest's virtio devices are: each has a page of registers and an interrupt line of its own, in the order in which they
//! are made.

use super::{LinuxError, layout};
use crate::bus::{Bus, Device};
use crate::devices::virtio::mmio::{self, register};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

/// A device's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Guest-physical address of its registers.
    pub registers: u64,
    /// Number of its interrupt line.
    pub line: u32,
}

/// The place of the device with this number, if there are so many: each has one of the lines that a PC leaves to its devices.
fn place(number: usize) -> Option<Place> {
    let lines = layout::FIRST_DEVICE_LINE..=layout::LAST_DEVICE_LINE;
    let line = u32::try_from(number).ok()?.checked_add(*lines.start()).filter(|line| lines.contains(line))?;
    Some(Place { registers: crate::layout::MMIO + number as u64 * layout::DEVICE_PAGE, line })
}

/// Puts devices on the bus, one after the other.
#[derive(Debug)]
pub(super) struct Places<'m> {
    vm: &'m VmFd,
    registers: &'m mut Bus,
    taken: Vec<Place>,
}

impl<'m> Places<'m> {
    /// No device yet.
    pub(super) fn new(vm: &'m VmFd, registers: &'m mut Bus) -> Self {
        Self { vm, registers, taken: Vec::new() }
    }

    /// Adds a device. Its interrupt raises the line, and the guest's notifications reach whoever works off its queues without stopping
    /// the vCPU: by one event for all queues, or by one for each.
    pub(super) fn add(
        &mut self,
        device: impl Device + 'static,
        interrupt: &EventFd,
        kicks: &[EventFd],
    ) -> Result<(), LinuxError> {
        let failed =
            |operation| move |source: kvm_ioctls::Error| LinuxError::System { operation, source: source.into() };
        let place = place(self.taken.len()).ok_or(LinuxError::TooManyDevices)?;
        self.vm.register_irqfd(interrupt, place.line).map_err(failed("register an interrupt"))?;
        let notify = IoEventAddress::Mmio(place.registers + register::QUEUE_NOTIFY);
        match kicks {
            [kick] => self.vm.register_ioevent(kick, &notify, NoDatamatch),
            kicks => (0_u32..).zip(kicks).try_for_each(|(queue, kick)| self.vm.register_ioevent(kick, &notify, queue)),
        }
        .map_err(failed("register a notification"))?;
        self.registers.insert(place.registers..place.registers + mmio::WINDOW, Box::new(device))?;
        self.taken.push(place);
        Ok(())
    }

    /// Where the devices are.
    pub(super) fn into_taken(self) -> Vec<Place> {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_has_a_line_of_a_pc() {
        assert_eq!(place(0), Some(Place { registers: 0xd000_0000, line: 5 }));
        assert_eq!(place(10), Some(Place { registers: 0xd000_a000, line: 15 }));
        assert_eq!(place(11), None);
    }
}
