//! `isobench testbed` as its users run it: made, entered, removed, killed at any step, and nothing left behind.

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::Signal;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

type Outcome = Result<(), Failed>;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(DEAD_MEMBER) {
        return match dead_member() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    // Only root can become another user.
    let root = rustix::process::geteuid().is_root();
    let delegation = delegation().filter(|_| root);
    let trials = vec![
        Trial::test("a_testbed_is_made_entered_and_removed", life),
        Trial::test("two_hosts_reach_each_other_by_the_wire", two_hosts),
        Trial::test("an_ordinary_user_has_both_hosts", ordinary_user).with_ignored_flag(!root),
        Trial::test("what_died_on_the_host_itself_is_swept", on_host).with_ignored_flag(!root),
        Trial::test("limits_hold_in_a_testbed", limits).with_ignored_flag(!root),
        Trial::test("a_user_has_limits_where_groups_are_delegated", delegated).with_ignored_flag(delegation.is_none()),
        Trial::test("a_signal_reaches_what_runs_inside", signal),
        Trial::test("bad_input_is_one_sentence", bad_input),
        Trial::test("two_at_once_make_one", two_at_once),
        Trial::test("a_killed_testbed_is_swept", killed),
        Trial::test("a_damaged_record_hides_no_testbed", damaged),
        Trial::test("what_a_script_has_open_is_not_kept", descriptors),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}

/// A lock, for one, goes with the last copy of its descriptor.
fn descriptors() -> Outcome {
    let home = Home::new();
    let path = home.path().join("held");
    fs::write(&path, "")?;
    let isobench = home.command(&[]);
    let mut script = Command::new("sh");
    // The second command begins a name server.
    let text = "exec 9<\"$1\" && \"$2\" testbed create && \"$2\" network create --subnet 10.99.0.0/24 named";
    script.args(["-c", text, "sh"]).arg(&path).arg(isobench.get_program()).current_dir(home.path());
    script.envs(isobench.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("ISOBENCH_TESTBED");
    let output = script.stdin(Stdio::null()).output()?;
    expect(output.status.success(), || format!("{output:?}"))?;
    let held = fs::metadata(&path)?;
    let has_it = |process: &Path| {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let mut open = open.filter_map(|descriptor| fs::metadata(descriptor.path()).ok());
        open.any(|file| (file.dev(), file.ino()) == (held.dev(), held.ino()))
    };
    let holder = fs::read_dir("/proc")?.flatten().map(|entry| entry.path()).find(|process| has_it(process));
    let Some(holder) = holder else { return Ok(()) };
    let command = fs::read(holder.join("cmdline"))?;
    Err(format!("{} (`{}`) has the script's file open", holder.display(), command.escape_ascii()).into())
}

/// A home of this test's own, in which its testbeds are; they end with it.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
        command.args(words).current_dir(self.path()).stdin(Stdio::null());
        command.env("ISOBENCH_HOME", self.path().join("isobench")).env("LC_ALL", "C");
        command.env_remove("ISOBENCH_LOG").env_remove("ISOBENCH_TESTBED");
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("the program starts")
    }

    /// Runs and expects success; gives the standard output.
    fn well(&self, words: &[&str]) -> Result<String, Failed> {
        let output = self.run(words);
        expect(output.status.code() == Some(0), || format!("{words:?}: {output:?}"))?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The names of the testbeds that live.
    fn names(&self) -> Result<Vec<String>, Failed> {
        let list: serde_json::Value = serde_json::from_str(&self.well(&["testbed", "ls", "--json"])?)?;
        let entries = list.as_array().cloned().unwrap_or_default();
        Ok(entries.iter().filter_map(|entry| Some(entry["name"].as_str()?.to_owned())).collect())
    }

    fn record(&self, name: &str) -> Result<serde_json::Value, Failed> {
        let path = self.path().join("isobench/testbeds").join(format!("{name}.json"));
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }

    /// All files but the lock.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut pending = vec![self.path().to_owned()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.path().is_dir() { pending.push(entry.path()) } else { files.push(entry.path()) }
            }
        }
        files.retain(|path| !path.ends_with("testbeds/lock"));
        files
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for name in self.names().unwrap_or_default() {
            self.run(&["testbed", "rm", &name]);
        }
    }
}

