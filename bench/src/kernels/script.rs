//! The scripts that travel inside this program and do their work with the distribution's own tools: `scripts/guest-kernel`, which gets
//! and builds guest kernels, and `scripts/distribution-image`, which builds the disk of a complete distribution.

use crate::commands::note;
use anyhow::{Context, bail};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A script with what lies beside it; the first of its files is the script itself, by whose name it begins what it says.
struct Script {
    files: &'static [(&'static str, &'static str)],
    /// What it is for, as a sentence needs it.
    object: &'static str,
}

const GUEST_KERNEL: Script = Script {
    files: &[
        ("guest-kernel", include_str!("../../../scripts/guest-kernel")),
        ("guest-kernel.config", include_str!("../../../scripts/guest-kernel.config")),
    ],
    object: "the guest kernel",
};

const DISTRIBUTION_IMAGE: Script = Script {
    files: &[("distribution-image", include_str!("../../../scripts/distribution-image"))],
    object: "the distribution's disk",
};

/// Runs `scripts/guest-kernel` with these words, tells what it is doing, and gives the kernel's path.
///
/// # Errors
/// What the script says, in one sentence; nothing is left behind then.
pub(crate) fn run(words: &[&str]) -> anyhow::Result<PathBuf> {
    GUEST_KERNEL.run(words)
}

/// Runs `scripts/distribution-image` likewise, and gives the directory of the disk.
///
/// # Errors
/// As for [`run`].
pub(crate) fn distribution_image() -> anyhow::Result<PathBuf> {
    DISTRIBUTION_IMAGE.run(&[])
}

impl Script {
    fn run(&self, words: &[&str]) -> anyhow::Result<PathBuf> {
        let place = tempfile::Builder::new().prefix("isobench-script-").tempdir().context("make a directory")?;
        let name = self.files.first().map_or("", |(name, _)| name);
        let (script, mark) = (place.path().join(name), format!("{name}: "));
        let written = self.files.iter().try_for_each(|(name, text)| fs::write(place.path().join(name), text));
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
        let last = told(BufReader::new(child.stderr.take().context("read what the script says")?), &mark)?;
        let output = child.wait_with_output().context("wait for the script")?;
        if !output.status.success() {
            match last.strip_prefix(&mark) {
                Some(sentence) => bail!("{sentence}"),
                None => bail!("{} could not be had ({}): {}", self.object, output.status, last.replace('\n', " ")),
            }
        }
        if !last.is_empty() {
            note(last.strip_prefix(&mark).unwrap_or(&last));
        }
        let path = String::from_utf8_lossy(&output.stdout);
        path.lines().last().map(PathBuf::from).context("the script gave no path")
    }
}

/// Tells what is said, sentence by sentence, but the last one, which may be why it failed. What other programs say within it is a
/// part of it.
fn told(says: impl BufRead, mark: &str) -> anyhow::Result<String> {
    let mut last = String::new();
    for line in says.lines() {
        let line = line.context("read what the script says")?;
        if line.starts_with(mark) && !last.is_empty() {
            note(last.strip_prefix(mark).unwrap_or(&last));
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
        assert_eq!(told(says.as_bytes(), "guest-kernel: ").unwrap(), "guest-kernel: the build failed: x\ny");
        assert_eq!(told(&b""[..], "guest-kernel: ").unwrap(), "");
    }
}
