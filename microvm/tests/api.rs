//! The monitor by a configuration file and by its API socket, from end to end with the unikernel. What can't run on this machine is
//! ignored, with the reason as its kind.

mod support;

use isobench_microvm::control::{self, ControlError, State, protocol::FailureKind};
use isobench_microvm::devices::virtio::tap;
use isobench_microvm::judge::judge;
use isobench_microvm::snapshot::open::Snapshot;
use isobench_microvm::snapshot::take::{Afterwards, take};
use isobench_microvm::snapshot::{MEMORY, STATE};
use isobench_workload::announcement;
use isobench_workload::protocol::{Answer, Operation, PORT, Request};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::ptrace;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use rustix::fs::{CWD, FileType, mknodat};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, IoSlice, PipeReader, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};
use support::{check, ip, no_network};

const VMM: &str = env!("CARGO_BIN_EXE_isobench-vmm");
/// The page whose example is what this runs.
const PAGE: &str = include_str!("../../docs/vmm.md");
const PATIENCE: Duration = Duration::from_secs(60);

type Test = fn() -> Result<(), Failed>;

fn main() -> ExitCode {
    let kvm = (!judge().runs_unikernel()).then(|| judge().to_string());
    let network = no_network();
    let alone: [(&str, Test); 6] = [
        ("a_configuration_that_is_none_is_one_sentence", a_configuration_that_is_none_is_one_sentence),
        ("options_are_printed_as_a_configuration", options_are_printed_as_a_configuration),
        ("a_pipe_to_which_nobody_writes_holds_up_nobody", a_pipe_to_which_nobody_writes_holds_up_nobody),
        ("what_is_too_large_is_not_cut", what_is_too_large_is_not_cut),
        (
            "a_monitor_without_descriptors_takes_the_last_who_came",
            a_monitor_without_descriptors_takes_the_last_who_came,
        ),
        ("before_the_start_the_socket_answers_everybody", before_the_start_the_socket_answers_everybody),
    ];
    let booted: [(&str, Test); 13] = [
        ("a_guest_is_started_by_a_file", a_guest_is_started_by_a_file),
        ("a_guest_is_started_by_the_standard_input", a_guest_is_started_by_the_standard_input),
        ("the_example_of_the_documentation_runs", the_example_of_the_documentation_runs),
        ("a_guest_is_stopped_at_any_moment", a_guest_is_stopped_at_any_moment),
        ("a_start_that_fails_is_told_to_its_client", a_start_that_fails_is_told_to_its_client),
        ("two_clients_look_after_one_guest", two_clients_look_after_one_guest),
        ("a_paused_guest_is_saved_and_stays_paused", a_paused_guest_is_saved_and_stays_paused),
        ("a_guest_is_left_as_it_was_by_who_goes", a_guest_is_left_as_it_was_by_who_goes),
        ("a_snapshot_is_written_into_two_empty_files_alone", a_snapshot_is_written_into_two_empty_files_alone),
        ("a_file_that_may_not_be_so_large_ends_no_guest", a_file_that_may_not_be_so_large_ends_no_guest),
        ("a_paused_guest_ends_at_its_deadline", a_paused_guest_ends_at_its_deadline),
        ("a_guest_ends_whose_output_nobody_reads", a_guest_ends_whose_output_nobody_reads),
        ("a_guest_is_paused_whose_output_nobody_reads", a_guest_is_paused_whose_output_nobody_reads),
    ];
    let held: [(&str, Test); 1] =
        [("a_guest_goes_on_that_was_not_to_be_paused", a_guest_goes_on_that_was_not_to_be_paused)];
    let root = (!nix::unistd::geteuid().is_root()).then(|| "needs root to hold a thread of another process".to_owned());
    let networked: [(&str, Test); 1] =
        [("a_guest_serves_on_a_tap_that_came_with_its_configuration", a_guest_serves_on_a_tap_that_came)];
    let trial = |(name, test): (&str, Test), obstacle: Option<String>| {
        Trial::test(name, test).with_ignored_flag(obstacle.is_some()).with_kind(obstacle.unwrap_or_default())
    };
    let mut trials: Vec<Trial> = alone.map(|test| trial(test, None)).into();
    trials.extend(booted.map(|test| trial(test, kvm.clone())));
    trials.extend(held.map(|test| trial(test, kvm.clone().or_else(|| root.clone()))));
    trials.extend(networked.map(|test| trial(test, kvm.clone().or_else(|| network.clone()))));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Runs the program with these words and this standard input.
fn ran(words: &[&str], input: &str) -> Result<Output, Failed> {
    let mut process =
        Command::new(VMM).args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    process.stdin.take().ok_or("no pipe")?.write_all(input.as_bytes())?;
    Ok(process.wait_with_output()?)
}

fn refused(words: &[&str], input: &str, sentence: &str) -> Result<(), Failed> {
    let output = ran(words, input)?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    check(output.status.code() == Some(1) && output.stdout.is_empty(), format!("{output:?}"))?;
    check(told.contains(sentence) && told.lines().count() == 1, format!("{told} instead of {sentence}"))
}

fn a_configuration_that_is_none_is_one_sentence() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("vm.json");
    let name = path.to_str().ok_or("a path")?;
    std::fs::write(&path, "{\"unikernel\": {\n  \"workload\": \"exit\",\n  \"memroy\": \"16M\"}}")?;
    refused(
        &["--config", name],
        "",
        &format!("the configuration {name}, line 3, field unikernel.memroy: unknown field"),
    )?;
    let input = "the configuration on the standard input, line 1";
    refused(&["--config", "-"], "{\"unikernel\": {\"workload\": \"exit\"", input)?;
    refused(&["--config", "-"], "\0", input)?;
    for none in ["{}", "[]", "\"unikernel\"", "{\"unikernel\": {}, \"linux\": {}}"] {
        let words = "the configuration on the standard input: it must be an object with one field, `unikernel`, ";
        refused(&["--config", "-"], none, words)?;
    }
    refused(&["--config", "-"], "{\"unikernel\": {\"memory\": 1, \"memory\": 2}}", "duplicate field `memory`")?;
    refused(&["--config", "/nonexistent/vm.json"], "", "read the configuration /nonexistent/vm.json: No such file")?;
    refused(&["--config", "/"], "", "read the configuration /: Is a directory")?;
    refused(&["--config"], "", "option --config needs a value")?;
    refused(&["--config", name, "--memory", "16M"], "", "unknown option `--memory`")?;
    refused(&["--config", "-"], "{\"linux\": {\"agent\": \"/bin/true\"}}", "option --kernel needs a value")?;
    refused(
        &["--config", "-"],
        "{\"unikernel\": {\"tap-fd\": 77, \"mac\": \"02:00:00:00:00:05\", \"address\": \"10.0.0.1/8\"}}",
        "option --tap-fd: `77` is not an open file descriptor",
    )?;
    refused(&["--api-socket", "fd:77"], "", "option --api-socket: `fd:77` is not a path or an open file descriptor")?;
    refused(&["--api-socket", "/nonexistent/socket"], "", "make the socket /nonexistent/socket: No such file")?;
    let there = format!("make the socket {name}: there is something of that name already: remove it, or ");
    refused(&["--api-socket", name], "", &there)?;
    refused(&["--print-config", "windows"], "", "unknown option `windows`")
}

