//! The parts of a guest's machine, each seen from both sides: from within by this same program as /init.

mod post_mortem;

use super::{PATIENCE, VMM, agent, check, ending, text};
use isobench_microvm::control;
use isobench_workload::announcement;
use libtest_mimic::Failed;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Starts the monitor's words for a guest that does these tasks, with a deadline against a guest that hangs.
pub(crate) fn inside(kernel: &Path, tasks: &[&str]) -> Result<Command, Failed> {
    let mut command = Command::new(VMM);
    command.args(["linux", "--kernel", text(kernel), "--deadline", "120", "--agent"]).arg(std::env::current_exe()?);
    tasks.iter().for_each(|task| _ = command.args(["--argument", task]));
    Ok(command)
}

/// The results of a guest that ended well.
pub(crate) fn results(output: Output) -> Result<String, Failed> {
    let told = format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    check(output.status.success(), told)?;
    Ok(String::from_utf8(output.stdout)?)
}

fn image(bytes: &[u8]) -> Result<tempfile::NamedTempFile, Failed> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), bytes)?;
    Ok(file)
}

/// Half of what is on the first disk, and all that is on the second.
fn half() -> Vec<u8> {
    (0..256 * 1024_u32).map(|index| (index / 512 + index % 251) as u8).collect()
}

/// Gives a guest one disk by its path and one, read-only, as an open file, has it do its tasks, and looks at the disks; gives what it
/// says beyond that.
fn with_disks(mut command: Command) -> Result<String, Failed> {
    let half = half();
    let written = image(&[half.clone(), vec![0; half.len()]].concat())?;
    let read = image(&half)?;
    command.args(["--disk", text(written.path()), "--disk", "fd:0:ro"]).stdin(File::open(read.path())?);
    let results = results(command.output()?)?;
    let sum: u64 = half.iter().map(|byte| u64::from(*byte)).sum();
    let found = format!("{{\"sectors\":1024,\"sum\":{sum}}}\n");
    check(results.contains(&found), results.clone())?;
    let turned: Vec<u8> = half.iter().map(|byte| !byte).collect();
    check(std::fs::read(written.path())? == [half.clone(), turned].concat(), "vda holds something else")?;
    check(std::fs::read(read.path())? == half, "vdb was changed")?;
    Ok(results.replace(&found, ""))
}

pub(crate) fn disks_are_read_written_and_flushed(kernel: &Path) -> Result<(), Failed> {
    let more = with_disks(inside(kernel, &["disks"])?)?;
    check(more.is_empty(), more)
}

/// All parts at once, for a kernel whose every boot takes long.
pub(crate) fn has_a_whole_machine(kernel: &Path) -> Result<(), Failed> {
    let mut command = inside(kernel, &["processors", "random", "disks"])?;
    command.args(["--cpus", "2", "--rng", "on", "--balloon", "reporting"]);
    let found = with_disks(command)?;
    check(found == "{\"processors\":2}\n{\"random\":true}\n", found)
}

pub(crate) fn random_numbers_come_from_the_host(kernel: &Path) -> Result<(), Failed> {
    let results = results(inside(kernel, &["random"])?.args(["--rng", "on"]).output()?)?;
    check(results == "{\"random\":true}\n", results)
}

/// A running machine, which is killed where a test gives up.
pub(crate) struct Running {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Result<Self, Failed> {
        let mut process = command.stdout(Stdio::piped()).spawn()?;
        let output = process.stdout.take().ok_or("no pipe")?;
        Ok(Self { process, lines: BufReader::new(output).lines() })
    }

    /// Waits until the guest says that something is so.
    pub(crate) fn says(&mut self, what: &str) -> Result<(), Failed> {
        let line = self.lines.next().ok_or_else(|| format!("the guest ended before it was {what}"))??;
        check(line == format!("{{\"{what}\":true}}"), format!("{line} instead of {what}"))
    }