/// What of the machine must be as before.
#[derive(Debug, PartialEq)]
struct Machine {
    links: String,
    mounts: Vec<String>,
    firewall: String,
    forwarding: String,
    host: String,
}

impl Machine {
    fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let links = read("/proc/net/dev");
        let links: Vec<&str> = links.lines().skip(2).filter_map(|line| line.split(':').next()).collect();
        let mounts = read("/proc/self/mountinfo");
        let firewall = Command::new("nft").args(["list", "ruleset"]).output();
        Self {
            links: links.join("\n"),
            mounts: mounts.lines().filter_map(|line| Some(line.split(' ').nth(4)?.to_owned())).collect(),
            firewall: firewall.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default(),
            forwarding: read("/proc/sys/net/ipv4/ip_forward"),
            host: read("/proc/sys/kernel/hostname"),
        }
    }

    fn same_as(&self, before: &Self) -> Outcome {
        expect(self == before, || format!("the machine has changed from {before:?} to {self:?}"))
    }
}

/// Control groups of a run in any hierarchy.
fn groups(run: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    points.map(|point| Path::new(point).join("isobench").join(run)).filter(|path| path.exists()).collect()
}

fn life() -> Outcome {
    let home = Home::new();
    let machine = Machine::now();
    expect(home.well(&["testbed", "create", "lab"])? == "lab\n", || "it does not say its name".into())?;
    expect(home.names()? == ["lab"], || "it is not listed".into())?;
    let inside = home.well(&["testbed", "enter", "lab", "sh", "-c", "hostname; pwd; cat /run/isobench/inside"])?;
    let expected = format!("lab\n{}\nlab\n", home.path().display());
    expect(inside == expected, || format!("{inside:?} is not {expected:?}"))?;
    let addresses = home.well(&["testbed", "enter", "lab", "ip", "-brief", "address", "show", "uplink"])?;
    expect(addresses.contains("198.51.100.1/24"), || addresses.clone())?;
    let addresses = home.well(&["testbed", "enter", "lab/client", "ip", "-brief", "address", "show", "uplink"])?;
    expect(addresses.contains("198.51.100.2/24"), || addresses.clone())?;
    for (script, status) in [("exit 7", 7), ("kill -9 $$", 137), ("nonsense-that-is-not-there", 127)] {
        let output = home.run(&["testbed", "enter", "lab", "sh", "-c", script]);
        expect(output.status.code() == Some(status), || format!("{script}: {output:?}"))?;
    }
    let output = home.run(&["testbed", "enter", "lab", "/nowhere"]);
    expect(output.status.code() == Some(127), || format!("{output:?}"))?;
    let run = home.record("lab")?["run"].as_str().ok_or("no run")?.to_owned();
    home.well(&["testbed", "rm", "lab"])?;
    expect(home.names()?.is_empty(), || "it is still listed".into())?;
    expect(home.files().is_empty(), || format!("left: {:?}", home.files()))?;
    expect(groups(&run).is_empty(), || format!("left: {:?}", groups(&run)))?;
    Machine::now().same_as(&machine)
}

