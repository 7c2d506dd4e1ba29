//! See `harness::network`.
#![no_main]

use isobench_microvm_fuzz::network;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| network(bytes));
