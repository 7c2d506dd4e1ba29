//! The interrupt controllers: KVM's own, as firmware leaves them behind.

use super::layout;
use super::multiprocessor::io_apic_id;
use kvm_bindings::{KVM_IRQCHIP_IOAPIC, kvm_ioapic_state, kvm_irqchip};
use kvm_ioctls::{Error, VmFd};

/// Fields of a redirection entry (82093AA, 3.2.4): delivery modes ExtINT and SMI, and the mask.
const EXTERNAL: u64 = 0b111 << 8;
const MANAGEMENT: u64 = 0b010 << 8;
const MASKED: u64 = 1 << 16;

/// Puts the I/O controller into virtual wire mode (MultiProcessor Specification 1.4, 3.6.2.2): its first pin stands for the old
/// controllers, all others are masked and firmware's.
///
/// Each access to this controller is an exit, and Linux makes four of them to read or write one entry. It looks through the pins for
/// the one with the old controllers, and is done after the first. Then it clears each pin, but one that is left to the firmware (SMI)
/// it only reads: masked as these are, nothing comes of them until it writes an entry of its own. Together they spare a guest nearly
/// 300 exits on its way to /init.
pub(super) fn begin_in_virtual_wire_mode(vm: &VmFd, processors: u8) -> Result<(), Error> {
    let mut state =
        kvm_ioapic_state { base_address: layout::IO_APIC, id: io_apic_id(processors).into(), ..Default::default() };
    for (pin, entry) in state.redirtbl.iter_mut().enumerate() {
        entry.bits = if pin == 0 { EXTERNAL } else { MANAGEMENT | MASKED };
    }
    let mut chip = kvm_irqchip { chip_id: KVM_IRQCHIP_IOAPIC, ..Default::default() };
    chip.chip.ioapic = state;
    vm.set_irqchip(&chip)
}