fn two_hosts() -> Outcome {
    let home = Home::new();
    let machine = Machine::now();
    home.well(&["testbed", "create", "pair", "--second-host"])?;
    let inspection: serde_json::Value = serde_json::from_str(&home.well(&["testbed", "inspect", "pair", "--json"])?)?;
    let parts = inspection["parts"].as_array().cloned().unwrap_or_default();
    let address = |name: &str, link: &str| {
        let part = parts.iter().find(|part| part["name"] == name)?;
        let links = part["links"].as_array()?;
        let address = &links.iter().find(|entry| entry["name"] == link)?["addresses"][0];
        Some(address.as_str()?.to_owned())
    };
    for (part, link, expected) in [
        ("pair", "uplink", "198.51.100.1/24"),
        ("pair", "wire", "192.0.2.1/24"),
        ("pair/client", "uplink", "198.51.100.2/24"),
        ("pair/two", "uplink", "203.0.113.1/24"),
        ("pair/two", "wire", "192.0.2.2/24"),
        ("pair/two/client", "uplink", "203.0.113.2/24"),
    ] {
        let found = address(part, link);
        expect(found.as_deref() == Some(expected), || format!("{link} of {part} is {found:?}: {inspection}"))?;
    }
    // State, processes and host name are each host's own.
    home.well(&["testbed", "enter", "pair", "touch", "/run/isobench/mine"])?;
    let there = home.run(&["testbed", "enter", "pair/two", "ls", "/run/isobench/mine"]);
    expect(there.status.code() == Some(2), || "the hosts share their state".into())?;
    expect(home.well(&["testbed", "enter", "pair/two", "hostname"])? == "pair-two\n", || "its name".into())?;
    // Nobody listens on port 9: the other host's refusal shows that it was reached; without a way there is none.
    for (place, target, refusal) in [
        ("pair", "192.0.2.2", true),
        ("pair/two", "192.0.2.1", true),
        ("pair/client", "198.51.100.1", true),
        ("pair/two/client", "203.0.113.1", true),
        ("pair/client", "192.0.2.2", false),
        ("pair", "203.0.113.1", false),
    ] {
        let script = format!("exec 3<>/dev/tcp/{target}/9");
        let output = home.run(&["testbed", "enter", place, "timeout", "3", "bash", "-c", &script]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        expect(told.contains("refused") == refusal, || format!("{place} to {target}: {told}"))?;
        expect(refusal || told.contains("unreachable"), || format!("{place} to {target}: {told}"))?;
    }
    // The second host's end is not the first one's.
    let second = home.record("pair")?["hosts"][1]["process"].as_str().ok_or("no second host")?.to_owned();
    kill(&second)?;
    wait_until(|| home.run(&["testbed", "enter", "pair/two", "true"]).status.code() != Some(0))?;
    home.well(&["testbed", "enter", "pair", "true"])?;
    let run = home.record("pair")?["run"].as_str().ok_or("no run")?.to_owned();
    home.well(&["testbed", "rm", "pair"])?;
    expect(home.files().is_empty(), || format!("left: {:?}", home.files()))?;
    expect(groups(&run).is_empty(), || format!("left: {:?}", groups(&run)))?;
    expect(keepers(&home) == 0, || "a process is left".into())?;
    Machine::now().same_as(&machine)
}

/// A user without any right, who has never been here: made by number, with a home of its own.
/// Copies isobench, by another process: what this one has open for writing, each program that another test starts at that moment
/// has too, and then no one can execute it (execve(2), ETXTBSY).
fn copy_program(to: &Path) -> Outcome {
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_isobench")).arg(to).status()?;
    expect(copied.success(), || format!("cp: {copied}"))
}

fn ordinary_user() -> Outcome {
    const USER: u32 = 61_234;
    let home = Home::new();
    let machine = Machine::now();
    std::os::unix::fs::chown(home.path(), Some(USER), Some(USER))?;
    // The program may lie where that user cannot look.
    let program = home.path().join("isobench");
    copy_program(&program)?;
    let as_user = |words: &[&str]| -> Result<String, Failed> {
        let mut command = Command::new(&program);
        command.args(words).current_dir(home.path()).stdin(Stdio::null()).env_clear().uid(USER).gid(USER);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("ISOBENCH_HOME", home.path().join("state"));
        let output = command.output()?;
        expect(output.status.success(), || format!("{words:?}: {output:?}"))?;
        Ok(String::from_utf8(output.stdout)?)
    };
    as_user(&["testbed", "create", "lab", "--second-host"])?;
    for (place, address) in [
        ("lab", "198.51.100.1/24"),
        ("lab/client", "198.51.100.2/24"),
        ("lab/two", "203.0.113.1/24"),
        ("lab/two/client", "203.0.113.2/24"),
    ] {
        let seen = as_user(&["testbed", "enter", place, "ip", "-brief", "address", "show", "uplink"])?;
        expect(seen.contains(address), || format!("{place}: {seen}"))?;
    }
    // Root inside, but of what is the testbed's alone.
    expect(as_user(&["testbed", "enter", "lab", "id", "-u"])? == "0\n", || "not root inside".into())?;
    expect(as_user(&["testbed", "inspect", "lab"])?.contains("by an ordinary user"), || "it is not told".into())?;
    as_user(&["testbed", "rm", "lab"])?;
    expect(as_user(&["gc"])?.contains("nothing is left"), || "something is left".into())?;
    fs::remove_file(&program)?;
    expect(home.files().is_empty(), || format!("left: {:?}", home.files()))?;
    Machine::now().same_as(&machine)
}

/// Makes this program join a network on the host itself, publish a port, and be killed.
const DEAD_MEMBER: &str = "be-a-dead-member";

fn dead_member() -> anyhow::Result<()> {
    use isobench::networks::{Joining, Store};
    let store = Store::open(&isobench::home::state()?)?;
    let joining = Joining { instance: "dead".into(), aliases: Vec::new(), address: None, mac: None };
    let (_endpoint, mut membership) = store.network("bridge")?.endpoint(&joining)?;
    membership.publish(&["8080:80".parse()?])?;
    println!("published");
    Ok(rustix::process::kill_process(rustix::process::getpid(), Signal::KILL)?)
}

/// In a network namespace that plays the host: a member is killed, and `gc` frees its port. What else `gc` tells may be of
/// other tests, whose testbeds are killed meanwhile.
fn on_host() -> Outcome {
    let home = Home::new();
    let machine = Machine::now();
    let script = "\"$1\" be-a-dead-member; echo \"status $?\"; nft list ruleset | grep -c 8080; ls $STATE/endpoints; \
                  \"$2\" gc --dry-run >/dev/null; nft list ruleset | grep -c 8080; \
                  \"$2\" gc >/dev/null; echo \"swept $?\"; nft list ruleset | grep -c 8080; ls $STATE/endpoints; nft list tables";
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", script, "sh"]).arg(std::env::current_exe()?);
    command.arg(env!("CARGO_BIN_EXE_isobench")).current_dir(home.path()).stdin(Stdio::null());
    command.env("ISOBENCH_HOME", home.path().join("isobench")).env("LC_ALL", "C").env_remove("ISOBENCH_LOG");
    command.env("STATE", home.path().join("isobench/host/networks/bridge"));
    let output = command.output()?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = "published\nstatus 137\n1\n172.17.0.2.json\n1\nswept 0\n0\n";
    expect(told.starts_with(expected), || format!("{output:?}"))?;
    // One table of ours, and no other.
    expect(told[expected.len()..].lines().count() == 1, || told.clone())?;
    Machine::now().same_as(&machine)
}

/// A root directory with nothing but busybox, which the gate installs; `None` where there is none.
fn small_root(home: &Home) -> Result<Option<String>, Failed> {
    let root = home.path().join("root");
    fs::create_dir_all(root.join("bin"))?;
    for busybox in ["/bin/busybox", "/usr/bin/busybox"] {
        if fs::copy(busybox, root.join("bin/busybox")).is_ok() {
            return Ok(Some(root.display().to_string()));
        }
    }
    println!("there is no busybox here to run in a container");
    Ok(None)
}

/// The limit of each container that runs, in the files of either version.
const LIMITS: &str = "cat /sys/fs/cgroup/isobench/container-*/memory.max \
                      /sys/fs/cgroup/memory/isobench/container-*/memory.limit_in_bytes 2>/dev/null; true";

/// On both hosts of a testbed.
fn limits() -> Outcome {
    let home = Home::new();
    let Some(root) = small_root(&home)? else { return Ok(()) };
    home.well(&["testbed", "create", "lab", "--second-host"])?;
    for place in ["lab", "lab/two"] {
        let limited =
            ["container", "run", "--testbed", place, "-d", "--network", "none", "-m", "16m", "--pids-limit", "9"];
        home.well(&[&limited[..], &[&root, "busybox", "sleep", "100"]].concat())?;
        let seen = home.well(&["testbed", "enter", place, "sh", "-c", LIMITS])?;
        expect(seen == "16777216\n", || format!("{place}: {seen:?}"))?;
    }
    let run = home.record("lab")?["run"].as_str().ok_or("no run")?.to_owned();
    expect(!groups(&run).is_empty(), || "it has no control groups".into())?;
    home.well(&["testbed", "rm", "lab"])?;
    expect(groups(&run).is_empty(), || format!("left: {:?}", groups(&run)))?;
    expect(keepers(&home) == 0, || "a process is left".into())
}

/// Where a group can be delegated: the mount point of version 2, where it has the controller of memory.
fn delegation() -> Option<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(top.join("cgroup.controllers")).ok()?;
    controllers.split_whitespace().any(|controller| controller == "memory").then(|| top.to_owned())
}

