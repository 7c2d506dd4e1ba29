//! What a guest's processors are told of one another: one package, in which each core is one processor.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Leaf 1, EDX: there may be several processors in the package. Leaf 0x8000_0001, ECX: they are cores (AMD).
const SEVERAL: u32 = 1 << 28;
const CORES: u32 = 1 << 1;
/// Leaves 4 and 0x8000_001d, EAX: the kind of a cache, 0 where there is none.
const CACHE_KIND: u32 = 0x1f;
/// Leaf 0xb: kinds of levels (Intel SDM, volume 2, CPUID).
const THREAD_LEVEL: u32 = 1 << 8;
const CORE_LEVEL: u32 = 2 << 8;

/// KVM's leaves for the processor with this number of so many.
pub(super) fn describe(supported: &[kvm_cpuid_entry2], number: u8, count: u8) -> Vec<kvm_cpuid_entry2> {
    let (id, count) = (u32::from(number), u32::from(count));
    // How many bits a number within the package has, and how many numbers these are.
    let bits = count.next_power_of_two().trailing_zeros();
    let numbers = 1 << bits;
    let several = |flag: u32| if count > 1 { flag } else { 0 };
    let vendor = supported.iter().find(|leaf| leaf.function == 0).map_or(0, |leaf| leaf.ebx);
    let amd = [*b"Auth", *b"Hygo"].map(u32::from_le_bytes).contains(&vendor);
    let mut leaves = Vec::with_capacity(supported.len() + 2);
    let mut extended = false;
    for leaf in supported {
        let mut leaf = *leaf;
        match leaf.function {
            1 => {
                // Its number, how many numbers the package has, and 8-byte cache-line units as they were.
                leaf.ebx = leaf.ebx & 0xffff | numbers << 16 | id << 24;
                leaf.edx = leaf.edx & !SEVERAL | several(SEVERAL);
            }
            4 => leaf.eax = cache(leaf.eax, numbers) | if leaf.eax & CACHE_KIND == 0 { 0 } else { (numbers - 1) << 26 },
            0x8000_001d => leaf.eax = cache(leaf.eax, numbers),
            0x8000_0001 if amd => leaf.ecx = leaf.ecx & !CORES | several(CORES),
            0x8000_0008 if amd => leaf.ecx = leaf.ecx & !0xf0ff | bits << 12 | (count - 1),
            // Its number and its core's; one thread a core; one node.
            0x8000_001e => (leaf.eax, leaf.ebx, leaf.ecx) = (id, id, 0),
            // Written anew: kernels differ in how much of the host's they leave in it.
            0xb | 0x1f => {
                extended |= leaf.function == 0xb;
                continue;
            }
            _ => {}
        }
        leaves.push(leaf);
    }
    if extended {
        for (index, shift, processors, level) in [(0, 0, 1, THREAD_LEVEL), (1, bits, count, CORE_LEVEL)] {
            leaves.push(kvm_cpuid_entry2 {
                function: 0xb,
                index,
                flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                eax: shift,
                ebx: processors,
                ecx: level | index,
                edx: id,
                ..Default::default()
            });
        }
    }
    leaves
}

/// A cache's entry, less the number of cores: the third level belongs to the whole package, the others to a core each.
fn cache(entry: u32, numbers: u32) -> u32 {
    let own = entry & !(0xfff << 14 | 0x3f << 26);
    let third = entry & CACHE_KIND != 0 && entry >> 5 & 7 >= 3;
    own | if third { (numbers - 1) << 14 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..Default::default() }
    }

    fn found(leaves: &[kvm_cpuid_entry2], function: u32, index: u32) -> [u32; 4] {
        let leaf = leaves.iter().find(|leaf| leaf.function == function && leaf.index == index).unwrap();
        [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
    }

    #[test]
    fn the_third_of_three_has_its_number_everywhere() {
        let vendor = u32::from_le_bytes(*b"Auth");
        let supported = [
            leaf(0, [0xd, vendor, 0, 0]),
            leaf(1, [0x800f12, 0xff20_0800, 0x1234, 0]),
            // Level 2 for 2 and level 3 for 8 threads of the host's 8 cores.
            leaf(4, [0x1c00_4143, 0, 0, 0]),
            leaf(0x8000_001d, [0x1c163, 0, 0, 0]),
            leaf(0xb, [1, 2, 0x100, 0x33]),
            leaf(0x1f, [1, 2, 0x100, 0x33]),
            leaf(0x8000_0008, [0x3030, 0, 0x700f, 0]),
            leaf(0x8000_001e, [0x33, 0x101, 0x300, 0]),
        ];
        let leaves = describe(&supported, 2, 3);
        assert_eq!(found(&leaves, 1, 0), [0x800f12, 0x0204_0800, 0x1234, SEVERAL]);
        assert_eq!(found(&leaves, 4, 0)[0], 0x0c00_0143);
        assert_eq!(found(&leaves, 0x8000_001d, 0)[0], 0xc163);
        assert_eq!(found(&leaves, 0xb, 0), [0, 1, 0x100, 2]);
        assert_eq!(found(&leaves, 0xb, 1), [2, 3, 0x201, 2]);
        assert_eq!(found(&leaves, 0x8000_0008, 0)[2], 0x2002);
        assert_eq!(found(&leaves, 0x8000_001e, 0), [2, 2, 0, 0]);
        assert!(leaves.iter().all(|leaf| leaf.function != 0x1f));
    }

    #[test]
    fn one_alone_is_told_of_no_other() {
        let supported =
            [leaf(0, [0xd, 0, 0, 0]), leaf(1, [0, 0xff20_0800, 0, SEVERAL]), leaf(0x8000_0008, [1, 2, 3, 4])];
        let leaves = describe(&supported, 0, 1);
        assert_eq!(found(&leaves, 1, 0), [0, 0x0001_0800, 0, 0]);
        assert_eq!(found(&leaves, 0x8000_0008, 0), [1, 2, 3, 4]);
        assert_eq!(leaves.len(), 3);
    }
}
