//! The state in which the unikernel is entered: 64-bit mode at CPL 3 with flat segments, its own ports open, no interrupts,
//! page tables that map memory one to one, and gates for exceptions. At CPL 3 from the start, because a KVM without hardware
//! virtualisation runs only that at full speed; on hardware it makes no difference.

use super::write;
use crate::layout;
use crate::memory::MemoryError;
use crate::vcpu::VcpuError;
use isobench_guest::contract;
use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vm_memory::GuestMemoryMmap;

/// Selectors: index in the table times 8, and the requested privilege level.
const CODE: u16 = 1 << 3;
const DATA: u16 = 2 << 3;
const TASK: u16 = 3 << 3;
/// The privilege level of the guest's code, data and gates.
pub(super) const PRIVILEGE: u8 = 3;

/// Page table bits (Intel SDM, volume 3, 4.5).
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const CACHE_DISABLE: u64 = 1 << 4;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

const PAGE: u64 = 4096;
const LARGE_PAGE: u64 = 2 << 20;

/// CR0: protection, extension type, write protect, paging, numeric error (Intel SDM, volume 3, 2.5).
const CR0: u64 = 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31;
/// CR4: physical address extension, SSE, SSE exceptions.
const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10;
/// EFER: long mode enabled and active, no-execute.
const EFER: u64 = 1 << 8 | 1 << 10 | 1 << 11;
/// RFLAGS: the bit that is always set, and I/O privilege for CPL 3. Interrupts are off. Ports are opened twice: a KVM without
/// hardware virtualisation ignores the privilege and takes the bitmap of ports; QEMU's emulation of AMD-V ignores the bitmap, since
/// it refuses a task state that is marked busy (`helper_check_io`), and takes the privilege.
const FLAGS: u64 = 1 << 1 | 3 << 12;

/// Bytes of the task state without the bitmap of ports.
const TASK_STATE: usize = 104;
/// Bytes of the bitmap of ports, up to port 0xff, and the byte of ones that ends it.
const PORT_BITMAP: usize = 33;

/// Writes descriptor tables, gates and page tables into guest memory of this size.
pub(crate) fn write_tables(memory: &GuestMemoryMmap, size: u64) -> Result<(), MemoryError> {
    write(memory, layout::GDT, &words(&gdt()))?;
    write(memory, layout::TSS, &task_state())?;
    write(memory, layout::IDT, &words(&gates()))?;
    write(memory, layout::PML4, &words(&[layout::PDPT | PRESENT | WRITABLE | USER]))?;
    let mut pointers = [0; 4];
    pointers[0] = layout::LOW_DIRECTORY | PRESENT | WRITABLE | USER;
    pointers[(layout::MMIO >> 30) as usize] = layout::HIGH_DIRECTORY | PRESENT | WRITABLE | USER;
    write(memory, layout::PDPT, &words(&pointers))?;
    let mut directory = vec![layout::LOW_TABLE | PRESENT | WRITABLE | USER];
    directory.extend(
        (1..size / LARGE_PAGE).map(|page| (page * LARGE_PAGE) | LARGE | PRESENT | WRITABLE | USER | NO_EXECUTE),
    );
    write(memory, layout::LOW_DIRECTORY, &words(&directory))?;
    let table: Vec<u64> = (0..LARGE_PAGE / PAGE).map(|page| page * PAGE).map(low_page).collect();
    write(memory, layout::LOW_TABLE, &words(&table))?;
    let registers = layout::MMIO & !(LARGE_PAGE - 1) | LARGE | CACHE_DISABLE | PRESENT | WRITABLE | USER | NO_EXECUTE;
    let index = (layout::MMIO & ((1 << 30) - 1)) / LARGE_PAGE;
    write(memory, layout::HIGH_DIRECTORY + index * 8, &words(&[registers]))
}

/// The entry for one page of the first 2 MiB: what is not named here is not mapped, so page 0 and the page below the stack
/// fault.
fn low_page(address: u64) -> u64 {
    let read = PRESENT | USER;
    let rights = match address {
        contract::BOOT_PARAMETERS => read | NO_EXECUTE,
        layout::GDT | layout::IDT => read | WRITABLE | NO_EXECUTE,
        _ if contract::RINGS.contains(&address) => read | WRITABLE | NO_EXECUTE,
        layout::INTERRUPT_STACK_BOTTOM..layout::INTERRUPT_STACK_TOP => read | WRITABLE | NO_EXECUTE,
        contract::STACK_BOTTOM..contract::STACK_TOP => read | WRITABLE | NO_EXECUTE,
        contract::IMAGE..contract::IMAGE_DATA => read,
        contract::IMAGE_DATA..contract::BUFFERS => read | WRITABLE | NO_EXECUTE,
        _ => return 0,
    };
    address | rights
}

