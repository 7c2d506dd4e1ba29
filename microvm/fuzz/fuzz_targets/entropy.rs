//! See `harness::entropy`.
#![no_main]

use isobench_microvm_fuzz::entropy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| entropy(bytes));
