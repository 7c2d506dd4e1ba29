//! See `harness::registers`.
#![no_main]

use isobench_microvm_fuzz::registers;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| registers(bytes));
