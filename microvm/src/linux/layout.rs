//! Where things lie in a Linux guest's memory. The first 16 MiB are Firecracker's and Cloud Hypervisor's layout in all that
//! matters: the kernel says what it wants in [Documentation/arch/x86/boot.rst](https://docs.kernel.org/arch/x86/boot.html).

/// Global descriptor table.
pub const GDT: u64 = 0x500;
/// The first instructions: they say that the guest has begun and go on to the kernel.
pub const START: u64 = 0x6000;
/// `struct boot_params`, the "zero page".
pub const BOOT_PARAMETERS: u64 = 0x7000;
/// Page map level 4, then the page directory pointers, then the directory that maps the first GiB one to one.
pub const PML4: u64 = 0x9000;
/// Page directory pointer table.
pub const PDPT: u64 = 0xa000;
/// Page directory.
pub const PAGE_DIRECTORY: u64 = 0xb000;
/// The kernel's command line, zero-terminated.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// What the kernel keeps for the agent ([`isobench_workload::guest::IDENTITY`]), with its header before it: who a clone is.
pub const IDENTITY: u64 = 0x3_0000;
/// The multiprocessor table, in the last KiB of base memory, where it is looked for (MultiProcessor Specification 1.4, 4).
pub const MULTIPROCESSOR_TABLE: u64 = 0x9_fc00;
/// End of the memory below the hole that a PC's firmware uses.
pub const LOW_MEMORY_END: u64 = MULTIPROCESSOR_TABLE;
/// The ACPI tables' root, where it is looked for (ACPI 6.5, 5.2.5.1), and the tables after it.
pub const ACPI: u64 = 0xe_0000;
/// Memory goes on here after the hole.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// Memory below 4 GiB ends here at the latest: device registers lie above.
pub const LOWEST_HOLE: u64 = crate::layout::MMIO;
/// Memory that does not fit below the hole goes on here.
pub const ABOVE_4_GIB: u64 = 1 << 32;

/// The I/O interrupt controller's registers (Intel's 82093AA).
pub const IO_APIC: u64 = 0xfec0_0000;
/// The local interrupt controller's registers.
pub const LOCAL_APIC: u64 = 0xfee0_0000;
/// Three pages that KVM wants for itself on Intel's processors (Documentation/virt/kvm/api.rst, KVM_SET_TSS_ADDR).
pub const KVM_TSS: u64 = 0xfffb_d000;

/// First port of the serial console, COM1.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Interrupt line of the serial console.
pub const SERIAL_LINE: u32 = 4;
/// The first and the last interrupt line of the virtio devices: those of a PC above the serial port's.
pub const FIRST_DEVICE_LINE: u32 = 5;
/// See [`FIRST_DEVICE_LINE`].
pub const LAST_DEVICE_LINE: u32 = 15;
/// Each virtio device has so many bytes for its registers.
pub const DEVICE_PAGE: u64 = 0x1000;
/// The port at which the first instructions say that the guest has begun.
pub const BEGIN_PORT: u16 = 0xf1;
