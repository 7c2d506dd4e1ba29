//! Names and ids of containers.

use super::{Kind, refuse};

const KINDS: [&str; 32] = [
    "brisk", "calm", "candid", "clever", "crisp", "curious", "deft", "eager", "fair", "frank", "gentle", "keen",
    "kind", "lively", "lucid", "mellow", "modest", "nimble", "patient", "plucky", "prompt", "quiet", "rapid", "ready",
    "serene", "sharp", "steady", "subtle", "sunny", "swift", "tidy", "warm",
];

/// People who gave us operating systems, networks and virtual machines.
const PEOPLE: [&str; 32] = [
    "baran",
    "bell",
    "brinch",
    "cerf",
    "codd",
    "corbato",
    "creasy",
    "daley",
    "davies",
    "dennis",
    "dijkstra",
    "engelbart",
    "estrin",
    "goldberg",
    "hamilton",
    "hopper",
    "kahn",
    "kernighan",
    "kilburn",
    "lampson",
    "licklider",
    "liskov",
    "lovelace",
    "mcilroy",
    "metcalfe",
    "perlman",
    "popek",
    "postel",
    "ritchie",
    "saltzer",
    "thompson",
    "turing",
];

/// A name for a container that was given none.
pub(crate) fn random() -> String {
    let word = |words: &'static [&str]| fastrand::choice(words).copied().unwrap_or_default();
    format!("{}_{}_{:02x}", word(&KINDS), word(&PEOPLE), fastrand::u8(..))
}

/// An id: 64 hexadecimal digits.
pub(crate) fn id() -> String {
    (0..4).map(|_| format!("{:016x}", fastrand::u64(..))).collect()
}

/// Whether an instance may have this name: what Docker allows, at most 63 bytes.
pub(crate) fn check(kind: Kind, name: &str) -> anyhow::Result<()> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if first && rest && (2..=63).contains(&name.len()) {
        return Ok(());
    }
    refuse(format!(
        "`{name}` is no {} name: 2 to 63 letters, digits, `_`, `.` and `-`, the first a letter or digit",
        kind.noun()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_names_may_be_had() {
        for _ in 0..100 {
            check(Kind::Container, &random()).unwrap();
        }
        for bad in ["", "a", ".a", "a/b", "-a", "a b", &"a".repeat(64), "ä1"] {
            assert!(check(Kind::Machine, bad).is_err(), "{bad}");
        }
        assert_eq!(id().len(), 64);
    }
}
