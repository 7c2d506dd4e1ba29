//! See `harness::block`.
#![no_main]

use isobench_microvm_fuzz::block;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| block(bytes));
