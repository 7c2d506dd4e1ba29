//! Which programs can run: ours, from memory, and the peers that are installed.

use super::Finding;
use crate::programs::Program;
use crate::sandboxes::podman;
use isobench_workload::{Output, Process};
use rustix::process::Signal;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a peer may take to say its version: docker and podman take some 50 ms. Without it no more is missing than a number.
const DEADLINE: Duration = Duration::from_millis(1200);

/// How long our own program may take: a busy machine must not be told that it cannot run it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A peer: the program, and the Debian package that it comes with.
const PEERS: [(&str, &str); 7] = [
    ("runc", "runc"),
    ("crun", "crun"),
    ("bwrap", "bubblewrap"),
    ("docker", "docker.io"),
    ("podman", "podman aardvark-dns"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("linux.uml", "user-mode-linux"),
];

/// Executes the agent from memory, as every run does.
pub(super) fn from_memory() -> Finding {
    const SUBJECT: &str = "programs from memory";
    let forbidden = std::fs::read_to_string("/proc/sys/vm/memfd_noexec").is_ok_and(|text| text.trim() == "2");
    let program = match Program::agent(&std::env::temp_dir()) {
        Ok(program) => program,
        Err(error) => {
            let remedy = forbidden.then(|| "sudo sysctl vm.memfd_noexec=1".into());
            return Finding::missing(SUBJECT, format!("the agent cannot be put anywhere: {error:#}"), remedy);
        }
    };
    match first_line(Command::new(program.path()).arg("exit"), PATIENCE) {
        Some(line) if line.starts_with(isobench_workload::announcement::READY) && forbidden => Finding::limited(
            SUBJECT,
            "vm.memfd_noexec forbids to execute a memfd, so an unlinked file is used in its place",
            Some("sudo sysctl vm.memfd_noexec=1".into()),
        ),
        Some(line) if line.starts_with(isobench_workload::announcement::READY) => {
            Finding::good(SUBJECT, "a sealed memfd can be executed, so nothing has to be installed")
        }
        _ => Finding::missing(SUBJECT, "the agent was put into memory and does not run from there", None),
    }
}

/// Looks for the peers in PATH and asks each for its version, all at once.
pub(super) fn peers() -> Finding {
    const SUBJECT: &str = "peers";
    let found: Vec<Option<String>> = std::thread::scope(|scope| {
        let asked: Vec<_> = PEERS.iter().map(|(program, _)| scope.spawn(|| Some(version(&find(program)?)))).collect();
        asked.into_iter().map(|thread| thread.join().ok().flatten()).collect()
    });
    let mut installed = Vec::new();
    let mut absent = Vec::new();
    for ((program, package), version) in PEERS.iter().zip(found) {
        match version {
            Some(version) => installed.push(format!("{program} {version}").trim_end().to_owned()),
            None => absent.push(*package),
        }
    }
    // Without it podman's networks answer no name.
    if find("podman").is_some() && !podman::has_name_server() {
        absent.push("aardvark-dns");
    }
    if absent.is_empty() {
        return Finding::good(SUBJECT, format!("installed are {}", installed.join(", ")));
    }
    let sentence = match installed.as_slice() {
        [] => "no peer is installed, so our own sandboxes are compared with each other alone".to_owned(),
        installed => format!("installed are {}, not {}", installed.join(", "), absent.join(", ")),
    };
    Finding::limited(SUBJECT, sentence, Some(format!("sudo apt install {}", absent.join(" "))))
}

/// The first file of that name in PATH that can be executed.
fn find(program: &str) -> Option<PathBuf> {
    let executable =
        |path: &PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    std::env::split_paths(&std::env::var_os("PATH")?).map(|directory| directory.join(program)).find(executable)
}

/// The first word of what it says that looks like a version, or nothing.
fn version(path: &Path) -> String {
    first_line(Command::new(path).arg("--version"), DEADLINE).and_then(|line| version_in(&line)).unwrap_or_default()
}

fn version_in(line: &str) -> Option<String> {
    let words = line.split([' ', ',', '(', ')']);
    words
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
        .map(str::to_owned)
}

/// What a program prints first, where it does so in time; it is ended then.
fn first_line(command: &mut Command, deadline: Duration) -> Option<String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let stdout = child.stdout.take()?;
    let mut process = Process::from_child(child.id()).ok()?;
    let line = Output::new(OwnedFd::from(stdout)).line(deadline);
    process.signal(Signal::KILL).ok()?;
    process.wait(PATIENCE).ok()?;
    line.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_programs_say() {
        let version = |line| version_in(line).unwrap_or_default();
        assert_eq!(version("runc version 1.1.5+ds1"), "1.1.5+ds1");
        assert_eq!(version("Docker version 20.10.24+dfsg1, build 297e128"), "20.10.24+dfsg1");
        assert_eq!(version("QEMU emulator version 7.2.15 (Debian 1:7.2+dfsg-7)"), "7.2.15");
        assert_eq!(version("bubblewrap 0.8.0"), "0.8.0");
        assert_eq!(version("no number"), "");
    }

    #[test]
    fn a_program_that_says_nothing_is_given_up() {
        let said = first_line(Command::new("/bin/sh").args(["-c", "echo one; sleep 60"]), PATIENCE);
        assert_eq!(said.as_deref(), Some("one"));
        let silent = first_line(Command::new("/bin/sh").args(["-c", "sleep 60"]), Duration::from_millis(10));
        assert_eq!(silent, None);
        assert_eq!(first_line(&mut Command::new("/nonexistent"), PATIENCE), None);
    }
}
