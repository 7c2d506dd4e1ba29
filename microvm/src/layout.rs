//! Where things lie in guest-physical memory that are the monitor's own business. What the unikernel must know as well is in
//! [`isobench_guest::contract`].

/// Global descriptor table of a unikernel: null, code, data, task state.
pub const GDT: u64 = 0x2000;
/// Task state segment of a unikernel: it holds the pointer to the interrupt stack.
pub const TSS: u64 = 0x2100;
/// Interrupt descriptor table of a unikernel: 256 gates of 16 bytes.
pub const IDT: u64 = 0x3000;
/// Page map level 4: the root of the page tables.
pub const PML4: u64 = 0x4000;
/// Page directory pointer table for the lowest 512 GiB.
pub const PDPT: u64 = 0x5000;
/// Page directory for the first GiB, where memory is.
pub const LOW_DIRECTORY: u64 = 0x6000;
/// Page table for the first 2 MiB, where pages have rights of their own.
pub const LOW_TABLE: u64 = 0x7000;
/// Page directory for the fourth GiB, where registers of devices are.
pub const HIGH_DIRECTORY: u64 = 0x8000;
/// The interrupt stack: exceptions switch to it, so that a stack overflow can be reported. Grows down from here.
pub const INTERRUPT_STACK_TOP: u64 = 0x22000;
/// Bottom of the interrupt stack.
pub const INTERRUPT_STACK_BOTTOM: u64 = 0x21000;

/// Memory ends below this address at the latest: one page directory maps one GiB.
pub const MOST_UNIKERNEL_MEMORY: u64 = 1 << 30;
/// The hole below 4 GiB where registers of devices lie; guests with more memory than fits below continue above 4 GiB.
pub const MMIO: u64 = 0xd000_0000;
/// Registers of the first virtio device.
pub const NETWORK_CARD: u64 = MMIO;
