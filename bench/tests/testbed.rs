//! The testbed on this machine: it starts, measures and leaves everything as it was.
//!
//! It re-executes its own program, so this test program answers the hidden subcommand as `isobench` does.

use isobench::cell::{Cell, Measure, Measured, Measurement};
use isobench::experiments::{self, Experiment};
use isobench::testbed::{self, Settings, Testbed};
use isobench_reports::record::{Outcome, Value};
use isobench_workload::Family;
use libtest_mimic::{Arguments, Failed, Trial};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(testbed::SUBCOMMAND) => return testbed::host::main(),
        Some(isobench::networks::server::SUBCOMMAND) => return isobench::networks::server::main(),
        Some(HOLD) => return hold(),
        Some(AS_A_USER) => return as_a_user(),
        _ => {}
    }
    let mut trials: Vec<Trial> = experiments::all()
        .iter()
        .map(|experiment| {
            let long = experiment.name == "thousand";
            let reason = if long { " (ignored: takes a minute)" } else { "" };
            let name = format!("{}_is_measured_in_each_available_sandbox{reason}", experiment.name);
            Trial::test(name, || each_cell(experiment)).with_ignored_flag(long)
        })
        .collect();
    trials.push(Trial::test("a_program_of_the_users_own_is_measured_or_refused", own_program));
    let root = rustix::process::geteuid().is_root();
    let name =
        "an_ordinary_user_can_measure".to_owned() + if root { "" } else { " (ignored: only root can become one)" };
    trials.push(Trial::test(name, ordinary_user).with_ignored_flag(!root));
    trials.push(Trial::test("a_testbed_leaves_the_machine_as_it_was", leaves_nothing));
    trials.push(Trial::test("a_testbed_whose_parent_is_killed_is_gone", dies_with_its_parent));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Each testbed of this process has a name of its own.
fn settings() -> Settings {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let run = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    Settings { run, ..Settings::default() }
}

fn cell(experiment: &str, sandbox: &str) -> Cell {
    Cell {
        experiment: experiment.into(),
        sandbox: sandbox.into(),
        block: 0,
        position: 0,
        warm_up: false,
        program: None,
    }
}

