//! Every command of every lab sheet, exactly as a student types it, in a fresh testbed: it must end well, and print what the
//! sheet says. As root, and as an ordinary user where this test may become one. Whoever may not open /dev/kvm types no command
//! that needs it, as the sheet says, and the test's name tells that.
//!
//! `isobench lab run` measures one block in place of the lab's number; all else is as printed.

mod support;

use isobench::labs::sheet::{Command as Typed, Sheet, Shell, is_printed, parse};
use isobench::labs::{Lab, Measured, labs};
use isobench_reports::messages::Language;
use libtest_mimic::{Arguments, Failed, Trial};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Output, Stdio};
use support::until;

/// An ordinary user that has nothing else on this machine.
const USER: u32 = 64_999;
/// What is typed where `isobench lab start` asks: a name, and an answer for each kind of question.
const NAME: &str = "Lin Mei";
/// Seconds for one command: far beyond what any takes.
const PATIENCE: &str = "120";

fn main() -> ExitCode {
    let root = rustix::process::geteuid().is_root();
    let mut trials = Vec::new();
    let missing = missing();
    for lab in labs() {
        let id = lab.id();
        if !missing.is_empty() {
            let name = format!("{id} (its toolbox of this machine's programs would lack {})", missing.join(", "));
            trials.push(Trial::test(name, || Ok(())).with_ignored_flag(true));
            continue;
        }
        let without =
            |user| if needs_kvm(lab) && !opens_kvm(user) { " (without virtual machines: no /dev/kvm)" } else { "" };
        trials.push(Trial::test(format!("{id}{}", without(None)), || work_through(lab, None)));
        let name = match root {
            true => format!("{id}_as_an_ordinary_user{}", without(Some(USER))),
            false => format!("{id}_as_another_user (needs root)"),
        };
        trials.push(Trial::test(name, || work_through(lab, Some(USER))).with_ignored_flag(!root));
    }
    let mut arguments = Arguments::from_args();
    // Two sheets at once would fight for the processors, and their commands have deadlines.
    arguments.test_threads = Some(1);
    let conclusion = libtest_mimic::run(&arguments, trials);
    for user in [None, Some(USER)] {
        let _ = fs::remove_dir_all(cache_path(user));
    }
    conclusion.exit_code()
}

/// Programs of every sheet that this machine does not have.
fn missing() -> Vec<&'static str> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let there = |name: &str| {
        let usual = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
        std::env::split_paths(&search).chain(usual).any(|directory| directory.join(name).exists())
    };
    ["ip", "ss", "nft", "busybox"].into_iter().filter(|name| !there(name)).collect()
}

fn needs_kvm(lab: &Lab) -> bool {
    parse(lab.sheet(Language::English)).is_ok_and(|sheet| sheet.commands().any(|command| command.needs_kvm))
}

/// Whether a user may open /dev/kvm.
fn opens_kvm(user: Option<u32>) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", ": <>/dev/kvm"]).stderr(Stdio::null());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command.status().is_ok_and(|status| status.success())
}

fn work_through(lab: &'static Lab, user: Option<u32>) -> Result<(), Failed> {
    let sheet: Sheet = parse(lab.sheet(Language::English))?;
    let student = Student::new(lab, user)?;
    let kvm = opens_kvm(user);
    let commands: Vec<&Typed> = sheet.commands().filter(|command| kvm || !command.needs_kvm).collect();
    let mut result = Ok(());
    let mut index = 0;
    while index < commands.len() && result.is_ok() {
        let opener = commands[index];
        let inside = commands[index + 1..].iter().take_while(|command| command.shell == Shell::Opened).count();
        let opened = &commands[index + 1..=index + inside];
        result = match inside {
            0 => student.types(opener),
            _ => student.opens(opener, opened),
        };
        index += 1 + inside;
    }
    let removed = student.command("isobench testbed rm 2>/dev/null; isobench testbed ls").output()?;
    result?;
    match removed.stdout.is_empty() && removed.stderr.is_empty() {
        true => Ok(()),
        false => Err(format!("a testbed is left: {removed:?}").into()),
    }
}

/// A student with a lab, a directory and a program, and nothing else.
struct Student {
    lab: &'static Lab,
    user: Option<u32>,
    directory: tempfile::TempDir,
    cache: PathBuf,
}

