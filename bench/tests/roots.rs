//! The toolbox as its users get it: built from packages and from the machine's programs, by root and by an ordinary user.

use libtest_mimic::{Arguments, Failed, Trial};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

type Outcome = Result<(), Failed>;

fn main() -> ExitCode {
    let root = rustix::process::geteuid().is_root();
    // Packages can be had where apt-get has a list that is not empty; the machine's programs everywhere.
    let packages = Command::new("apt-cache").args(["show", "busybox-static"]).output();
    let packages = packages.is_ok_and(|output| output.status.success() && !output.stdout.is_empty());
    let ip = ["/usr/sbin/ip", "/usr/bin/ip", "/sbin/ip"].iter().any(|path| Path::new(path).exists());
    let name = |name: &str, why: &str, ignored: bool| if ignored { format!("{name} ({why})") } else { name.to_owned() };
    let trials = vec![
        Trial::test(name("a_toolbox_of_packages_is_whole", "no packages of apt-get here", !packages), of_packages)
            .with_ignored_flag(!packages),
        Trial::test(
            name("a_toolbox_of_the_machines_programs_runs", "this machine has no program ip: install iproute2", !ip),
            of_the_machine,
        )
        .with_ignored_flag(!ip),
        Trial::test("without_packages_the_machines_programs_are_taken", without_packages),
        Trial::test("two_builds_at_once_give_one_toolbox", two_at_once),
        Trial::test("a_killed_build_leaves_nothing", killed),
        Trial::test(name("an_ordinary_user_can_build_and_use_it", "needs root to become one", !root), ordinary_user)
            .with_ignored_flag(!root),
        Trial::test("bad_input_is_one_sentence", bad_input),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}

/// A cache of this test's own.
struct Cache(tempfile::TempDir);

impl Cache {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
        command.args(words).env("XDG_CACHE_HOME", self.0.path()).env("LC_ALL", "C");
        command.stdin(Stdio::null()).current_dir(self.0.path());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("the program starts")
    }

    fn build(&self, words: &[&str]) -> Result<PathBuf, Failed> {
        let output = self.run(&[&["toolbox", "build"], words].concat());
        expect(output.status.code() == Some(0), || format!("{words:?}: {output:?}"))?;
        Ok(String::from_utf8(output.stdout)?.trim_end().into())
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path().join("isobench")).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// Runs a program with the toolbox as its root, in a user namespace where the tests have no right to.
fn inside(toolbox: &Path, words: &[&str]) -> Result<Output, Failed> {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    Ok(command.arg("--root").arg(toolbox).args(words).stdin(Stdio::null()).output()?)
}

/// Each program starts, finds its libraries and says something of itself.
fn works(toolbox: &Path, programs: &[(&str, &[&str], &str)]) -> Outcome {
    for (name, words, expected) in programs {
        let output = inside(toolbox, &[&[*name], *words].concat())?;
        let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        expect(told.contains(expected), || format!("{name}: {output:?}"))?;
        // By its own loader and libraries, outside.
        let outside = toolbox.join("libexec/outside").join(name);
        let path = format!("{}:/usr/bin:/bin", toolbox.join("libexec/outside").display());
        let output = Command::new(&outside).args(*words).env("PATH", path).stdin(Stdio::null()).output()?;
        let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        expect(told.contains(expected), || format!("{}: {output:?}", outside.display()))?;
    }
    Ok(())
}

const ALL: [(&str, &[&str], &str); 12] = [
    ("sh", &["-c", "echo $((6 * 7))"], "42"),
    ("ip", &["link", "show", "lo"], "LOOPBACK"),
    // What a program starts is the real one too, not busybox's of that name.
    ("sh", &["-c", "ip -Version"], "iproute2"),
    ("env", &["ip", "-Version"], "iproute2"),
    ("timeout", &["5", "env", "ip", "-Version"], "iproute2"),
    ("ss", &["-V"], "iproute2"),
    ("nft", &["--version"], "nftables"),
    ("nsenter", &["--help"], "nsenter"),
    ("ping", &["--help"], "ping"),
    ("wget", &["--help"], "wget"),
    ("httpd", &["--help"], "httpd"),
    ("tcpdump", &["--version"], "libpcap"),
];

fn of_packages() -> Outcome {
    let cache = Cache::new();
    let toolbox = cache.build(&["--from", "packages"])?;
    works(&toolbox, &ALL)?;
    let description: serde_json::Value = serde_json::from_slice(&cache.run(&["toolbox", "path", "--json"]).stdout)?;
    expect(description["origin"] == "packages" && description["missing"] == serde_json::json!([]), || {
        format!("{description}")
    })?;
    let names = cache.names();
    expect(names.len() == 2 && names.iter().all(|name| name.starts_with("toolbox")), || {
        format!("something else is in the cache: {names:?}")
    })?;
    // The same packages give the same toolbox, and a second build without --again does nothing.
    expect(cache.build(&["--from", "packages"])? == toolbox, || "another one was made of the same packages".into())?;
    expect(cache.build(&[])? == toolbox, || "a new one was made".into())
}

fn of_the_machine() -> Outcome {
    let cache = Cache::new();
    let toolbox = cache.build(&["--from", "machine"])?;
    let there = |name: &str| toolbox.join("bin").join(name).exists();
    let programs: Vec<_> = ALL.into_iter().filter(|(name, ..)| there(name) && there("ip")).collect();
    expect(programs.len() >= 3, || format!("only {programs:?} were found"))?;
    works(&toolbox, &programs)
}

/// A search path without apt-get, with a few programs and no busybox.
fn without_packages() -> Outcome {
    let cache = Cache::new();
    let output = cache.command(&["toolbox", "build"]).env("PATH", "/nowhere").output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    expect(output.status.code() == Some(0), || format!("{output:?}"))?;
    expect(told.contains("this machine's own programs") && told.contains("start apt-get"), || told.clone())?;
    let toolbox = PathBuf::from(String::from_utf8(output.stdout)?.trim_end());
    works(&toolbox, &ALL[..1])
}

fn two_at_once() -> Outcome {
    let cache = Cache::new();
    let start = || cache.command(&["toolbox", "build", "--from", "machine"]).stdout(Stdio::piped()).spawn();
    let children = [start()?, start()?];
    let mut paths = Vec::new();
    for child in children {
        let output = child.wait_with_output()?;
        expect(output.status.success(), || format!("{output:?}"))?;
        paths.push(String::from_utf8(output.stdout)?);
    }
    expect(paths[0] == paths[1], || format!("{paths:?}"))?;
    expect(cache.names().len() == 2, || format!("left in the cache: {:?}", cache.names()))
}

fn killed() -> Outcome {
    let cache = Cache::new();
    for delay in [5, 20, 60, 150] {
        let mut child = cache.command(&["toolbox", "build", "--from", "machine"]).stdout(Stdio::null()).spawn()?;
        std::thread::sleep(std::time::Duration::from_millis(delay));
        child.kill()?;
        child.wait()?;
    }
    cache.build(&["--from", "machine"])?;
    expect(cache.names().len() == 2, || format!("left in the cache: {:?}", cache.names()))
}

/// Copies isobench, by another process: what this one has open for writing, each program that another test starts at that moment
/// has too, and then no one can execute it (execve(2), ETXTBSY).
fn copy_program(to: &Path) -> Outcome {
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_isobench")).arg(to).status()?;
    expect(copied.success(), || format!("cp: {copied}"))
}

fn ordinary_user() -> Outcome {
    const USER: u32 = 61_235;
    let cache = Cache::new();
    std::os::unix::fs::chown(cache.0.path(), Some(USER), Some(USER))?;
    let program = cache.0.path().join("program");
    copy_program(&program)?;
    let mut command = Command::new(&program);
    command.args(["toolbox", "build"]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("HOME", cache.0.path()).current_dir("/").stdin(Stdio::null()).uid(USER).gid(USER);
    let output = command.output()?;
    expect(output.status.success(), || format!("{output:?}"))?;
    let toolbox = PathBuf::from(String::from_utf8(output.stdout)?.trim_end());
    expect(toolbox.starts_with(cache.0.path().join(".cache/isobench")), || format!("{}", toolbox.display()))?;
    // In a user namespace, as an ordinary user's containers are.
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--root"]).arg(&toolbox).args([
        "sh",
        "-c",
        "id -u; cat /www/index.html",
    ]);
    let output = command.uid(USER).gid(USER).current_dir("/").output()?;
    expect(output.stdout == b"0\nIt works.\n", || format!("{output:?}"))
}

fn bad_input() -> Outcome {
    let cache = Cache::new();
    let cases: [(&[&str], &str); 3] = [
        (&["toolbox", "path"], "isobench toolbox build"),
        (&["toolbox", "build", "--from", "nowhere"], "invalid value 'nowhere'"),
        (&["toolbox", "nonsense"], "unrecognized subcommand"),
    ];
    for (words, sentence) in cases {
        let output = cache.run(words);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        expect(output.status.code() == Some(2), || format!("{words:?}: {output:?}"))?;
        expect(told.contains(sentence), || format!("{words:?} does not say `{sentence}`: {told}"))?;
    }
    let output = cache.command(&["toolbox", "build"]).env_remove("HOME").env_remove("XDG_CACHE_HOME").output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    expect(output.status.code() == Some(2) && told.contains("XDG_CACHE_HOME"), || format!("{output:?}"))?;
    expect(cache.names().is_empty(), || format!("left: {:?}", cache.names()))
}
