//! The state in which Linux is entered: 64-bit mode, flat segments, paging on, the zero page's address in rsi
//! ([boot.rst](https://docs.kernel.org/arch/x86/boot.html), "64-bit Boot Protocol").

use super::{layout, topology};
use crate::memory::MemoryError;
use crate::vcpu::VcpuError;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_dtable, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::{Cap, Kvm, VcpuFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Segment descriptors and selectors that the protocol asks for: code at 0x10, data at 0x18.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;
const DESCRIPTORS: [u64; 5] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x008f_8b00_0000_ffff];

/// Page table bits (Intel SDM, volume 3, 4.5).
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
/// CR0: protection, extension type, paging. CR4: physical address extension. EFER: long mode enabled and active.
const CR0: u64 = 1 | 1 << 4 | 1 << 31;
const CR4: u64 = 1 << 5;
const EFER: u64 = 1 << 8 | 1 << 10;

/// CPUID leaf 1, ECX: the TSC deadline timer, which spares the kernel its timer calibration, and "there is a hypervisor".
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
/// MSR `IA32_MISC_ENABLE` and its bit for fast string operations (Intel SDM, volume 4), which the kernel asks for.
const MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
/// The local interrupt controller's line 0 takes the old controller's interrupts and line 1 the NMI (Intel SDM, volume 3,
/// 11.5.1), as firmware leaves them.
const LINE_0: usize = 0x350;
const LINE_1: usize = 0x360;
const EXTERNAL_MODE: u32 = 7 << 8;
const NMI_MODE: u32 = 4 << 8;

/// Writes descriptors, page tables and the first instructions, which go on to `entry`.
pub(super) fn write_tables(memory: &GuestMemoryMmap, entry: u64) -> Result<(), MemoryError> {
    let write = |address: u64, words: &[u64]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        memory.write_slice(&bytes, GuestAddress(address)).map_err(|source| MemoryError::Access { address, source })
    };
    write(layout::GDT, &DESCRIPTORS)?;
    write(layout::PML4, &[layout::PDPT | PRESENT | WRITABLE])?;
    write(layout::PDPT, &[layout::PAGE_DIRECTORY | PRESENT | WRITABLE])?;
    let directory: Vec<u64> = (0..512).map(|page| page << 21 | LARGE | PRESENT | WRITABLE).collect();
    write(layout::PAGE_DIRECTORY, &directory)?;
    // out BEGIN_PORT, al; mov rax, entry; jmp rax. The kernel wants rsi alone.
    let mut code = vec![0xe6, layout::BEGIN_PORT as u8, 0x48, 0xb8];
    code.extend(entry.to_le_bytes());
    code.extend([0xff, 0xe0]);
    let address = layout::START;
    memory.write_slice(&code, GuestAddress(address)).map_err(|source| MemoryError::Access { address, source })
}

/// Gives a processor, the one with this number of so many, the features of the host's that KVM supports.
pub(super) fn set_features(kvm: &Kvm, vcpu: &VcpuFd, number: u8, count: u8) -> Result<(), VcpuError> {
    let supported = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(VcpuError::system("read KVM's CPUID for the features"))?;
    let deadline = kvm.check_extension(Cap::TscDeadlineTimer);
    let mut leaves = topology::describe(supported.as_slice(), number, count);
    for leaf in leaves.iter_mut().filter(|leaf| leaf.function == 1) {
        leaf.ecx |= HYPERVISOR | if deadline { TSC_DEADLINE } else { 0 };
    }
    // KVM gives fewer entries than it takes.
    let features = CpuId::from_entries(&leaves)
        .map_err(|_| VcpuError::Unexpected("KVM tells of more features than it takes".into()))?;
    vcpu.set_cpuid2(&features).map_err(VcpuError::system("set the features"))?;
    let strings = [kvm_msr_entry { index: MISC_ENABLE, data: FAST_STRINGS, ..Default::default() }];
    // An AMD processor has no such register.
    if let Ok(strings) = Msrs::from_entries(&strings) {
        let _ = vcpu.set_msrs(&strings);
    }
    Ok(())
}

/// Sets the registers for the first instruction, which one processor executes and the others are woken by. The features come first,
/// since KVM checks registers against them.
pub(super) fn set_registers(vcpu: &VcpuFd) -> Result<(), VcpuError> {
    let mut local = vcpu.get_lapic().map_err(VcpuError::system("read the interrupt controller"))?;
    for (line, mode) in [(LINE_0, EXTERNAL_MODE), (LINE_1, NMI_MODE)] {
        for (place, byte) in local.regs[line..line + 4].iter_mut().zip(mode.to_le_bytes()) {
            *place = byte as _;
        }
    }
    vcpu.set_lapic(&local).map_err(VcpuError::system("set the interrupt controller"))?;
    // The state after FNINIT and the reset value of MXCSR (Intel SDM, volume 1, 8.1.5 and 10.2.3).
    let floating = kvm_fpu { fcw: 0x37f, mxcsr: 0x1f80, ..Default::default() };
    vcpu.set_fpu(&floating).map_err(VcpuError::system("set the floating-point state"))?;

    let mut special = vcpu.get_sregs().map_err(VcpuError::system("read the special registers"))?;
    special.cs = kvm_segment { l: 1, db: 0, ..segment(CODE, 0xb) };
    for data in [&mut special.ds, &mut special.es, &mut special.fs, &mut special.gs, &mut special.ss] {
        *data = segment(DATA, 0x3);
    }
    special.tr = kvm_segment { s: 0, db: 0, ..segment(TASK, 0xb) };
    special.gdt = kvm_dtable { base: layout::GDT, limit: DESCRIPTORS.len() as u16 * 8 - 1, ..Default::default() };
    special.idt = kvm_dtable::default();
    (special.cr0, special.cr3, special.cr4, special.efer) = (CR0, layout::PML4, CR4, EFER);
    vcpu.set_sregs(&special).map_err(VcpuError::system("set the special registers"))?;
    let registers = kvm_regs {
        rip: layout::START,
        rsi: layout::BOOT_PARAMETERS,
        rsp: layout::BOOT_PARAMETERS,
        rflags: 1 << 1,
        ..Default::default()
    };
    vcpu.set_regs(&registers).map_err(VcpuError::system("set the registers"))
}

fn segment(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment { limit: u32::MAX, selector, type_, present: 1, db: 1, s: 1, g: 1, ..Default::default() }
}
