//! See `harness::kernel`.
#![no_main]

use isobench_microvm_fuzz::kernel;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| kernel(bytes));