/// The segment descriptors (Intel SDM, volume 3, 3.4.5 and 7.2.3).
fn gdt() -> [u64; 5] {
    const CODE_DESCRIPTOR: u64 = 0x00af_fb00_0000_ffff;
    const DATA_DESCRIPTOR: u64 = 0x00cf_f300_0000_ffff;
    let limit = (TASK_STATE + PORT_BITMAP - 1) as u64;
    let task = 0x0000_8b00_0000_0000 | limit | (layout::TSS & 0xff_ffff) << 16 | (layout::TSS >> 24 & 0xff) << 56;
    [0, CODE_DESCRIPTOR, DATA_DESCRIPTOR, task, layout::TSS >> 32]
}

/// The task state segment (Intel SDM, volume 3, 7.7): the first interrupt stack, and the bitmap that opens the monitor's ports
/// to CPL 3 (see [`FLAGS`]).
fn task_state() -> [u8; TASK_STATE + PORT_BITMAP] {
    let mut state = [0; TASK_STATE + PORT_BITMAP];
    state[36..44].copy_from_slice(&layout::INTERRUPT_STACK_TOP.to_le_bytes());
    state[102..104].copy_from_slice(&(TASK_STATE as u16).to_le_bytes());
    // A set bit closes a port. An access of 4 bytes needs four open ports.
    state[TASK_STATE..].fill(0xff);
    for port in contract::PORT_EXIT..contract::PORT_EXCHANGE + 4 {
        state[TASK_STATE + usize::from(port) / 8] &= !(1 << (port % 8));
    }
    state
}

/// Interrupt gates (Intel SDM, volume 3, 6.14.1) to the image's entry code, on the first interrupt stack.
fn gates() -> Vec<u64> {
    const PRESENT_INTERRUPT_GATE: u64 = 0x8e << 40;
    let gate = |vector: u64| {
        let entry = contract::EXCEPTION_ENTRIES + vector * contract::EXCEPTION_ENTRY_SIZE;
        let low = entry & 0xffff
            | u64::from(CODE | u16::from(PRIVILEGE)) << 16
            | 1 << 32
            | PRESENT_INTERRUPT_GATE
            | u64::from(PRIVILEGE) << 45
            | (entry >> 16 & 0xffff) << 48;
        [low, entry >> 32]
    };
    (0..contract::EXCEPTIONS as u64).flat_map(gate).collect()
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Sets the processor's registers for the first instruction at `entry`, at a privilege level.
pub(crate) fn set(vcpu: &VcpuFd, entry: u64, privilege: u8) -> Result<(), VcpuError> {
    let mut special = vcpu.get_sregs().map_err(VcpuError::system("read the special registers"))?;
    special.cs = segment(CODE, 0xb, privilege);
    special.cs.l = 1;
    special.cs.db = 0;
    for data in [&mut special.ds, &mut special.es, &mut special.fs, &mut special.gs, &mut special.ss] {
        *data = segment(DATA, 0x3, privilege);
    }
    special.tr = kvm_segment {
        base: layout::TSS,
        limit: (TASK_STATE + PORT_BITMAP - 1) as u32,
        selector: TASK,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
    special.gdt = kvm_dtable { base: layout::GDT, limit: 5 * 8 - 1, ..Default::default() };
    special.idt = kvm_dtable { base: layout::IDT, limit: contract::EXCEPTIONS as u16 * 16 - 1, ..Default::default() };
    special.cr0 = CR0;
    special.cr3 = layout::PML4;
    special.cr4 = CR4;
    special.efer = EFER;
    vcpu.set_sregs(&special).map_err(VcpuError::system("set the special registers"))?;
    let registers = kvm_regs { rip: entry, rsp: contract::STACK_TOP, rflags: FLAGS, ..Default::default() };
    vcpu.set_regs(&registers).map_err(VcpuError::system("set the registers"))
}

fn segment(selector: u16, type_: u8, privilege: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: selector | u16::from(privilege),
        type_,
        present: 1,
        dpl: privilege,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        ..Default::default()
    }
}
