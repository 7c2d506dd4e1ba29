//! The published JSON Schema of both files, generated from their types.

use crate::record::{Run, Sample};
use schemars::{JsonSchema, schema_for};

/// The schema of `run.json`.
pub fn run_schema() -> String {
    text::<Run>()
}

/// The schema of one line of `samples.jsonl`.
pub fn sample_schema() -> String {
    text::<Sample>()
}

fn text<T: JsonSchema>() -> String {
    format!("{:#}\n", schema_for!(T).to_value())
}
