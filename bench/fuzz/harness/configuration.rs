//! Configurations of bundles.

use super::{Input, damage, graft};
use isobench_runtime::{Plan, oci};
use std::fs;

/// Any bytes as a bundle's configuration: as they are, or in place of some of a good one. It is refused in a sentence, or read and
/// then planned or refused.
pub fn configuration(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let text = if input.bool() {
        let Ok(template) = oci::template() else { return };
        let Ok(mut config) = serde_json::from_str(&template) else { return };
        graft(&mut config, &mut input);
        let mut text = config.to_string().into_bytes();
        damage(&mut text, &mut input);
        text
    } else {
        input.bytes(usize::MAX)
    };
    let Ok(bundle) = tempfile::tempdir() else { return };
    let _ = fs::create_dir(bundle.path().join("rootfs"));
    let planned = oci::parse(&text, bundle.path()).and_then(|read| Plan::validate(read.specification));
    if let Err(error) = planned {
        assert!(!error.to_string().is_empty());
    }
}
