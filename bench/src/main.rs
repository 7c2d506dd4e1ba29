//! The `isobench` program.
fn main() {}
