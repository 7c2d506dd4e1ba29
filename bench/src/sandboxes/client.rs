//! A program that is asked something: the command line of an engine.

use anyhow::{Context, bail};
use isobench_workload::{Exit, Process, ProcessError};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::Signal;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The client of an engine: its program with the arguments and the environment that lead to our own one.
#[derive(Clone, Debug)]
pub(super) struct Client {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    deadline: Duration,
}

impl Client {
    /// A client that has `home` for its home directory and nothing of the caller's environment but `PATH`: settings there
    /// would lead to the machine's own engine.
    pub(super) fn new(program: PathBuf, home: &Path, deadline: Duration) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self { program, arguments: Vec::new(), environment: vec![("PATH", path), ("HOME", home.into())], deadline }
    }

    pub(super) fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(super) fn environment(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// The same, for what may take so long.
    pub(super) fn patient(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The command so far; what it is to do follows.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Asks and waits for the answer: what it writes to its standard output.
    ///
    /// # Errors
    /// Where it does not end in time; a [`Complaint`] where it ends with another status than 0.
    pub(super) fn ask(&self, arguments: &[&str], input: Option<File>) -> anyhow::Result<String> {
        let mut command = self.command();
        command.args(arguments);
        let name = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let shown = format!("{name} {}", arguments.iter().take(2).copied().collect::<Vec<_>>().join(" "));
        answer(&mut command, &shown, input, self.deadline)
    }
}

/// A program that was asked ended with another status than 0.
#[derive(Debug, thiserror::Error)]
#[error("`{asked}` ended with status {status}: {complaint}")]
pub(super) struct Complaint {
    asked: String,
    status: i32,
    /// What it wrote to its standard error, on one line.
    complaint: String,
}

impl Complaint {
    /// Whether it has these words, however they are spelled: an engine tells its errors apart by nothing else.
    pub(super) fn has(&self, words: &str) -> bool {
        self.complaint.to_lowercase().contains(words)
    }
}

/// Runs a command to its end. Its output goes to files in memory, so that no reader is needed while it runs.
pub(super) fn answer(
    command: &mut Command,
    shown: &str,
    input: Option<File>,
    deadline: Duration,
) -> anyhow::Result<String> {
    let (output, complaints) = (memory()?, memory()?);
    command.stdin(match input {
        Some(mut file) => {
            file.rewind().context("go to the beginning of its input")?;
            Stdio::from(file)
        }
        None => Stdio::null(),
    });
    command.stdout(output.try_clone()?).stderr(complaints.try_clone()?);
    let child = command.spawn().with_context(|| format!("start `{shown}`"))?;
    let mut process = Process::from_child(child.id())?;
    let exit = match process.wait(deadline) {
        Err(ProcessError::Deadline { waited, .. }) => {
            process.signal(Signal::KILL)?;
            bail!("`{shown}` gave no answer within {waited:?}")
        }
        exit => exit?,
    };
    match exit {
        Exit::Status(0) => text(output),
        exit => {
            let complaint = text(complaints)?;
            let complaint = complaint.split_whitespace().collect::<Vec<_>>().join(" ");
            Err(Complaint { asked: shown.to_owned(), status: exit.code(), complaint }.into())
        }
    }
}

fn memory() -> anyhow::Result<File> {
    let file: OwnedFd = memfd_create("answer", MemfdFlags::CLOEXEC).context("make a file in memory")?;
    Ok(File::from(file))
}

fn text(mut file: File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).context("read what was answered")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, deadline: Duration) -> anyhow::Result<String> {
        Client::new("/bin/sh".into(), Path::new("/"), deadline).argument("-c").ask(&[script], None)
    }

    const PLENTY: Duration = Duration::from_secs(60);

    #[test]
    fn an_answer_is_what_is_written() {
        assert_eq!(shell("echo one; echo two >&2", PLENTY).expect("an answer"), "one\n");
        assert_eq!(shell("echo $HOME $LANG", PLENTY).expect("an answer"), "/\n");
    }

    #[test]
    fn input_is_read_from_its_beginning() {
        let mut file = memory().expect("a file");
        std::io::Write::write_all(&mut file, b"three").expect("room");
        let client = Client::new("/bin/cat".into(), Path::new("/"), PLENTY);
        assert_eq!(client.ask(&[], Some(file)).expect("an answer"), "three");
    }

    #[test]
    fn a_failure_and_a_hang_are_one_sentence() {
        let error = shell("echo 'it is\nbroken' >&2; exit 3", PLENTY).expect_err("a failure").to_string();
        assert!(error.ends_with("ended with status 3: it is broken"), "{error}");
        let error = shell("echo No such thing >&2; exit 1", PLENTY).expect_err("a failure");
        let complaint = error.downcast_ref::<Complaint>().expect("a complaint");
        assert!(complaint.has("no such thing") && !complaint.has("status"), "{complaint}");
        let error = shell("exec sleep 60", Duration::from_millis(300)).expect_err("a hang").to_string();
        assert!(error.ends_with("gave no answer within 300ms"), "{error}");
    }
}
