//! The agent: one static program that runs the workload inside every sandbox.
fn main() {}
