//! Peers whose guests boot on any machine, each in a short run of its own.

use isobench_reports::reader;
use isobench_reports::record::{Outcome, Value};
use libtest_mimic::{Arguments, Failed, Trial};
use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let installed = |program: &str| {
        std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|place| place.join(program).exists()))
    };
    let obstacle = match rustix::process::geteuid().is_root() {
        _ if !installed("linux.uml") => Some("needs linux.uml: apt-get install user-mode-linux"),
        false => Some("needs root"),
        true => None,
    };
    let without_root = (!rustix::process::geteuid().is_root()).then_some("needs root");
    let unbuilt = (!installed("qemu-system-x86_64")).then_some("needs qemu-system-x86");
    let trials = vec![
        trial("user_mode_linux_starts_and_ends_with_all_of_its_processes", user_mode_linux, obstacle),
        trial("a_missing_disk_is_told_with_the_command_that_builds_it", missing_disk, without_root.or(unbuilt)),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: &str, test: fn() -> Result<(), Failed>, obstacle: Option<&str>) -> Trial {
    let name = obstacle.map_or_else(|| name.to_owned(), |reason| format!("{name} (ignored: {reason})"));
    Trial::test(name, test).with_ignored_flag(obstacle.is_some())
}

fn check(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what().into()) }
}

/// A run of one experiment in one sandbox, all of whose samples are values.
fn run(place: &Path, sandbox: &str, experiment: &str) -> Result<reader::Records, Failed> {
    let directory = place.join(experiment);
    let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
    command.args(["run", "--only", experiment, "--sandbox", sandbox, "--require", sandbox, "--reps", "1", "--out"]);
    let output = command.arg(&directory).env("ISOBENCH_HOME", place.join("isobench")).output()?;
    check(output.status.success(), || format!("{output:?}"))?;
    let records = reader::read(&directory)?;
    for sample in &records.samples {
        check(matches!(sample.outcome, Outcome::Value(_)), || format!("a failed sample: {sample:?}"))?;
    }
    Ok(records)
}

fn user_mode_linux() -> Result<(), Failed> {
    let place = tempfile::tempdir()?;
    // A process of the guest's that stayed behind would be a leak, which is a failed sample.
    let records = run(place.path(), "user-mode-linux", "startup")?;
    let ready = records.samples.iter().filter(|sample| sample.metric == "start.ready");
    check(ready.count() == 2, || format!("not a warm-up and a launch: {:?}", records.samples))?;
    let records = run(place.path(), "user-mode-linux", "memory")?;
    // Its processes share their memory, so that no sum over them is told.
    check(records.samples.iter().all(|sample| sample.metric != "memory.pss"), || "a sum was told".into())?;
    let at = |instances: &str| {
        let found = records.samples.iter().find(|sample| {
            sample.metric == "memory.host" && sample.parameters.get("instances").is_some_and(|found| found == instances)
        });
        match found.map(|sample| &sample.outcome) {
            Some(Outcome::Value(Value::Integer(bytes))) => Ok(*bytes),
            other => Err(Failed::from(format!("no memory for {instances} instances: {other:?}"))),
        }
    };
    // Which of them is larger depends on whatever else the machine does meanwhile.
    let (none, eight) = (at("0")?, at("8")?);
    check(none > 0 && eight > 0, || format!("{none} bytes without a guest and {eight} with eight"))
}

fn missing_disk() -> Result<(), Failed> {
    let place = tempfile::tempdir()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
    command.args(["run", "--only", "startup", "--sandbox", "qemu-distribution", "--require", "qemu-distribution"]);
    command.arg("--out").arg(place.path().join("run"));
    // A cache in which nothing was built.
    let output =
        command.env("ISOBENCH_HOME", place.path().join("isobench")).env("XDG_CACHE_HOME", place.path()).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    let right = !output.status.success() && told.contains("build one by `isobench vm image`");
    check(right, || format!("{output:?}"))
}
