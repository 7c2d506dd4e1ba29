//! The "zero page": what a boot loader tells the kernel
//! ([Documentation/arch/x86/zero-page.rst](https://docs.kernel.org/arch/x86/zero-page.html)).

use super::LinuxError;
use super::kernel::Loaded;
use super::layout;
use crate::memory::MemoryError;
use isobench_workload::guest::LONGEST_IDENTITY;
use linux_loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// "HdrS" and the boot sector's mark, which a vmlinux has no header to bring along.
const HEADER_MAGIC: u32 = 0x5372_6448;
const BOOT_FLAG: u16 = 0xaa55;
/// A boot loader without a number of its own (boot.rst, `type_of_loader`).
const LOADER_UNDEFINED: u8 = 0xff;
/// Memory that the kernel may use (e820).
const RAM: u32 = 1;
/// Longest command line that is passed on; the kernel's own limit is 2047.
pub const LONGEST_COMMAND_LINE: usize = 2047;
const PAGE: u64 = 4096;
/// Size of `struct setup_data` (boot.rst), which tells what a boot loader has the kernel keep: eight bytes lead to the next, of which there is
/// none, four are its kind, and four its length.
const KEPT_HEADER: usize = 16;

/// Puts the initramfs at the end of memory below 4 GiB, and writes command line and zero page. The place where a clone finds who it is
/// stays empty.
pub fn write(
    memory: &GuestMemoryMmap,
    kernel: &Loaded,
    initramfs: &[u8],
    command_line: &str,
    acpi_root: u64,
) -> Result<(), LinuxError> {
    let access = |address| move |source| LinuxError::Memory(MemoryError::Access { address, source });
    let low_end = memory.iter().next().map_or(0, |region| region.len());
    let length = initramfs.len() as u64;
    let address =
        low_end.checked_sub(length).map(|address| address & !(PAGE - 1)).filter(|address| *address >= kernel.end);
    let Some(address) = address else {
        return Err(LinuxError::InitramfsTooLarge { initramfs: length, kernel: kernel.end, memory: low_end });
    };
    memory.write_slice(initramfs, GuestAddress(address)).map_err(access(address))?;

    if command_line.len() > LONGEST_COMMAND_LINE {
        return Err(LinuxError::CommandLineTooLong { length: command_line.len() });
    }
    let text = [command_line.as_bytes(), &[0]].concat();
    memory.write_slice(&text, GuestAddress(layout::COMMAND_LINE)).map_err(access(layout::COMMAND_LINE))?;

    let mut parameters = boot_params::default();
    if let Some(header) = kernel.header {
        parameters.hdr = header;
    } else {
        parameters.hdr.header = HEADER_MAGIC;
        parameters.hdr.boot_flag = BOOT_FLAG;
    }
    parameters.hdr.type_of_loader = LOADER_UNDEFINED;
    parameters.hdr.cmd_line_ptr = layout::COMMAND_LINE as u32;
    parameters.hdr.cmdline_size = command_line.len() as u32;
    parameters.hdr.ramdisk_image = address as u32;
    parameters.hdr.ramdisk_size = length as u32;
    parameters.acpi_rsdp_addr = acpi_root;
    // Of kind 0, of which the kernel itself reads nothing.
    let mut kept = [0; KEPT_HEADER];
    kept[12..].copy_from_slice(&(LONGEST_IDENTITY as u32).to_le_bytes());
    memory.write_slice(&kept, GuestAddress(layout::IDENTITY)).map_err(access(layout::IDENTITY))?;
    parameters.hdr.setup_data = layout::IDENTITY;
    let ranges = ram(memory);
    for (entry, (start, size)) in parameters.e820_table.iter_mut().zip(&ranges) {
        *entry = boot_e820_entry { addr: *start, size: *size, r#type: RAM };
    }
    parameters.e820_entries = ranges.len() as u8;
    let parameters = BootParams::new(&parameters, GuestAddress(layout::BOOT_PARAMETERS));
    LinuxBootConfigurator::write_bootparams(&parameters, memory).map_err(LinuxError::BootParameters)
}

/// Writes who a clone is to where its agent reads it.
///
/// # Errors
/// Where it is too long.
pub fn write_identity(memory: &GuestMemoryMmap, identity: &[u8]) -> Result<(), LinuxError> {
    if identity.len() >= LONGEST_IDENTITY {
        return Err(LinuxError::IdentityTooLong);
    }
    let address = layout::IDENTITY + KEPT_HEADER as u64;
    let text = [identity, &[0]].concat();
    memory.write_slice(&text, GuestAddress(address)).map_err(|source| MemoryError::Access { address, source }.into())
}

/// Where the kernel may put things: all memory but the hole below 1 MiB, which holds tables.
fn ram(memory: &GuestMemoryMmap) -> Vec<(u64, u64)> {
    let mut ranges = vec![(0, layout::LOW_MEMORY_END)];
    for region in memory.iter() {
        let start = region.start_addr().0.max(layout::HIGH_MEMORY);
        let end = region.start_addr().0 + region.len();
        ranges.push((start, end.saturating_sub(start)));
    }
    ranges
}
