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
    let trials = vec![Trial::test("startup_of_a_process_is_measured", startup)];
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

fn startup() -> Result<(), Failed> {
    let mut testbed = Testbed::start(&Settings::default())?;
    let before = testbed.inventory()?;
    let measurements = testbed.measure(&cell("startup", "process"))?;
    let after = testbed.inventory()?;
    println!("{measurements:#?}");
    let ready = measurements.iter().find(|measurement| measurement.metric == "start.ready").ok_or("no start.ready")?;
    let Outcome::Value(Value::Integer(nanoseconds)) = ready.outcome else { return Err("no value".into()) };
    assert!((50_000..1_000_000_000).contains(&nanoseconds), "{nanoseconds} ns");
    assert_eq!(after, before);
    testbed.stop()?;
    Ok(())
}
