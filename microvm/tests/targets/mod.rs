//! The short form of fuzz targets, which whoever takes this in has as `harness`: the same code as a fuzzer runs, driven by proptest, which
//! shortens what it finds.

use crate::harness;
use proptest::prelude::*;

/// Longer than the longest case needs: a step of a guest takes a dozen bytes, and an entry of an archive some hundred.
const LONGEST: usize = 4096;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_target_survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..LONGEST)) {
        for (_, target) in harness::TARGETS {
            target(&bytes);
        }
    }

    /// Bytes that are mostly small numbers reach further: descriptors that chain, heads that exist, short names, few changes.
    #[test]
    fn every_target_survives_small_numbers(bytes in proptest::collection::vec(prop_oneof![4 => 0_u8..17, 1 => any::<u8>()], 0..LONGEST)) {
        for (_, target) in harness::TARGETS {
            target(&bytes);
        }
    }
}
