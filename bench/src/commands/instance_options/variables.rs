//! Variables as they are written on the command line and in files of them.

use std::fs;

/// What one option sets: each `NAME=value`.
#[derive(Clone, Debug)]
pub(super) struct Variables(pub(super) Vec<String>);

impl Variables {
    /// `NAME=VALUE`, or the caller's by its name alone. As with Docker, a caller who has none hands none on.
    pub(super) fn of_text(text: &str) -> Result<Self, String> {
        let named = text.split_once('=').map_or(text, |(name, _)| name);
        if named.is_empty() {
            return Err("it has no name: give NAME=VALUE".into());
        }
        let variable = if named == text {
            let value = std::env::var_os(text).map(|value| value.into_string());
            let value = value.transpose().map_err(|_| format!("the value of {text} here is no UTF-8"))?;
            value.map(|value| format!("{text}={value}"))
        } else {
            Some(text.to_owned())
        };
        Ok(Self(variable.into_iter().collect()))
    }

    /// Those of a file, one a line; blank lines and those that begin with `#` say nothing.
    pub(super) fn of_file(path: &str) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("read {path}: {error}"))?;
        let mut all = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: &str| format!("line {} of {path}: {why}", number + 1);
            // `export NAME=VALUE` would set another variable than was meant.
            if line.split('=').next().is_some_and(|name| name.trim_end().contains(char::is_whitespace)) {
                return Err(wrong("a blank in the name: give NAME=VALUE"));
            }
            all.extend(Self::of_text(line).map_err(|why| wrong(&why))?.0);
        }
        Ok(Self(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_caller_has_is_handed_on() {
        let set = |text| Variables::of_text(text).map(|variables| variables.0);
        assert_eq!(set("A=b=c"), Ok(vec!["A=b=c".into()]));
        assert_eq!(
            set("CARGO_MANIFEST_DIR"),
            Ok(vec![concat!("CARGO_MANIFEST_DIR=", env!("CARGO_MANIFEST_DIR")).into()])
        );
        assert_eq!(set("SURELY_NOT_SET_HERE"), Ok(Vec::new()));
        assert!(set("=b").is_err() && set("").is_err());
    }

    #[test]
    fn a_file_has_one_a_line() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("variables");
        let set = |text: &str| {
            fs::write(&path, text).unwrap();
            Variables::of_file(path.to_str().unwrap()).map(|variables| variables.0)
        };
        let said = set("# why\n\nA=1\n  B=\"x y\"\nSURELY_NOT_SET_HERE\r\nC=");
        assert_eq!(said, Ok(vec!["A=1".into(), "B=\"x y\"".into(), "C=".into()]));
        let refused = set("A=1\nexport B=2\n").unwrap_err();
        assert!(refused.contains("line 2"), "{refused}");
        assert!(set("=1").is_err());
        assert!(Variables::of_file("/no/such/file").is_err());
    }
}