    /// A line of proc_pid_status(5), such as `VmRSS`, in bytes.
    fn memory(&self, name: &str) -> Result<u64, Failed> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
        Ok(line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB").parse::<u64>()? << 10)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The whole life of a guest by requests: a pause, memory in the balloon, and its end.
pub(crate) fn a_guest_is_started_by_its_api_socket(kernel: &Path) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("api");
    let mut command = Command::new(VMM);
    command.arg("--api-socket").arg(&socket);
    let mut running = Running::start(command)?;
    let mut connected = UnixStream::connect(&socket);
    let began = Instant::now();
    while connected.is_err() && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
        connected = UnixStream::connect(&socket);
    }
    let mut stream = connected?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut ask = |request: &str, arguments: Value| -> Result<Value, Failed> {
        writeln!(stream, "{}", json!({"version": 1, "request": request, "arguments": arguments}))?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line)?;
        check(answer.get("error").is_none(), format!("{request}: {line}"))?;
        Ok(answer["result"].clone())
    };
    let linux = json!({"kernel": kernel, "agent": agent(), "argument": ["idle"], "memory": "64M", "balloon": "plain"});
    ask("create", json!({"linux": linux}))?;
    ask("start", json!({}))?;
    let line = running.lines.next().ok_or("the guest ended before it was ready")??;
    check(announcement::parse(&line).is_some(), format!("no ready line but `{line}`"))?;
    let described = ask("describe", json!({}))?;
    check(described["state"] == "running", described.to_string())?;
    check(described["configuration"]["linux"]["memory"] == 64 << 20, described.to_string())?;
    ask("pause", json!({}))?;
    check(ask("describe", json!({}))?["state"] == "paused", "it is not paused")?;
    ask("resume", json!({}))?;
    ask("balloon", json!({"target": 4 << 20}))?;
    await_true(|| Ok(ask("balloon", json!({}))?["actual"] == 4 << 20))?;
    ask("stop", json!({}))?;
    check(running.process.wait()?.code() == Some(143), "another exit code")
}

