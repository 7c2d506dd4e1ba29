//! The short form of the fuzz targets (`bench/fuzz`). A fuzzer goes further: `cargo +nightly fuzz run NAME` in `bench/`.

#[path = "../fuzz/harness/mod.rs"]
#[allow(unreachable_pub, reason = "it is a library of its own for the fuzzer")]
mod harness;
#[path = "../../microvm/tests/targets/mod.rs"]
mod targets;
