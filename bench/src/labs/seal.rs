//! A seal: the digest of a record, kept in the record itself.
//!
//! It finds a file that was cut short, mixed up or edited by hand. It is no signature: who reads this file can make another
//! seal, and a teacher who must know measures anew with the student's seed.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// SHA-256, hexadecimal.
pub(super) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of a record without its field `seal`.
pub(super) fn seal(record: &impl Serialize) -> String {
    let mut value = serde_json::to_value(record).unwrap_or(Value::Null);
    if let Value::Object(fields) = &mut value {
        fields.remove("seal");
    }
    // Keys of a JSON object are sorted here, so the same record has the same text.
    digest(value.to_string().as_bytes())
}
