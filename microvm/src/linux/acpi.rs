//! ACPI tables: the only way by which a distribution's kernel finds a virtio device that is not on a PCI bus.
//!
//! The "hardware-reduced" profile (ACPI 6.5, 4.1) spares everything that a PC has for history's sake, so the kernel does not
//! probe for a keyboard controller or a real-time clock that are not there.

use super::devices::Place;
use super::layout;
use super::multiprocessor::io_apic_id;
use crate::memory::MemoryError;
use acpi_tables::Aml;
use acpi_tables::aml::{Device, EISAName, IO, Interrupt, Memory32Fixed, Name, ResourceTemplate};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const OEM: [u8; 6] = *b"ISOBEN";
const TABLE: [u8; 8] = *b"MICROVM ";
/// `IAPC_BOOT_ARCH` (ACPI 6.5, table 5.11): no VGA, no message-signalled interrupts, no real-time clock.
const NO_VGA: u16 = 1 << 2;
const NO_MESSAGES: u16 = 1 << 3;
const NO_CLOCK: u16 = 1 << 5;
/// The hardware ID of a virtio device with memory-mapped registers (QEMU's; drivers/virtio/virtio_mmio.c).
const VIRTIO_MMIO: &str = "LNRO0005";
/// A serial port like the 16550A.
const SERIAL: &str = "PNP0501";
/// Revision of the differentiated system description table: 2 is 64-bit arithmetic.
const DSDT_REVISION: u8 = 2;

/// Writes the tables into guest memory and gives the root's address. The virtio devices are at `places`.
pub fn write(memory: &GuestMemoryMmap, places: &[Place], processors: u8) -> Result<u64, MemoryError> {
    let mut tables = Tables { memory, next: layout::ACPI + Rsdp::len().next_multiple_of(16) as u64 };
    let dsdt = tables.add(&description(places))?;
    let fadt = {
        let mut builder = FADTBuilder::new(OEM, TABLE, 1).dsdt_64(dsdt).flag(Flags::HwReducedAcpi);
        builder.iapc_boot_arch = (NO_VGA | NO_MESSAGES | NO_CLOCK).into();
        tables.add(&builder.finalize())?
    };
    let madt = tables.add(&interrupt_controllers(processors))?;
    let mut xsdt = XSDT::new(OEM, TABLE, 1);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = tables.add(&xsdt)?;
    tables.next = layout::ACPI;
    tables.add(&Rsdp::new(OEM, xsdt))
}

/// Places tables one after the other.
struct Tables<'a> {
    memory: &'a GuestMemoryMmap,
    next: u64,
}

impl Tables<'_> {
    fn add(&mut self, table: &dyn Aml) -> Result<u64, MemoryError> {
        let mut bytes = Vec::new();
        table.to_aml_bytes(&mut bytes);
        let address = self.next;
        self.memory
            .write_slice(&bytes, GuestAddress(address))
            .map_err(|source| MemoryError::Access { address, source })?;
        self.next += bytes.len().next_multiple_of(16) as u64;
        Ok(address)
    }
}

/// Each processor with its local controller, and one I/O controller for lines 0 to 23.
fn interrupt_controllers(processors: u8) -> MADT {
    let mut madt = MADT::new(OEM, TABLE, 1, LocalInterruptController::Address(layout::LOCAL_APIC as u32));
    for number in 0..processors {
        madt.add_structure(ProcessorLocalApic::new(number, number, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(io_apic_id(processors), layout::IO_APIC as u32, 0));
    madt
}

/// The devices that can't be found otherwise: the serial console and the virtio devices.
fn description(places: &[Place]) -> Sdt {
    let mut dsdt = Sdt::new(*b"DSDT", 36, DSDT_REVISION, OEM, TABLE, 1);
    let mut code = Vec::new();
    let port = IO::new(layout::SERIAL_PORT, layout::SERIAL_PORT, 1, 8);
    let line = Interrupt::new(true, true, false, false, layout::SERIAL_LINE);
    let id = Name::new("_HID".into(), &EISAName::new(SERIAL));
    let number = Name::new("_UID".into(), &0_u8);
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&port, &line]));
    Device::new("_SB_.COM1".into(), vec![&id, &number, &resources]).to_aml_bytes(&mut code);
    for (index, place) in places.iter().enumerate() {
        let registers = Memory32Fixed::new(true, place.registers as u32, layout::DEVICE_PAGE as u32);
        let line = Interrupt::new(true, true, false, false, place.line);
        let id = Name::new("_HID".into(), &VIRTIO_MMIO);
        let number = Name::new("_UID".into(), &(index as u8));
        let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&registers, &line]));
        let name = format!("_SB_.VI{index:02}");
        Device::new(name.as_str().into(), vec![&id, &number, &resources]).to_aml_bytes(&mut code);
    }
    dsdt.append_slice(&code);
    dsdt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(memory: &GuestMemoryMmap, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    /// A table by its header: its length is in it, and all its bytes add up to zero (ACPI 6.5, 5.2.6).
    fn table(memory: &GuestMemoryMmap, address: u64) -> Vec<u8> {
        let header = read(memory, address, 36);
        let length = u32::from_le_bytes(header[4..8].try_into().unwrap());
        let bytes = read(memory, address, length as usize);
        let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, 0, "checksum of {}", String::from_utf8_lossy(&header[..4]));
        bytes
    }

    #[test]
    fn every_table_is_reached_from_the_root_and_adds_up() {
        let memory = crate::memory::create(2 << 20).unwrap();
        let place = |number: u32| Place { registers: 0xd000_0000 + u64::from(number) * 0x1000, line: 5 + number };
        let places: Vec<Place> = (0..11).map(place).collect();
        let root = write(&memory, &places, 3).unwrap();
        assert_eq!(root, layout::ACPI);
        let rsdp = read(&memory, root, 36);
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        for part in [&rsdp[..20], &rsdp[..]] {
            assert_eq!(part.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        }
        let xsdt = table(&memory, word(&rsdp, 24));
        let names: Vec<Vec<u8>> =
            xsdt[36..].chunks(8).map(|entry| table(&memory, word(entry, 0))[..4].to_vec()).collect();
        assert_eq!(names, [b"FACP".to_vec(), b"APIC".to_vec()]);
        // Each processor, then the I/O controller (ACPI 6.5, 5.2.12).
        let madt = table(&memory, word(&xsdt, 44));
        let numbers: Vec<&[u8]> = madt[44..].chunks(8).map(|entry| &entry[..4]).collect();
        assert_eq!(numbers[..3], [[0, 8, 0, 0], [0, 8, 1, 1], [0, 8, 2, 2]]);
        assert_eq!(numbers[3], [1, 12, 3, 0]);
        let fadt = table(&memory, word(&xsdt, 36));
        // X_DSDT, flags (hardware-reduced is bit 20) and IAPC_BOOT_ARCH (ACPI 6.5, table 5.9).
        let dsdt = table(&memory, word(&fadt, 140));
        assert_eq!(&dsdt[..4], b"DSDT");
        assert_eq!(dsdt.windows(8).filter(|text| *text == VIRTIO_MMIO.as_bytes()).count(), places.len());
        assert!(dsdt.windows(4).any(|text| text == b"VI10"));
        assert_eq!(fadt[112 + 2] & 1 << 4, 1 << 4);
        assert_eq!(fadt[109], 0b10_1100);
    }

    #[test]
    fn a_guest_without_devices_is_told_of_none() {
        let mut bytes = Vec::new();
        description(&[]).to_aml_bytes(&mut bytes);
        assert!(!bytes.windows(8).any(|text| text == VIRTIO_MMIO.as_bytes()));
    }
}
