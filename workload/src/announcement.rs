//! The ready line: the one thing that every sandbox, peers included, can hand to the host.
//!
//! `isobench: ready agent-entered=123 listening=456`: the fixed words, then stage stamps in nanoseconds on the host's
//! monotonic clock, as far as whoever prints the line knows them. The agent prints it in a process or container; for a
//! virtual machine its monitor prints it, with the host's time of the guest's signals.

use crate::{Stage, Stages};

/// The words that begin a ready line.
pub const READY: &str = "isobench: ready";

/// The ready line with its stamps, newline included.
pub fn format(stages: &Stages) -> String {
    let mut line = String::from(READY);
    for (stage, at) in stages.sorted() {
        line.push_str(&std::format!(" {}={at}", stage.name()));
    }
    line.push('\n');
    line
}

/// Reads a ready line; `None` where the line is something else. Words that are no stamp are passed over.
pub fn parse(line: &str) -> Option<Stages> {
    let rest = line.trim_end().strip_prefix(READY)?;
    let mut stages = Stages::default();
    for word in rest.split_ascii_whitespace() {
        let Some((name, at)) = word.split_once('=') else { continue };
        let stage = Stage::ALL.into_iter().find(|stage| stage.name() == name);
        if let (Some(stage), Ok(at)) = (stage, at.parse()) {
            stages.stamp(stage, at);
        }
    }
    Some(stages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back_as_it_was_written() {
        let mut stages = Stages::default();
        stages.stamp(Stage::AgentEntered, 12);
        stages.stamp(Stage::Listening, 34);
        assert_eq!(format(&stages), "isobench: ready agent-entered=12 listening=34\n");
        assert_eq!(parse(&format(&stages)), Some(stages));
    }

    #[test]
    fn other_output_is_no_ready_line() {
        assert_eq!(parse("hello\n"), None);
        assert_eq!(parse("isobench: ready listening=x nothing=1 more\n"), Some(Stages::default()));
    }
}