/// Waits until something holds, which its machine's deadline ends.
fn await_true(mut holds: impl FnMut() -> Result<bool, Failed>) -> Result<(), Failed> {
    while !holds()? {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// What was cut off a disk gives its guest an error, and no more than that.
pub(crate) fn a_disk_that_shrinks_gives_errors(kernel: &Path) -> Result<(), Failed> {
    let disk = image(&[7; 65536])?;
    let mut command = inside(kernel, &["shrinking-disk"])?;
    command.args(["--disk", text(disk.path())]);
    let mut running = Running::start(command)?;
    running.says("reading")?;
    disk.as_file().set_len(4096)?;
    running.says("failed")?;
    check(running.process.wait()?.success(), "the guest did not live on")
}

/// What a guest used goes back to the host while the balloon is inflated, and the guest lives on when it is deflated.
pub(crate) fn a_balloon_gives_memory_back(kernel: &Path) -> Result<(), Failed> {
    const MEMORY: u64 = 64 << 20;
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("control");
    let mut command = inside(kernel, &["balloon"])?;
    command.args(["--memory", "192M", "--balloon", "plain", "--control", text(&socket)]);
    let disk = image(&[0; 4096])?;
    command.args(["--rng", "on", "--disk", text(disk.path())]);
    let mut running = Running::start(command)?;
    running.says("touched")?;
    let touched = running.memory("VmRSS")?;
    check(touched < 192 << 20, format!("{touched} bytes resident of memory that was not touched"))?;
    // The vCPU, the disk, the entropy device, the balloon and the control have a thread each; newer kernels add one of KVM's own.
    let threads = std::fs::read_dir(format!("/proc/{}/task", running.process.id()))?;
    let mut confined = 0;
    for thread in threads {
        let status = std::fs::read_to_string(thread?.path().join("status"))?;
        check(status.contains("Seccomp:\t2\n"), format!("a thread without a filter: {status}"))?;
        confined += 1;
    }
    check(confined >= 5, format!("{confined} threads instead of 5"))?;
    control::set_balloon(&socket, MEMORY)?;
    await_true(|| Ok(control::balloon(&socket)?.actual == MEMORY))?;
    running.says("inflated")?;
    let inflated = running.memory("VmRSS")?;
    check(inflated + MEMORY / 2 <= touched, format!("{touched} bytes before and {inflated} after"))?;
    let state = control::set_balloon(&socket, 0)?;
    let (total, free) = (state.statistics.total.unwrap_or(0), state.statistics.free.unwrap_or(u64::MAX));
    check(free < total && total <= 192 << 20, format!("{state:?}"))?;
    running.says("deflated")?;
    check(running.process.wait()?.success(), "the guest did not live on")?;
    Ok(())
}

/// All of a guest's memory is the host's loss from the start, where that is asked for; else it is not, as the balloon's test sees.
pub(crate) fn memory_is_taken_at_once_where_asked_for(kernel: &Path) -> Result<(), Failed> {
    let mut command = inside(kernel, &["free"])?;
    command.args(["--memory", "192M", "--pages", "small", "--populate", "on"]);
    let mut running = Running::start(command)?;
    running.says("touched")?;
    let resident = running.memory("VmRSS")?;
    check(resident >= 192 << 20, format!("{resident} bytes resident"))
}

/// What a guest leaves unused goes back to the host without being asked for.
pub(crate) fn unused_memory_is_reported(kernel: &Path) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("control");
    let mut command = inside(kernel, &["free"])?;
    command.args(["--memory", "192M", "--balloon", "reporting", "--control", text(&socket)]);
    // It ends after this test has given up, and can be looked at until then.
    command.args(["--deadline", "300"]);
    let mut running = Running::start(command)?;
    running.says("touched")?;
    let (most, began) = (running.memory("VmHWM")?, Instant::now());
    while running.memory("VmRSS")? + (32 << 20) > most {
        if began.elapsed() > PATIENCE {
            let resident = running.memory("VmRSS")?;
            let seen = post_mortem::of_a_balloon(&socket, directory.path());
            drop(running.process.kill());
            let said: Vec<String> = running.lines.by_ref().map_while(Result::ok).collect();
            let said = said.join("\n");
            return Err(
                format!("{resident} bytes of {most} resident after {PATIENCE:?}\n{seen}\nthe guest: {said}").into()
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

pub(crate) fn sees_both_processors(kernel: &Path) -> Result<(), Failed> {
    let output = inside(kernel, &["processors"])?.args(["--cpus", "2"]).output()?;
    let results = results(output)?;
    check(results == "{\"processors\":2}\n", results)
}

/// The first processor's thread, which waits in KVM, ends as well.
pub(crate) fn ends_where_the_second_processor_panics(kernel: &Path) -> Result<(), Failed> {
    let output = inside(kernel, &["die-on-the-second"])?.args(["--cpus", "2"]).output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    check(output.status.code() == Some(101), format!("{}: {told}", output.status))?;
    check(told.contains("Attempted to kill init") && told.contains("the guest reset itself"), told)
}

pub(crate) fn ends_at_its_deadline_while_all_processors_spin(kernel: &Path) -> Result<(), Failed> {
    // On a slow machine the guest is not that far at the first deadline.
    for deadline in ["6", "60"] {
        let mut command = inside(kernel, &["spin-on-all"])?;
        let output = command.args(["--cpus", "2", "--deadline", deadline]).output()?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        check(output.status.code() == Some(124), format!("{}: {told}", output.status))?;
        if output.stdout == b"{\"spinning\":true}\n" {
            return Ok(());
        }
    }
    Err("the guest never came to spin".into())
}

pub(crate) fn more_processors_than_there_can_be_are_one_sentence(kernel: &Path) -> Result<(), Failed> {
    for number in ["33", "255", "256", "4294967295"] {
        let told = ending(&["--kernel", text(kernel), "--agent", VMM, "--cpus", number], 1, " on this machine")?;
        check(told.lines().count() == 1 && told.contains("it must have at least 1, and can have 32"), told)?;
    }
    Ok(())
}

pub(crate) fn a_kernel_for_one_processor_is_one_sentence(kernel: &Path) -> Result<(), Failed> {
    let sentence = format!("the kernel {} runs one processor alone: give the guest one", kernel.display());
    let told = ending(&["--kernel", text(kernel), "--agent", VMM, "--cpus", "2"], 1, &sentence)?;
    check(told.lines().count() == 1, told)
}

pub(crate) fn a_number_of_processors_that_is_none_is_one_sentence() -> Result<(), Failed> {
    for number in ["0", "-1", "many", "4294967296"] {
        let sentence = format!("option --cpus: `{number}` is not a number of processors, at least 1");
        let told = ending(&["--kernel", VMM, "--agent", VMM, "--cpus", number], 1, &sentence)?;
        check(told.lines().count() == 1, told)?;
    }
    Ok(())
}

pub(crate) fn a_disk_that_cannot_be_used_is_one_sentence() -> Result<(), Failed> {
    let small = image(&[0; 100])?;
    let small = text(small.path());
    for (disk, sentence) in [
        ("/nonexistent/disk", "open the disk /nonexistent/disk to read and write: No such file"),
        ("/nonexistent/disk:ro", "open the disk /nonexistent/disk to read: No such file"),
        ("/tmp:ro", "the disk /tmp is neither a regular file nor a block device"),
        (small, "has 100 bytes, less than one sector of 512"),
        ("fd:77", "option --disk: `fd:77` is not a file or an open file descriptor"),
        (":ro", "option --disk: `:ro` is not a file or an open file descriptor"),
    ] {
        let told = ending(&["--kernel", VMM, "--agent", VMM, "--disk", disk], 1, sentence)?;
        check(told.lines().count() == 1, told)?;
    }
    Ok(())
}