/// A pipe in a directory, and what follows a name by which it is opened.
fn a_pipe_to_which_nobody_writes_holds_up_nobody() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let pipe = directory.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, 0o600.into(), 0)?;
    let name = pipe.to_str().ok_or("a path")?;
    let why = format!("{name}: it is no regular file");
    let file = directory.path().join("file");
    std::fs::write(&file, "text")?;
    let file = file.to_str().ok_or("a path")?;
    refused(&["restore", "--memory-file", name, "--state-file", file], "", &why)?;
    refused(&["restore", "--memory-file", file, "--state-file", name], "", &why)?;
    refused(&["restore", "--memory-file", "/dev/zero", "--state-file", file], "", "/dev/zero: it is no regular file")?;
    let why = "makes one): it is no regular file";
    refused(&["linux", "--kernel", file, "--agent", name], "", why)?;
    refused(&["linux", "--kernel", file, "--agent", "/dev/zero"], "", why)?;
    refused(&["linux", "--kernel", name, "--agent", file], "", "gets one): it is no regular file")?;
    let words = ["linux", "--kernel", file, "--agent", file, "--exec", "/nonexistent/socket"];
    refused(&words, "", "option --exec: it is for a guest with a session (--session yes)")?;
    // Whoever names it to a monitor that takes requests is in nobody's way.
    let monitor = Monitor::start()?;
    let (mut first, mut second) = (monitor.client()?, monitor.client()?);
    let restore = json!({"restore": {"memory-file": name, "state-file": name}});
    first.fails("create", restore, "arguments", "it is no regular file")?;
    second.does("describe", json!({})).map(drop)
}

fn what_is_too_large_is_not_cut() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("large");
    let name = path.to_str().ok_or("a path")?;
    // What would be read of it makes sense.
    let text = format!("{{\"unikernel\": {{\"workload\": \"exit\"}}}}{}", " ".repeat(1 << 20));
    std::fs::write(&path, &text)?;
    refused(&["--config", name], "", &format!("read the configuration {name}: it has more than 1048576 bytes"))?;
    // More than there is memory, all of it a hole.
    File::options().write(true).open(&path)?.set_len(1 << 43)?;
    let linux = ["linux", "--kernel", "/nonexistent/vmlinux"];
    let large = "it has 8796093022208 bytes, more than 268435456";
    refused(&[&linux[..], &["--agent", name]].concat(), "", large)?;
    let empty = tempfile::NamedTempFile::new()?;
    for (option, path, sentence) in [
        ("--agent-fd", &*path, "the file cannot be read: it has 8796093022208 bytes, more than"),
        ("--archive-fd", &path, "the file cannot be read: it has 8796093022208 bytes, more than"),
        ("--agent-fd", empty.path(), "the file is empty"),
    ] {
        let output = Command::new(VMM).args(linux).args([option, "0"]).stdin(File::open(path)?).output()?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let sentence = told.starts_with(&format!("isobench-vmm: option {option}: {sentence}"));
        check(output.status.code() == Some(1) && sentence && told.lines().count() == 1, told)?;
    }
    Ok(())
}

