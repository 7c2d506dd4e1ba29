//! See `harness::archive`.
#![no_main]

use isobench_fuzz::archive;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| archive(bytes));
