//! See `harness::balloon`.
#![no_main]

use isobench_microvm_fuzz::balloon;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| balloon(bytes));