/// The standard streams and the socket leave it some descriptors, or none.
fn a_monitor_without_descriptors_takes_the_last_who_came() -> Result<(), Failed> {
    let limited = |most: u8| {
        let script = format!("ulimit -n {most} && exec \"$0\" \"$@\"");
        Monitor::by(Command::new("sh").args(["-c", &script, VMM]))
    };
    let monitor = limited(6)?;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = monitor.client()?;
        client.does("describe", json!({}))?;
        clients.push(client);
    }
    let mut first = clients.remove(0);
    check(first.ask("describe", json!({})).is_err(), "the first one was not closed")?;
    // Nobody can come, which it does not look at all the time.
    let monitor = limited(4)?;
    let _waiting = monitor.client()?;
    let ticks = || -> Result<u64, Failed> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", monitor.process.id()))?;
        Ok(text.split(' ').skip(13).take(2).map(|number| number.parse::<u64>().unwrap_or(0)).sum())
    };
    let before = ticks()?;
    std::thread::sleep(Duration::from_secs(1));
    let spent = ticks()? - before;
    check(spent < 10, format!("{spent} ticks in a second"))
}

fn options_are_printed_as_a_configuration() -> Result<(), Failed> {
    for (word, begins) in [("--help", "isobench-vmm unikernel [OPTIONS]"), ("--version", "isobench-vmm 0.")] {
        let printed = ran(&[word], "")?;
        let text = String::from_utf8_lossy(&printed.stdout).into_owned();
        check(printed.status.success() && printed.stderr.is_empty() && text.starts_with(begins), text)?;
    }
    let words = ["--print-config", "unikernel", "--workload", "exit", "--memory", "8M", "--deadline", "2.5"];
    let printed = ran(&words, "")?;
    check(printed.status.success() && printed.stderr.is_empty(), format!("{printed:?}"))?;
    let text = String::from_utf8(printed.stdout)?;
    let value: Value = serde_json::from_str(&text)?;
    let unikernel = &value["unikernel"];
    check(unikernel["memory"] == 8 << 20 && unikernel["deadline"] == 2.5 && unikernel["spin"] == 50, text.clone())?;
    // What was printed says the same again.
    let again = ran(&["--print-config", "--config", "-"], &text)?;
    check(String::from_utf8(again.stdout)? == text, "not the same again")
}

/// A monitor, which is killed where a test gives up.
struct Monitor {
    process: Child,
    output: BufReader<ChildStdout>,
    directory: tempfile::TempDir,
}

impl Monitor {
    /// Starts one that takes requests.
    fn start() -> Result<Self, Failed> {
        Self::by(&mut Command::new(VMM))
    }

