//! The manifest: what a snapshot is, in words that say whether it is still what was written.
//!
//! It is JSON in one form alone. Its last field, `seal`, is the SHA-256 of the same text without it, so that a change anywhere in the file is found,
//! and so that this can be said before it is known which version wrote it.

use super::open::regular;
use super::{Guest, SnapshotError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::Path;

/// What all manifests say of themselves.
pub const FORMAT: &str = "isobench-snapshot";
/// The version of the format. Another one is refused.
pub const VERSION: u32 = 5;
/// The version of this program. The snapshot of another one is refused, since it holds the state of that program's devices.
pub const PRODUCT: &str = env!("CARGO_PKG_VERSION");
/// The longest manifest that is read, in bytes.
const LONGEST: u64 = 1 << 20;
const SEAL: &str = "seal";

/// What a snapshot is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// [`PRODUCT`].
    pub product: String,
    /// When it was taken, in seconds since 1970.
    pub taken: u64,
    /// The processor on which it was taken.
    pub processor: HostProcessor,
    /// The guest.
    pub guest: Guest,
    /// What whoever had it taken wants to know of it when it is restored; it means nothing here.
    pub note: Option<Value>,
    /// The file `state`.
    pub state: FileIdentity,
    /// The file `memory`.
    pub memory: FileIdentity,
}

/// A processor, as far as a guest depends on it: it goes on in the middle of a program that knows its features.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostProcessor {
    /// Its name.
    pub model: String,
    /// The SHA-256 of what /proc/cpuinfo says of vendor, family, model, and features.
    pub features: String,
}

impl HostProcessor {
    /// This machine's.
    pub fn here() -> Result<Self, SnapshotError> {
        let path = Path::new("/proc/cpuinfo");
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| SnapshotError::File { operation: "read", path: path.into(), source })?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let first = || text.split("\n\n").next().unwrap_or_default().lines();
        let value = |name: &str| {
            first()
                .find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name))
                .map_or("", |(_, value)| value.trim())
        };
        let mut digest = Sha256::new();
        for name in ["vendor_id", "cpu family", "model", "flags"] {
            digest.update(value(name));
            digest.update("\n");
        }
        Self { model: value("model name").into(), features: hexadecimal(&digest.finalize()) }
    }
}

/// What a file is to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileIdentity {
    /// Its length in bytes.
    pub length: u64,
    /// Its SHA-256; the memory's is that of its pieces that are not all zeros.
    pub sha256: String,
}

impl Manifest {
    /// The manifest as it is written.
    pub fn to_text(&self) -> serde_json::Result<Vec<u8>> {
        let mut value = serde_json::to_value(self)?;
        let seal = seal(&value)?;
        if let Value::Object(fields) = &mut value {
            fields.insert(SEAL.into(), seal.into());
        }
        text(&value)
    }

    /// Reads a manifest; what is wrong with it where that cannot be.
    pub fn from_text(bytes: &[u8]) -> Result<Self, String> {
        let foreign = || "it is no manifest of a snapshot".to_owned();
        let changed = "it was changed after the snapshot was taken (its seal does not fit)";
        let mut value: Value = serde_json::from_slice(bytes).map_err(|_| foreign())?;
        if value.get("format") != Some(&Value::from(FORMAT)) {
            return Err(foreign());
        }
        let one_form = text(&value).is_ok_and(|text| text == bytes);
        let sealed = value.as_object_mut().and_then(|fields| fields.remove(SEAL));
        if !one_form || sealed != seal(&value).ok().map(Value::from) {
            return Err(changed.into());
        }
        match value.get("version").and_then(Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            version => {
                let version = version.map_or_else(|| "none".into(), |version| version.to_string());
                return Err(format!("its format is version {version}, and this program reads version {VERSION}"));
            }
        }
        let product = value.get("product").and_then(Value::as_str).unwrap_or_default().to_owned();
        if product != PRODUCT {
            return Err(format!(
                "it was taken by version {product} of this program, and this is {PRODUCT}: take it anew"
            ));
        }
        let manifest: Self = serde_json::from_value(value).map_err(|error| format!("it is incomplete: {error}"))?;
        let (total, held) = (manifest.guest.checked_memory(), manifest.memory.length);
        if total != Some(held) {
            return Err("the guest's memory regions and the length of their file differ".into());
        }
        Ok(manifest)
    }

    /// Reads the manifest of a snapshot.
    pub(super) fn read(path: &Path) -> Result<Self, SnapshotError> {
        let failed = |source| SnapshotError::File { operation: "read the snapshot's file", path: path.into(), source };
        let mut bytes = Vec::new();
        regular(path)?.0.take(LONGEST).read_to_end(&mut bytes).map_err(failed)?;
        Self::from_text(&bytes).map_err(|why| SnapshotError::Unusable { path: path.into(), why })
    }
}

