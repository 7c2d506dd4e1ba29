//! `isobench lab show`.

use super::super::language;
use super::{Status, named, output};
use std::io::{IsTerminal, Write};
use std::process::{Command, Stdio};

/// Read a lab's sheet
///
/// On a terminal it is shown page by page by $PAGER, else by less where that is there; elsewhere the sheet's Markdown is
/// printed as it is.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  isobench lab show host\n  isobench lab show host --lang zh > host.md")]
pub(super) struct Arguments {
    /// The lab
    lab: String,
    /// Language: en or zh; by default that of the locale
    #[arg(long, value_name = "LANGUAGE")]
    lang: Option<String>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let sheet = named(&arguments.lab)?.sheet(language(arguments.lang.as_deref())?);
    if !std::io::stdout().is_terminal() {
        output::print(sheet)?;
        return Ok(Status::Success);
    }
    let text = if anstream::AutoStream::choice(&std::io::stdout()) == anstream::ColorChoice::Never {
        sheet.to_owned()
    } else {
        styled(sheet)
    };
    if !paged(&text) {
        output::print(&text)?;
    }
    Ok(Status::Success)
}

/// Shows a text page by page; whether there is a program for that.
fn paged(text: &str) -> bool {
    let asked = std::env::var("PAGER").ok().filter(|pager| !pager.trim().is_empty());
    let pager = asked.unwrap_or_else(|| "less -FRX".to_owned());
    let mut words = pager.split_whitespace();
    let Some(program) = words.next() else { return false };
    let Ok(mut child) = Command::new(program).args(words).stdin(Stdio::piped()).spawn() else { return false };
    if let Some(mut input) = child.stdin.take() {
        // Whoever leaves the pager early has read enough.
        let _ = input.write_all(text.as_bytes());
    }
    child.wait().is_ok()
}

/// Markdown with headings in bold and commands in colour; else as it is, so that it can be copied.
fn styled(sheet: &str) -> String {
    let bold = anstyle::Style::new().bold();
    let command = anstyle::Style::new().fg_color(Some(anstyle::AnsiColor::Cyan.into()));
    let printed = anstyle::Style::new().dimmed();
    let mut text = String::new();
    let mut in_session = false;
    for line in sheet.lines() {
        let fence = line.starts_with("```");
        let style = match () {
            () if fence => printed,
            () if in_session && ["$ ", "# ", "> "].iter().any(|prompt| line.starts_with(prompt)) => command,
            () if in_session => printed,
            () if line.starts_with('#') => bold,
            () => anstyle::Style::new(),
        };
        in_session ^= fence;
        text.push_str(&format!("{style}{line}{style:#}\n"));
    }
    text
}
