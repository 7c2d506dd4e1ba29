//! A whole run with a Linux guest: where KVM runs Linux on this machine, or in `scripts/rig test`, whose machine is emulated, has
//! pure cgroup v2 and a distribution's own kernel.

mod support;

use isobench_microvm::judge::judge;
use isobench_microvm::linux::kernel;
use isobench_reports::reader;
use isobench_reports::record::{Outcome, Value};
use libtest_mimic::{Arguments, Failed, Trial};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use support::{check, until};

const SANDBOXES: [&str; 6] =
    ["process", "container-none", "container-bridge", "vm-unikernel", "vm-linux", "vm-linux-restored"];
const BLOCKS: usize = 2;
const BUSYBOX: &str = "/bin/busybox";

fn main() -> ExitCode {
    let obstacle = if !judge().runs_linux() {
        Some("KVM runs no Linux here: scripts/rig test")
    } else if kernel::find().is_none() {
        Some("needs scripts/guest-kernel fetch")
    } else {
        None
    };
    let busybox = (!Path::new(BUSYBOX).exists()).then_some("needs /bin/busybox: apt-get install busybox-static");
    let trial = |name: &str, test: fn() -> Result<(), Failed>, obstacle: Option<&str>| {
        Trial::test(name, test).with_ignored_flag(obstacle.is_some()).with_kind(obstacle.unwrap_or_default())
    };
    let trials = vec![
        trial("every_kind_of_sandbox_starts_in_one_run_and_is_reported", run, obstacle),
        trial("a_command_in_a_machine_behaves_as_in_a_container", command, obstacle.or(busybox)),
        trial("a_machine_has_a_terminal_and_takes_signals", terminal_and_signals, obstacle.or(busybox)),
        trial("further_programs_run_in_a_machine_as_in_a_container", further, obstacle.or(busybox)),
        trial("a_balloon_takes_memory_from_a_machine_and_gives_it_back", balloon, obstacle.or(busybox)),
        trial("clones_of_a_machine_are_somebody_else", clones, obstacle.or(busybox)),
        trial("clones_have_ipv6_addresses_of_their_own", clones_by_ipv6, obstacle.or(busybox)),
        trial("machines_and_containers_reach_each_other", networks, obstacle.or(busybox)),
        trial("a_machine_has_its_networks_ipv6_and_packet_size", beyond_ipv4, obstacle.or(busybox)),
        trial("a_guest_that_cannot_be_is_told_in_one_sentence", refusals, obstacle.or(busybox)),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn run() -> Result<(), Failed> {
    let place = tempfile::tempdir()?;
    let directory = place.path().join("run");
    let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
    command.args(["run", "--only", "startup", "--lang", "en", "--seed", "7", "--reps", &BLOCKS.to_string(), "--out"]);
    command.arg(&directory).env("ISOBENCH_HOME", place.path().join("isobench")).env("LC_ALL", "C");
    for name in SANDBOXES {
        command.args(["--sandbox", name, "--require", name]);
    }
    let output = command.output()?;
    check(output.status.success(), || format!("{output:?}"))?;

    let records = reader::read(&directory)?;
    for sample in &records.samples {
        check(matches!(sample.outcome, Outcome::Value(_)), || format!("a failed sample: {sample:?}"))?;
    }
    for name in SANDBOXES {
        let of_it = || records.samples.iter().filter(|sample| sample.sandbox == name && !sample.warm_up);
        for metric in ["start.stages", "start.ready", "start.gone"] {
            let samples: Vec<_> = of_it().filter(|sample| sample.metric == metric).collect();
            check(samples.len() == BLOCKS, || format!("not {BLOCKS} samples of {metric} in {name}: {samples:?}"))?;
            let never = |value: &Value| matches!(value, Value::Integer(0));
            let none = samples.iter().any(|sample| matches!(&sample.outcome, Outcome::Value(value) if never(value)));
            check(!none, || format!("no time at all: {samples:?}"))?;
        }
    }

    let page = std::fs::read_to_string(directory.join("report.html"))?;
    check(page.contains("</html>") && page.contains("vm-linux"), || "the report is not whole".into())?;
    // What is measured in the rig must never pass for a figure of a real machine.
    let machine = &records.run.machine;
    if std::env::var_os("ISOBENCH_RIG").is_some() {
        check(machine.emulated && machine.cgroups == "v2", || format!("{machine:?}"))?;
    }
    for label in ["This whole machine is emulated", "vm-linux (emulated machine)"] {
        check(machine.emulated == page.contains(label), || format!("the label `{label}` is wrong"))?;
    }
    Ok(())
}

/// A testbed of a test's own, which goes with it, and a root with busybox.
struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Result<Self, Failed> {
        let lab = Self(tempfile::tempdir()?);
        for directory in ["bin", "etc", "srv"] {
            fs::create_dir_all(lab.root().join(directory))?;
        }
        fs::copy(BUSYBOX, lab.root().join("bin/busybox"))?;
        for name in ["sh", "cat", "id", "hostname", "ip", "wget", "httpd", "stty", "wc", "sleep", "ls"] {
            std::os::unix::fs::symlink("busybox", lab.root().join("bin").join(name))?;
        }
        fs::hard_link(lab.root().join("bin/busybox"), lab.root().join("bin/twin"))?;
        fs::write(lab.root().join("bin/plain"), "no program")?;
        fs::write(lab.root().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/srv:/bin/sh\n")?;
        fs::write(lab.root().join("etc/group"), "root:x:0:\nlog:x:7:web\n")?;
        fs::write(lab.root().join("srv/index.html"), "served\n")?;
        Ok(lab)
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }

    fn isobench(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
        command.args(words).stdin(Stdio::null()).env("ISOBENCH_HOME", self.0.path().join("state").join("isobench"));
        let _ = fs::create_dir(self.0.path().join("state"));
        command.env_remove("ISOBENCH_TESTBED");
        command
    }

    /// A command that runs another in a new guest, or in a new container.
    fn inside(&self, kind: &str, options: &[&str], command: &[&str]) -> Command {
        let root = self.root().display().to_string();
        self.isobench(&[&[kind, "run", "--rm"], options, &[&root], command].concat())
    }

    fn guest(&self, options: &[&str], script: &str) -> Result<Output, Failed> {
        Ok(self.inside("vm", options, &["sh", "-c", script]).output()?)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.isobench(&["testbed", "rm", "default"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

fn is(output: &Output, status: i32, told: &str) -> Result<(), Failed> {
    let right = output.status.code() == Some(status) && output.stdout == told.as_bytes();
    check(right, || format!("{output:?} is not {status} with {told:?}"))
}

fn command() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let alone = ["--network", "none"];
    // What is asked is answered alike by either.
    let script = "id; hostname; pwd; stat -c '%a %u' . ..; echo $A; cat /etc/hostname; \
                  test /bin/twin -ef /bin/busybox && ls /srv; exit 7";
    let options = ["--network", "none", "--hostname", "inside", "-u", "web", "-w", "/srv/for/it", "-e", "A=1 2"];
    let [guest, container] = ["vm", "container"].map(|kind| lab.inside(kind, &options, &["sh", "-c", script]).output());
    let (guest, container) = (guest?, container?);
    check(guest.status.code() == Some(7) && guest.stdout.ends_with(b"index.html\n"), || format!("{guest:?}"))?;
    check(guest.stdout == container.stdout && guest.status.code() == container.status.code(), || {
        format!("{guest:?} is not {container:?}")
    })?;
    // The two outputs stay apart.
    let output = lab.guest(&alone, "echo out; echo err >&2")?;
    is(&output, 0, "out\n")?;
    check(output.stderr.ends_with(b"err\n"), || format!("{output:?}"))?;
    // Two processors end together; the distribution's kernel runs them.
    if kernel::cache().is_some_and(|cache| cache.join("cloud/vmlinuz").exists()) {
        let options = ["--network", "none", "--kernel", "cloud", "--cpus", "2"];
        is(&lab.guest(&options, "busybox nproc")?, 0, "2\n")?;
    }
    for (words, status, sentence) in
        [(&["nothing"][..], 127, "there is no command `nothing`"), (&["/bin/plain"], 126, "`/bin/plain` in the root")]
    {
        let output = lab.inside("vm", &alone, words).output()?;
        is(&output, status, "")?;
        check(String::from_utf8_lossy(&output.stderr).contains(sentence), || format!("{output:?}"))?;
    }
    // More than any buffer on the way holds, both ways at once.
    let sent: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
    let mut child = lab
        .inside("vm", &["-i", "--network", "none"], &["cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().ok_or("no pipe")?;
    let bytes = sent.clone();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| "the writer panicked")??;
    check(output.status.success() && output.stdout == sent, || {
        format!("{} bytes came back of {}: {:?}", output.stdout.len(), sent.len(), output.stderr)
    })
}

fn terminal_and_signals() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let output = lab.guest(&["-t", "--network", "none"], "test -t 0 && test -t 2 && stty size")?;
    is(&output, 0, "24 80\r\n")?;
    let root = lab.root().display().to_string();
    let script = "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 1; done";
    let started =
        lab.isobench(&["vm", "run", "-d", "--name", "one", "--network", "none", &root, "sh", "-c", script]).output()?;
    check(started.status.success(), || format!("{started:?}"))?;
    until("the guest", || Ok(lab.isobench(&["vm", "logs", "one"]).output()?.stdout == b"ready\n"))?;
    let stopped = lab.isobench(&["vm", "stop", "-t", "60", "one"]).output()?;
    check(stopped.status.success(), || format!("{stopped:?}"))?;
    is(&lab.isobench(&["vm", "wait", "one"]).output()?, 0, "3\n")?;
    is(&lab.isobench(&["vm", "logs", "one"]).output()?, 0, "ready\ntold\n")
}

/// What is asked by `exec` is answered alike by either; several run at once, beside the first program, and hold up none.
fn further() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let root = lab.root().display().to_string();
    let script = "trap 'exit 3' TERM; echo ready; while :; do sleep 1; done";
    let alone = ["--network", "none", "-e", "A=1", "-u", "web", "-w", "/srv"];
    for (kind, name) in [("vm", "guest"), ("container", "box")] {
        let words = [&[kind, "run", "-d", "--name", name], &alone[..], &[&root, "sh", "-c", script]].concat();
        let started = lab.isobench(&words).output()?;
        check(started.status.success(), || format!("{started:?}"))?;
    }
    let exec = |kind: &str, options: &[&str], command: &[&str]| {
        let name = if kind == "vm" { "guest" } else { "box" };
        lab.isobench(&[&[kind, "exec"], options, &[name], command].concat())
    };
    // The first may come before the guest is there: it waits for it.
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &["sh", "-c", "id; pwd; echo $A $B; echo err >&2; exit 7"]),
        (&["-u", "root", "-w", "/", "-e", "B=2"], &["sh", "-c", "id; pwd; echo $A $B"]),
        (&["-t"], &["sh", "-c", "test -t 0 && test -t 2 && stty size"]),
        (&[], &["sh", "-c", "kill -KILL $$"]),
        (&[], &["nothing"]),
        (&[], &["/bin/plain"]),
    ];
    for (options, command) in cases {
        let (guest, container) =
            (exec("vm", options, command).output()?, exec("container", options, command).output()?);
        let alike = guest.stdout == container.stdout && guest.status.code() == container.status.code();
        check(alike, || format!("{command:?}: {guest:?} is not {container:?}"))?;
    }
    let output = exec("vm", &[], &["sh", "-c", "echo err >&2; exit 7"]).output()?;
    check(output.status.code() == Some(7) && output.stderr.ends_with(b"err\n"), || format!("{output:?}"))?;
    // One whose output nobody reads holds up neither another nor the first.
    let mut flood = exec("vm", &[], &["cat", "/dev/zero"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let sent: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
    let mut child =
        exec("vm", &["-i"], &["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().ok_or("no pipe")?;
    let bytes = sent.clone();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| "the writer panicked")??;
    check(output.status.success() && output.stdout == sent, || {
        format!("{} bytes came back of {}: {:?}", output.stdout.len(), sent.len(), output.stderr)
    })?;
    // A signal is handed on, and what is detached goes on by itself.
    let signal = i32::try_from(flood.id())?;
    let pid = rustix::process::Pid::from_raw(signal).ok_or("no process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let mut rest = flood.stdout.take().ok_or("no pipe")?;
    std::io::copy(&mut rest, &mut std::io::sink())?;
    is(&flood.wait_with_output()?, 143, "")?;
    let detached = exec("vm", &["-d", "-u", "root"], &["sh", "-c", "echo done >/detached"]).output()?;
    is(&detached, 0, "")?;
    until("the detached program", || Ok(exec("vm", &[], &["cat", "/detached"]).output()?.stdout == b"done\n"))?;
    // With the first one all others end.
    let child = exec("vm", &[], &["sleep", "1000"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    until("the sleeper", || {
        let listed = exec("vm", &["-u", "root"], &["sh", "-c", "cat /proc/[0-9]*/cmdline"]).output()?;
        Ok(String::from_utf8_lossy(&listed.stdout).contains("sleep\u{0}1000"))
    })?;
    let stopped = lab.isobench(&["vm", "stop", "-t", "60", "guest"]).output()?;
    check(stopped.status.success(), || format!("{stopped:?}"))?;
    is(&lab.isobench(&["vm", "wait", "guest"]).output()?, 0, "3\n")?;
    is(&child.wait_with_output()?, 137, "")?;
    let late = exec("vm", &[], &["true"]).output()?;
    check(late.status.code() == Some(125), || format!("{late:?}"))?;
    is(&lab.isobench(&["vm", "logs", "guest"]).output()?, 0, "ready\n")
}

fn balloon() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let root = lab.root().display().to_string();
    let words = ["vm", "run", "-d", "--name", "guest", "--network", "none", "-m", "192m", &root, "sleep", "1000"];
    let started = lab.isobench(&words).output()?;
    check(started.status.success(), || format!("{started:?}"))?;
    let ask = |options: &[&str]| -> Result<serde_json::Value, Failed> {
        let output = lab.isobench(&[&["vm", "balloon", "--format", "json"], options, &["guest"]].concat()).output()?;
        check(output.status.success(), || format!("{output:?}"))?;
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let target: u64 = 48 << 20;
    until("what the guest tells of its memory", || Ok(ask(&[])?["statistics"]["free"].as_u64().is_some()))?;
    let before = ask(&[])?;
    check(before["target"] == 0 && before["actual"] == 0, || before.to_string())?;
    check(ask(&["--target", "48m"])?["target"] == target, || "it is not set".into())?;
    until("the memory", || Ok(ask(&[])?["actual"] == target))?;
    // What it has given up is nobody's in there; a few pages more or less are the kernel's own.
    let mut after = serde_json::Value::Null;
    until("what the guest tells then", || {
        after = ask(&[])?;
        let free = |state: &serde_json::Value| state["statistics"]["free"].as_u64().unwrap_or(u64::MAX / 2);
        Ok(free(&after) + target < free(&before) + (8 << 20))
    })
    .map_err(|error| format!("{error:?}: {before} {after}"))?;
    let table = lab.isobench(&["vm", "balloon", "guest"]).output()?;
    check(String::from_utf8_lossy(&table.stdout).contains("48.0 MiB"), || format!("{table:?}"))?;
    ask(&["--target", "0"])?;
    until("the end of the balloon", || Ok(ask(&[])?["actual"] == 0))?;
    let output = lab.isobench(&["vm", "balloon", "--target", "1g", "guest"]).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    check(output.status.code() == Some(2) && told.contains("cannot leave 1024 MiB unused"), || format!("{output:?}"))
}

/// Two clones of a guest that serves: each has what ran in it, but its own address, name and random numbers.
fn clones() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let well = |words: &[&str]| -> Result<String, Failed> {
        let output = lab.isobench(words).output()?;
        check(output.status.success(), || format!("{words:?}: {output:?}"))?;
        Ok(String::from_utf8(output.stdout)?)
    };
    let exec = |name: &str, script: &str| well(&["vm", "exec", name, "sh", "-c", script]);
    let (root, saved) = (lab.root().display().to_string(), lab.0.path().join("saved").display().to_string());
    let script = "trap 'echo told; exit 3' TERM; httpd -h /srv; echo ready; while :; do sleep 1; done";
    well(&["vm", "run", "-d", "--name", "first", &root, "sh", "-c", script])?;
    until("the guest", || Ok(well(&["vm", "logs", "first"])? == "ready\n"))?;
    exec("first", "echo kept >/srv/kept")?;
    well(&["vm", "exec", "-d", "first", "sleep", "1000"])?;
    // A process may end between its name and its content.
    let runs_sleep =
        |name: &str| Ok(exec(name, "cat /proc/[0-9]*/cmdline 2>/dev/null; true")?.contains("sleep\u{0}1000"));
    until("the sleeper", || runs_sleep("first"))?;
    well(&["vm", "snapshot", "first", "--out", &saved])?;
    well(&["vm", "restore", &saved, "--clones", "2", "--name", "clone"])?;
    let mut seen = std::collections::BTreeSet::new();
    for name in ["first", "clone-1", "clone-2"] {
        let inspected: serde_json::Value = serde_json::from_str(&well(&["vm", "inspect", name])?)?;
        let inspected = &inspected[0];
        let address = inspected["NetworkSettings"]["IPAddress"].as_str().unwrap_or_default().to_owned();
        let url = format!("http://{address}/kept");
        let enter = ["testbed", "enter", "default", BUSYBOX, "wget", "-qO-", &url];
        let mut last = None;
        until(name, || Ok(last.insert(lab.isobench(&enter).output()?).stdout == b"kept\n"))
            .map_err(|error| format!("{error:?}: {last:?}"))?;
        let host = exec(name, "hostname")?;
        check(inspected["Id"].as_str().is_some_and(|id| id.starts_with(host.trim())), || format!("{name}: {host}"))?;
        let hosts = exec(name, "cat /etc/hosts /etc/hostname")?;
        check(hosts.contains(&format!("{address}\t{host}")) && hosts.ends_with(&host), || hosts.clone())?;
        let random = exec(name, "cat /proc/sys/kernel/random/uuid")?;
        check(seen.insert(address) & seen.insert(host) & seen.insert(random), || format!("not its own: {seen:?}"))?;
        // Within the time that a line takes to come and go in here.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let told: u64 = exec(name, "busybox date +%s")?.trim().parse()?;
        check(now.abs_diff(told) < 60, || format!("{name}: {told} instead of {now}"))?;
    }
    // What was begun beside the first program is not the clones'.
    until("the end of the sleeper", || Ok(!runs_sleep("clone-1")? && !runs_sleep("clone-2")?))?;
    check(runs_sleep("first")?, || "the sleeper of the first has ended".into())?;
    // A clone is a machine like others.
    well(&["vm", "pause", "clone-1"])?;
    well(&["vm", "unpause", "clone-1"])?;
    check(exec("clone-1", "echo on")? == "on\n", || "it does not go on".into())?;
    well(&["vm", "balloon", "--target", "16m", "clone-1"])?;
    until("the memory", || {
        let state: serde_json::Value = serde_json::from_str(&well(&["vm", "balloon", "--format", "json", "clone-1"])?)?;
        Ok(state["actual"] == 16 << 20)
    })?;
    for name in ["clone-1", "clone-2", "first"] {
        well(&["vm", "stop", "-t", "60", name])?;
        check(well(&["vm", "wait", name])? == "3\n", || format!("{name} ended otherwise"))?;
        let said = if name == "first" { "ready\ntold\n" } else { "told\n" };
        check(well(&["vm", "logs", name])? == said, || format!("{name} says something else"))?;
    }
    Ok(())
}

/// Clones on a network with IPv6: each has addresses of its own by which it reaches the other and the one that was saved.
fn clones_by_ipv6() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let well = |words: &[&str]| -> Result<String, Failed> {
        let output = lab.isobench(words).output()?;
        check(output.status.success(), || format!("{words:?}: {output:?}"))?;
        Ok(String::from_utf8(output.stdout)?)
    };
    let (root, saved) = (lab.root().display().to_string(), lab.0.path().join("saved").display().to_string());
    well(&["network", "create", "--subnet", "10.7.0.0/24", "--ipv6", "six"])?;
    let script = "httpd -h /srv; echo ready; while :; do sleep 1; done";
    well(&["vm", "run", "-d", "--name", "first", "--network", "six", &root, "sh", "-c", script])?;
    until("the guest", || Ok(well(&["vm", "logs", "first"])? == "ready\n"))?;
    let addresses = |name: &str, scope: &str| -> Result<Vec<String>, Failed> {
        let listed = well(&["vm", "exec", name, "ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", scope])?;
        Ok(listed.split_whitespace().filter_map(|word| word.strip_suffix("/64")).map(str::to_owned).collect())
    };
    let names = ["first", "clone-1", "clone-2"];
    // Of either kind one, unlike those of the guest that was saved: a clone may be asked before it is another.
    let mut before = Vec::new();
    for scope in ["global", "link"] {
        before.extend(addresses("first", scope)?);
    }
    check(before.len() == 2, || format!("the first has {before:?}"))?;
    well(&["vm", "snapshot", "first", "--out", &saved])?;
    well(&["vm", "restore", &saved, "--clones", "2", "--name", "clone", "--network", "six"])?;
    for (kind, scope) in ["global", "link"].into_iter().enumerate() {
        let mut seen = std::collections::BTreeSet::from([before[kind].clone()]);
        for name in &names[1..] {
            let mut found = Vec::new();
            until(name, || {
                found = addresses(name, scope)?;
                Ok(found.len() == 1 && found[0] != before[kind])
            })
            .map_err(|error| format!("{error:?}: {found:?}"))?;
            seen.extend(found);
        }
        check(seen.len() == names.len(), || format!("not each its own: {seen:?}"))?;
        if scope == "global" {
            for from in names {
                for to in &seen {
                    let asked = ["vm", "exec", from, "wget", "-qO-", &format!("http://[{to}]/")];
                    let mut last = None;
                    until(from, || Ok(last.insert(lab.isobench(&asked).output()?).stdout == b"served\n"))
                        .map_err(|error| format!("{error:?}: {to}: {last:?}"))?;
                }
            }
        }
    }
    Ok(())
}

fn networks() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let made = lab.isobench(&["network", "create", "--subnet", "10.5.0.0/24", "own"]).output()?;
    check(made.status.success(), || format!("{made:?}"))?;
    let root = lab.root().display().to_string();
    let options = ["--name", "web", "--network", "own", "--ip", "10.5.0.9", "-p", "8080:80"];
    let serve = ["httpd", "-f", "-h", "/srv"];
    let started = lab.isobench(&[&["vm", "run", "-d"], &options[..], &[&root], &serve].concat()).output()?;
    check(started.status.success(), || format!("{started:?}"))?;
    // From outside by the published port, from a container and from another guest by its name.
    let outside = ["testbed", "enter", "default/client", BUSYBOX, "wget", "-qO-", "http://198.51.100.1:8080/"];
    until("the server", || Ok(lab.isobench(&outside).output()?.stdout == b"served\n"))?;
    for kind in ["container", "vm"] {
        let asked = lab.inside(kind, &["--network", "own"], &["wget", "-qO-", "http://web/"]).output()?;
        is(&asked, 0, "served\n").map_err(|error| format!("{kind}: {error:?}"))?;
    }
    let resolver = lab.guest(&["--network", "own", "--dns", "192.0.2.1"], "cat /etc/resolv.conf")?;
    check(resolver.stdout.starts_with(b"nameserver 192.0.2.1\n"), || format!("{resolver:?}"))
}

fn beyond_ipv4() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let create = ["network", "create", "--subnet", "10.6.0.0/24", "--ipv6", "--mtu", "1400", "six"];
    let made = lab.isobench(&create).output()?;
    check(made.status.success(), || format!("{made:?}"))?;
    let root = lab.root().display().to_string();
    let options = ["--name", "web", "--network", "six", "--ip", "10.6.0.7", "--network-alias", "www"];
    let serve = ["httpd", "-f", "-h", "/srv"];
    let started = lab.isobench(&[&["container", "run", "-d"], &options[..], &[&root], &serve].concat()).output()?;
    check(started.status.success(), || format!("{started:?}"))?;
    let global = ["ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "global"];
    let listed = lab.isobench(&[&["container", "exec", "web"], &global[..]].concat()).output()?;
    let listed = String::from_utf8(listed.stdout)?;
    let address = listed.split_whitespace().find_map(|word| word.strip_suffix("/64")).ok_or("no IPv6 address")?;
    // A guest has what a container has, and reaches one by either.
    let script = format!(
        "cat /sys/class/net/eth0/mtu; {} | busybox grep -c inet6; ip -6 route show default | busybox grep -c via; \
         wget -qO- http://[{address}]/; wget -qO- http://www/",
        global.join(" ")
    );
    for kind in ["container", "vm"] {
        let asked = lab.inside(kind, &["--network", "six"], &["sh", "-c", &script]).output()?;
        is(&asked, 0, "1400\n1\n1\nserved\nserved\n").map_err(|error| format!("{kind}: {error:?}"))?;
    }
    Ok(())
}

fn refusals() -> Result<(), Failed> {
    let lab = Lab::new()?;
    for (options, sentence) in [
        (&["-m", "32m"][..], "for which 32 MiB of memory are too little"),
        (&["--kernel", "nowhere"], "there is no guest kernel `nowhere`"),
        (&["--kernel", "/etc/passwd"], "is no x86-64 Linux kernel"),
        (&["--network", "host"], "cannot share the host's network"),
        (&["-u", "nobody"], "has no user `nobody`"),
    ] {
        let output = lab.guest(options, ":")?;
        let told = String::from_utf8_lossy(&output.stderr);
        let right = output.status.code() == Some(125) && told.contains(sentence);
        check(right, || format!("{options:?}: {output:?} does not tell `{sentence}`"))?;
    }
    Ok(())
}
