//! What a container that somebody attends needs beyond its launch: a terminal, a layer of its own, further processes inside,
//! and an end with whoever launched it.
//!
//! It needs root and a static busybox; where one of these is missing the tests are ignored, with the reason in their name.

use isobench_runtime::launch::{capture_output, launch};
use isobench_runtime::terminal::Terminal;
use isobench_runtime::{Error, Launched, Plan, Program, Root, Specification, join};
use isobench_workload::{Output, OutputError};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::event::{PollFd, PollFlags, poll};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

const BUSYBOX: &str = "/bin/busybox";
const DEADLINE: Duration = Duration::from_secs(20);

/// Makes this program launch a container that is tied to it, and wait.
const HOLD: &str = "hold-a-container";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(HOLD) {
        return hold();
    }
    let missing = if !rustix::process::geteuid().is_root() {
        Some("needs root")
    } else if !Path::new(BUSYBOX).exists() {
        Some("needs /bin/busybox: apt-get install busybox-static")
    } else {
        None
    };
    let trial = |name: &str, test: fn() -> Result<(), Failed>| {
        let name = missing.map_or_else(|| name.to_owned(), |why| format!("{name} ({why})"));
        Trial::test(name, test).with_ignored_flag(missing.is_some())
    };
    let mut arguments = Arguments::from_args();
    // Joining makes the processes of a thread elsewhere, and only of that thread.
    arguments.test_threads = Some(1);
    let tests = vec![
        trial("a_terminal_has_a_name_a_size_and_a_session", a_terminal_has_a_name_a_size_and_a_session),
        trial("what_is_written_goes_to_a_layer", what_is_written_goes_to_a_layer),
        trial("a_further_process_is_in_the_container", a_further_process_is_in_the_container),
        trial("a_container_that_ended_cannot_be_joined", a_container_that_ended_cannot_be_joined),
        trial("a_tied_container_ends_with_its_parent", a_tied_container_ends_with_its_parent),
    ];
    libtest_mimic::run(&arguments, tests).exit_code()
}

fn shell(script: &str) -> Specification {
    let busybox = Program::Descriptor(Arc::new(OwnedFd::from(File::open(BUSYBOX).expect("busybox can be opened"))));
    Specification::container(busybox, ["busybox", "sh", "-c", script].map(String::from).to_vec())
}

fn in_words(error: Error) -> Failed {
    format!("{error}: {:?}", std::error::Error::source(&error)).into()
}

fn read_all(output: &mut Output) -> Result<String, Failed> {
    let mut text = String::new();
    loop {
        match output.line(DEADLINE) {
            Ok(line) => text += &(line + "\n"),
            Err(OutputError::Ended(rest)) => return Ok(text + &rest),
            Err(error) => return Err(error.into()),
        }
    }
}

fn begin(mut specification: Specification) -> Result<(Launched, Output), Failed> {
    let output = capture_output(&mut specification)?;
    Ok((Plan::validate(specification).and_then(launch).map_err(in_words)?, output))
}

fn same(got: &str, expected: &str) -> Result<(), Failed> {
    if got == expected { Ok(()) } else { Err(format!("got {got:?}, expected {expected:?}").into()) }
}

fn a_terminal_has_a_name_a_size_and_a_session() -> Result<(), Failed> {
    let mut specification = shell("tty; stty size; echo hello >/dev/tty; ls /dev/console");
    let (terminal, console) = Terminal::new(33, 101)?;
    specification.terminal = Some(terminal);
    let mut container = Plan::validate(specification).and_then(launch).map_err(in_words)?;
    let mut controlling = File::from(console.receive()?);
    container.process.wait(DEADLINE)?;
    let mut said = Vec::new();
    // A terminal whose other end is closed gives an error after the last byte.
    let _ = controlling.read_to_end(&mut said);
    same(&String::from_utf8_lossy(&said), "/dev/pts/0\r\n33 101\r\nhello\r\n/dev/console\r\n")
}

