//! A whole run with a Linux guest: where KVM runs Linux on this machine, or in `scripts/rig test`, whose machine is emulated, has
//! pure cgroup v2 and a distribution's own kernel.

use isobench_microvm::judge::judge;
use isobench_microvm::linux::kernel;
use isobench_reports::reader;
use isobench_reports::record::{Outcome, Value};
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::{Command, ExitCode};

const SANDBOXES: [&str; 5] = ["process", "container-none", "container-bridge", "vm-unikernel", "vm-linux"];
const BLOCKS: usize = 2;

fn main() -> ExitCode {
    let obstacle = if !judge().runs_linux() {
        Some("KVM runs no Linux here: scripts/rig test")
    } else if kernel::find().is_none() {
        Some("needs scripts/guest-kernel fetch")
    } else {
        None
    };
    let trial = Trial::test("every_kind_of_sandbox_starts_in_one_run_and_is_reported", run);
    let trial = trial.with_ignored_flag(obstacle.is_some()).with_kind(obstacle.unwrap_or_default());
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

fn check(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what().into()) }
}

fn run() -> Result<(), Failed> {
    let place = tempfile::tempdir()?;
    let directory = place.path().join("run");
    let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
    command.args(["run", "--only", "startup", "--lang", "en", "--seed", "7", "--reps", &BLOCKS.to_string(), "--out"]);
    command.arg(&directory).env("XDG_RUNTIME_DIR", place.path()).env("LC_ALL", "C");
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
