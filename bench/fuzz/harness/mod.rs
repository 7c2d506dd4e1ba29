//! What comes to the host's parsers from elsewhere, spelled in bytes: each function takes any bytes and must come back. The fuzz
//! targets feed it what a fuzzer thinks up, and the test `fuzz` of the crate what proptest does, so that the same code runs on stable
//! Rust in every test.

mod answers;
mod archive;
mod configuration;
// Of the monitor's targets.
#[path = "../../../microvm/fuzz/harness/input.rs"]
mod input;
mod records;

use input::Input;

pub use answers::answers;
pub use archive::archive;
pub use configuration::configuration;
pub use records::records;

/// What takes any bytes and comes back.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 4] =
    [("archive", archive), ("configuration", configuration), ("answers", answers), ("records", records)];

/// Changes some of the bytes that are there; mostly none, since little is read beyond the first that is wrong.
fn damage(bytes: &mut [u8], input: &mut Input<'_>) {
    if input.byte() % 4 != 1 {
        return;
    }
    for _ in 0..input.below(8) {
        if !bytes.is_empty() {
            let at = input.word() as usize % bytes.len();
            bytes[at] = input.byte();
        }
    }
}

/// Puts other values in the place of some in a tree of JSON.
fn graft(tree: &mut serde_json::Value, input: &mut Input<'_>) {
    use serde_json::{Value, json};
    for _ in 0..input.below(3) {
        let mut all = Vec::new();
        places(tree, "", &mut all);
        let place = &all[input.word() as usize % all.len()];
        let value = match input.byte() % 8 {
            0 => Value::Null,
            1 => Value::Bool(input.bool()),
            2 => json!(i64::from(input.word().cast_signed())),
            3 => json!(u64::MAX - u64::from(input.byte())),
            4 => json!(String::from_utf8_lossy(&input.bytes(12))),
            5 => json!([]),
            6 => json!({}),
            _ => json!(["", "..", "/", "\u{0}"]),
        };
        if let Some(old) = tree.pointer_mut(place) {
            *old = value;
        }
    }
}

/// The places of all values, as JSON pointers ([RFC 6901](https://www.rfc-editor.org/rfc/rfc6901)).
fn places(value: &serde_json::Value, place: &str, found: &mut Vec<String>) {
    found.push(place.to_owned());
    match value {
        serde_json::Value::Object(all) => {
            for (name, value) in all {
                places(value, &format!("{place}/{}", name.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        serde_json::Value::Array(all) => {
            for (number, value) in all.iter().enumerate() {
                places(value, &format!("{place}/{number}"), found);
            }
        }
        _ => {}
    }
}