fn what_is_written_goes_to_a_layer() -> Result<(), Failed> {
    let place = tempfile::tempdir_in("/dev/shm")?;
    let directory = |name: &str| -> std::io::Result<_> {
        let path = place.path().join(name);
        fs::create_dir(&path).map(|()| path)
    };
    let (lower, upper, work) = (directory("a:b")?, directory("upper")?, directory("work")?);
    fs::write(lower.join("file"), "below")?;
    fs::write(lower.join("gone"), "below")?;
    let mut specification = shell("cat /file; echo above >/file; rm /gone; cat /file");
    let layers =
        |read_only| Root::Layered { lower: lower.clone(), upper: upper.clone(), work: work.clone(), read_only };
    specification.root = layers(false);
    same(&read_all(&mut begin(specification)?.1)?, "belowabove\n")?;
    same(&fs::read_to_string(lower.join("file"))?, "below")?;
    let names: Vec<_> = fs::read_dir(&lower)?.flatten().map(|entry| entry.file_name()).collect();
    if names.len() != 2 {
        return Err(format!("the directory below has changed: {names:?}").into());
    }
    let mut specification = shell("read x </file; echo $x; (echo new >/file) 2>/dev/null || echo refused");
    specification.root = layers(true);
    same(&read_all(&mut begin(specification)?.1)?, "above\nrefused\n")
}

fn a_further_process_is_in_the_container() -> Result<(), Failed> {
    let mut specification = shell("echo ready; while :; do read x; done");
    let (reader, writer) = rustix::pipe::pipe()?;
    specification.host_name = Some("joined".into());
    let mut output = capture_output(&mut specification)?;
    specification.input = isobench_runtime::Stream::Descriptor(reader);
    let mut container = Plan::validate(specification).and_then(launch).map_err(in_words)?;
    output.line(DEADLINE)?;

    let mut further = shell("echo $(hostname) $(pwd) $(cut -d' ' -f6 /proc/1/stat) $((1 < $$)); exit 3");
    further.working_directory = "/dev".into();
    let mut output = capture_output(&mut further)?;
    let mut process = join(container.process.pid(), further).map_err(in_words)?.process;
    same(&read_all(&mut output)?, "joined /dev 1 1\n")?;
    same(&process.wait(DEADLINE)?.code().to_string(), "3")?;

    // This process's own children are made here again.
    let here = Command::new("/bin/busybox").args(["readlink", "/proc/self/ns/pid"]).output()?;
    same(String::from_utf8_lossy(&here.stdout).trim(), &fs::read_link("/proc/self/ns/pid")?.display().to_string())?;
    drop(writer);
    container.process.signal(rustix::process::Signal::KILL)?;
    container.process.wait(DEADLINE)?;
    Ok(())
}

fn a_container_that_ended_cannot_be_joined() -> Result<(), Failed> {
    let (container, mut output) = begin(shell(":"))?;
    read_all(&mut output)?;
    poll(&mut [PollFd::new(&container.process.pidfd(), PollFlags::IN)], None)?;
    match join(container.process.pid(), shell(":")) {
        Err(Error::System { operation, .. }) => same(operation, "open namespace"),
        other => Err(format!("{other:?}").into()),
    }
}

fn hold() -> ExitCode {
    let mut specification = shell("echo $$; while :; do read x; done");
    specification.dies_with_parent = true;
    let Ok((container, _output)) = begin(specification) else { return ExitCode::FAILURE };
    println!("{}", container.process.pid());
    std::thread::park();
    drop(container);
    ExitCode::SUCCESS
}

fn a_tied_container_ends_with_its_parent() -> Result<(), Failed> {
    let mut holder = Command::new("/proc/self/exe").arg(HOLD).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut output = Output::new(OwnedFd::from(holder.stdout.take().ok_or("no pipe")?));
    let number: i32 = output.line(DEADLINE)?.parse()?;
    let process = rustix::process::Pid::from_raw(number).ok_or("no number")?;
    let pidfd = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty())?;
    holder.kill()?;
    holder.wait()?;
    let patience = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience))?;
    if ended == 1 { Ok(()) } else { Err("the container lives on".into()) }
}
