//! `isobench container` as its users run it: the real binary, in a testbed of the test's own, with what it leaves behind.
//!
//! It needs a static busybox for the containers' root; where there is none the tests are ignored, with the reason in their name.

mod support;

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};
use support::{PATIENCE, check, until};

type Outcome = Result<(), Failed>;

const BUSYBOX: &str = "/bin/busybox";

fn main() -> ExitCode {
    let missing = (!Path::new(BUSYBOX).exists()).then_some("needs /bin/busybox: apt-get install busybox-static");
    let root = rustix::process::geteuid().is_root();
    let trial = |name: &str, test: fn() -> Outcome| {
        let name = missing.map_or_else(|| name.to_owned(), |why| format!("{name} ({why})"));
        Trial::test(name, test).with_ignored_flag(missing.is_some())
    };
    let mut trials = vec![
        trial("exit_codes_are_the_commands_own", exit_codes),
        trial("output_and_errors_stay_apart_and_input_arrives", streams),
        trial("a_container_outlives_its_caller_with_log_and_state", life),
        trial("it_is_as_it_was_asked_for", options),
        trial("the_root_stays_as_it_is", layers),
        trial("further_commands_run_inside", further),
        trial("it_can_be_paused", pausing),
        trial("it_is_stopped_killed_and_waited_for", ending),
        trial("a_terminal_works_and_can_be_left", terminal),
        trial("signals_are_handed_on", signals),
        trial("networks_are_as_they_were_asked_for", networks),
        trial("networks_are_joined_and_left_while_it_runs", connecting),
        trial("networks_are_as_they_were_left_at_the_next_start", connecting_again),
        trial("published_ports_lead_inside", ports),
        trial("it_joins_another_containers_network", joining),
        trial("a_damaged_one_is_in_nobodys_way", damaged),
        trial("bad_input_is_one_sentence_and_leaves_nothing", bad_input),
        trial("a_killed_supervisor_takes_its_container_along", killed_supervisor),
        trial("a_kill_at_any_step_leaves_nothing_that_runs", killed_at_each_step),
        trial("twenty_launches_at_once_share_nothing", twenty),
        trial("a_testbed_goes_though_a_command_stays", staying),
        trial("what_is_used_is_shown", statistics),
        trial("names_complete_in_the_shell", completion),
        trial("nothing_is_left_behind", leaves_nothing),
    ];
    let name = "an_ordinary_user_can_do_it_too".to_owned() + if root { "" } else { " (needs root to become one)" };
    trials.push(Trial::test(name, ordinary_user).with_ignored_flag(missing.is_some() || !root));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A testbed of this test's own, which goes with it, and a root for containers.
struct Lab {
    place: tempfile::TempDir,
    user: Option<u32>,
}

impl Lab {
    fn new() -> Result<Self, Failed> {
        Self::with(None)
    }

    fn with(user: Option<u32>) -> Result<Self, Failed> {
        let place = tempfile::tempdir()?;
        let lab = Self { place, user };
        let root = lab.path("root");
        for directory in ["root/bin", "root/etc", "root/tmp", "root/srv", "state"] {
            fs::create_dir_all(lab.path(directory))?;
        }
        fs::copy(BUSYBOX, root.join("bin/busybox"))?;
        fs::copy(BUSYBOX, lab.path("root/bin/plain"))?;
        fs::set_permissions(lab.path("root/bin/plain"), fs::Permissions::from_mode(0o644))?;
        for name in ["sh", "cat", "dd", "sleep", "id", "ip", "wget", "httpd", "nc"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name))?;
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/srv:/bin/sh\n")?;
        fs::write(root.join("etc/group"), "root:x:0:\nweb:x:1000:\nlog:x:7:web\n")?;
        fs::write(root.join("srv/index.html"), "served\n")?;
        if let Some(user) = user {
            for entry in ["", "root", "state", "root/bin", "root/etc", "root/tmp", "root/srv"] {
                std::os::unix::fs::chown(lab.path(entry), Some(user), Some(user))?;
            }
        }
        Ok(lab)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn root(&self) -> String {
        self.path("root").display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
        command.args(arguments).current_dir(self.place.path()).stdin(Stdio::null());
        command
            .env("ISOBENCH_HOME", self.path("state").join("isobench"))
            .env_remove("ISOBENCH_LOG")
            .env_remove("ISOBENCH_TESTBED");
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    fn container(&self, arguments: &[&str]) -> Command {
        self.command(&[&["container"], arguments].concat())
    }

    fn run(&self, arguments: &[&str]) -> Result<Output, Failed> {
        Ok(self.container(arguments).output()?)
    }

    /// Runs and expects success; gives the standard output.
    fn well(&self, arguments: &[&str]) -> Result<String, Failed> {
        let output = self.run(arguments)?;
        check(output.status.code() == Some(0), || format!("{arguments:?}: {output:?}"))?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a shell in a new container, which goes when it ends.
    fn shell(&self, options: &[&str], script: &str) -> Result<String, Failed> {
        self.well(&[&["run", "--rm"], options, &[&self.root(), "sh", "-c", script]].concat())
    }

    /// Begins a container that goes on until it is ended.
    fn begin(&self, name: &str, options: &[&str], script: &str) -> Outcome {
        self.well(&[&["run", "-d", "--name", name], options, &[&self.root(), "sh", "-c", script]].concat()).map(drop)
    }

    fn inspect(&self, name: &str) -> Result<Value, Failed> {
        let all: Value = serde_json::from_str(&self.well(&["inspect", name])?)?;
        Ok(all[0].clone())
    }

    /// The exit status and what is said where something is refused.
    fn refused(&self, arguments: &[&str]) -> Result<(Option<i32>, String), Failed> {
        let output = self.run(arguments)?;
        Ok((output.status.code(), String::from_utf8(output.stderr)?))
    }

    /// Runs a command on the testbed's host.
    fn on_host(&self, words: &[&str]) -> Result<String, Failed> {
        let output = self.command(&[&["testbed", "enter", "default"], words].concat()).output()?;
        check(output.status.success(), || format!("{words:?}: {output:?}"))?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// All of the host that a container could leave behind.
    fn footprint(&self) -> Result<BTreeSet<String>, Failed> {
        let script = "cat /proc/net/dev | sed 's/:.*//' | sort; ls -d /proc/[0-9]*/exe | while read e; do \
                      p=${e#/proc/}; p=${p%/exe}; tr '\\0' ' ' </proc/$p/cmdline 2>/dev/null | grep -v -e 'cat' -e 'ls' -e 'sh ' ; \
                      done; ls -a /run/isobench/containers; find /sys/fs/cgroup -maxdepth 3 -name 'container-*'; \
                      grep -c . /proc/self/mountinfo";
        let text = self.on_host(&["/bin/sh", "-c", script])?;
        Ok(text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.contains("__inside")).collect())
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

fn exit_codes() -> Outcome {
    let lab = Lab::new()?;
    let root = lab.root();
    let code = |command: &[&str]| -> Result<Option<i32>, Failed> {
        Ok(lab.run(&[&["run", "--rm", "--network", "none", &root], command].concat())?.status.code())
    };
    same(code(&["sh", "-c", "exit 7"])?, Some(7))?;
    same(code(&["sh", "-c", "kill -9 $$; sleep 1; kill -TERM 1"])?.is_some(), true)?;
    same(code(&["no-such-command"])?, Some(127))?;
    same(code(&["/bin/plain"])?, Some(126))?;
    same(code(&["/etc"])?, Some(126))?;
    same(lab.run(&["run", "--rm", "/no/such/root", "true"])?.status.code(), Some(125))?;
    same(lab.run(&["run", "-m", "nonsense", &root, "true"])?.status.code(), Some(125))?;
    same(lab.well(&["ps", "-aq"])?.as_str(), "")
}

fn streams() -> Outcome {
    let lab = Lab::new()?;
    let root = lab.root();
    let output = lab.run(&["run", "--rm", "--network", "none", &root, "sh", "-c", "echo out; echo err >&2"])?;
    same((output.stdout.as_slice(), output.stderr.ends_with(b"err\n")), (&b"out\n"[..], true))?;
    // More than any buffer on the way holds, both ways at once.
    let sent: Vec<u8> = (0..2_000_000_u32).map(|number| (number % 251) as u8).collect();
    let mut child = lab
        .container(&["run", "--rm", "-i", "--network", "none", &root, "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().ok_or("no pipe")?;
    let writer = std::thread::spawn({
        let sent = sent.clone();
        move || input.write_all(&sent)
    });
    let mut received = Vec::new();
    child.stdout.take().ok_or("no pipe")?.read_to_end(&mut received)?;
    writer.join().map_err(|_| "the writer panicked")??;
    check(received == sent, || format!("{} bytes came back of {}", received.len(), sent.len()))?;
    same(child.wait()?.code(), Some(0))
}

fn life() -> Outcome {
    let lab = Lab::new()?;
    // The caller has ended when this returns: nothing holds its pipes.
    let root = lab.root();
    let id = lab.well(&[
        "run",
        "-d",
        "--name",
        "one",
        "--network",
        "none",
        &root,
        "sh",
        "-c",
        "echo first; echo bad >&2; read x; exit 3",
    ])?;
    same(id.trim().len(), 64)?;
    // Nor what its caller had open beside the standard streams.
    let (reader, writer) = rustix::pipe::pipe()?;
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&writer);
    lab.begin("held", &["--network", "none"], "sleep 1000")?;
    drop(writer);
    let timeout = Timespec { tv_sec: 5, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&timeout))?;
    check(ended == 1, || format!("the supervisor still holds descriptor {descriptor} of its caller"))?;
    lab.well(&["rm", "-f", "held"])?;
    until("the end", || Ok(lab.inspect("one")?["State"]["Status"] == "exited"))?;
    let output = lab.run(&["logs", "one"])?;
    same((output.stdout.as_slice(), output.stderr.as_slice()), (&b"first\n"[..], &b"bad\n"[..]))?;
    same(lab.well(&["logs", "--tail", "1", "one"])?.lines().count() <= 1, true)?;
    same(lab.well(&["logs", "--tail", "all", "--since", "2020-01-01", "one"])?.as_str(), "first\n")?;
    same(lab.well(&["logs", "--until", "1h", "one"])?.as_str(), "")?;
    check(lab.well(&["logs", "-t", "one"])?.starts_with("20"), || "no time".into())?;
    same(lab.inspect("one")?["State"]["ExitCode"].clone(), 3.into())?;
    let table = lab.well(&["ps", "-a"])?;
    for word in
        ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES", "Exited (3)", &id[..12], "one"]
    {
        check(table.contains(word), || format!("`ps -a` does not say {word}: {table}"))?;
    }
    check(!lab.well(&["ps"])?.contains("one"), || "`ps` shows one that has ended".into())?;
    lab.well(&["create", "--name", "only", "--network", "none", &root])?;
    for (words, names) in [
        (&["-f", "name=on"][..], ""),
        (&["-a", "-f", "name=on"], "only\none\n"),
        (&["-a", "-f", "name=^one$"], "one\n"),
        (&["-f", "status=exited"], "one\n"),
        (&["-f", "status=exited", "-f", "status=created"], "only\none\n"),
        (&["-a", "-f", "status=exited", "-f", "exited=0"], ""),
        (&["-a", "-f", "exited=3", "-f", "network=none"], "one\n"),
        (&["-l"], "only\n"),
        (&["-n", "2"], "only\none\n"),
    ] {
        let said = lab.well(&[&["ps", "--format", "{{.Names}}"], words].concat())?;
        check(said == names, || format!("{words:?}: {said}"))?;
    }
    let table = lab.well(&["ps", "-l", "--format", r"table {{.Names}}\t{{.State}}"])?;
    same(table.as_str(), "NAMES     STATE\nonly      created\n")?;
    lab.well(&["rm", "only"])?;
    // By the beginning of its id; and started again it goes on writing the same log.
    same(lab.run(&["start", "-a", &id[..6]])?.status.code(), Some(3))?;
    same(lab.well(&["logs", "one"])?.as_str(), "first\nfirst\n")?;
    same(lab.well(&["inspect", "-f", "{{.State.Status}} {{.Name}}", "one"])?.as_str(), "exited /one\n")?;
    // What is there is shown beside what is not.
    let output = lab.run(&["inspect", "-f", "{{.Name}}", "absent", "one"])?;
    same((output.status.code(), output.stdout.as_slice()), (Some(2), &b"/one\n"[..]))?;
    lab.well(&["rename", "one", "two"])?;
    same(lab.refused(&["logs", "one"])?.0, Some(2))?;
    same(lab.well(&["rm", "two"])?.as_str(), "two\n")?;
    same(lab.well(&["ps", "-aq"])?.as_str(), "")?;

    lab.well(&["create", "--name", "made", "--network", "none", &root, "sh", "-c", "echo made"])?;
    same(lab.inspect("made")?["State"]["Status"].clone(), "created".into())?;
    same(lab.well(&["start", "-a", "made"])?.as_str(), "made\n")?;
    lab.well(&["rm", "made"])?;

    // Followed until the end, each line when it is written.
    lab.begin("slow", &["--network", "none", "-i"], "echo begun; read x; echo $x")?;
    let mut follower = lab.container(&["logs", "-f", "slow"]).stdout(Stdio::piped()).spawn()?;
    let mut reader = std::io::BufReader::new(follower.stdout.take().ok_or("no pipe")?);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut reader, &mut line)?;
    same(line.as_str(), "begun\n")?;
    let mut writer = lab.container(&["start", "-ai", "slow"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    writer.stdin.take().ok_or("no pipe")?.write_all(b"typed\n")?;
    let mut rest = String::new();
    reader.read_to_string(&mut rest)?;
    same(rest.as_str(), "typed\n")?;
    same((follower.wait()?.code(), writer.wait()?.code()), (Some(0), Some(0)))
}

fn options() -> Outcome {
    let lab = Lab::new()?;
    fs::create_dir(lab.path("shared"))?;
    fs::write(lab.path("shared/file"), "shared")?;
    let plain = ["--network", "none"];
    let said = |options: &[&str], script: &str| lab.shell(&[&plain, options].concat(), script);
    same(
        said(&["--hostname", "named"], "hostname; echo $HOSTNAME; cat /etc/hostname")?.as_str(),
        "named\nnamed\nnamed\n",
    )?;
    same(said(&["-h", "brief"], "hostname")?.as_str(), "brief\n")?;
    same(said(&["-e", "A=1", "-e", "B=x y", "-w", "/srv"], "echo $A,$B,$HOME,$PWD")?.as_str(), "1,x y,/root,/srv\n")?;
    // One that is not there is made, also where nothing in its root may be written.
    let made = "pwd; stat -c '%a %u' . ..";
    for options in [&["-w", "/srv/for/it"][..], &["--read-only", "-w", "/srv/for/it"]] {
        same(said(options, made)?.as_str(), "/srv/for/it\n755 0\n755 0\n")?;
    }
    fs::write(lab.path("variables"), "# told\nA=1\nB=x y\n")?;
    let variables = ["--env-file", "variables", "-e", "A=2", "-e", "SURELY_NOT_SET_HERE"];
    same(said(&variables, "echo $A,$B,${SURELY_NOT_SET_HERE-none}")?.as_str(), "2,x y,none\n")?;
    same(said(&["-v", "./shared:/in/side"], "cat /in/side/file; echo new >/in/side/new")?.as_str(), "shared")?;
    same(fs::read_to_string(lab.path("shared/new"))?.as_str(), "new\n")?;
    let refused = said(&["-v", "./shared:/in:ro"], "(echo x >/in/file) 2>/dev/null || echo refused; cat /in/file")?;
    same(refused.as_str(), "refused\nshared")?;
    same(said(&["--read-only"], "(echo x >/file) 2>/dev/null || echo refused")?.as_str(), "refused\n")?;
    let capabilities = |options: &[&str]| said(options, "grep CapEff /proc/self/status | cut -f2");
    same(capabilities(&[])?.as_str(), "00000000a00425fb\n")?;
    same(capabilities(&["--cap-drop", "ALL"])?.as_str(), "0000000000000000\n")?;
    same(capabilities(&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"])?.as_str(), "0000000000001000\n")?;
    said(&["--cap-add", "SYS_ADMIN"], "mount -t tmpfs tmpfs /tmp")?;
    let parameters = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax";
    let set = ["--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=4321"];
    same(said(&set, parameters)?.as_str(), "1\n4321\n")?;
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    same(said(&["-u", "web"], "id -u; id -g; id -G; echo $HOME")?.as_str(), "1000\n1000\n1000 7\n/srv\n")?;
    same(said(&["-u", "5:6"], "id -u; id -g; grep Groups /proc/self/status")?.as_str(), "5\n6\nGroups:\t6 \n")?;
    // As Docker has it: who is not root may ping, and serve low ports (143: it served until it was ended).
    let groups = "cat /proc/sys/net/ipv4/ping_group_range; nc -l -p 80 & sleep 0.2; kill $!; wait $!; echo $?";
    same(said(&["-u", "web"], groups)?.as_str(), "0\t2147483647\n143\n")?;
    lab.begin("limited", &["--network", "none", "-m", "64m", "--cpus", "0.5", "--pids-limit", "32"], "sleep 1000")?;
    let groups = lab.on_host(&["/bin/sh", "-c", "cat $(find /sys/fs/cgroup -path '*container-*' -name memory.limit_in_bytes -o -path '*container-*' -name memory.max)"])?;
    check(groups.contains(&(64_u64 << 20).to_string()), || format!("the limit is not there: {groups}"))?;
    let many =
        lab.run(&["exec", "limited", "sh", "-c", "i=0; while [ $i -lt 50 ]; do sleep 100 & i=$((i+1)); done"])?;
    check(String::from_utf8_lossy(&many.stderr).contains("fork"), || format!("no limit on processes: {many:?}"))
}

fn layers() -> Outcome {
    let lab = Lab::new()?;
    let names = || -> Result<Vec<_>, Failed> {
        let mut names: Vec<_> = fs::read_dir(lab.path("root"))?.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        Ok(names)
    };
    let before = names()?;
    lab.begin("one", &["--network", "none"], "test -e /mine && echo again; echo x >/mine; rm -f /srv/index.html")?;
    lab.well(&["wait", "one"])?;
    // Its own changes are there when it is started again, and nobody else's.
    same(lab.well(&["start", "-a", "one"])?.as_str(), "again\n")?;
    same(
        lab.shell(&["--network", "none"], "test -e /mine || echo none; cat /srv/index.html")?.as_str(),
        "none\nserved\n",
    )?;
    same(names()?, before)?;
    // A directory of the host is not furnished, whatever its place.
    let devices = lab.path("devices");
    fs::create_dir(&devices)?;
    lab.shell(&["--network", "none", "-v", &format!("{}:/dev", devices.display())], ":")?;
    same(fs::read_dir(&devices)?.count(), 0)
}

fn further() -> Outcome {
    let lab = Lab::new()?;
    lab.begin("one", &["--network", "none", "-e", "A=1", "--hostname", "inside"], "echo ready; read x; sleep 1000")?;
    let said = |arguments: &[&str]| lab.well(&[&["exec"], arguments].concat());
    // The container's input is closed, so it sleeps; the further command has its own.
    same(said(&["one", "sh", "-c", "hostname; echo $A; cat /proc/1/comm"])?.lines().next(), Some("inside"))?;
    same(said(&["-e", "A=2", "-w", "/srv", "one", "sh", "-c", "echo $A $PWD"])?.as_str(), "2 /srv\n")?;
    let capabilities =
        said(&["one", "sh", "-c", "grep -e CapBnd -e NoNewPrivs -e Seccomp: /proc/self/status | tr -d '\\t\\n'"])?;
    same(capabilities.as_str(), "CapBnd:00000000a00425fbNoNewPrivs:1Seccomp:2")?;
    if rustix::process::geteuid().is_root() {
        // Who was added to the container is known there, and nowhere else.
        said(&["one", "sh", "-c", "echo late:x:1234:1234::/tmp:/bin/sh >>/etc/passwd"])?;
        same(said(&["-u", "late", "one", "sh", "-c", "id -u; echo $HOME"])?.as_str(), "1234\n/tmp\n")?;
        same(lab.run(&["exec", "-u", "later", "one", "id"])?.status.code(), Some(125))?;
        // What came while nobody read is given output first: what is said of a command's output follows it.
        let both = fs::File::create(lab.path("both"))?;
        let script = "touch /tmp/begun; sleep 1; echo first; echo second >&2";
        let mut told = lab.container(&["exec", "one", "sh", "-c", script]);
        let mut told = told.stdout(both.try_clone()?).stderr(both).spawn()?;
        until("the command", || Ok(lab.run(&["exec", "one", "cat", "/tmp/begun"])?.status.success()))?;
        let keeper = supervisor(&lab, "one")?;
        rustix::process::kill_process(keeper, rustix::process::Signal::STOP)?;
        std::thread::sleep(Duration::from_millis(1500));
        rustix::process::kill_process(keeper, rustix::process::Signal::CONT)?;
        check(told.wait()?.success(), || "it failed".into())?;
        same(fs::read_to_string(lab.path("both"))?.as_str(), "first\nsecond\n")?;
    }
    same(lab.run(&["exec", "one", "sh", "-c", "exit 9"])?.status.code(), Some(9))?;
    same(lab.run(&["exec", "one", "no-such-command"])?.status.code(), Some(127))?;
    same(lab.run(&["exec", "one", "/bin/plain"])?.status.code(), Some(126))?;
    let mut child =
        lab.container(&["exec", "-i", "one", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("no pipe")?.write_all(b"through\n")?;
    same(child.wait_with_output()?.stdout.as_slice(), b"through\n")?;
    // It is in the container's control groups.
    let groups = |who: &str| {
        lab.on_host(&[
            "/bin/sh",
            "-c",
            &format!(
                "for p in $(grep -l {who} /proc/[0-9]*/cmdline); do cat ${{p%cmdline}}cgroup; done 2>/dev/null; true"
            ),
        ])
    };
    said(&["-d", "one", "sleep", "4321"])?;
    until("the detached one", || Ok(lab.well(&["top", "one"])?.contains("sleep 4321")))?;
    check(groups("4321")?.contains("container-") || !rustix::process::geteuid().is_root(), || {
        "it has no control group".into()
    })?;
    // None of this is in the log.
    same(lab.well(&["logs", "one"])?.as_str(), "ready\n")?;
    lab.well(&["pause", "one"])?;
    let (status, said) = lab.refused(&["exec", "one", "true"])?;
    check(status == Some(125) && said.contains("is paused"), || said)?;
    lab.well(&["unpause", "one"])?;
    lab.well(&["stop", "-t", "0", "one"])?;
    let (status, said) = lab.refused(&["exec", "one", "true"])?;
    check(status == Some(125) && said.contains("is not running"), || said)
}

/// One that was given to the testbed and does not end with it.
fn staying() -> Outcome {
    let lab = Lab::new()?;
    lab.begin("one", &["--network", "none"], "echo begun; exec sleep 1000")?;
    let mut follower = lab.container(&["logs", "-f", "one"]).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(follower.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
    same(line.as_str(), "begun\n")?;
    let process = Pid::from_raw(i32::try_from(follower.id())?).ok_or("no process")?;
    kill_process(process, Signal::STOP)?;
    let removed = lab.command(&["testbed", "rm", "default"]).output()?;
    kill_process(process, Signal::CONT)?;
    let status = follower.wait()?;
    check(removed.status.success() && status.signal() == Some(9), || format!("{removed:?}, {status}"))
}

fn pausing() -> Outcome {
    let lab = Lab::new()?;
    lab.begin("one", &["--network", "none"], "while :; do echo x; sleep 0.02; done")?;
    let lines = || -> Result<usize, Failed> { Ok(lab.well(&["logs", "one"])?.lines().count()) };
    until("output", || Ok(lines()? > 2))?;
    same(lab.well(&["pause", "one"])?.as_str(), "one\n")?;
    check(lab.well(&["ps"])?.contains("(Paused)"), || "`ps` does not say it".into())?;
    let before = lines()?;
    std::thread::sleep(Duration::from_millis(200));
    same(lines()?, before)?;
    let (status, said) = lab.refused(&["pause", "one"])?;
    check(status == Some(2) && said.contains("paused already"), || said)?;
    lab.well(&["unpause", "one"])?;
    until("output", || Ok(lines()? > before))?;
    let (status, said) = lab.refused(&["unpause", "one"])?;
    check(status == Some(2) && said.contains("is not paused"), || said)?;
    // A paused one can be killed.
    lab.well(&["pause", "one"])?;
    lab.well(&["kill", "one"])?;
    same(lab.well(&["wait", "one"])?.as_str(), "137\n")
}

fn ending() -> Outcome {
    let lab = Lab::new()?;
    let none = ["--network", "none"];
    lab.begin("kind", &none, "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done")?;
    until("the trap", || Ok(lab.well(&["logs", "kind"])?.contains("ready")))?;
    let waiter = lab.container(&["wait", "kind"]).stdout(Stdio::piped()).spawn()?;
    lab.well(&["stop", "kind"])?;
    same(waiter.wait_with_output()?.stdout.as_slice(), b"5\n")?;
    same(lab.well(&["wait", "kind"])?.as_str(), "5\n")?;
    // Process 1 has no signal that it did not ask for.
    lab.begin("deaf", &none, "while :; do sleep 1; done")?;
    let begun = Instant::now();
    lab.well(&["stop", "-t", "1", "deaf"])?;
    check(begun.elapsed() >= Duration::from_secs(1), || "it was not given its time".into())?;
    same(lab.inspect("deaf")?["State"]["ExitCode"].clone(), 137.into())?;
    lab.begin("told", &none, "trap 'echo told; exit 6' USR1; echo ready; while :; do sleep 0.05; done")?;
    until("the trap", || Ok(lab.well(&["logs", "told"])?.contains("ready")))?;
    lab.well(&["kill", "-s", "USR1", "told"])?;
    same(lab.well(&["wait", "told"])?.as_str(), "6\n")?;
    let (status, said) = lab.refused(&["kill", "told"])?;
    check(status == Some(2) && said.contains("is not running"), || said)?;
    // Several have the time together that one has.
    lab.well(&["start", "deaf"])?;
    lab.begin("deafer", &none, "while :; do sleep 1; done")?;
    let begun = Instant::now();
    same(lab.well(&["stop", "-t", "3", "deaf", "deafer"])?.as_str(), "deaf\ndeafer\n")?;
    check(begun.elapsed() < Duration::from_secs(6), || "one waited for the other".into())?;
    same(lab.well(&["restart", "-t", "0", "deaf", "deafer", "deaf"])?.as_str(), "deaf\ndeafer\ndeaf\n")?;
    let pid = |name: &str| Ok::<_, Failed>(lab.inspect(name)?["State"]["Pid"].clone());
    let before = pid("deaf")?;
    check(before != 0, || "it does not run".into())?;
    // What runs is started already; it is another process after it was started again.
    same(lab.well(&["start", "deaf"])?.as_str(), "deaf\n")?;
    same(pid("deaf")?, before.clone())?;
    lab.well(&["restart", "-t", "0", "deaf"])?;
    check(pid("deaf")? != before, || "it was not started again".into())?;
    lab.begin("brief", &["--network", "none", "--rm"], "sleep 1000")?;
    let (status, said) = lab.refused(&["restart", "-t", "0", "brief"])?;
    check(status == Some(2) && said.contains("(--rm)"), || said)?;
    lab.well(&["rm", "-f", "deafer", "brief"])?;
    lab.begin("stays", &none, "sleep 1000")?;
    let (status, said) = lab.refused(&["rm", "stays"])?;
    check(status == Some(2) && said.contains("is running"), || said)?;
    // What does not run goes, and what runs stays.
    lab.well(&["create", "--name", "made", none[0], none[1], &lab.root()])?;
    let mut gone: Vec<_> = lab.well(&["prune", "-f"])?.lines().map(str::to_owned).collect();
    gone.sort();
    same(gone, ["kind", "made", "told"].map(str::to_owned).to_vec())?;
    lab.well(&["rm", "-f", "stays", "deaf"])?;
    same(lab.well(&["ps", "-aq"])?.as_str(), "")
}

/// A command with a terminal of the test's.
struct Session {
    child: Child,
    controlling: OwnedFd,
    seen: String,
}

impl Session {
    fn begin(mut command: Command) -> Result<Self, Failed> {
        let controlling = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::pty::grantpt(&controlling)?;
        rustix::pty::unlockpt(&controlling)?;
        rustix::termios::tcsetwinsize(&controlling, size(30, 90))?;
        let name = rustix::pty::ptsname(&controlling, Vec::new())?;
        let open = || rustix::fs::open(&*name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
        command.stdin(open()?).stdout(open()?).stderr(open()?);
        Ok(Self { child: command.spawn()?, controlling, seen: String::new() })
    }

    fn type_in(&self, text: &[u8]) -> Outcome {
        rustix::io::write(&self.controlling, text)?;
        Ok(())
    }

    /// Reads until this is shown.
    fn expect(&mut self, text: &str) -> Outcome {
        let begun = Instant::now();
        while !self.seen.contains(text) {
            check(begun.elapsed() < PATIENCE, || format!("`{text}` is not shown, but {:?}", self.seen))?;
            let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
            if poll(&mut [PollFd::new(&self.controlling, PollFlags::IN)], Some(&timeout))? > 0 {
                let mut buffer = [0_u8; 4096];
                let length = rustix::io::read(&self.controlling, &mut buffer).unwrap_or(0);
                self.seen += &String::from_utf8_lossy(&buffer[..length]);
            }
        }
        self.seen = self.seen.split_once(text).map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        Ok(())
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn terminal() -> Outcome {
    let lab = Lab::new()?;
    let root = lab.root();
    let arguments = ["run", "-it", "--name", "shell", "--network", "none", &root, "sh"];
    let mut session = Session::begin(lab.container(&arguments))?;
    session.type_in(b"tty; stty size; echo $TERM; echo a''b\r")?;
    session.expect("/dev/pts/0")?;
    session.expect("30 90")?;
    session.expect("xterm")?;
    session.expect("ab")?;
    // The program's interrupt key interrupts the program inside, not the caller.
    session.type_in(b"sleep 1000\r")?;
    std::thread::sleep(Duration::from_millis(200));
    session.type_in(b"\x03echo in''terrupted\r")?;
    session.expect("interrupted")?;
    rustix::termios::tcsetwinsize(&session.controlling, size(40, 120))?;
    // The terminal tells all of its foreground group; here is none.
    kill_process(Pid::from_child(&session.child), Signal::WINCH)?;
    until("the other size", || {
        session.type_in(b"stty size\r")?;
        Ok(session.expect("40 120").is_ok())
    })?;
    session.type_in(b"\x10\x11")?;
    same(session.child.wait()?.code(), Some(0))?;
    check(lab.well(&["ps"])?.contains("shell"), || "it does not go on".into())?;
    let mut again = Session::begin(lab.container(&["attach", "shell"]))?;
    again.type_in(b"echo ba''ck; exit 4\r")?;
    again.expect("back")?;
    same(again.child.wait()?.code(), Some(4))?;
    // A further process with a terminal of its own.
    lab.begin("plain", &["--network", "none"], "sleep 1000")?;
    let mut further = Session::begin(lab.container(&["exec", "-it", "plain", "sh", "-c", "tty; stty size; exit 8"]))?;
    further.expect("/dev/pts/")?;
    further.expect("30 90")?;
    same(further.child.wait()?.code(), Some(8))?;
    let (status, said) = lab.refused(&["run", "-it", &root, "sh"])?;
    check(status == Some(125) && said.contains("needs a terminal"), || said)
}

fn signals() -> Outcome {
    let lab = Lab::new()?;
    let root = lab.root();
    for signal in [Signal::TERM, Signal::INT] {
        let script = "trap 'echo caught; exit 11' TERM INT; echo ready; while :; do sleep 0.05; done";
        let mut child = lab
            .container(&["run", "--rm", "--network", "none", &root, "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut reader = std::io::BufReader::new(child.stdout.take().ok_or("no pipe")?);
        let mut line = String::new();
        std::io::BufRead::read_line(&mut reader, &mut line)?;
        same(line.as_str(), "ready\n")?;
        kill_process(Pid::from_raw(child.id() as i32).ok_or("no process")?, signal)?;
        let mut rest = String::new();
        reader.read_to_string(&mut rest)?;
        same((rest.as_str(), child.wait()?.code()), ("caught\n", Some(11)))?;
    }
    // Whoever attends one that does not listen is not held for ever.
    let script = "trap '' INT; echo ready; exec sleep 1000";
    let deaf = ["run", "--name", "deaf", "--network", "none", &root, "sh", "-c", script];
    let mut child = lab.container(&deaf).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
    until("its caller's end", || {
        kill_process(Pid::from_child(&child), Signal::INT)?;
        Ok(child.try_wait()?.is_some())
    })?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    check(output.status.code() == Some(125) && said.contains("three times"), || said)?;
    same(lab.well(&["ps", "--format", "{{.Names}}"])?.as_str(), "deaf\n")?;
    // What this program's starter ignores, as `nohup` and a shell's `&` have it, the container does not.
    let command =
        lab.container(&["run", "--rm", "--network", "none", &root, "sh", "-c", "grep SigIgn /proc/self/status"]);
    let mut ignoring = Command::new("sh");
    ignoring.args(["-c", "trap '' HUP INT TERM; exec \"$@\"", "sh"]).arg(command.get_program());
    ignoring.args(command.get_args());
    ignoring.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ignored = String::from_utf8(ignoring.output()?.stdout)?;
    let set = u64::from_str_radix(ignored.trim_start_matches("SigIgn:").trim(), 16)?;
    // One bit a signal, from the lowest (proc_pid_status(5)).
    let three = [Signal::HUP, Signal::INT, Signal::TERM].map(|signal| 1 << (signal.as_raw() - 1));
    check(three.iter().all(|bit| set & bit == 0), || ignored)
}

fn networks() -> Outcome {
    let lab = Lab::new()?;
    same(lab.shell(&["--network", "none"], "ls /sys/class/net")?.as_str(), "lo\n")?;
    let host = lab.on_host(&["/bin/cat", "/proc/net/dev"])?;
    check(host.contains("uplink"), || host.clone())?;
    let shared = lab.shell(&["--network", "host"], "cat /proc/net/dev")?;
    check(shared.contains("uplink"), || shared)?;
    let address = lab.shell(&[], "ip -4 addr show eth0; ip route; cat /etc/hosts")?;
    check(address.contains("inet 172.17.0.") && address.contains("default via 172.17.0.1"), || address)?;
    let chosen = lab.shell(&["--mac-address", "02:42:00:00:00:07"], "cat /sys/class/net/eth0/address")?;
    same(chosen.as_str(), "02:42:00:00:00:07\n")?;
    let servers = lab.shell(&["--dns", "192.0.2.53", "--dns", "2001:db8::53"], "grep nameserver /etc/resolv.conf")?;
    same(servers.as_str(), "nameserver 192.0.2.53\nnameserver 2001:db8::53\n")?;

    let (status, said) = lab.refused(&["run", "--rm", "--network", "absent", &lab.root(), "true"])?;
    check(status == Some(125) && said.contains("no network `absent`"), || said)?;
    same(lab.well(&["ps", "-aq"])?.as_str(), "")
}

fn connecting() -> Outcome {
    let lab = Lab::new()?;
    let network = |words: &[&str]| lab.command(&[&["network"], words].concat()).output();
    for (name, subnet) in [("first", "10.7.1.0/24"), ("second", "10.7.2.0/24")] {
        let made = network(&["create", "--subnet", subnet, name])?;
        check(made.status.success(), || format!("{made:?}"))?;
    }
    lab.begin(
        "web",
        &["--network", "first", "--ip", "10.7.1.9", "--network-alias", "www"],
        "exec httpd -f -p 80 -h /srv",
    )?;
    let asks = |network: &str, name: &str| -> Result<bool, Failed> {
        let address = format!("http://{name}/");
        let words = ["run", "--rm", "--network", network, &lab.root(), "wget", "-qO-", &address];
        Ok(lab.run(&words)?.stdout == b"served\n")
    };
    // By name and by alias, on its own network alone.
    until("the server", || asks("first", "web"))?;
    check(asks("first", "www")? && !asks("second", "web")?, || "names lead elsewhere".into())?;
    let joined = network(&["connect", "--alias", "site", "--ip", "10.7.2.9", "second", "web"])?;
    check(joined.status.success(), || format!("{joined:?}"))?;
    for name in ["web", "site", "10.7.2.9"] {
        check(asks("second", name)?, || format!("{name} does not lead there"))?;
    }
    check(!asks("second", "www")? && !asks("first", "site")?, || "an alias is known elsewhere".into())?;
    let shown = lab.inspect("web")?["NetworkSettings"]["Networks"].clone();
    same(&shown["first"]["IPAddress"], &"10.7.1.9".into())?;
    same(&shown["second"]["IPAddress"], &"10.7.2.9".into())?;
    let each = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
    same(lab.well(&["inspect", "-f", each, "web"])?.as_str(), "10.7.1.9 10.7.2.9 \n")?;
    let inside = lab.well(&["exec", "web", "ip", "-4", "-o", "addr"])?;
    check(inside.contains("10.7.1.9/24") && inside.contains("10.7.2.9/24"), || inside)?;

    for (words, sentence) in [
        (&["connect", "second", "web"][..], "is in the network `second` already"),
        (&["connect", "nowhere", "web"], "`nowhere`"),
        (&["disconnect", "bridge", "web"], "is not in the network `bridge`"),
        (&["rm", "second"], "in use by web"),
    ] {
        let output = network(words)?;
        let told = String::from_utf8_lossy(&output.stderr);
        check(output.status.code() == Some(2) && told.contains(sentence), || format!("{words:?}: {output:?}"))?;
    }
    // An address that somebody has is not given to another.
    let taken = lab.run(&["run", "--rm", "--network", "second", "--ip", "10.7.2.9", &lab.root(), "id"])?;
    check(taken.status.code() == Some(125), || format!("{taken:?}"))?;

    // Left: the one that it began with, and then the one that it joined.
    let files = || lab.well(&["exec", "web", "cat", "/etc/hosts", "/etc/resolv.conf"]);
    check(files()?.contains("nameserver 10.7.1.1"), || "it does not ask the first one".into())?;
    for (left, kept) in [("first", Some("second")), ("second", None)] {
        let output = network(&["disconnect", left, "web"])?;
        check(output.status.success(), || format!("{output:?}"))?;
        // Whom it asks is in a network that it has.
        let told = files()?;
        check(told.contains("nameserver 10.7.2.1") == kept.is_some() && !told.contains("10.7.1."), || told.clone())?;
        check(told.contains("10.7.2.9") == kept.is_some(), || told)?;
        check(!asks(left, "web")?, || format!("it is still in {left}"))?;
        if let Some(kept) = kept {
            check(asks(kept, "web")?, || format!("it has left {kept} too"))?;
        }
        let removed = network(&["rm", left])?;
        check(removed.status.success(), || format!("{removed:?}"))?;
    }
    let inside = lab.well(&["exec", "web", "ip", "-4", "-o", "addr"])?;
    check(!inside.contains("10.7."), || inside)?;

    // What has ended is in nobody's way, though its link goes some time later: an address is had again, and a network removed,
    // by the very next command.
    let root = lab.root();
    for _ in 0..3 {
        let made = network(&["create", "--subnet", "10.7.3.0/24", "brief"])?;
        check(made.status.success(), || format!("{made:?}"))?;
        for _ in 0..2 {
            lab.well(&["run", "--rm", "--network", "brief", "--ip", "10.7.3.9", &root, "sh", "-c", ":"])?;
        }
        let removed = network(&["rm", "brief"])?;
        check(removed.status.success(), || format!("{removed:?}"))?;
    }
    Ok(())
}

fn connecting_again() -> Outcome {
    let lab = Lab::new()?;
    let network = |words: &[&str]| lab.command(&[&["network"], words].concat()).output();
    let well = |words: &[&str]| -> Outcome {
        let output = network(words)?;
        check(output.status.success(), || format!("{words:?}: {output:?}"))
    };
    let addresses = |name: &str| lab.well(&["exec", name, "ip", "-4", "-o", "addr"]);
    well(&["create", "--subnet", "10.7.1.0/24", "first"])?;
    well(&["create", "--subnet", "10.7.2.0/24", "second"])?;
    let root = lab.root();
    // One that runs, and one that has never run.
    lab.begin("web", &["--network", "first"], "sleep 1000")?;
    lab.well(&["create", "--name", "later", "--network", "none", &root, "sleep", "1000"])?;
    for name in ["web", "later"] {
        well(&["connect", "--alias", &format!("{name}-alias"), "second", name])?;
        let again = network(&["connect", "second", name])?;
        let told = String::from_utf8_lossy(&again.stderr);
        check(again.status.code() == Some(2) && told.contains("in the network `second` already"), || told.into())?;
    }
    lab.well(&["restart", "-t", "0", "web"])?;
    lab.well(&["start", "later"])?;
    let inside = addresses("web")?;
    check(inside.contains("inet 10.7.1.") && inside.contains("inet 10.7.2."), || inside)?;
    // By its alias, of which it is told who is asked.
    lab.well(&["exec", "web", "busybox", "ping", "-c", "1", "-W", "2", "later-alias"])?;
    lab.well(&["exec", "later", "busybox", "ping", "-c", "1", "-W", "2", "web-alias"])?;
    // What is left stays left: of one that runs the network that it began with, of one that does not the other.
    well(&["disconnect", "first", "web"])?;
    lab.well(&["restart", "-t", "0", "web"])?;
    let inside = addresses("web")?;
    check(!inside.contains("inet 10.7.1.") && inside.contains("inet 10.7.2."), || inside)?;
    lab.well(&["kill", "later"])?;
    lab.well(&["wait", "later"])?;
    well(&["disconnect", "second", "later"])?;
    lab.well(&["start", "later"])?;
    let inside = addresses("later")?;
    check(!inside.contains("inet 10.7."), || inside)?;
    // A network that has gone meanwhile is missed before anything runs.
    lab.well(&["stop", "-t", "0", "web"])?;
    well(&["rm", "second"])?;
    let (status, said) = lab.refused(&["start", "web"])?;
    check(status != Some(0) && said.contains("no network `second`"), || said)?;
    let missing = network(&["connect", "second", "web"])?;
    let told = String::from_utf8_lossy(&missing.stderr);
    check(missing.status.code() == Some(2) && told.contains("no network `second`"), || told.into())?;
    well(&["disconnect", "second", "web"])?;
    lab.well(&["start", "web"])?;
    // A brief one ends while it is being connected.
    well(&["create", "--subnet", "10.7.3.0/24", "third"])?;
    lab.well(&["create", "--name", "brief", &root, "sh", "-c", ":"])?;
    well(&["connect", "third", "brief"])?;
    for _ in 0..5 {
        lab.well(&["start", "-a", "brief"])?;
    }
    lab.well(&["rm", "-f", "web", "later", "brief"])?;
    well(&["rm", "first", "third"])
}

fn ports() -> Outcome {
    let lab = Lab::new()?;
    let root = lab.root();
    lab.begin("web", &["-p", "8080:80", "-p", "127.0.0.1:9000-9001:90-91/udp"], "httpd -f -h /srv; sleep 1000")?;
    same(lab.well(&["port", "web", "80"])?.as_str(), "0.0.0.0:8080\n")?;
    let all = lab.well(&["port", "web"])?;
    check(all.contains("80/tcp -> 0.0.0.0:8080") && all.contains("91/udp -> 127.0.0.1:9001"), || all)?;
    check(lab.well(&["ps"])?.contains("0.0.0.0:8080->80/tcp, 127.0.0.1:9000-9001->90-91/udp"), || {
        "not in `ps`".into()
    })?;
    // From another container by the host's address, and from the host by its own.
    let script = "wget -qO- http://198.51.100.1:8080/";
    until("the server", || Ok(lab.run(&["run", "--rm", &root, "sh", "-c", script])?.stdout == b"served\n"))?;
    let (status, said) = lab.refused(&["run", "--rm", "-p", "8080:80", &root, "true"])?;
    check(status == Some(125) && said.contains("8080"), || said)?;
    same(lab.well(&["ps", "-aq"])?.lines().count(), 1)?;
    // A port is free again when its container has gone.
    lab.well(&["rm", "-f", "web"])?;
    lab.shell(&["-p", "8080:80"], ":").map(drop)
}

fn joining() -> Outcome {
    let lab = Lab::new()?;
    let root = lab.root();
    lab.begin("web", &["--hostname", "shared"], "httpd -f -h /srv; sleep 1000")?;
    let script = "hostname; wget -qO- http://127.0.0.1/";
    let join = ["run", "--rm", "--network", "container:web", &root, "sh", "-c", script];
    until("the server", || Ok(lab.run(&join)?.stdout == b"shared\nserved\n"))?;
    // Whoever has joined can be joined, also when the first has gone.
    lab.begin("second", &["--network", "container:web"], "sleep 1000")?;
    let chain =
        ["run", "--rm", "--network", "container:second", &root, "sh", "-c", "cat /etc/hosts; ip -o link; echo joined"];
    let seen = lab.well(&chain)?;
    check(seen.contains("eth0") && seen.ends_with("joined\n"), || seen.clone())?;
    same(seen.split("1: lo").next(), lab.well(&["exec", "web", "cat", "/etc/hosts"])?.as_str().into())?;
    lab.begin("third", &["--network", "container:second"], "sleep 1000")?;
    lab.well(&["rm", "-f", "second"])?;
    check(lab.well(&["exec", "third", "cat", "/etc/hosts"])?.contains("shared"), || "it has lost its files".into())?;
    lab.well(&["stop", "-t", "0", "web"])?;
    let (status, said) = lab.refused(&join)?;
    check(status == Some(125) && said.contains("it is exited"), || said)?;
    let (status, said) = lab.refused(&["run", "--network", "container:absent", &root, "true"])?;
    check(status == Some(125) && said.contains("no container `absent`"), || said)?;
    lab.well(&["create", "--name", "self", "--network", "container:self", &root, "true"])?;
    let (status, said) = lab.refused(&["start", "self"])?;
    check(status != Some(0) && said.contains("cannot join its own network"), || said)
}

/// A container whose files were spoiled is in nobody's way, and can be removed.
fn damaged() -> Outcome {
    let lab = Lab::new()?;
    let root = lab.root();
    lab.begin("well", &["--network", "none"], "sleep 1000")?;
    let spoil = |file: &str, how: &str| {
        let script = format!("cd /run/isobench/containers/spoiled && rm {file} && {how} {file}");
        lab.on_host(&["/bin/sh", "-c", &script]).map(drop)
    };
    for how in ["touch", "mkdir", "echo { >"] {
        for runs in [true, false] {
            let make = if runs { &["run", "-d"][..] } else { &["create"] };
            let make = [make, &["--name", "spoiled", "--network", "none", &root, "sleep", "4324"]].concat();
            let what = format!("{how}, runs: {runs}");

            // How it fares: that is known no more, but the rest is.
            lab.well(&make)?;
            spoil("state.json", how)?;
            let table = lab.well(&["ps", "-a"])?;
            check(table.contains("well") && table.contains("spoiled"), || format!("{what}: {table}"))?;
            let error = lab.inspect("spoiled")?["State"]["Error"].clone();
            check(error.as_str().is_some_and(|error| error.contains("state.json")), || format!("{what}: {error}"))?;
            lab.well(&["rm", "-f", "spoiled"])?;

            // What it is: nothing is known, and it goes.
            lab.well(&make)?;
            spoil("container.json", how)?;
            let output = lab.run(&["ps", "-a"])?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let table = String::from_utf8_lossy(&output.stdout).into_owned();
            check(output.status.success() && table.contains("well"), || format!("{what}: {output:?}"))?;
            check(said.contains("`isobench container rm -f spoiled` removes it"), || format!("{what}: {said}"))?;
            let (status, said) = lab.refused(&["inspect", "spoiled"])?;
            check(status == Some(3) && said.contains("rm -f spoiled"), || format!("{what}: {said}"))?;
            lab.well(&["rm", "-f", "spoiled"])?;
            same(lab.well(&["ps", "-aq"])?.lines().count(), 1)?;
            let left = lab.on_host(&[
                "/bin/sh",
                "-c",
                "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; ls /run/isobench/containers",
            ])?;
            check(!left.contains("sleep 4324\u{20}") && !left.contains("spoiled"), || format!("{what}: {left}"))?;
        }
    }
    // What is whole is not taken for damaged by whoever looks for something else.
    let (status, said) = lab.refused(&["rm", "-fv", "absent"])?;
    check(status == Some(0) && said.contains("no container `absent`"), || said)?;
    lab.well(&["exec", "well", "id"]).map(drop)
}

fn bad_input() -> Outcome {
    let lab = Lab::new()?;
    let root = lab.root();
    lab.begin("taken", &["--network", "none"], "sleep 1000")?;
    // What is asked, the status, and a word that must be said.
    let cases: &[(&[&str], i32, &str)] = &[
        (&["run", "--name", "taken", &root, "true"], 125, "is in use"),
        (&["run", "--name", "a/b", &root, "true"], 125, "no container name"),
        (&["run", "/no/such/root", "true"], 125, "no root"),
        (&["run", "-v", "nonsense", &root, "true"], 125, "SOURCE:TARGET"),
        (&["run", "-v", "/a:/b:x", &root, "true"], 125, "neither ro nor rw"),
        (&["run", "-p", "0:80", &root, "true"], 125, "publishes no port"),
        (&["run", "-p", "80:70000", &root, "true"], 125, "publishes no port"),
        (&["run", "-p", "8000-8001:80-82", &root, "true"], 125, "publishes no port"),
        (&["run", "-m", "1k", &root, "true"], 125, "6m"),
        (&["run", "-m", "much", &root, "true"], 125, "64m"),
        (&["run", "--cpus", "0", &root, "true"], 125, "CPUs"),
        (&["run", "--pids-limit", "0", &root, "true"], 125, "pids-limit"),
        (&["run", "--pids-limit", "-1", &root, "true"], 125, "give 1 to 4194304"),
        (&["run", "--pids-limit", "4194305", &root, "true"], 125, "give 1 to 4194304"),
        (&["run", "--rm", "-p", "8080:80", "-p", "8080:81", &root, "true"], 125, "want the same port of the host"),
        (&["run", "-e", "=x", &root, "true"], 125, "NAME=VALUE"),
        (&["run", "--sysctl", "net.ipv4.ip_forward", &root, "true"], 125, "NAME=VALUE"),
        (&["run", "--sysctl", "vm.swappiness=1", &root, "true"], 125, "cannot be set for the container alone"),
        (&["run", "--rm", "--sysctl", "net.absent=1", &root, "true"], 125, "/proc/sys/net/absent to 1"),
        (
            &["run", "--network", "host", "--sysctl", "net.core.somaxconn=1", &root, "true"],
            125,
            "not a network of its own",
        ),
        (&["run", "--env-file", "/no/such/file", &root, "true"], 125, "read /no/such/file"),
        (&["run", "-w", "relative", &root, "true"], 125, "must begin"),
        (&["run", "-u", "4294967295", &root, "true"], 125, "the last number is 4294967294"),
        (&["run", "-u", "nobody-here", &root, "true"], 125, "no user"),
        (&["run", "--cap-add", "FLY", &root, "true"], 125, "no such capability"),
        (&["run", "--mac-address", "01:00:00:00:00:00", &root, "true"], 125, "hexadecimal"),
        (&["run", "--ip", "nonsense", &root, "true"], 125, "--ip"),
        (&["run", "--network", "none", "-p", "80:80", &root, "true"], 125, "no address of its own"),
        (&["run", "--network", "host", "--ip", "10.0.0.1", &root, "true"], 125, "no address of its own"),
        (&["run", "--network", "container:", &root, "true"], 125, "name a container"),
        (&["run", "-w", "/bin/sh/absent", "--network", "none", &root, "true"], 125, "/bin/sh/absent"),
        (&["run"], 125, "Usage"),
        (&["exec", "absent", "true"], 125, "no container `absent`"),
        (&["exec", "taken"], 125, "Usage"),
        (&["logs", "absent"], 2, "no container `absent`"),
        (&["rm", "../etc"], 2, "no container"),
        (&["kill", "-s", "NONSENSE", "taken"], 2, "no such signal"),
        (&["inspect", "-f", "{{.Nothing}}", "taken"], 2, "no `Nothing`"),
        (&["port", "taken", "80"], 2, "no port"),
        (&["rename", "taken", "taken"], 2, "in use"),
    ];
    for (arguments, status, word) in cases {
        let (got, said) = lab.refused(arguments)?;
        check(got == Some(*status) && said.contains(word), || format!("{arguments:?}: {got:?}: {said}"))?;
        check(!said.contains("panicked"), || said.clone())?;
    }
    // The one whose working directory cannot be was made and could not begin.
    let left = lab.well(&["ps", "-a", "--format", "json"])?;
    same(left.lines().filter(|line| !line.contains("/absent") && !line.contains("\"taken\"")).count() <= 1, true)?;
    lab.well(&["rm", "-f", "taken"]).map(drop)
}

/// The supervisor of a container, whether that runs already or not, as the machine numbers it; root alone finds it.
fn supervisor(lab: &Lab, name: &str) -> Result<Pid, Failed> {
    let wanted = format!("containers/{name}");
    for entry in fs::read_dir("/proc")?.flatten() {
        let is_one = fs::read(entry.path().join("comm")).is_ok_and(|name| name == b"isobench-keeper\n");
        let directory = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if !is_one || !directory.ends_with(&wanted) {
            continue;
        }
        // Other tests have containers of that name in testbeds of their own.
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if String::from_utf8_lossy(&environment).contains(&lab.path("state").display().to_string()) {
            let number = entry.file_name().to_string_lossy().parse()?;
            return Pid::from_raw(number).ok_or_else(|| "no process".into());
        }
    }
    Err("it has no supervisor".into())
}

/// Kills the supervisor of a container that runs. What is not to be looked into tells an ordinary user of no directory and no
/// environment, so it is found as the parent of the container's process.
fn kill_supervisor(lab: &Lab, name: &str) -> Outcome {
    let process = lab.inspect(name)?["State"]["Pid"].as_i64().ok_or("it has no process")?;
    let script = format!(
        "p=$(sed -n 's/^PPid:[^0-9]*//p' /proc/{process}/status); \
         [ \"$(cat /proc/$p/comm)\" = isobench-keeper ] && kill -9 $p"
    );
    lab.on_host(&["/bin/sh", "-c", &script]).map(drop)
}

fn killed_supervisor() -> Outcome {
    let lab = Lab::new()?;
    // An ordinary user may have no control groups to give.
    let limits: &[&str] = if lab.user.is_none() && rustix::process::geteuid().is_root() { &["-m", "64m"] } else { &[] };
    lab.begin("one", &[&["-p", "8080:80"], limits].concat(), "sleep 4322")?;
    kill_supervisor(&lab, "one")?;
    until("the end of the container", || {
        Ok(!lab.on_host(&["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"])?.contains("sleep 4322\u{20}"))
    })?;
    let table = lab.well(&["ps", "-a"])?;
    check(table.contains("Exited (137)"), || table)?;
    same(lab.well(&["wait", "one"])?.as_str(), "137\n")?;
    // Its port and address are free: another one has them at once.
    lab.shell(&["-p", "8080:80"], ":")?;
    // Started again it has a control group of the same name, whatever the killed one left there.
    lab.well(&["start", "one"])?;
    kill_supervisor(&lab, "one")?;
    until("the end of the container", || Ok(lab.well(&["ps", "-a"])?.contains("Exited (137)")))?;
    lab.well(&["rm", "one"])?;
    let left = lab.on_host(&["/bin/sh", "-c", "find /sys/fs/cgroup -maxdepth 3 -name 'container-*'"])?;
    same(left.as_str(), "")?;
    // One whose caller waits is told.
    let root = lab.root();
    let mut child = lab
        .container(&["run", "--name", "two", "--network", "none", &root, "sh", "-c", "echo ready; sleep 1000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut reader = std::io::BufReader::new(child.stdout.take().ok_or("no pipe")?);
    std::io::BufRead::read_line(&mut reader, &mut String::new())?;
    kill_supervisor(&lab, "two")?;
    same(child.wait()?.code(), Some(137))?;
    lab.well(&["rm", "two"]).map(drop)
}

fn killed_at_each_step() -> Outcome {
    let lab = Lab::new()?;
    let root = lab.root();
    lab.shell(&[], ":")?;
    let before = lab.footprint()?;
    for step in 0..24_u64 {
        let name = format!("step-{step}");
        let mut child = lab
            .container(&["run", "--name", &name, "-p", "8080:80", &root, "sleep", "4323"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(step * 3));
        if step % 2 == 0 {
            child.kill()?;
        } else if let Ok(supervisor) = supervisor(&lab, &name) {
            kill_process(supervisor, Signal::KILL)?;
        } else {
            child.kill()?;
        }
        // What was begun goes on without its caller, or has not come to be.
        let mut said = String::new();
        let removed = until("its removal", || {
            let output = lab.run(&["rm", "-f", &name])?;
            said = String::from_utf8_lossy(&output.stderr).into_owned();
            Ok(output.status.success() || said.contains("no container"))
        });
        removed.map_err(|_| Failed::from(format!("{name} cannot be removed: {said}")))?;
        check(!said.contains("--force"), || format!("forced removal was refused: {said}"))?;
        child.wait()?;
        // A supervisor that was just being started may have come to it late.
        let _ = lab.run(&["rm", "-f", &name])?;
    }
    let mut left = BTreeSet::new();
    let nothing = until("the end of all", || {
        // What a killed command left half made goes when somebody next looks at all.
        lab.well(&["ps", "-aq"])?;
        left = lab.footprint()?.difference(&before).cloned().collect();
        Ok(left.is_empty())
    });
    nothing.map_err(|_| Failed::from(format!("left: {left:?}")))
}

fn twenty() -> Outcome {
    let lab = Lab::new()?;
    let root = lab.root();
    lab.shell(&[], ":")?;
    let script = "ip -4 addr show eth0 | grep -o 'inet [0-9.]*'; sleep 1000";
    let children: Vec<Child> = (0..20)
        .map(|number| {
            let name = format!("n{number}x");
            let mut command = lab.container(&["run", "-d", "--name", &name, "-p", "80", &root, "sh", "-c", script]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
        })
        .collect::<Result<_, _>>()?;
    for child in children {
        let output = child.wait_with_output()?;
        check(output.status.success(), || format!("{output:?}"))?;
    }
    let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for number in 0..20 {
        let one = lab.inspect(&format!("n{number}x"))?;
        addresses.insert(one["NetworkSettings"]["IPAddress"].to_string());
        ports.insert(one["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"].to_string());
    }
    same((addresses.len(), ports.len()), (20, 20))?;
    let names: Vec<String> = lab.well(&["ps", "-q"])?.lines().map(String::from).collect();
    same(names.len(), 20)?;
    let arguments: Vec<&str> = ["rm", "-f"].into_iter().chain(names.iter().map(String::as_str)).collect();
    lab.well(&arguments)?;
    same(lab.well(&["ps", "-aq"])?.as_str(), "")
}

fn statistics() -> Outcome {
    let lab = Lab::new()?;
    lab.begin("busy", &["--network", "none"], "while :; do :; done")?;
    let text = lab.well(&["stats", "--no-stream", "--format", "json", "busy"])?;
    let line: Value = serde_json::from_str(&text)?;
    let share: f64 = line["CPUPerc"].as_str().unwrap_or_default().trim_end_matches('%').parse()?;
    check(share > 1.0 && line["PIDs"] == "1" && line["Name"] == "busy", || text)?;
    let table = lab.well(&["stats", "--no-stream"])?;
    check(table.contains("MEM USAGE / LIMIT") && table.contains("busy"), || table)?;
    // What children wrote that have ended counts too. Only a directory of the test's own may lie on a disk.
    fs::create_dir(lab.path("shared"))?;
    let written = "dd if=/dev/zero of=/in/file bs=64k count=16 conv=fsync 2>/dev/null; echo written; read x";
    lab.begin("writes", &["--network", "none", "-i", "-v", "./shared:/in"], written)?;
    until("the file", || Ok(lab.well(&["logs", "writes"])?.contains("written")))?;
    let text = lab.well(&["stats", "--no-stream", "--format", "json", "writes"])?;
    let line: Value = serde_json::from_str(&text)?;
    let storage = line["BlockIO"].as_str().unwrap_or_default().to_owned();
    // TMPFS_MAGIC: what is written to memory is written to no storage.
    let in_memory = rustix::fs::statfs(lab.place.path())?.f_type == 0x0102_1994;
    // The file, and what the file system notes of it.
    let megabytes = storage.split_once(" / ").and_then(|(_, written)| written.strip_suffix("MB")?.parse::<f64>().ok());
    check(megabytes.is_some_and(|number| number >= 1.04) || in_memory || storage == "-- / --", || text)?;
    let table = lab.well(&["top", "busy"])?;
    check(table.contains("PID") && table.contains("while :"), || table)
}

fn completion() -> Outcome {
    let lab = Lab::new()?;
    lab.begin("completed", &["--network", "none"], "sleep 1000")?;
    let mut command = lab.command(&["--", "isobench", "container", "stop", "comp"]);
    command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "3").env("_CLAP_IFS", "\n");
    let output = command.output()?;
    same(String::from_utf8(output.stdout)?.trim(), "completed")
}

fn leaves_nothing() -> Outcome {
    let lab = Lab::new()?;
    lab.shell(&[], ":")?;
    let before = lab.footprint()?;
    for options in [&["--network", "none"][..], &["--network", "host"], &["-p", "8080:80"], &["-m", "64m"]] {
        if options[0] == "-m" && !rustix::process::geteuid().is_root() {
            continue;
        }
        lab.shell(options, "echo x >/file; sleep 1000 & exit 0")?;
        lab.begin("one", options, "sleep 1000")?;
        lab.well(&["rm", "-f", "one"])?;
    }
    let mut left = BTreeSet::new();
    let nothing = until("the end of all", || {
        left = lab.footprint()?.difference(&before).cloned().collect();
        Ok(left.is_empty())
    });
    nothing.map_err(|_| Failed::from(format!("left: {left:?}")))
}

fn ordinary_user() -> Outcome {
    let lab = Lab::with(Some(65534))?;
    same(lab.shell(&["--network", "none"], "id -u; echo x >/file; cat /file")?.as_str(), "0\nx\n")?;
    let address = lab.shell(&[], "ip -4 addr show eth0")?;
    check(address.contains("inet 172.17.0."), || address)?;
    lab.begin("one", &["-p", "8080:80"], "httpd -f -h /srv; sleep 1000")?;
    let root = lab.root();
    let script = "wget -qO- http://198.51.100.1:8080/";
    until("the server", || Ok(lab.run(&["run", "--rm", &root, "sh", "-c", script])?.stdout == b"served\n"))?;
    same(lab.well(&["exec", "one", "id", "-u"])?.as_str(), "0\n")?;
    lab.well(&["pause", "one"])?;
    lab.well(&["unpause", "one"])?;
    check(lab.well(&["stats", "--no-stream", "one"])?.contains("one"), || "no statistics".into())?;
    let (status, said) = lab.refused(&["run", "-m", "64m", &root, "true"])?;
    check(status == Some(125) && said.contains("control groups"), || said)?;
    let (status, said) = lab.refused(&["run", "-u", "web", &root, "true"])?;
    check(status == Some(125) && said.contains("user 0 alone"), || said)?;
    lab.well(&["rm", "-f", "one"]).map(drop)
}
