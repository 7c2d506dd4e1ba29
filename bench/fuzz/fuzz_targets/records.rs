//! See `harness::records`.
#![no_main]

use isobench_fuzz::records;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| records(bytes));
