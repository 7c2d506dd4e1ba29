//! The published schemas are those of the types, and records follow them.

use isobench_reports::schema::{run_schema, sample_schema};
use std::path::Path;

/// `UPDATE_SCHEMA=1` writes them anew.
#[test]
fn the_committed_schemas_are_current() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    for (name, text) in [("run", run_schema()), ("sample", sample_schema())] {
        let path = directory.join(format!("{name}.schema.json"));
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == text, "{} is out of date: run this test with UPDATE_SCHEMA=1", path.display());
    }
}
