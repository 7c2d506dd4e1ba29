//! Exit statuses and the errors that have one of their own.

use std::io::Write;
use std::process::ExitCode;

/// How the program ends, as its exit status tells a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Success,
    /// A comparison found a regression, or a sandbox that was required cannot be measured here.
    Refused,
    /// Wrong usage or bad input.
    BadInput,
    /// Measuring failed.
    Failed,
    /// Interrupted by a signal.
    Interrupted,
    /// As the program ended for which the command stands, such as that of a container.
    Program(u8),
}

impl Status {
    /// Says what went wrong, cause after cause in one line, and gives the status for it.
    pub(super) fn tell(error: &anyhow::Error) -> Self {
        // Whoever reads our output has seen enough: `isobench list | head` is no failure.
        let closed = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
        };
        if error.chain().any(closed) {
            return Self::Success;
        }
        say(&format!("{error:#}"));
        match error.downcast_ref::<BadInput>() {
            Some(_) => Self::BadInput,
            None => Self::Failed,
        }
    }
}

/// Says what went wrong.
pub(super) fn say(sentence: &str) {
    let style = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
    // Nobody can be told that the standard error is closed.
    let _ = writeln!(anstream::stderr(), "{style}error:{style:#} {}", plain(sentence));
}

/// A text without what a terminal would obey: it may quote an archive, a record or a name from elsewhere.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => plain.push(character),
            _ if character.is_control() => plain.extend(character.escape_default()),
            _ => plain.push(character),
        }
    }
    plain
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(match status {
            Status::Success => 0,
            Status::Refused => 1,
            Status::BadInput => 2,
            Status::Failed => 3,
            Status::Interrupted => 130,
            Status::Program(status) => status,
        })
    }
}

/// What was given to the program is not what it takes: said in one sentence, with the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub String);

impl BadInput {
    /// An error that says it all.
    pub(super) fn from_error(error: impl std::error::Error) -> anyhow::Error {
        Self(error.to_string()).into()
    }

    /// With a cause that says it all, and what was given.
    pub(super) fn because<E: std::error::Error + Send + Sync + 'static>(what: &str, error: E) -> anyhow::Error {
        anyhow::Error::new(error).context(Self(what.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn what_is_quoted_does_not_steer_the_terminal() {
        assert_eq!(plain("`a\u{1b}[2J\r\u{7}` \u{9b}1m"), "`a\\u{1b}[2J\\r\\u{7}` \\u{9b}1m");
        assert_eq!(plain("Grüße,\n\t端口"), "Grüße,\n\t端口");
    }
}