/// As systemd delegates it: the user's own group, and beside the one in which his shell is, he may make others.
fn delegated() -> Outcome {
    const USER: u32 = 61_236;
    let top = delegation().ok_or("no version 2")?;
    let home = Home::new();
    let Some(root) = small_root(&home)? else { return Ok(()) };
    let own = top.join(format!("delegated-{}", std::process::id()));
    fs::create_dir_all(own.join("session"))?;
    fs::write(top.join("cgroup.subtree_control"), "+memory +pids")?;
    fs::write(own.join("cgroup.subtree_control"), "+memory +pids")?;
    for path in [own.clone(), own.join("session"), home.path().to_owned()] {
        std::os::unix::fs::chown(&path, Some(USER), Some(USER))?;
        for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"].map(|file| path.join(file)) {
            if file.exists() {
                std::os::unix::fs::chown(file, Some(USER), Some(USER))?;
            }
        }
    }
    let program = home.path().join("isobench");
    copy_program(&program)?;
    let before = fs::read_to_string("/proc/self/cgroup")?;
    let before = before.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().to_owned();
    // The shell's place is taken over by what it starts.
    let as_user = |words: &[&str]| -> Result<Output, Failed> {
        fs::write(own.join("session/cgroup.procs"), "0")?;
        let mut command = Command::new(&program);
        command.args(words).current_dir("/").stdin(Stdio::null()).env_clear().uid(USER).gid(USER);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("ISOBENCH_HOME", home.path().join("state"));
        let output = command.output();
        fs::write(top.join(&before).join("cgroup.procs"), "0")?;
        Ok(output?)
    };
    let limited = ["container", "run", "--testbed", "lab", "-d", "--network", "none", "-m", "16m"];
    let limited = [&limited[..], &[&root, "busybox", "sleep", "100"]].concat();
    let enter = ["testbed", "enter", "lab", "sh", "-c", LIMITS];
    let mut told = Vec::new();
    for words in [&["testbed", "create", "lab"][..], &limited, &enter, &["testbed", "rm", "lab"], &["gc"]] {
        told.push(as_user(words)?);
    }
    let good = told.iter().all(|output| output.status.success());
    let left: Vec<_> = fs::read_dir(&own)?.flatten().filter(|entry| entry.path().is_dir()).collect();
    let _ = fs::remove_dir(own.join("session"));
    fs::remove_dir(&own)?;
    expect(good, || format!("{told:?}"))?;
    expect(told[2].stdout == b"16777216\n", || format!("{told:?}"))?;
    expect(left.len() == 1, || format!("left beside the session: {left:?}"))
}

