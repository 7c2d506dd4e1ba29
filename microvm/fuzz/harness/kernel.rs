//! Files that may be kernels.

use super::input::Input;
use isobench_microvm::linux::kernel::Kernel;
use isobench_microvm::memory;
use std::path::Path;

/// Memory that a kernel is loaded into, in bytes.
const MEMORY: u64 = 8 << 20;

/// Any bytes as a kernel's file: as they are, or laid over the beginning of a kernel.
pub fn kernel(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut file = match input.byte() % 3 {
        0 => Vec::new(),
        1 => elf(),
        _ => bz_image(),
    };
    // Changes to what is there, then whatever is left after it.
    if !file.is_empty() {
        for _ in 0..input.below(24) {
            let at = input.below(file.len());
            file[at] = input.byte();
        }
    }
    file.extend(input.bytes(usize::MAX));
    let Ok(kernel) = Kernel::from_bytes(Path::new("fuzz"), file) else { return };
    let _ = kernel.release();
    if let Ok(memory) = memory::create(MEMORY) {
        let _ = kernel.load(&memory);
    }
}

/// An x86-64 executable with one segment and one note
/// ([gABI](https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html)).
fn elf() -> Vec<u8> {
    const HEADER: u64 = 64;
    const ENTRY: u64 = 56;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for half in [2_u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    // Entry, program headers, section headers.
    for long in [0x10_0000_u64, HEADER, 0] {
        file.extend(long.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [HEADER as u16, ENTRY as u16, 2, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let content = HEADER + 2 * ENTRY;
    for (kind, size) in [(1_u32, 64_u64), (4, 32)] {
        file.extend(kind.to_le_bytes());
        file.extend(5_u32.to_le_bytes());
        for long in [content, 0x10_0000, 0x10_0000, size, size, 4096] {
            file.extend(long.to_le_bytes());
        }
    }
    // A note of Xen's, PHYS32_ENTRY, by which PVH is entered.
    for word in [4_u32, 4, 18] {
        file.extend(word.to_le_bytes());
    }
    file.extend(b"Xen\0");
    file.extend(0x10_0000_u32.to_le_bytes());
    file.resize((content + 64) as usize, 0x90);
    file
}

/// The set-up of a bzImage ([the boot protocol](https://docs.kernel.org/arch/x86/boot.html)).
fn bz_image() -> Vec<u8> {
    let mut file = vec![0; 0x800];
    file[0x1f1] = 3;
    file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    file[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    file[0x211] = 1;
    file[0x236] = 1;
    file[0x248..0x24c].copy_from_slice(&0_u32.to_le_bytes());
    file[0x24c..0x250].copy_from_slice(&512_u32.to_le_bytes());
    file[0x300..0x309].copy_from_slice(b"6.1.0-fuz");
    file.extend([0x1f, 0x8b, 8, 0]);
    file
}
