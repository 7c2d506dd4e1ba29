//! See `harness::configuration`.
#![no_main]

use isobench_fuzz::configuration;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| configuration(bytes));
