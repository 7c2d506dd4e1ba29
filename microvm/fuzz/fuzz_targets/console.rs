//! See `harness::console`.
#![no_main]

use isobench_microvm_fuzz::console;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| console(bytes));
