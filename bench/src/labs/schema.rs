//! The published JSON Schema of the records of labs, generated from their types.

use super::check::CheckRecord;
use super::record::LabRecord;
use schemars::{JsonSchema, schema_for};

/// The schema of `lab.json`.
pub fn lab_schema() -> String {
    text::<LabRecord>()
}

/// The schema of the file to hand in.
pub fn check_schema() -> String {
    text::<CheckRecord>()
}

fn text<T: JsonSchema>() -> String {
    format!("{:#}\n", schema_for!(T).to_value())
}