impl Guest {
    /// Size of its memory, where its regions are some that memory can have.
    pub(super) fn checked_memory(&self) -> Option<u64> {
        const STEP: u64 = 2 << 20;
        let mut end = 0_u64;
        let mut total = 0_u64;
        for (start, length) in &self.regions {
            if *start < end || *length == 0 || start % STEP != 0 || length % STEP != 0 {
                return None;
            }
            end = start.checked_add(*length)?;
            total = total.checked_add(*length)?;
        }
        Some(total).filter(|total| *total > 0)
    }
}

fn text(value: &Value) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

fn seal(value: &Value) -> serde_json::Result<String> {
    Ok(hexadecimal(&Sha256::digest(text(value)?)))
}

/// Bytes as hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::GuestKind;
    use super::*;
    use proptest::prelude::*;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT.into(),
            version: VERSION,
            product: PRODUCT.into(),
            taken: 1_700_000_000,
            processor: HostProcessor { model: "One".into(), features: "ab".repeat(32) },
            guest: Guest {
                kind: GuestKind::Unikernel,
                workload: "serve:7000".into(),
                program: "cd".repeat(32),
                regions: vec![(0, 16 << 20)],
                processors: 1,
                network: true,
                session: false,
                linux: None,
            },
            note: Some(serde_json::json!({ "root": "/one" })),
            state: FileIdentity { length: 10, sha256: "ef".repeat(32) },
            memory: FileIdentity { length: 16 << 20, sha256: "01".repeat(32) },
        }
    }

    #[test]
    fn a_manifest_is_read_back() {
        let text = manifest().to_text().unwrap();
        assert_eq!(Manifest::from_text(&text), Ok(manifest()));
    }

    #[test]
    fn each_flipped_bit_is_found() {
        let text = manifest().to_text().unwrap();
        for at in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(Manifest::from_text(&flipped).is_err(), "bit {at}");
        }
    }

    #[test]
    fn another_version_is_told_apart_from_a_damaged_one() {
        let other = |change: fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            Manifest::from_text(&manifest.to_text().unwrap()).unwrap_err()
        };
        assert!(other(|manifest| manifest.version = 1).starts_with("its format is version 1, and this program reads"));
        assert!(other(|manifest| manifest.product = "0.0.0".into()).starts_with("it was taken by version 0.0.0"));
        assert!(other(|manifest| manifest.guest.regions = vec![(0, 14 << 20)]).contains("regions"));
        assert!(other(|manifest| manifest.guest.regions = vec![(0, 8 << 20), (4 << 20, 8 << 20)]).contains("regions"));
        assert_eq!(Manifest::from_text(b"{}"), Err("it is no manifest of a snapshot".into()));
        assert_eq!(Manifest::from_text(b"\x7fELF"), Err("it is no manifest of a snapshot".into()));
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_refused_or_is_a_manifest(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Manifest::from_text(&bytes).is_err());
        }

        #[test]
        fn a_changed_manifest_is_refused(at in any::<prop::sample::Index>(), value: u8, cut in any::<prop::sample::Index>()) {
            let text = manifest().to_text().unwrap();
            let mut changed = text.clone();
            changed[at.index(text.len())] = value;
            prop_assert_eq!(Manifest::from_text(&changed).is_ok(), changed == text);
            prop_assert!(Manifest::from_text(&text[..cut.index(text.len())]).is_err());
        }

        #[test]
        fn every_manifest_is_read_back(workload in ".*", taken: u64, count in 1_u64..8) {
            let mut manifest = manifest();
            manifest.guest.workload = workload;
            manifest.taken = taken;
            manifest.guest.regions = (0..count).map(|number| (number << 30, 2 << 20)).collect();
            manifest.memory.length = count * (2 << 20);
            prop_assert_eq!(Manifest::from_text(&manifest.to_text().unwrap()), Ok(manifest));
        }
    }

    #[test]
    fn processors_differ_by_their_features() {
        let text = "vendor_id\t: A\nmodel name\t: One\nflags\t\t: a b\n\nvendor_id\t: A\nflags : c\n";
        let one = HostProcessor::parse(text);
        assert_eq!(one.model, "One");
        assert_eq!(one, HostProcessor::parse(&text.replace("flags : c", "flags : d")));
        assert_ne!(one, HostProcessor::parse(&text.replace("a b", "a")));
    }
}