/// SIGTERM is handed on; SIGKILL of the process outside ends what runs inside.
fn signal() -> Outcome {
    let home = Home::new();
    home.well(&["testbed", "create", "lab"])?;
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    for (signal, expected) in [(Signal::TERM, Some(9)), (Signal::KILL, None)] {
        let mut child =
            home.command(&["testbed", "enter", "lab", "sh", "-c", script]).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal)?;
        let status = child.wait()?;
        expect(status.code() == expected, || format!("{signal:?}: {status:?}"))?;
        wait_until(|| {
            home.well(&["testbed", "enter", "lab", "sh", "-c", "cat /proc/[0-9]*/comm"])
                .is_ok_and(|seen| !seen.contains("sleep"))
        })?;
    }
    Ok(())
}

fn bad_input() -> Outcome {
    let home = Home::new();
    let long = "x".repeat(41);
    home.well(&["testbed", "create", "lab"])?;
    let cases: [(&[&str], &str); 11] = [
        (&["testbed", "create", "a b"], "names no place in a testbed"),
        (&["testbed", "create", "../x"], "names no place in a testbed"),
        (&["testbed", "create", &long], "names no place in a testbed"),
        (&["testbed", "create", "lab/two"], "is a part of the testbed `lab`"),
        (&["testbed", "create", "lab"], "there is a testbed `lab` already"),
        (&["testbed", "rm", "other"], "there is no testbed `other`"),
        (&["testbed", "inspect", "other"], "there is no testbed `other`"),
        (&["testbed", "enter", "other", "true"], "isobench testbed create other"),
        (&["testbed", "enter", "lab/three", "true"], "names no place in a testbed"),
        (&["testbed", "enter", "lab/two", "true"], "has no second host"),
        (&["testbed", "nonsense"], "unrecognized subcommand"),
    ];
    for (words, sentence) in cases {
        let output = home.run(words);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        expect(output.status.code() == Some(2), || format!("{words:?} ended with {:?}: {told}", output.status))?;
        expect(told.contains(sentence), || format!("{words:?} does not say `{sentence}`: {told}"))?;
    }
    expect(home.names()? == ["lab"], || "another testbed was made".into())
}