/// Measures every experiment in every sandbox that is here: each point has a value, and nothing is left.
fn each_cell(experiment: &Experiment) -> Result<(), Failed> {
    let mut testbed = Testbed::start(&settings())?;
    let mut failures = Vec::new();
    for sandbox in testbed.sandboxes().to_vec() {
        if let Some(reason) = &sandbox.unavailable {
            println!("{}: not here: {reason}", sandbox.name);
            continue;
        }
        if !experiment.applies(&sandbox) {
            continue;
        }
        let begun = Instant::now();
        let Measured { measurements, left } = testbed.measure(&cell(experiment.name, &sandbox.name))?;
        println!("{} in {}: {:?}", experiment.name, sandbox.name, begun.elapsed());
        for Measurement { metric, parameters, outcome, .. } in &measurements {
            match outcome {
                Outcome::Error(error) => failures.push(format!("{}: {metric} {parameters:?}: {error}", sandbox.name)),
                Outcome::Value(value) => println!("  {metric} {parameters:?} {}", short(value)),
            }
        }
        if measurements.is_empty() {
            failures.push(format!("{}: nothing was measured", sandbox.name));
        }
        failures.extend(left.iter().map(|left| format!("{}: left {left}", sandbox.name)));
    }
    testbed.stop()?;
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

fn short(value: &Value) -> String {
    match value {
        Value::Stages(stages) => {
            let stages = stages.iter().map(|time| format!("{} {}", time.stage, time.at / 1000));
            stages.collect::<Vec<_>>().join(", ") + " us"
        }
        Value::Transfer { amount, nanoseconds } => format!("{amount} in {} us", nanoseconds / 1000),
        Value::Histogram(text) => format!("histogram of {} bytes", text.len()),
        other => format!("{other:?}"),
    }
}

/// A dynamically linked program that says one line and ends: ready is the line.
fn own_program() -> Result<(), Failed> {
    let mut testbed = Testbed::start(&settings())?;
    let program = Some(vec!["/bin/echo".to_owned(), "hello".to_owned()]);
    let mut failures = Vec::new();
    let startup = experiments::named("startup").ok_or("there is no experiment `startup`")?;
    let sandboxes = testbed.sandboxes().to_vec();
    let taking_part = sandboxes.iter().filter(|sandbox| sandbox.unavailable.is_none() && startup.applies(sandbox));
    for sandbox in taking_part {
        let measured = testbed.measure(&Cell { program: program.clone(), ..cell("startup", &sandbox.name) })?;
        let ready = measured
            .measurements
            .iter()
            .find(|measurement| measurement.metric == "start.ready")
            .ok_or("no start.ready")?;
        let refuses = matches!(sandbox.family, Family::Unikernel | Family::Linux)
            || sandbox.name == "unikernel-process"
            || sandbox.name.starts_with("qemu-")
            || sandbox.name == "user-mode-linux";
        match &ready.outcome {
            Outcome::Value(value) if !refuses => println!("{}: {}", sandbox.name, short(value)),
            Outcome::Error(error) if refuses && error.contains("is not supported") => {
                println!("{}: {error}", sandbox.name)
            }
            other => failures.push(format!("{}: {other:?}", sandbox.name)),
        }
    }
    testbed.stop()?;
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

/// Makes this program measure what needs no privilege.
const AS_A_USER: &str = "measure-as-a-user";

fn as_a_user() -> ExitCode {
    let measured = || -> anyhow::Result<()> {
        let mut testbed = Testbed::start(&settings())?;
        anyhow::ensure!(testbed.machine().rootless, "it says that it is not rootless");
        for sandbox in ["process", "container-host", "container-container", "container-none", "container-bridge"] {
            for measurement in testbed.measure(&cell("startup", sandbox))?.measurements {
                if let Outcome::Error(error) = measurement.outcome {
                    anyhow::bail!("{sandbox}: {error}");
                }
            }
        }
        testbed.stop()
    };
    match measured() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn ordinary_user() -> Result<(), Failed> {
    let nobody = 65534;
    // Its files may lie where nobody else can look: the open program itself is executed.
    let output = Command::new("/proc/self/exe").arg(AS_A_USER).uid(nobody).gid(nobody).current_dir("/").output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(said.into_owned().into()) }
}

/// All of the machine's own that a testbed could change: its links, firewall, mounts and control groups.
fn machine() -> Vec<(&'static str, String)> {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let links = text("/proc/net/dev").lines().filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect();
    let groups = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let mut groups: Vec<String> = groups
        .flat_map(|hierarchy| std::fs::read_dir(hierarchy.path()).into_iter().flatten().flatten())
        .map(|entry| entry.path().display().to_string())
        .collect();
    groups.sort();
    let mut tables = isobench_runtime::network::Netlink::open().expect("netlink");
    let routes = tables.routes().expect("routes").iter().map(|route| format!("{route:?}")).collect::<Vec<_>>();
    vec![
        ("links", links),
        ("mounts", text("/proc/self/mountinfo")),
        ("control groups", groups.join("\n")),
        ("forwarding", text("/proc/sys/net/ipv4/ip_forward")),
        ("congestion control", text("/proc/sys/net/ipv4/tcp_congestion_control")),
        ("routes", routes.join("\n")),
        ("host name", text("/proc/sys/kernel/hostname")),
    ]
}

fn leaves_nothing() -> Result<(), Failed> {
    let before = machine();
    let settings = settings();
    let mut testbed = Testbed::start(&settings)?;
    testbed.measure(&cell("startup", "container-bridge"))?;
    let bridged = testbed.machine().facts.get("bridged-packets").map(String::as_str);
    assert_eq!(bridged, Some("not filtered"), "a figure on a bridge would also be one on the firewall");
    // An ordinary user may make none where none is delegated.
    let root = rustix::process::geteuid().is_root();
    assert!(branches(&settings.run) > 0 || !root, "the testbed has control groups of its own");
    testbed.stop()?;
    assert_eq!(branches(&settings.run), 0, "control groups of the run are left");
    for ((kind, before), (_, after)) in before.iter().zip(machine()) {
        // Other tests of this machine come and go in our common parent.
        if *kind != "control groups" {
            assert_eq!(*before, after, "{kind}");
        }
    }
    Ok(())
}

/// Number of hierarchies in which a run has control groups.
fn branches(run: &str) -> usize {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let top = std::path::Path::new("/sys/fs/cgroup/isobench").join(run).exists();
    hierarchies.filter(|hierarchy| hierarchy.path().join("isobench").join(run).exists()).count() + usize::from(top)
}

/// Makes this program start a testbed, say the number of its outermost process and wait.
const HOLD: &str = "hold-a-testbed";

fn hold() -> ExitCode {
    match Testbed::start(&settings()) {
        Ok(testbed) => {
            println!("{}", testbed.pid());
            std::thread::park();
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dies_with_its_parent() -> Result<(), Failed> {
    let mut holder = Command::new("/proc/self/exe").arg(HOLD).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    let output = holder.stdout.take().ok_or("no pipe")?;
    BufReader::new(output).read_line(&mut line)?;
    let outermost: u32 = line.trim().parse().map_err(|_| format!("no process number: {line}"))?;
    let processes = descendants(outermost);
    assert!(processes.len() >= 3, "outer, inner and the named container: {processes:?}");
    holder.kill()?;
    holder.wait()?;
    let begun = Instant::now();
    while processes.iter().any(|process| is_running(*process)) {
        assert!(begun.elapsed() < Duration::from_secs(5), "{processes:?} are still there");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Control groups outlive processes: the next run, or `isobench gc`, removes them by the run's name.
    Ok(testbed::remove_groups(&format!("test-{}-0", holder.id()))?)
}

/// A process and all that it started, as this process's namespace numbers them.
fn descendants(process: u32) -> Vec<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let children = std::fs::read_to_string(path).unwrap_or_default();
    let children = children.split_ascii_whitespace().filter_map(|child| child.parse().ok());
    std::iter::once(process).chain(children.flat_map(descendants)).collect()
}

/// Whether a process is there and has not ended yet (state Z: whoever takes over orphans has still to reap it).
fn is_running(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
