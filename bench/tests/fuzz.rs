//! The short form of the fuzz targets (`bench/fuzz`): the same code, driven by proptest, which shortens what it finds. A fuzzer goes
//! further: `cargo +nightly fuzz run NAME` in `bench/`.

#[path = "../fuzz/harness/mod.rs"]
#[allow(unreachable_pub, reason = "it is a library of its own for the fuzzer")]
mod harness;

use proptest::prelude::*;

/// Longer than the longest case needs: an entry of an archive takes some hundred bytes.
const LONGEST: usize = 4096;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_target_survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..LONGEST)) {
        for (_, target) in harness::TARGETS {
            target(&bytes);
        }
    }

    /// Bytes that are mostly small numbers reach further: short names, few changes.
    #[test]
    fn every_target_survives_small_numbers(bytes in proptest::collection::vec(prop_oneof![4 => 0_u8..17, 1 => any::<u8>()], 0..LONGEST)) {
        for (_, target) in harness::TARGETS {
            target(&bytes);
        }
    }
}
