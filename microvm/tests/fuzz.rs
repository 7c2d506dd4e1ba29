//! The short form of the fuzz targets (`microvm/fuzz`). A fuzzer goes further: `cargo +nightly fuzz run NAME` in `microvm/`.

#[path = "../fuzz/harness/mod.rs"]
#[allow(unreachable_pub, reason = "it is a library of its own for the fuzzer")]
mod harness;
mod targets;
