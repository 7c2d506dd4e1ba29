//! `scripts/guest-kernel`, which travels inside this program: it gets and builds guest kernels with the distribution's own tools.

use crate::commands::note;
use anyhow::{Context, bail};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const SCRIPT: &str = include_str!("../../../scripts/guest-kernel");
const FRAGMENT: &str = include_str!("../../../scripts/guest-kernel.config");

/// How the script begins what it says.
const MARK: &str = "guest-kernel: ";

/// Runs the script with these words, tells what it is doing, and gives the kernel's path.
///
/// # Errors
/// What the script says, in one sentence; nothing is left behind then.
pub(crate) fn run(words: &[&str]) -> anyhow::Result<PathBuf> {
    let place = tempfile::Builder::new().prefix("isobench-guest-kernel-").tempdir().context("make a directory")?;
    let script = place.path().join("guest-kernel");
    let written =
        fs::write(&script, SCRIPT).and_then(|()| fs::write(place.path().join("guest-kernel.config"), FRAGMENT));
    written.with_context(|| format!("write the script into {}", place.path().display()))?;
    let mut child = Command::new("sh")
        .arg(&script)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start sh")?;
    // The path comes last, when nothing more is said.
    let last = told(BufReader::new(child.stderr.take().context("read what the script says")?))?;
    let output = child.wait_with_output().context("wait for the script")?;
    if !output.status.success() {
        match last.strip_prefix(MARK) {
            Some(sentence) => bail!("{sentence}"),
            None => bail!("the guest kernel could not be had ({}): {}", output.status, last.replace('\n', " ")),
        }
    }
    if !last.is_empty() {
        note(last.strip_prefix(MARK).unwrap_or(&last));
    }
    let path = String::from_utf8_lossy(&output.stdout);
    path.lines().last().map(PathBuf::from).context("the script gave no path")
}

/// Tells what is said, sentence by sentence, but the last one, which may be why it failed. What other programs say within it is a
/// part of it.
fn told(says: impl BufRead) -> anyhow::Result<String> {
    let mut last = String::new();
    for line in says.lines() {
        let line = line.context("read what the script says")?;
        if line.starts_with(MARK) && !last.is_empty() {
            note(last.strip_prefix(MARK).unwrap_or(&last));
            last.clear();
        }
        if !last.is_empty() {
            last.push('\n');
        }
        last.push_str(&line);
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sentence_is_kept_whole() {
        let says = "guest-kernel: unpack a\nguest-kernel: the build failed: x\ny\n";
        assert_eq!(told(says.as_bytes()).unwrap(), "guest-kernel: the build failed: x\ny");
        assert_eq!(told(&b""[..]).unwrap(), "");
    }
}
