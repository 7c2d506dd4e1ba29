//! What the program that measured says in fixed sentences, in the reader's language.
//!
//! Records hold such sentences in English, as they were said: why a sandbox is missing, what KVM is here. The English message
//! of each is the pattern by which it is known again; whatever stands in its arguments is kept. Any other text stays as it is.

use crate::messages::{Language, Messages};
use std::sync::LazyLock;

/// The messages of fixed sentences with their arguments, the more particular of two first.
const REMARKS: [(&str, &[&str]); 22] = [
    ("remark-no-docker-daemon", &[]),
    ("remark-not-installed", &["program", "package"]),
    ("remark-no-control-groups", &["program"]),
    ("remark-no-terminal-group", &["program", "error"]),
    ("remark-no-guest-kernel", &[]),
    ("remark-kvm-full", &[]),
    ("remark-kvm-emulated", &["factor"]),
    ("remark-kvm-held-back", &["factor"]),
    ("remark-no-kvm", &[]),
    ("remark-no-kvm-module", &["command"]),
    ("remark-kvm-forbidden", &["command"]),
    ("remark-no-tap-mended", &["error", "command"]),
    ("remark-no-tap", &["error"]),
    ("remark-no-clone3", &["error", "command"]),
    ("remark-no-tracing", &["setting"]),
    ("remark-software-kvm", &[]),
    ("remark-software-emulation", &[]),
    ("remark-emulated-machine", &[]),
    ("remark-port-published", &[]),
    ("remark-port-ignored", &[]),
    ("remark-port-refused", &[]),
    ("remark-not-measured", &[]),
];

/// What stands for an argument in a pattern; no record has it.
const MARK: char = '\u{1}';

static PATTERNS: LazyLock<Vec<Vec<String>>> = LazyLock::new(|| {
    let english = Messages::new(Language::English);
    let mark = MARK.to_string();
    let pattern = |(key, arguments): &(&str, &[&str])| {
        let arguments: Vec<(&str, &str)> = arguments.iter().map(|name| (*name, mark.as_str())).collect();
        english.format(key, &arguments).split(MARK).map(str::to_owned).collect()
    };
    REMARKS.iter().map(pattern).collect()
});

/// A text from a record in the language of the messages, where it is a fixed sentence; else as it is.
#[must_use]
pub fn translated(messages: &Messages, text: &str) -> String {
    known(text)
        .filter(|_| messages.language() != Language::English)
        .map_or_else(|| text.to_owned(), |(key, arguments)| messages.format(key, &arguments))
}

/// Whether a text is one of the fixed sentences.
#[must_use]
pub fn is_known(text: &str) -> bool {
    known(text).is_some()
}

/// The message of a text, with its arguments.
fn known(text: &str) -> Option<(&'static str, Vec<(&'static str, &str)>)> {
    REMARKS.iter().zip(PATTERNS.iter()).find_map(|((key, names), pattern)| {
        let values = matched(text, pattern)?;
        Some((*key, names.iter().copied().zip(values).collect()))
    })
}

/// What stands between the pieces of a pattern; each takes as little as it can, the last one all that is left.
fn matched<'a>(text: &'a str, pieces: &[String]) -> Option<Vec<&'a str>> {
    let (first, rest) = pieces.split_first()?;
    let mut left = text.strip_prefix(first.as_str())?;
    let mut values = Vec::new();
    for (index, piece) in rest.iter().enumerate() {
        let end = if index + 1 == rest.len() { left.strip_suffix(piece.as_str())?.len() } else { left.find(piece)? };
        values.push(&left[..end]);
        left = &left[end + piece.len()..];
    }
    left.is_empty().then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_remark_is_known_again_with_its_arguments() {
        let [english, chinese] = Language::ALL.map(Messages::new);
        for (key, names) in REMARKS {
            let values: Vec<String> = names.iter().map(|name| format!("some {name}: x")).collect();
            let arguments: Vec<(&str, &str)> = names.iter().copied().zip(values.iter().map(String::as_str)).collect();
            let said = english.format(key, &arguments);
            assert_eq!(known(&said), Some((key, arguments.clone())), "{said}");
            assert_eq!(translated(&chinese, &said), chinese.format(key, &arguments));
            assert_eq!(translated(&english, &said), said);
        }
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        let chinese = Messages::new(Language::Chinese);
        for text in ["", "crun is installed", "crun is not installed", "an error nobody foresaw", "\u{1}"] {
            assert_eq!(translated(&chinese, text), text);
        }
        assert_ne!(translated(&chinese, "crun is not installed: apt-get install crun"), "crun");
    }
}
