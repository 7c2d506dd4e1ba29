//! `isobench vm` as its users run it: the real binary, in a testbed of the test's own, with what it leaves behind. The unikernel
//! runs wherever there is a KVM; Linux guests are tested in `rig.rs`.

mod support;

use isobench_microvm::judge::judge;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::Duration;
use support::{check, until};

type Outcome = Result<(), Failed>;

const BUSYBOX: &str = "/bin/busybox";

fn main() -> ExitCode {
    let kvm = judge();
    let missing = match () {
        () if !kvm.runs_unikernel() => Some("ignored: no virtual machine runs here"),
        () if !Path::new(BUSYBOX).exists() => Some("ignored: needs /bin/busybox: apt-get install busybox-static"),
        () => None,
    };
    let trial = |name: &str, test: fn() -> Outcome, missing: Option<&str>| {
        let name = missing.map_or_else(|| name.to_owned(), |why| format!("{name} ({why})"));
        Trial::test(name, test).with_ignored_flag(missing.is_some())
    };
    let linux = kvm.runs_linux().then_some("ignored: Linux guests run here");
    let trials = vec![
        trial("a_machine_outlives_its_caller_with_log_and_state", life, missing),
        trial("published_ports_and_names_lead_inside", networks, missing),
        trial("a_machine_and_a_container_are_told_apart", kinds, missing),
        trial("clones_of_a_snapshot_answer_at_addresses_of_their_own", snapshots, missing),
        trial("it_can_be_paused_and_its_use_is_shown", pausing, missing),
        trial("what_cannot_be_is_refused_in_one_sentence", refusals, missing),
        trial("a_killed_supervisor_takes_its_machine_along", killed_supervisor, missing),
        trial("a_kill_at_any_step_leaves_nothing_that_runs", killed_at_each_step, missing),
        trial("nothing_is_left_behind", leaves_nothing, missing),
        trial("a_linux_guest_is_refused_where_none_runs", no_linux, missing.or(linux)),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A testbed of this test's own, which goes with it.
struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Result<Self, Failed> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
        command.args(words).stdin(Stdio::null()).env("ISOBENCH_HOME", self.0.path().join("isobench"));
        command.env_remove("ISOBENCH_LOG").env_remove("ISOBENCH_TESTBED");
        command
    }

    fn run(&self, words: &[&str]) -> Result<Output, Failed> {
        Ok(self.command(&[&["vm"], words].concat()).output()?)
    }

    /// Runs and expects success; gives the standard output.
    fn well(&self, words: &[&str]) -> Result<String, Failed> {
        let output = self.run(words)?;
        check(output.status.success(), || format!("{words:?}: {output:?}"))?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs and expects this status and one sentence with these words.
    fn refused(&self, words: &[&str], status: i32, sentence: &str) -> Outcome {
        let output = self.run(words)?;
        one_sentence(&output, status, sentence).map_err(|error| format!("{words:?}: {error:?}").into())
    }

    /// Begins a server that goes on until it is ended.
    fn serve(&self, name: &str, options: &[&str]) -> Outcome {
        self.well(&[&["run", "-d", "--name", name], options, &["--unikernel", "serve"]].concat()).map(drop)
    }

    fn inspect(&self, name: &str) -> Result<Value, Failed> {
        let all: Value = serde_json::from_str(&self.well(&["inspect", name])?)?;
        Ok(all[0].clone())
    }

    /// Runs a shell's script at a place of the testbed, such as its host `default`.
    fn shell(&self, place: &str, script: &str) -> Result<Output, Failed> {
        Ok(self.command(&["testbed", "enter", place, BUSYBOX, "sh", "-c", script]).output()?)
    }

    /// Waits until a server of ours answers there.
    fn await_server(&self, place: &str, address: &str, port: u16) -> Outcome {
        // The request for a hello, and the first bytes of its answer.
        let zeros = "\\000".repeat(12);
        let script = format!("printf 'ISB1{zeros}' | {BUSYBOX} nc -w 5 {address} {port} | {BUSYBOX} head -c 4");
        until("the server", || Ok(self.shell(place, &script)?.stdout == b"ISB1"))
    }

    /// All of the host that a machine could leave behind.
    fn footprint(&self) -> Result<BTreeSet<String>, Failed> {
        let script = "cut -d: -f1 /proc/net/dev; ls -a /run/isobench/containers; \
                      for each in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$each 2>/dev/null | grep -e '[v]mm'; done; \
                      cat /proc/[0-9]*/comm 2>/dev/null | grep isobench-keeper; \
                      find /sys/fs/cgroup -maxdepth 3 -name 'vm-*'; grep -c . /proc/self/mountinfo";
        let output = self.shell("default", script)?;
        Ok(String::from_utf8(output.stdout)?.lines().map(|line| line.trim().to_owned()).collect())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.command(&["testbed", "rm", "default"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

fn same<T: PartialEq + std::fmt::Debug>(got: T, expected: T) -> Outcome {
    check(got == expected, || format!("got {got:?}, expected {expected:?}"))
}

/// A testbed that is made on the way is told of first.
fn one_sentence(output: &Output, status: i32, words: &str) -> Outcome {
    let told = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<_> = told.lines().filter(|line| !line.starts_with("made the testbed")).collect();
    let right = output.status.code() == Some(status) && errors.len() == 1 && errors[0].contains(words);
    check(right, || format!("{output:?} is not {status} with `{words}`"))
}

fn snapshots() -> Outcome {
    let lab = Lab::new()?;
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (warm, cold) = (path("warm"), path("cold"));
    lab.serve("web", &["-p", "8080:7000"])?;
    lab.await_server("default/client", "198.51.100.1", 8080)?;
    same(lab.well(&["snapshot", "web", "--out", &warm])?, format!("{warm}\n"))?;
    // It goes on, and what is there is not written over.
    lab.await_server("default/client", "198.51.100.1", 8080)?;
    lab.refused(&["snapshot", "web", "--out", &warm], 2, "is there already")?;
    killed_snapshots(&lab, directory.path())?;

    same(lab.well(&["restore", &warm, "--clones", "3", "--name", "clone"])?.lines().count(), 3)?;
    let mut addresses = BTreeSet::new();
    for name in ["web", "clone-1", "clone-2", "clone-3"] {
        let seen = lab.inspect(name)?;
        let address = seen["NetworkSettings"]["IPAddress"].as_str().unwrap_or_default().to_owned();
        lab.await_server("default", &address, 7000)?;
        addresses.insert(address);
    }
    same(addresses.len(), 4)?;
    // A clone is a machine like others: it is saved, ended by that, and started anew.
    lab.well(&["restore", &warm, "--name", "other", "-p", "8081:7000"])?;
    lab.await_server("default/client", "198.51.100.1", 8081)?;
    lab.well(&["snapshot", "--stop", "clone-1", "--out", &cold])?;
    same(lab.well(&["wait", "clone-1"])?.as_str(), "137\n")?;
    lab.refused(&["snapshot", "clone-1", "--out", &path("none")], 2, "only one that runs can be saved")?;
    lab.well(&["start", "clone-1"])?;
    let again = lab.inspect("clone-1")?;
    lab.await_server("default", again["NetworkSettings"]["IPAddress"].as_str().unwrap_or_default(), 7000)?;
    lab.well(&["restore", &cold, "--name", "again"])?;

    // V20, as a user meets it: nothing is made of what is damaged.
    for name in ["manifest.json", "state", "memory"] {
        let file = directory.path().join("cold").join(name);
        let whole = std::fs::read(&file)?;
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        std::fs::write(&file, flipped)?;
        lab.refused(&["restore", &cold, "--name", "damaged"], 2, &format!("cold/{name}: "))?;
        std::fs::write(&file, &whole[..whole.len() / 2])?;
        lab.refused(&["restore", &cold, "--name", "damaged"], 2, &format!("cold/{name}: "))?;
        std::fs::remove_file(&file)?;
        lab.refused(&["restore", &cold, "--name", "damaged"], 2, &format!("cold/{name}: No such file"))?;
        // A pipe to which nobody writes.
        rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, 0o600.into(), 0)?;
        lab.refused(&["restore", &cold, "--name", "damaged"], 2, &format!("cold/{name}: it is no regular file"))?;
        std::fs::remove_file(&file)?;
        std::fs::write(&file, whole)?;
    }
    lab.refused(&["restore", &path("none")], 2, "none: No such file")?;
    lab.refused(&["restore", &path("cold/state")], 2, "cold/state/manifest.json: Not a directory")?;
    lab.refused(&["restore", &cold, "--clones", "2", "-p", "1:7000"], 2, "not to 2 clones")?;
    lab.refused(&["restore", &cold, "--name", "late", "-p", "8080:7000"], 2, "8080 is published already")?;
    lab.well(&["rm", "late"])?;
    lab.refused(&["restore", &cold, "--network", "none"], 2, "which needs a network")?;
    check(!lab.well(&["ps", "-a"])?.contains("damaged"), || "something was made of a damaged snapshot".into())?;
    same(std::fs::read_dir(directory.path())?.count(), 2)
}

/// A command that is killed leaves what it had begun: `isobench gc` removes it, and so does the next one.
fn killed_snapshots(lab: &Lab, directory: &Path) -> Outcome {
    let begun = || -> Result<bool, Failed> {
        let partial = |name: std::ffi::OsString| name.to_string_lossy().starts_with("isobench-partial-");
        Ok(std::fs::read_dir(directory)?.flatten().any(|entry| partial(entry.file_name())))
    };
    let monitor = lab.inspect("web")?["State"]["Pid"].clone();
    let signal = |name: &str| lab.shell("default", &format!("kill -{name} {monitor}"));
    let (killed, next) = (directory.join("killed").display().to_string(), directory.join("next"));
    for sweeper in ["gc", "next"] {
        // A machine that answers nobody is being saved for as long as wanted.
        signal("STOP")?;
        let words = ["vm", "snapshot", "web", "--out", &killed];
        let mut child = lab.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        until("what it begins", begun)?;
        child.kill()?;
        child.wait()?;
        signal("CONT")?;
        check(begun()?, || "nothing was left".into())?;
        until("its removal", || {
            if sweeper == "gc" {
                lab.command(&["gc"]).output()?;
            } else {
                lab.well(&["snapshot", "web", "--out", &next.display().to_string()])?;
                std::fs::remove_dir_all(&next)?;
            }
            Ok(!begun()?)
        })?;
    }
    check(!directory.join("killed").exists(), || "there is a snapshot of a killed command".into())
}

fn life() -> Outcome {
    let lab = Lab::new()?;
    // In the foreground it ends as the guest does, and what it writes is ours.
    let output = lab.run(&["run", "--rm", "--unikernel", "exit"])?;
    check(output.status.success() && output.stdout.starts_with(b"isobench: ready"), || format!("{output:?}"))?;
    same(lab.well(&["ps", "-aq"])?.as_str(), "")?;

    let id = lab.well(&["run", "-d", "--name", "one", "--unikernel", "idle"])?;
    same(id.trim().len(), 64)?;
    until("its log", || Ok(lab.well(&["logs", "one"])?.starts_with("isobench: ready")))?;
    same(lab.well(&["ps", "-q"])?.trim(), &id[..12])?;
    same(lab.well(&["stop", "-t", "20", "one"])?.as_str(), "one\n")?;
    check(lab.well(&["ps", "-a"])?.contains("Exited (143)"), || "it was not ended by SIGTERM".into())?;
    same(lab.well(&["start", "one"])?.as_str(), "one\n")?;
    same(lab.well(&["kill", "one"])?.as_str(), "one\n")?;
    same(lab.well(&["wait", "one"])?.as_str(), "137\n")?;
    lab.well(&["rename", "one", "two"])?;
    same(lab.well(&["rm", "two"])?.as_str(), "two\n")?;
    // Made, and started later.
    lab.well(&["create", "--name", "three", "--unikernel", "exit"])?;
    let output = lab.run(&["start", "-a", "three"])?;
    check(output.status.success() && output.stdout.starts_with(b"isobench: ready"), || format!("{output:?}"))
}

fn networks() -> Outcome {
    let lab = Lab::new()?;
    lab.serve("web", &["-p", "8080:7000"])?;
    same(lab.well(&["port", "web", "7000"])?.as_str(), "0.0.0.0:8080\n")?;
    // From outside, and from the host by the address itself.
    lab.await_server("default/client", "198.51.100.1", 8080)?;
    let one = lab.inspect("web")?;
    let address = one["NetworkSettings"]["IPAddress"].as_str().unwrap_or_default().to_owned();
    check(address.starts_with("172.17.0."), || one.to_string())?;
    lab.await_server("default", &address, 7000)?;
    lab.refused(&["run", "--rm", "-p", "8080:7000", "--unikernel", "serve"], 125, "8080")?;
    same(lab.well(&["ps", "-aq"])?.lines().count(), 1)?;

    // A network of one's own, with the address and the link-layer address that are asked for, and the name in its name server.
    let made = lab.command(&["network", "create", "--subnet", "10.5.0.0/24", "own"]).output()?;
    check(made.status.success(), || format!("{made:?}"))?;
    let options =
        ["--network", "own", "--ip", "10.5.0.9", "--mac-address", "02:00:00:00:00:09", "--network-alias", "www"];
    lab.serve("two", &options)?;
    let two = lab.inspect("two")?;
    same(&two["NetworkSettings"]["IPAddress"], &"10.5.0.9".into())?;
    same(&two["NetworkSettings"]["MacAddress"], &"02:00:00:00:00:09".into())?;
    lab.await_server("default", "10.5.0.9", 7000)?;
    for name in ["two", "www"] {
        let asked = lab.shell("default", &format!("{BUSYBOX} nslookup {name} 10.5.0.1"))?;
        check(String::from_utf8_lossy(&asked.stdout).contains("10.5.0.9"), || format!("{name}: {asked:?}"))?;
    }
    // A port is free again when its machine has gone.
    lab.well(&["rm", "-f", "web"])?;
    lab.serve("three", &["-p", "8080:7000"])
}

fn kinds() -> Outcome {
    let lab = Lab::new()?;
    lab.well(&["create", "--name", "machine", "--unikernel", "idle"])?;
    let container = |words: &[&str]| lab.command(&[&["container"], words].concat()).output();
    let made = container(&["create", "--name", "box", "--network", "none", "/", "true"])?;
    check(made.status.success(), || format!("{made:?}"))?;
    lab.refused(&["stop", "box"], 2, "`box` is a container: `isobench container` looks after it")?;
    let output = container(&["rm", "machine"])?;
    one_sentence(&output, 2, "`machine` is a virtual machine: `isobench vm` looks after it")?;
    let output = container(&["run", "--network", "container:machine", "/", "true"])?;
    one_sentence(&output, 125, "`machine` is a virtual machine")?;
    let listed = lab.well(&["ps", "-a"])?;
    check(listed.contains("machine") && !listed.contains("box"), || listed)?;
    let listed = String::from_utf8(container(&["ps", "-a"])?.stdout)?;
    check(listed.contains("box") && !listed.contains("machine"), || listed)?;
    // They share their names, which lead to them on the same networks.
    lab.refused(&["create", "--name", "box", "--unikernel", "idle"], 2, "isobench container rm box")?;
    one_sentence(&container(&["create", "--name", "machine", "/", "true"])?, 2, "isobench vm rm machine")
}

fn pausing() -> Outcome {
    let lab = Lab::new()?;
    lab.serve("web", &["-p", "8080:7000"])?;
    lab.await_server("default", "198.51.100.1", 8080)?;
    lab.well(&["pause", "web"])?;
    check(lab.well(&["ps"])?.contains("(Paused)"), || "it is not paused".into())?;
    lab.refused(&["pause", "web"], 2, "the virtual machine web is paused already")?;
    let pid = lab.inspect("web")?["State"]["Pid"].clone();
    let state = lab.shell("default", &format!("cut -d' ' -f3 /proc/{pid}/stat"))?;
    same(state.stdout.as_slice(), b"T\n")?;
    lab.well(&["unpause", "web"])?;
    lab.await_server("default", "198.51.100.1", 8080)?;
    let line: Value = serde_json::from_str(&lab.well(&["stats", "--no-stream", "--format", "json", "web"])?)?;
    check(line["MemUsage"].as_str().is_some_and(|text| text.ends_with("/ 16MiB")), || line.to_string())?;
    check(line["NetIO"].as_str().is_some_and(|text| !text.starts_with("0B")), || line.to_string())?;
    // A paused one is stopped too.
    lab.well(&["pause", "web"])?;
    lab.well(&["stop", "-t", "20", "web"]).map(drop)
}

fn refusals() -> Outcome {
    let lab = Lab::new()?;
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--network", "host", "--unikernel", "serve"], 125, "cannot share the host's network"),
        (&["--network", "container:a", "--unikernel", "serve"], 125, "cannot share a container's network"),
        (&["--network", "none", "--unikernel", "serve"], 125, "nobody could reach"),
        (&["--network", "nowhere", "--unikernel", "serve"], 125, "`nowhere`"),
        (&["-p", "1:1", "--unikernel", "idle"], 125, "-p: a virtual machine without a network has no address"),
        (&["--ip", "172.17.0.9", "--unikernel", "serve"], 125, "on networks of one's own only"),
        (&["-m", "2m", "--unikernel", "serve"], 125, "the unikernel takes 8 to"),
        (&["--cpus", "2", "--unikernel", "serve"], 125, "one processor"),
        (&["--name", "a/b", "--unikernel", "serve"], 125, "no virtual machine name"),
    ];
    for (words, status, sentence) in cases {
        lab.refused(&[&["run", "--rm"], *words].concat(), *status, sentence)?;
    }
    for words in [
        &["-m", "3m", "--unikernel", "idle"][..],
        &["--cpus", "33"],
        &["--unikernel", "dance"],
        &["--unikernel", "idle", "toolbox"],
        &[],
    ] {
        same(lab.run(&[&["run"], words].concat())?.status.code(), Some(125))?;
    }
    lab.serve("web", &[])?;
    lab.refused(&["exec", "web", "sh"], 125, "the unikernel is one program and has no exec")?;
    lab.refused(&["balloon", "web"], 2, "the unikernel has no balloon")?;
    lab.refused(&["exec", "nobody", "sh"], 125, "`nobody`")?;
    let output = lab.command(&["network", "disconnect", "bridge", "web"]).output()?;
    one_sentence(&output, 2, "the virtual machine web keeps the network that it began with")?;
    same(lab.well(&["ps", "-aq"])?.lines().count(), 1)
}

fn killed_supervisor() -> Outcome {
    let lab = Lab::new()?;
    lab.serve("web", &["-p", "8080:7000"])?;
    let pid = lab.inspect("web")?["State"]["Pid"].clone();
    let killed = lab.shell("default", &format!("kill -9 $(cut -d' ' -f4 /proc/{pid}/stat)"))?;
    check(killed.status.success(), || format!("{killed:?}"))?;
    until("its end", || Ok(!lab.shell("default", &format!("test -e /proc/{pid}"))?.status.success()))?;
    check(lab.well(&["ps", "-a"])?.contains("Exited (137)"), || "it is not told".into())?;
    // Address, port and name are free for the next one.
    lab.well(&["start", "web"])?;
    lab.await_server("default", "198.51.100.1", 8080)
}

/// What a testbed has once a machine was there and has gone, such as its bridge.
fn after_a_first(lab: &Lab) -> Result<BTreeSet<String>, Failed> {
    lab.serve("first", &[])?;
    lab.well(&["rm", "-f", "first"])?;
    let mut before = BTreeSet::new();
    until("the end of the first", || {
        before = lab.footprint()?;
        Ok(!before.iter().any(|line| line.contains("vmm") || line.contains("isobench-keeper")))
    })?;
    Ok(before)
}

/// Waits until a testbed has no more than it had before.
fn until_as_before(lab: &Lab, before: &BTreeSet<String>) -> Outcome {
    let mut left = BTreeSet::new();
    let nothing = until("the end of all", || {
        // What a killed command left half made goes when somebody next looks at all.
        lab.well(&["ps", "-aq"])?;
        left = lab.footprint()?.difference(before).cloned().collect();
        Ok(left.is_empty())
    });
    nothing.map_err(|_| Failed::from(format!("left: {left:?}")))
}

fn killed_at_each_step() -> Outcome {
    let lab = Lab::new()?;
    let before = after_a_first(&lab)?;
    for step in 0..24_u64 {
        let name = format!("step-{step}");
        let mut child = lab
            .command(&["vm", "run", "--name", &name, "-p", "8080:7000", "--unikernel", "serve"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(step * 3));
        if step % 2 == 0 {
            child.kill()?;
        } else {
            // Its supervisor, or whatever of it there is by now.
            let keeper = format!(
                "for each in /proc/[0-9]*; do case $({BUSYBOX} readlink $each/cwd) in */containers/{name}) \
                 kill -9 ${{each#/proc/}};; esac; done"
            );
            lab.shell("default", &keeper)?;
        }
        // What was begun goes on without its caller, or has not come to be.
        until("its removal", || {
            let output = lab.run(&["rm", "-f", &name])?;
            Ok(output.status.success() || String::from_utf8_lossy(&output.stderr).contains("no virtual machine"))
        })?;
        child.kill()?;
        child.wait()?;
        // A supervisor that was just being started may have come to it late.
        let _ = lab.run(&["rm", "-f", &name])?;
    }
    until_as_before(&lab, &before)
}

fn leaves_nothing() -> Outcome {
    let lab = Lab::new()?;
    lab.well(&["run", "--rm", "--unikernel", "exit"])?;
    let before = after_a_first(&lab)?;
    lab.serve("one", &["-p", "8080:7000"])?;
    lab.serve("two", &["--rm"])?;
    check(lab.footprint()? != before, || "nothing is seen of two machines".into())?;
    lab.well(&["rm", "-f", "one"])?;
    lab.well(&["stop", "two"])?;
    until_as_before(&lab, &before)
}

fn no_linux() -> Outcome {
    let lab = Lab::new()?;
    lab.refused(&["run", "--rm", "/", "true"], 125, "a Linux guest does not run")?;
    same(lab.well(&["ps", "-aq"])?.as_str(), "")
}