impl Student {
    fn new(lab: &'static Lab, user: Option<u32>) -> Result<Self, Failed> {
        let directory = tempfile::tempdir()?;
        let student = Self { lab, user, directory, cache: cache(user)? };
        for name in ["bin", "home", "run", "work"] {
            fs::create_dir(student.path(name))?;
            if let Some(user) = user {
                chown(student.path(name), Some(user), Some(user))?;
            }
        }
        fs::set_permissions(student.directory.path(), fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(student.path("run"), fs::Permissions::from_mode(0o700))?;
        // A copy: the build's directory may be closed to others.
        let program = env!("CARGO_BIN_EXE_isobench");
        fs::hard_link(program, student.path("bin/isobench"))
            .or_else(|_| fs::copy(program, student.path("bin/isobench")).map(drop))?;
        Ok(student)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command in the student's own shell, with both streams as a terminal shows them.
    fn command(&self, text: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", PATIENCE, "sh", "-c", &format!("exec 2>&1\n{text}")]);
        let path =
            format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", self.path("bin").display());
        command.env_clear().env("PATH", path).env("HOME", self.path("home")).env("XDG_RUNTIME_DIR", self.path("run"));
        command.env("ISOBENCH_HOME", self.path("run").join("isobench"));
        command.env("XDG_CACHE_HOME", &self.cache);
        command.env("SHELL", "/bin/sh").env("LC_ALL", "C.UTF-8").current_dir(self.path("work"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    fn types(&self, typed: &Typed) -> Result<(), Failed> {
        let measures = typed.text.starts_with("isobench lab run ");
        let text = if measures { format!("{} --reps 1", typed.text) } else { typed.text.clone() };
        let mut command = self.command(&text);
        if typed.text.starts_with("isobench lab start ") {
            let answer = match self.lab.description.prediction.measured {
                Measured::Claim { .. } => "yes",
                Measured::Number { .. } => "5",
            };
            return judge(typed, &feed(&mut command, &format!("{NAME}\n{answer}\n"))?);
        }
        judge(typed, &command.output()?)?;
        self.await_server(&typed.text)
    }

    /// Whoever types gives a server the time that it takes until it listens.
    fn await_server(&self, text: &str) -> Result<(), Failed> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let after = |option| words.iter().skip_while(|word| **word != option).nth(1);
        let Some(name) = after("--name").filter(|_| words.contains(&"-d") && words.contains(&"httpd")) else {
            return Ok(());
        };
        let testbed = after("--testbed").unwrap_or(&"default");
        let look = format!("isobench container exec --testbed {testbed} {name} ss -ltn");
        until(text, || Ok(String::from_utf8_lossy(&self.command(&look).output()?.stdout).contains("LISTEN")))
    }

    /// Opens a shell and types into it what stands there, with a mark after each command.
    fn opens(&self, opener: &Typed, typed: &[&Typed]) -> Result<(), Failed> {
        let mut script = String::new();
        for (number, command) in typed.iter().enumerate() {
            script += &format!("{}\necho \"--- $? {number}\"\n", command.text);
        }
        let output = feed(&mut self.command(&format!("{} 2>&1", opener.text)), &script)?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut rest = printed.as_str();
        for (number, command) in typed.iter().enumerate() {
            if command.text == "exit" {
                return Ok(());
            }
            let mark = format!(" {number}\n");
            let end = rest.match_indices("--- ").find(|(at, _)| {
                rest[*at..].split_once('\n').is_some_and(|(line, _)| format!("{line}\n").ends_with(&mark))
            });
            let Some((at, _)) = end else {
                return Err(format!("`{}` did not come to its end: {rest}", command.text).into());
            };
            let (line, after) = rest[at..].split_once('\n').unwrap_or_default();
            let well = line == format!("--- 0 {number}");
            compare(command, &rest[..at], well)?;
            rest = after;
        }
        Err(format!("the shell of `{}` is not left by `exit`", opener.text).into())
    }
}

/// A directory in which each user's toolbox is put together once, of this machine's own programs: tests fetch nothing.
fn cache(user: Option<u32>) -> Result<PathBuf, Failed> {
    let path = cache_path(user);
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir(&path)?;
    if let Some(user) = user {
        chown(&path, Some(user), Some(user))?;
    }
    let program = fs::File::open(env!("CARGO_BIN_EXE_isobench"))?;
    rustix::io::fcntl_setfd(&program, rustix::io::FdFlags::empty())?;
    let mut command = Command::new(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&program)));
    command.args(["toolbox", "build", "--from", "machine"]).env("XDG_CACHE_HOME", &path).current_dir("/");
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let output = command.output()?;
    if output.status.success() { Ok(path) } else { Err(format!("the toolbox: {output:?}").into()) }
}

fn cache_path(user: Option<u32>) -> PathBuf {
    std::env::temp_dir().join(format!("isobench-sheets-{}-{}", std::process::id(), user.unwrap_or(0)))
}

fn feed(command: &mut Command, text: &str) -> Result<Output, Failed> {
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("no standard input")?.write_all(text.as_bytes())?;
    Ok(child.wait_with_output()?)
}

fn judge(typed: &Typed, output: &Output) -> Result<(), Failed> {
    compare(typed, &String::from_utf8_lossy(&output.stdout), output.status.success())
}

fn compare(typed: &Typed, printed: &str, well: bool) -> Result<(), Failed> {
    let lines: Vec<&str> = printed.lines().collect();
    let as_said = typed.printed.is_empty() || is_printed(&typed.printed, &lines);
    match well && as_said {
        true => Ok(()),
        false => {
            let expected = typed.printed.join("\n");
            let ended = if well { "ended well" } else { "failed" };
            Err(format!("`{}` {ended} and printed\n{printed}\nwhere the sheet says\n{expected}", typed.text).into())
        }
    }
}
