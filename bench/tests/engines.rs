//! Docker and podman as peers: measured where they are installed, and reported with one sentence where they are missing, broken
//! or hang. Nothing of them is left, after a kill neither.
//!
//! The testbed re-executes its own program, so this test program answers the hidden subcommand as `isobench` does.

use isobench::cell::{Cell, Measure, Measured, Measurement};
use isobench::experiments;
use isobench::journal::{self, Journal};
use isobench::sandboxes::Engine;
use isobench::testbed::{self, Settings};
use isobench::testbeds::Testbeds;
use isobench_reports::record::{Outcome, SandboxRecord, Value};
use libtest_mimic::{Arguments, Failed, Trial};
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(testbed::SUBCOMMAND) => return testbed::host::main(),
        Some(EXAMINE) => return said(examine()),
        Some(MEASURE) => return said(measure(&std::env::args().nth(2).unwrap_or_default())),
        Some(HOLD) => return said(hold(&std::env::args().nth(2).unwrap_or_default())),
        _ => {}
    }
    let root = rustix::process::geteuid().is_root();
    let mut trials = Vec::new();
    for engine in Engine::ALL {
        let obstacle = match engine.installed() {
            Err(reason) => Some(reason),
            Ok(()) if !root => Some("only root can start it here".into()),
            Ok(()) => None,
        };
        let suffix = obstacle.as_ref().map_or(String::new(), |reason| format!(" (ignored: {reason})"));
        let name = format!("{}_is_measured_in_its_network_modes{suffix}", engine.name());
        let trial = Trial::test(name, move || is_measured(engine));
        trials.push(trial.with_ignored_flag(obstacle.is_some()));
        let name = format!("nothing_of_{}_outlives_a_kill_and_a_sweep{suffix}", engine.name());
        let trial = Trial::test(name, move || outlives_nothing(engine));
        trials.push(trial.with_ignored_flag(obstacle.is_some()));
    }
    let suffix = if root { "" } else { " (ignored: only root gets as far as to start an engine)" };
    for (name, test) in FAKES {
        trials.push(Trial::test(format!("{name}{suffix}"), *test).with_ignored_flag(!root));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn said(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Makes this program measure every experiment in the sandboxes of the engine that follows: a process has one run, and so one
/// name for it.
const MEASURE: &str = "measure-an-engine";

fn measure(name: &str) -> anyhow::Result<()> {
    let journal = Journal::open()?;
    journal.note_control_groups()?;
    let settings = Settings { run: journal.run().to_owned(), ..Settings::default() };
    let mut testbeds = Testbeds::start(&settings, &journal, |sandbox| sandbox.starts_with(name))?;
    let mut failures = Vec::new();
    for sandbox in testbeds.sandboxes().to_vec().iter().filter(|sandbox| sandbox.name.starts_with(name)) {
        if let Some(reason) = &sandbox.unavailable {
            failures.push(format!("{}: {reason}", sandbox.name));
            continue;
        }
        // Eight instances of each mode would take minutes and show what one mode shows.
        let slow = |experiment: &str| experiment == "memory" && !sandbox.name.ends_with("-bridge");
        for experiment in experiments::all().iter().filter(|experiment| !slow(experiment.name)) {
            if experiment.applies(sandbox) {
                failures.extend(measure_one(&mut testbeds, experiment.name, sandbox)?);
            }
        }
    }
    testbeds.stop()?;
    let left = journal.close();
    failures.extend(left.iter().map(|left| format!("left {}", left.path.display())));
    anyhow::ensure!(failures.is_empty(), failures.join("\n"));
    Ok(())
}

fn measure_one(testbeds: &mut Testbeds, experiment: &str, sandbox: &SandboxRecord) -> anyhow::Result<Vec<String>> {
    let cell = Cell {
        experiment: experiment.into(),
        sandbox: sandbox.name.clone(),
        block: 0,
        position: 0,
        warm_up: false,
        program: None,
    };
    let begun = Instant::now();
    let Measured { measurements, left } = testbeds.measure(&cell)?;
    println!("{experiment} in {}: {:?}", sandbox.name, begun.elapsed());
    let mut failures = Vec::new();
    for Measurement { metric, parameters, outcome, .. } in &measurements {
        match outcome {
            Outcome::Error(error) => failures.push(format!("{}: {metric} {parameters:?}: {error}", sandbox.name)),
            Outcome::Value(Value::Histogram(_)) => {}
            Outcome::Value(value) => println!("  {metric} {parameters:?} {value:?}"),
        }
    }
    failures.extend(left.iter().map(|left| format!("{} left {left}", sandbox.name)));
    Ok(failures)
}

fn is_measured(engine: Engine) -> Result<(), Failed> {
    let before = machine();
    let output = Command::new("/proc/self/exe").args([MEASURE, engine.name()]).output()?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    println!("{text}");
    assert!(output.status.success(), "{text}");
    for ((kind, before), (_, after)) in before.iter().zip(machine()) {
        assert_eq!(*before, after, "{kind}");
    }
    Ok(())
}

/// What of the machine's own an engine is known to write to.
fn machine() -> Vec<(&'static str, String)> {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let entries = |path: &str| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names.join(" ")
    };
    let links: Vec<_> =
        text("/proc/net/dev").lines().filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect();
    vec![
        ("links", links.join(" ")),
        ("forwarding", text("/proc/sys/net/ipv4/ip_forward")),
        ("bridge filter", text("/proc/sys/net/bridge/bridge-nf-call-iptables")),
        ("modules", text("/proc/modules").lines().filter_map(|line| line.split(' ').next()).collect()),
        ("/etc/docker", entries("/etc/docker")),
        ("/etc/containers", entries("/etc/containers")),
        ("/var/lib", entries("/var/lib")),
        ("/var/cache", entries("/var/cache")),
        ("/dev/shm", entries("/dev/shm")),
        ("groups of docker", entries("/sys/fs/cgroup/memory/docker") + &entries("/sys/fs/cgroup/docker")),
    ]
}

/// Makes this program start the engine that follows, say the run's name and wait.
const HOLD: &str = "hold-an-engine";

fn hold(name: &str) -> anyhow::Result<()> {
    let journal = Journal::open()?;
    journal.note_control_groups()?;
    let settings = Settings { run: journal.run().to_owned(), ..Settings::default() };
    let testbeds = Testbeds::start(&settings, &journal, |sandbox| sandbox.starts_with(name))?;
    let mine = testbeds.sandboxes().iter().find(|sandbox| sandbox.name.starts_with(name));
    anyhow::ensure!(mine.is_some_and(|sandbox| sandbox.unavailable.is_none()), "{mine:?}");
    println!("{}", journal.run());
    std::thread::park();
    Ok(())
}

fn outlives_nothing(engine: Engine) -> Result<(), Failed> {
    let mut holder = Command::new("/proc/self/exe").args([HOLD, engine.name()]).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(holder.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
    let run = line.trim().to_owned();
    assert!(run.starts_with(&format!("{}-", holder.id())), "{line}");
    let processes = descendants(holder.id());
    assert!(processes.len() > 5, "two testbeds, a container and what runs it: {processes:?}");
    assert!(!of_run(&run).is_empty(), "there are files and control groups of the run");
    holder.kill()?;
    holder.wait()?;
    let begun = Instant::now();
    while processes.iter().any(|process| is_running(*process)) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{processes:?} are still there");
        std::thread::sleep(Duration::from_millis(5));
    }
    let swept = journal::sweep(false);
    let failed: Vec<_> = swept.iter().filter(|left| left.error.is_some()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(of_run(&run), Vec::<PathBuf>::new());
    Ok(())
}

/// Directories and control groups that carry a run's name.
fn of_run(run: &str) -> Vec<PathBuf> {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let mut places: Vec<PathBuf> = hierarchies.map(|hierarchy| hierarchy.path().join("isobench")).collect();
    places.extend(["/sys/fs/cgroup/isobench", "/var/tmp"].map(PathBuf::from));
    let entries = places.iter().flat_map(|place| std::fs::read_dir(place).into_iter().flatten().flatten());
    entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains(run)).collect()
}

/// A process and all that it started, as this process's namespace numbers them.
fn descendants(process: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children = tasks.flat_map(|task| {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        text.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<u32>>()
    });
    std::iter::once(process).chain(children.flat_map(descendants)).collect()
}

/// Whether a process is there and has not ended yet (state Z: whoever takes over orphans has still to reap it).
fn is_running(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Makes this program print each sandbox of an engine with the reason why it is not to be had.
const EXAMINE: &str = "examine-the-engines";

fn examine() -> anyhow::Result<()> {
    let journal = Journal::open()?;
    journal.note_control_groups()?;
    let settings = Settings { run: journal.run().to_owned(), deadline: Duration::from_secs(1), ..Settings::default() };
    let testbeds = Testbeds::start(&settings, &journal, |_| true)?;
    for sandbox in testbeds.sandboxes() {
        println!("{}: {}", sandbox.name, sandbox.unavailable.as_deref().unwrap_or("available"));
    }
    testbeds.stop()?;
    let left = journal.close();
    anyhow::ensure!(left.is_empty(), "left {left:?}");
    Ok(())
}

type Fake = (&'static str, fn() -> Result<(), Failed>);

const FAKES: &[Fake] = &[
    ("an_engine_that_is_missing_is_unavailable", missing),
    ("an_engine_that_breaks_is_unavailable", breaks),
    ("an_engine_that_hangs_is_unavailable", hangs),
];

/// What is said of the bridge mode of each engine where `PATH` holds these programs alone, each a shell script.
fn with_programs(scripts: &[(&str, &str)]) -> Result<[String; 2], Failed> {
    let directory = tempfile::tempdir()?;
    for (name, script) in scripts {
        let path = directory.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    let output = Command::new("/proc/self/exe").arg(EXAMINE).env("PATH", path_of(directory.path())).output()?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let of = |sandbox: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(sandbox)?.strip_prefix(": "));
        line.map(str::to_owned).ok_or_else(|| format!("nothing is said of {sandbox}: {text}"))
    };
    assert_eq!(of("container-bridge")?, "available", "our own are not harmed");
    Ok([of("docker-bridge")?, of("podman-bridge")?])
}

fn path_of(directory: &Path) -> OsString {
    directory.as_os_str().to_owned()
}

fn missing() -> Result<(), Failed> {
    let [docker, podman] = with_programs(&[])?;
    assert_eq!(docker, "docker is not installed: apt-get install docker.io");
    assert_eq!(podman, "podman is not installed: apt-get install podman aardvark-dns");
    let [docker, _] = with_programs(&[("docker", "exit 0")])?;
    assert_eq!(docker, "dockerd, the daemon behind docker, is not installed: apt-get install docker.io");
    Ok(())
}

fn breaks() -> Result<(), Failed> {
    let dockerd = "echo starting; echo 'no storage driver works' >&2; exit 1";
    let podman = "echo 'cannot open the store' >&2; exit 125";
    let [docker, podman] = with_programs(&[("docker", "exit 0"), ("dockerd", dockerd), ("podman", podman)])?;
    assert_eq!(docker, "docker does not start: dockerd ended with status 1 at once: no storage driver works");
    assert_eq!(podman, "podman does not start: `podman info --format` ended with status 125: cannot open the store");
    Ok(())
}

fn hangs() -> Result<(), Failed> {
    let hang = "exec /bin/sleep 1000";
    let [docker, podman] = with_programs(&[("docker", hang), ("dockerd", hang), ("podman", hang)])?;
    assert_eq!(docker, "docker does not start: dockerd did not listen within 2s: it said nothing");
    assert_eq!(podman, "podman does not start: `podman info --format` gave no answer within 2s");
    Ok(())
}