fn two_at_once() -> Outcome {
    let home = Home::new();
    let start = || home.command(&["testbed", "create", "lab"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let children = [start()?, start()?, start()?];
    let mut codes = Vec::new();
    for child in children {
        codes.push(child.wait_with_output()?.status.code().unwrap_or(-1));
    }
    codes.sort_unstable();
    expect(codes == [0, 2, 2], || format!("{codes:?}"))?;
    expect(home.names()? == ["lab"], || format!("{:?}", home.names()))?;
    // Three of different names go side by side.
    let names = ["one", "two", "three"];
    let children = names.map(|name| home.command(&["testbed", "create", name]).stdout(Stdio::null()).spawn());
    for child in children {
        expect(child?.wait()?.success(), || "it was not made".into())?;
    }
    expect(home.names()? == ["lab", "one", "three", "two"], || format!("{:?}", home.names()))
}

/// Each process of a testbed is killed, and its maker at any time; `gc` then leaves nothing.
fn killed() -> Outcome {
    let home = Home::new();
    for which in ["outer", "inner"] {
        home.well(&["testbed", "create", "lab"])?;
        let record = home.record("lab")?;
        let process = match which {
            "outer" => record["run"].as_str(),
            _ => record["hosts"][0]["process"].as_str(),
        };
        let run = record["run"].as_str().ok_or("no run")?;
        kill(process.ok_or("no process")?)?;
        wait_until(|| home.names().is_ok_and(|names| names.is_empty()))?;
        let output = home.run(&["testbed", "enter", "lab", "true"]);
        expect(output.status.code() == Some(2), || format!("{output:?}"))?;
        home.well(&["gc"])?;
        expect(home.files().is_empty(), || format!("{which}: left {:?}", home.files()))?;
        expect(groups(run).is_empty(), || format!("{which}: left {:?}", groups(run)))?;
    }
    // One that was killed while it wrote its record.
    let unfinished = home.path().join("isobench/testbeds/lab.new");
    fs::write(&unfinished, "{")?;
    home.well(&["gc"])?;
    expect(home.files().is_empty(), || format!("left {:?}", home.files()))?;
    for delay in 0..20 {
        let mut maker = home.command(&["testbed", "create", "lab"]).stdout(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(delay * 4));
        maker.kill()?;
        maker.wait()?;
        // Either it was kept already, or it goes.
        if home.names()?.is_empty() {
            wait_until(|| keepers(&home) == 0)?;
        }
        home.run(&["testbed", "rm", "lab"]);
        wait_until(|| keepers(&home) == 0)?;
        home.well(&["gc"])?;
        expect(home.files().is_empty(), || format!("after {delay}: left {:?}", home.files()))?;
    }
    Ok(())
}

/// A testbed that runs is not made a second time where its record can't be read; `gc` ends it, and leaves the others.
fn damaged() -> Outcome {
    let home = Home::new();
    let record = home.path().join("isobench/testbeds/lab.json");
    home.well(&["testbed", "create", "other"])?;
    let spoil: [fn(&Path) -> std::io::Result<()>; 3] = [
        |record| fs::write(record, ""),
        |record| fs::remove_file(record).and_then(|()| fs::create_dir(record)),
        |record| fs::remove_file(record),
    ];
    for (index, spoil) in spoil.into_iter().enumerate() {
        home.well(&["testbed", "create", "lab"])?;
        let run = home.record("lab")?["run"].as_str().ok_or("no run")?.to_owned();
        spoil(&record)?;
        if record.exists() {
            let output = home.run(&["testbed", "create", "lab"]);
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            expect(!output.status.success() && told.contains("is damaged: `isobench gc` removes it"), || told.clone())?;
        }
        let would = home.well(&["gc", "--dry-run"])?;
        expect(would.contains(&format!("would end the testbed of run {run}")), || would.clone())?;
        let told = home.well(&["gc"])?;
        expect(told.contains(&format!("ended the testbed of run {run}")), || told.clone())?;
        expect(!record.exists() && groups(&run).is_empty(), || format!("{index}: left {:?}", groups(&run)))?;
        expect(home.names()? == ["other"], || format!("{index}: {:?}", home.names()))?;
        home.well(&["testbed", "enter", "other", "true"])?;
    }
    home.well(&["testbed", "rm", "other"])?;
    wait_until(|| keepers(&home) == 0)
}

fn kill(process: &str) -> Outcome {
    let number: i32 = process.split('-').next().unwrap_or_default().parse()?;
    let pid = rustix::process::Pid::from_raw(number).ok_or("no process number")?;
    Ok(rustix::process::kill_process(pid, Signal::KILL)?)
}

/// Processes that keep a testbed of this home; a zombie has no environment.
fn keepers(home: &Home) -> usize {
    let variable = format!("ISOBENCH_HOME={}", home.path().join("isobench").display());
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut count = 0;
    for entry in entries {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        count += usize::from(environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes()));
    }
    count
}

fn wait_until(mut holds: impl FnMut() -> bool) -> Outcome {
    let begun = Instant::now();
    while !holds() {
        expect(begun.elapsed() < Duration::from_secs(20), || "it does not become so within 20 s".into())?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
