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

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// `UPDATE_SCHEMA=1` writes them anew.
    #[test]
    fn the_committed_schemas_are_current() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
        for (name, text) in [("run", super::run_schema()), ("sample", super::sample_schema())] {
            let path = directory.join(format!("{name}.schema.json"));
            if std::env::var_os("UPDATE_SCHEMA").is_some() {
                std::fs::create_dir_all(&directory).unwrap();
                std::fs::write(&path, &text).unwrap();
            }
            let committed = std::fs::read_to_string(&path).unwrap();
            assert!(committed == text, "{} is out of date: run the test with UPDATE_SCHEMA=1", path.display());
        }
    }
}
