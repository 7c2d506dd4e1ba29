//! The testbed on this machine: it starts, measures and leaves everything as it was.
//!
//! It re-executes its own program, so this test program answers the hidden subcommand as `isobench` does.

use isobench::cell::{Cell, Measure};
use isobench::testbed::{self, Settings, Testbed};
use isobench_reports::record::{Outcome, Value};
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(testbed::SUBCOMMAND) {
        return testbed::host::main();
    }
    let trials = vec![Trial::test("each_available_sandbox_launches_answers_and_is_gone", each_sandbox)];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
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

fn each_sandbox() -> Result<(), Failed> {
    let mut testbed = Testbed::start(&Settings::default())?;
    let mut failures = Vec::new();
    for sandbox in testbed.sandboxes().to_vec() {
        if let Some(reason) = &sandbox.unavailable {
            println!("{}: not here: {reason}", sandbox.name);
            continue;
        }
        let before = testbed.inventory()?;
        let measurements = testbed.measure(&cell("startup", &sandbox.name))?;
        if let Ok(n) = std::env::var("REPEAT") {
            let mut all = vec![];
            for _ in 0..n.parse::<u32>().unwrap() {
                for measurement in testbed.measure(&cell("startup", &sandbox.name))? {
                    if let (Outcome::Value(Value::Integer(value)), "start.ready") =
                        (measurement.outcome, &*measurement.metric)
                    {
                        all.push(value / 1000);
                    }
                }
            }
            all.sort();
            println!("{}: {all:?}", sandbox.name);
        }
        let left = testbed.inventory()?.beyond(&before);
        for measurement in &measurements {
            match &measurement.outcome {
                Outcome::Error(error) => failures.push(format!("{}: {}: {error}", sandbox.name, measurement.metric)),
                Outcome::Value(Value::Integer(nanoseconds)) => {
                    println!("{} ({:?}): {} {nanoseconds} ns", sandbox.name, sandbox.version, measurement.metric);
                    if !(50_000..5_000_000_000).contains(nanoseconds) {
                        failures.push(format!("{}: {} ns", sandbox.name, nanoseconds));
                    }
                }
                Outcome::Value(Value::Stages(stages)) => {
                    let stages: Vec<String> =
                        stages.iter().map(|time| format!("{} {}", time.stage, time.at / 1000)).collect();
                    println!("{}: {} us", sandbox.name, stages.join(", "));
                }
                Outcome::Value(_) => {}
            }
        }
        failures.extend(left.iter().map(|left| format!("{}: left {left}", sandbox.name)));
    }
    testbed.stop()?;
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}