    /// Starts one by this beginning of a command.
    fn by(command: &mut Command) -> Result<Self, Failed> {
        let directory = tempfile::tempdir()?;
        let mut process = command
            .arg("--api-socket")
            .arg(directory.path().join("api"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(process.stdout.take().ok_or("no pipe")?);
        let monitor = Self { process, output, directory };
        let began = Instant::now();
        while UnixStream::connect(monitor.socket()).is_err() {
            check(began.elapsed() < PATIENCE, "there is no socket")?;
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(monitor)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("api")
    }

    fn client(&self) -> Result<Client, Failed> {
        let stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Client(BufReader::new(stream)))
    }

    /// Waits for the guest's ready line.
    fn ready(&mut self) -> Result<(), Failed> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        check(announcement::parse(&line).is_some(), format!("no ready line but `{line}`"))
    }

    /// Its exit code, and what it says on its standard error.
    fn ended(&mut self) -> Result<(Option<i32>, String), Failed> {
        let code = self.process.wait()?.code();
        let mut told = String::new();
        self.process.stderr.take().ok_or("asked twice")?.read_to_string(&mut told)?;
        Ok((code, told))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Client(BufReader<UnixStream>);

impl Client {
    fn send(&mut self, line: &str) -> Result<(), Failed> {
        Ok(self.0.get_mut().write_all(line.as_bytes())?)
    }

    fn answer(&mut self) -> Result<Value, Failed> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        check(!line.is_empty(), "the connection has ended")?;
        Ok(serde_json::from_str(&line)?)
    }

    fn ask(&mut self, request: &str, arguments: Value) -> Result<Value, Failed> {
        self.send(&format!("{}\n", json!({"version": 1, "request": request, "arguments": arguments})))?;
        self.answer()
    }

    /// Asks for what is done.
    fn does(&mut self, request: &str, arguments: Value) -> Result<Value, Failed> {
        let answer = self.ask(request, arguments)?;
        check(answer.get("error").is_none(), format!("{request}: {answer}"))?;
        Ok(answer["result"].clone())
    }

    /// Asks for what is refused with an error of this kind.
    fn fails(&mut self, request: &str, arguments: Value, kind: &str, words: &str) -> Result<(), Failed> {
        let answer = self.ask(request, arguments)?;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        check(answer["error"]["kind"] == kind && message.contains(words), format!("{request}: {answer}"))
    }
}

fn before_the_start_the_socket_answers_everybody() -> Result<(), Failed> {
    let mut monitor = Monitor::start()?;
    let mode = std::fs::metadata(monitor.socket())?.permissions().mode();
    check(mode & 0o777 == 0o600, format!("mode {mode:o}"))?;
    let (mut first, mut second) = (monitor.client()?, monitor.client()?);
    let described = first.does("describe", json!({}))?;
    check(described["state"] == "not-created" && described["configuration"].is_null(), described.to_string())?;
    for request in ["pause", "resume", "snapshot", "balloon"] {
        second.fails(request, json!({}), "state", "was not started yet")?;
    }
    second.fails("start", json!({}), "state", "there is no configuration yet")?;
    // What is no configuration leaves none.
    for (configuration, words) in [
        (json!({}), "the configuration of the request: it must be an object with one field"),
        (json!({"unikernel": {"memroy": 1}}), "field unikernel.memroy: unknown field `memroy`"),
        (json!({"unikernel": {"memory": "much"}}), "field unikernel.memory: `much` is not a size"),
        (json!({"unikernel": {"workload": "exit", "control": "x"}}), "the API socket is where requests are taken"),
        (json!({"unikernel": {}}), "needs --tap-fd, --mac and --address"),
        (
            json!({"unikernel": {"tap-fd": 0, "mac": "02:00:00:00:00:05", "address": "10.0.0.1/8"}}),
            "`0` is not the place of a file descriptor that came with the request",
        ),
        (json!({"linux": {"kernel": "vmlinux", "agent": "/nonexistent/agent"}}), "read the agent /nonexistent/agent"),
        (json!({"restore": {"state-file": "x", "memory-file": "/nonexistent/m"}}), "/nonexistent/m: No such file"),
    ] {
        first.fails("create", configuration, "arguments", words)?;
    }
    first.send("{\"version\":1,\"request\":\"create\",\"arguments\":{\"unikernel\":{\"memory\":1,\"memory\":2}}}\n")?;
    let told = first.answer()?.to_string();
    check(told.contains("a field is there twice"), told)?;
    // A line without an end from one client is nothing to another.
    first.send("{\"version\":1,\"request\"")?;
    second.does("create", json!({"unikernel": {"workload": "exit"}}))?;
    second.fails("create", json!({"unikernel": {"workload": "exit"}}), "state", "a configuration already")?;
    let described = second.does("describe", json!({}))?;
    check(described["state"] == "created", described.to_string())?;
    check(described["configuration"]["unikernel"]["memory"] == 16 << 20, described.to_string())?;
    first.send(":\"stop\"}\n")?;
    check(first.answer()? == json!({"result": {}}), "another answer")?;
    let (code, told) = monitor.ended()?;
    check(code == Some(0) && told.is_empty(), format!("{code:?}: {told}"))
}

fn a_guest_is_started_by_a_file() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("vm.json");
    std::fs::write(&path, "{\"unikernel\": {\"workload\": \"exit\", \"memory\": \"8M\"}}")?;
    let output = Command::new(VMM).arg("--config").arg(&path).output()?;
    check(output.status.success() && output.stderr.is_empty(), format!("{output:?}"))?;
    check(announcement::parse(&String::from_utf8_lossy(&output.stdout)).is_some(), "no ready line")
}

fn a_guest_is_started_by_the_standard_input() -> Result<(), Failed> {
    let output = ran(&["--config", "-"], "{\"unikernel\": {\"workload\": \"panic\"}}")?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    check(output.status.code() == Some(101) && told.contains("asked to panic"), told)?;
    // With a control socket as options would make it.
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("control");
    let mut process = Command::new(VMM).args(["--config", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let configuration = json!({"unikernel": {"workload": "idle", "deadline": 300, "control": socket}});
    process.stdin.take().ok_or("no pipe")?.write_all(configuration.to_string().as_bytes())?;
    let mut line = String::new();
    BufReader::new(process.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
    let described = control::describe(&socket)?;
    check(described.state == State::Running, format!("{described:?}"))?;
    let mode = std::fs::metadata(&socket)?.permissions().mode();
    check(mode & 0o777 == 0o600, format!("mode {mode:o}"))?;
    control::stop(&socket)?;
    check(process.wait()?.code() == Some(143), "another exit code")
}

/// The lines of the page that begin with `> ` are sent, and those that begin with `< ` come back, where `...` is anything.
fn the_example_of_the_documentation_runs() -> Result<(), Failed> {
    let mut monitor = Monitor::start()?;
    let mut client = monitor.client()?;
    let mut lines = 0;
    for line in PAGE.lines() {
        if let Some(request) = line.strip_prefix("> ") {
            client.send(&format!("{request}\n"))?;
            lines += 1;
        } else if let Some(wanted) = line.strip_prefix("< ") {
            let mut answer = String::new();
            client.0.read_line(&mut answer)?;
            let mut rest = answer.trim_end();
            for (index, part) in wanted.split("...").enumerate() {
                let place = rest.find(part).filter(|place| index > 0 || *place == 0);
                let place = place.ok_or_else(|| format!("{answer} instead of {wanted}"))?;
                rest = &rest[place + part.len()..];
            }
            check(rest.is_empty() || wanted.ends_with("..."), format!("{answer} instead of {wanted}"))?;
        }
    }
    check(lines >= 6, format!("{lines} requests in the page"))?;
    let (code, told) = monitor.ended()?;
    check(code == Some(143) && told.contains("the guest was ended on request"), format!("{code:?}: {told}"))
}

/// As soon as it is started, while it is paused, and when it has run for a while.
fn a_guest_is_stopped_at_any_moment() -> Result<(), Failed> {
    for moment in 0..3 {
        let mut monitor = Monitor::start()?;
        let mut client = monitor.client()?;
        client.does("create", json!({"unikernel": {"workload": "loop", "deadline": 300}}))?;
        client.does("start", json!({}))?;
        if moment == 1 {
            client.does("pause", json!({}))?;
        }
        if moment == 2 {
            client.does("describe", json!({}))?;
        }
        client.does("stop", json!({}))?;
        let (code, told) = monitor.ended()?;
        check(code == Some(143) && told.lines().count() == 1, format!("{moment}: {code:?}: {told}"))?;
        check(client.answer().is_err(), "somebody answers")?;
    }
    Ok(())
}

fn a_start_that_fails_is_told_to_its_client() -> Result<(), Failed> {
    let mut monitor = Monitor::start()?;
    let mut client = monitor.client()?;
    client.does("create", json!({"unikernel": {"workload": "exit", "memory": "3M"}}))?;
    client.fails("start", json!({}), "failed", "guest memory of 3145728 bytes")?;
    let (code, told) = monitor.ended()?;
    check(code == Some(1) && told.contains("guest memory of 3145728 bytes"), format!("{code:?}: {told}"))
}

fn two_clients_look_after_one_guest() -> Result<(), Failed> {
    let mut monitor = Monitor::start()?;
    let (mut first, mut second) = (monitor.client()?, monitor.client()?);
    first.does("create", json!({"unikernel": {"workload": "idle", "deadline": 300}}))?;
    second.does("start", json!({}))?;
    monitor.ready()?;
    first.fails("start", json!({}), "state", "was started already")?;
    second.fails("create", json!({"unikernel": {}}), "state", "was started already")?;
    for _ in 0..20 {
        first.does("pause", json!({}))?;
        second.fails("pause", json!({}), "state", "is paused already")?;
        let described = second.does("describe", json!({}))?;
        check(described["state"] == "paused", described.to_string())?;
        second.does("resume", json!({}))?;
        let described = first.does("describe", json!({}))?;
        check(described["state"] == "running", described.to_string())?;
    }
    let figures = &first.does("describe", json!({}))?["figures"];
    let figure = |name: &str| figures[name].as_u64().unwrap_or_default();
    let all = ["since-start", "processor-time", "most-resident"].map(figure);
    check(all.iter().all(|figure| *figure > 0), figures.to_string())?;
    let guest = second.does("guest", json!({}))?;
    let named = guest["program"].as_str().is_some_and(|digest| digest.len() == 64);
    check(guest["kind"] == "unikernel" && guest["workload"] == "idle" && named, guest.to_string())?;
    second.fails("balloon", json!({"target": 4096}), "unsupported", "has no balloon")?;
    first.fails("snapshot", json!({}), "arguments", "needs two empty files")?;
    // Whoever goes leaves the other and the guest alone.
    drop(first);
    let described = control::describe(&monitor.socket())?;
    check(described.state == State::Running && described.configuration.is_some(), format!("{described:?}"))?;
    second.does("stop", json!({}))?;
    let (code, told) = monitor.ended()?;
    check(code == Some(143), format!("{code:?}: {told}"))
}

fn a_paused_guest_is_saved_and_stays_paused() -> Result<(), Failed> {
    let mut monitor = Monitor::start()?;
    let mut client = monitor.client()?;
    client.does("create", json!({"unikernel": {"workload": "memory:4M", "deadline": 300}}))?;
    client.does("start", json!({}))?;
    monitor.ready()?;
    client.does("pause", json!({}))?;
    let saved = ["first", "second"].map(|name| monitor.directory.path().join(name));
    for directory in &saved {
        take(&monitor.socket(), directory, Afterwards::Continue)?;
        let described = client.does("describe", json!({}))?;
        check(described["state"] == "paused", described.to_string())?;
    }
    client.does("resume", json!({}))?;
    // By the program too, from a guest that runs.
    let third = monitor.directory.path().join("third");
    let output = Command::new(VMM).arg("snapshot").arg(monitor.socket()).arg(&third).output()?;
    check(output.status.success(), format!("{output:?}"))?;
    let refused = control::set_balloon(&monitor.socket(), 1);
    let unsupported =
        matches!(&refused, Err(ControlError::Refused { why, .. }) if why.kind == FailureKind::Unsupported);
    check(unsupported, format!("{refused:?}"))?;
    client.does("stop", json!({}))?;
    monitor.ended()?;
    for directory in saved.iter().chain([&third]) {
        Snapshot::open(directory)?;
    }
    // Another monitor goes on with it, by paths.
    let mut clone = Monitor::start()?;
    let mut client = clone.client()?;
    let files = json!({"memory-file": saved[1].join(MEMORY), "state-file": saved[1].join(STATE), "deadline": 300});
    client.does("create", json!({"restore": files}))?;
    client.does("start", json!({}))?;
    clone.ready()?;
    client.does("stop", json!({}))?;
    check(clone.ended()?.0 == Some(143), "another exit code")
}

/// Whoever asks for a snapshot after which it is to stand still, and goes, leaves the guest as it was.
fn a_guest_is_left_as_it_was_by_who_goes() -> Result<(), Failed> {
    for state in ["paused", "running"] {
        let mut monitor = Monitor::start()?;
        let mut client = monitor.client()?;
        client.does("create", json!({"unikernel": {"workload": "idle", "deadline": 300}}))?;
        client.does("start", json!({}))?;
        monitor.ready()?;
        if state == "paused" {
            client.does("pause", json!({}))?;
        }
        let [memory, saved] = [tempfile::tempfile()?, tempfile::tempfile()?];
        let gone = UnixStream::connect(monitor.socket())?;
        let line = json!({"version": 1, "request": "snapshot", "arguments": {"stay": true}});
        send_with(&gone, &format!("{line}\n"), &[memory.as_fd(), saved.as_fd()])?;
        drop(gone);
        let began = Instant::now();
        while saved.metadata()?.len() == 0 {
            check(began.elapsed() < PATIENCE, "no state is saved")?;
            std::thread::sleep(Duration::from_millis(5));
        }
        let described = client.does("describe", json!({}))?;
        check(described["state"] == state, described.to_string())?;
        client.does("stop", json!({}))?;
        check(monitor.ended()?.0 == Some(143), "another exit code")?;
    }
    Ok(())
}

/// What was in a file before would be in the clones' memory.
fn a_snapshot_is_written_into_two_empty_files_alone() -> Result<(), Failed> {
    let mut monitor = Monitor::start()?;
    let mut client = monitor.client()?;
    client.does("create", json!({"unikernel": {"workload": "idle", "deadline": 300}}))?;
    client.does("start", json!({}))?;
    monitor.ready()?;
    let [used, empty, other] = [tempfile::tempfile()?, tempfile::tempfile()?, tempfile::tempfile()?];
    used.set_len(1 << 30)?;
    let (pipe, _writer) = std::io::pipe()?;
    let line = format!("{}\n", json!({"version": 1, "request": "snapshot"}));
    let mut snapshot = |files: &[BorrowedFd<'_>]| {
        send_with(client.0.get_ref(), &line, files)?;
        client.answer()
    };
    let refused: [&[BorrowedFd<'_>]; 6] = [
        &[],
        &[empty.as_fd()],
        &[empty.as_fd(), other.as_fd(), used.as_fd()],
        &[used.as_fd(), empty.as_fd()],
        &[empty.as_fd(), empty.as_fd()],
        &[empty.as_fd(), pipe.as_fd()],
    ];
    for files in refused {
        let answer = snapshot(files)?;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        check(answer["error"]["kind"] == "arguments" && message.contains("two empty files"), answer.to_string())?;
    }
    check(empty.metadata()?.len() == 0, "something was written")?;
    let answer = snapshot(&[empty.as_fd(), other.as_fd()])?;
    check(answer["result"]["kind"] == "unikernel", answer.to_string())?;
    // One that fails leaves the guest as it was.
    let named = tempfile::NamedTempFile::new()?;
    let (read_only, third) = (File::open(named.path())?, tempfile::tempfile()?);
    for state in [State::Running, State::Paused] {
        if state == State::Paused {
            control::pause(&monitor.socket())?;
        }
        let answer = snapshot(&[read_only.as_fd(), third.as_fd()])?;
        check(answer["error"]["kind"] == "failed", answer.to_string())?;
        let described = control::describe(&monitor.socket())?;
        check(described.state == state, format!("{:?} instead of {state:?}", described.state))?;
    }
    Ok(())
}

/// A user's limit is one of a file, and none of a guest's life (RLIMIT_FSIZE, setrlimit(2)).
fn a_file_that_may_not_be_so_large_ends_no_guest() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let (socket, snapshot) = (directory.path().join("control"), directory.path().join("snapshot"));
    let script = "ulimit -f 100 && exec \"$0\" \"$@\"";
    let mut process = Command::new("sh")
        .args(["-c", script, VMM, "unikernel", "--workload", "memory:4M", "--deadline", "300", "--control"])
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(process.stdout.take().ok_or("no pipe")?);
    let mut monitor = Monitor { process, output, directory };
    monitor.ready()?;
    let told = take(&socket, &snapshot, Afterwards::Continue).err().ok_or("it was written")?.to_string();
    check(told.contains("write the guest's memory: File too large"), told)?;
    check(std::fs::read_dir(monitor.directory.path())?.count() == 1, "something is left")?;
    control::stop(&socket)?;
    let (code, told) = monitor.ended()?;
    check(code == Some(143) && told == "isobench-vmm: the guest was ended on request\n", format!("{code:?}: {told}"))
}

/// Whether it stands still for the first time, or was saved and stands still for good.
fn a_paused_guest_ends_at_its_deadline() -> Result<(), Failed> {
    for saved in [false, true] {
        let mut monitor = Monitor::start()?;
        let mut client = monitor.client()?;
        client.does("create", json!({"unikernel": {"workload": "idle", "deadline": 2}}))?;
        client.does("start", json!({}))?;
        monitor.ready()?;
        client.does("pause", json!({}))?;
        if saved {
            take(&monitor.socket(), &monitor.directory.path().join("saved"), Afterwards::Continue)?;
        }
        let began = Instant::now();
        while monitor.process.try_wait()?.is_none() {
            check(began.elapsed() < PATIENCE, "it outlives its deadline")?;
            std::thread::sleep(Duration::from_millis(5));
        }
        let (code, told) = monitor.ended()?;
        check(code == Some(124) && told.contains("the guest was ended at its deadline"), format!("{code:?}: {told}"))?;
    }
    Ok(())
}

/// A monitor whose standard output is a pipe that is full, and the pipe's other end.
struct Unread {
    process: Child,
    reader: PipeReader,
    directory: tempfile::TempDir,
}

impl Unread {
    fn start(options: &[&str]) -> Result<Self, Failed> {
        let directory = tempfile::tempdir()?;
        let (reader, mut writer) = std::io::pipe()?;
        let room = rustix::pipe::fcntl_setpipe_size(&writer, 4096)?;
        writer.write_all(&vec![b'\n'; room])?;
        let mut command = Command::new(VMM);
        command.arg("unikernel").args(options).arg("--control").arg(directory.path().join("control"));
        let process = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null()).spawn()?;
        let monitor = Self { process, reader, directory };
        let began = Instant::now();
        while control::describe(&monitor.socket()).is_err() {
            check(began.elapsed() < PATIENCE, "there is no socket")?;
            std::thread::sleep(Duration::from_millis(5));
        }
        // The guest comes to its ready line, for which there is no room.
        std::thread::sleep(Duration::from_millis(500));
        Ok(monitor)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    /// Reads up to the ready line, which is whole.
    fn is_ready(&self) -> Result<(), Failed> {
        let mut line = String::new();
        let mut output = BufReader::new(&self.reader);
        while line.trim().is_empty() {
            line.clear();
            check(output.read_line(&mut line)? > 0, "there is no ready line")?;
        }
        check(announcement::parse(&line).is_some(), format!("no ready line but `{line}`"))
    }

    fn ends_with(&mut self, code: i32) -> Result<(), Failed> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                return check(status.code() == Some(code), format!("{status} instead of {code}"));
            }
            check(began.elapsed() < PATIENCE, "the monitor does not end")?;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn a_guest_ends_whose_output_nobody_reads() -> Result<(), Failed> {
    let mut stopped = Unread::start(&["--workload", "idle", "--deadline", "300"])?;
    control::stop(&stopped.socket())?;
    stopped.ends_with(143)?;
    Unread::start(&["--workload", "idle", "--deadline", "1"])?.ends_with(124)
}

/// It stands still and is saved, and what it was saying comes whole when it goes on.
fn a_guest_is_paused_whose_output_nobody_reads() -> Result<(), Failed> {
    let mut monitor = Unread::start(&["--workload", "exit", "--deadline", "300"])?;
    for _ in 0..3 {
        control::pause(&monitor.socket())?;
        take(&monitor.socket(), &monitor.directory.path().join("saved"), Afterwards::Continue)?;
        std::fs::remove_dir_all(monitor.directory.path().join("saved"))?;
        let described = control::describe(&monitor.socket())?;
        check(described.state == State::Paused, format!("{described:?}"))?;
        control::resume(&monitor.socket())?;
    }
    monitor.is_ready()?;
    monitor.ends_with(0)
}

/// One whose processor comes too late for a pause that was given up.
fn a_guest_goes_on_that_was_not_to_be_paused() -> Result<(), Failed> {
    let mut monitor = Unread::start(&["--workload", "exit", "--deadline", "300"])?;
    // The first thread, which is the processor's, is held by this one.
    let processor = Pid::from_raw(i32::try_from(monitor.process.id())?);
    ptrace::seize(processor, ptrace::Options::empty())?;
    ptrace::interrupt(processor)?;
    waitpid(processor, None)?;
    let refused = control::pause(&monitor.socket());
    let late = matches!(&refused, Err(ControlError::Refused { why, .. }) if why.message.contains("do not stop"));
    ptrace::detach(processor, None)?;
    check(late, format!("{refused:?}"))?;
    monitor.is_ready()?;
    monitor.ends_with(0)
}

/// Sends a line with descriptors.
fn send_with(stream: &UnixStream, line: &str, descriptors: &[BorrowedFd<'_>]) -> Result<(), Failed> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    check(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)), "too many descriptors")?;
    sendmsg(stream, &[IoSlice::new(line.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn greets(address: Ipv4Addr) -> Result<(), Failed> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, PORT)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&Request { operation: Operation::Hello, length: 0 }.encode())?;
    let mut bytes = [0; Answer::SIZE];
    stream.read_exact(&mut bytes)?;
    Answer::decode(&bytes)?;
    Ok(())
}

fn a_guest_serves_on_a_tap_that_came() -> Result<(), Failed> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    let guest = Ipv4Addr::new(172, 17, 0, 5);
    let tap = tap::open("guest0")?;
    ip("link set guest0 up")?;
    ip("address add 172.17.0.1/16 dev guest0")?;
    let mut monitor = Monitor::start()?;
    let mut client = monitor.client()?;
    let configuration = json!({"unikernel": {
        "workload": format!("serve:{PORT}"), "tap-fd": 1, "mac": "02:00:00:00:00:05", "address": format!("{guest}/16"),
        "deadline": 300,
    }});
    let line = json!({"version": 1, "id": "tap", "request": "create", "arguments": configuration});
    // The first one is left over, and closed.
    let other = File::open("/dev/null")?;
    send_with(client.0.get_ref(), &format!("{line}\n"), &[other.as_fd(), tap.as_fd()])?;
    check(client.answer()? == json!({"id": "tap", "result": {}}), "not created")?;
    drop(tap);
    client.does("start", json!({}))?;
    monitor.ready()?;
    greets(guest)?;
    is_jailed(monitor.process.id())?;
    // While it is paused nobody answers, and what was sent meanwhile is answered afterwards.
    client.does("pause", json!({}))?;
    let late = std::thread::spawn(move || greets(guest).map_err(|failed| format!("{failed:?}")));
    std::thread::sleep(Duration::from_millis(100));
    check(!late.is_finished(), "a paused guest has answered")?;
    client.does("resume", json!({}))?;
    late.join().map_err(|_| "a panic")??;
    client.does("stop", json!({}))?;
    let (code, told) = monitor.ended()?;
    check(code == Some(143), format!("{code:?}: {told}"))
}

/// The same jail as for options: every thread is filtered, the root is empty, and no socket or file but what it needs is held.
fn is_jailed(process: u32) -> Result<(), Failed> {
    let place = PathBuf::from(format!("/proc/{process}"));
    for task in std::fs::read_dir(place.join("task"))? {
        // One that has only just been started may not run yet; to filter itself is what it does first.
        let (status, began) = (task?.path().join("status"), Instant::now());
        while !std::fs::read_to_string(&status)?.contains("Seccomp:\t2\n") {
            check(began.elapsed() < PATIENCE, format!("{} has no filter", status.display()))?;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let root = std::fs::read_dir(place.join("root"))?.count();
    check(root == 0, format!("{root} files in the root"))?;
    let here = |name: &str| std::fs::read_link(Path::new("/proc/self/ns").join(name));
    for name in ["net", "mnt", "ipc", "uts"] {
        check(
            std::fs::read_link(place.join("ns").join(name))? != here(name)?,
            format!("no {name} namespace of its own"),
        )?;
    }
    let held = std::fs::read_dir(place.join("fd"))?;
    let held: Vec<String> =
        held.map(|each| Ok(std::fs::read_link(each?.path())?.display().to_string())).collect::<Result<_, Failed>>()?;
    let leftover = held.iter().find(|name| name.starts_with('/') && *name != "/dev/null" && *name != "/dev/net/tun");
    check(leftover.is_none_or(|name| name == "/dev/kvm"), format!("{held:?}"))
}
