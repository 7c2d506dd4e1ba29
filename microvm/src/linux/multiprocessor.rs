//! The multiprocessor table (MultiProcessor Specification 1.4, Intel 1997): how a kernel without ACPI finds the processors and the
//! interrupt controllers.

use super::layout;
use crate::memory::MemoryError;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Most processors that the table has room for, beside all else, in the kilobyte in which it lies.
pub const MOST_PROCESSORS: u8 = 32;
/// Version of both controllers, as KVM reports it.
const VERSION: u8 = 0x14;
/// Interrupt lines of a PC.
const LINES: u8 = 16;
/// Entry types (4.3).
const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC: u8 = 2;
const INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;
/// Interrupt types (table 4-10).
const VECTORED: u8 = 0;
const NON_MASKABLE: u8 = 1;
const EXTERNAL: u8 = 3;

/// Number of the I/O controller: the first that is no processor's.
pub fn io_apic_id(processors: u8) -> u8 {
    processors
}

/// Writes the table for so many processors into guest memory.
pub fn write(memory: &GuestMemoryMmap, processors: u8) -> Result<(), MemoryError> {
    let bytes = table(processors);
    let address = layout::MULTIPROCESSOR_TABLE;
    memory.write_slice(&bytes, GuestAddress(address)).map_err(|source| MemoryError::Access { address, source })
}

/// The floating pointer and, right after it, the configuration table.
fn table(processors: u8) -> Vec<u8> {
    let mut entries: Vec<Vec<u8>> = Vec::new();
    let io_apic_id = io_apic_id(processors);
    for number in 0..processors {
        // Enabled, and the first one boots.
        let mut processor = vec![PROCESSOR, number, VERSION, if number == 0 { 0b11 } else { 0b01 }];
        processor.resize(20, 0);
        entries.push(processor);
    }
    entries.push([&[BUS, 0][..], b"ISA   "].concat());
    entries.push([&[IO_APIC, io_apic_id, VERSION, 1][..], &(layout::IO_APIC as u32).to_le_bytes()].concat());
    for line in 0..LINES {
        entries.push(vec![INTERRUPT, VECTORED, 0, 0, 0, line, io_apic_id, line]);
    }
    entries.push(vec![LOCAL_INTERRUPT, EXTERNAL, 0, 0, 0, 0, 0, 0]);
    entries.push(vec![LOCAL_INTERRUPT, NON_MASKABLE, 0, 0, 0, 0, 0xff, 1]);

    let count = entries.len() as u16;
    let entries = entries.concat();
    let mut header = Vec::new();
    header.extend(b"PCMP");
    header.extend((44 + entries.len() as u16).to_le_bytes());
    header.extend([4, 0]);
    header.extend(b"ISOBENCHMICROVM     ");
    header.extend([0; 6]);
    header.extend(count.to_le_bytes());
    header.extend((layout::LOCAL_APIC as u32).to_le_bytes());
    header.extend([0; 4]);
    let mut configuration = [header, entries].concat();
    configuration[7] = complement(&configuration);

    let mut pointer = Vec::new();
    pointer.extend(b"_MP_");
    pointer.extend((layout::MULTIPROCESSOR_TABLE as u32 + 16).to_le_bytes());
    pointer.extend([1, 4]);
    pointer.extend([0; 6]);
    pointer[10] = complement(&pointer);
    [pointer, configuration].concat()
}

/// The byte that makes all add up to zero.
fn complement(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_add_up_and_fit_the_last_kilobyte_of_base_memory() {
        for processors in [1, 2, MOST_PROCESSORS] {
            let bytes = table(processors);
            assert!(bytes.len() <= 1024);
            assert_eq!(complement(&bytes[..16]), 0);
            let length = u16::from_le_bytes([bytes[20], bytes[21]]);
            assert_eq!(bytes.len(), 16 + usize::from(length));
            assert_eq!(complement(&bytes[16..]), 0);
            // Each entry of a processor has its number; only the first one boots.
            for number in 0..processors {
                let at = 16 + 44 + usize::from(number) * 20;
                assert_eq!(bytes[at..at + 4], [PROCESSOR, number, VERSION, 1 | u8::from(number == 0) << 1]);
            }
        }
    }
}
