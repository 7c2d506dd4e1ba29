//! `isobench doctor`.

use super::{Status, output};
use crate::doctor::{self, Finding, State};

/// Tell what this machine's KVM, control groups, namespaces and network can do, and how to mend what is missing
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Takes less than two seconds, changes nothing, and ends with status 0 whatever it finds.")]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let findings = doctor::examine();
    if arguments.json {
        output::print_json(&findings)?;
    } else {
        output::print(&text(&findings))?;
    }
    Ok(Status::Success)
}

/// One line for each finding, and one below it for the remedy.
fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let (word, colour) = match finding.state {
            State::Good => ("good", anstyle::AnsiColor::Green),
            State::Limited => ("limited", anstyle::AnsiColor::Yellow),
            State::Missing => ("missing", anstyle::AnsiColor::Red),
        };
        let style = anstyle::Style::new().fg_color(Some(colour.into()));
        text += &format!("{style}{word:7}{style:#}  {:width$}  {}\n", finding.subject, finding.sentence);
        if let Some(remedy) = &finding.remedy {
            text += &format!("{:7}  {:width$}  to mend it: {remedy}\n", "", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_a_line_with_its_remedy_below() {
        let findings = [
            Finding { subject: "KVM", state: State::Good, sentence: "works".into(), remedy: None },
            Finding {
                subject: "network",
                state: State::Limited,
                sentence: "refused is tap".into(),
                remedy: Some("sudo modprobe tun".into()),
            },
        ];
        let plain = anstream::adapter::strip_str(&text(&findings)).to_string();
        insta::assert_snapshot!(plain, @r"
        good     KVM      works
        limited  network  refused is tap
                          to mend it: sudo modprobe tun
        ");
    }
}
