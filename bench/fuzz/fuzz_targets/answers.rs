//! See `harness::answers`.
#![no_main]

use isobench_fuzz::answers;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| answers(bytes));
