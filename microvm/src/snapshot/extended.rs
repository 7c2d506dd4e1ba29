//! A processor's extended state in a snapshot: its bytes up to the last that is not zero. Most of its 4096 are, and a clone waits
//! while they are read.

use kvm_bindings::kvm_xsave;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// As `serialize_with` takes it.
pub(super) fn serialize<S: Serializer>(state: &kvm_xsave, serializer: S) -> Result<S::Ok, S::Error> {
    let bytes: Vec<u8> = state.region.iter().flat_map(|word| word.to_le_bytes()).collect();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes[..used].serialize(serializer)
}

/// As `deserialize_with` takes it.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<kvm_xsave, D::Error> {
    let mut bytes = Vec::<u8>::deserialize(deserializer)?;
    let mut state = kvm_xsave::default();
    let whole = size_of_val(&state.region);
    if bytes.len() > whole {
        return Err(D::Error::invalid_length(bytes.len(), &"at most 4096 bytes of extended state"));
    }
    bytes.resize(whole, 0);
    for (word, bytes) in state.region.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Saved(#[serde(with = "super")] kvm_xsave);

    #[test]
    fn what_is_not_zero_comes_back() {
        for (place, value, length) in [(0, 0, 0), (0, 1, 1), (6, 0x1f80, 26), (1023, 1 << 31, 4096)] {
            let mut state = kvm_xsave::default();
            state.region[place] = value;
            let text = serde_json::to_string(&Saved(state)).unwrap();
            assert_eq!(serde_json::from_str::<Vec<u8>>(&text).unwrap().len(), length);
            let back: Saved = serde_json::from_str(&text).unwrap();
            assert_eq!(back.0.region[place], value);
            assert!(back.0.region.iter().enumerate().all(|(other, word)| other == place || *word == 0));
        }
    }

    #[test]
    fn more_than_there_is_room_for_is_refused() {
        let text = serde_json::to_string(&vec![1_u8; 4097]).unwrap();
        assert!(serde_json::from_str::<Saved>(&text).is_err());
    }
}
