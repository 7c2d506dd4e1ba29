//! Figures taken through the product's own measurement: cells on a testbed.

use crate::{Pair, both, generator};
use anyhow::{Context, anyhow};
use isobench::cell::{Cell, Measure};
use isobench::journal::Journal;
use isobench::testbed::Settings;
use isobench::testbeds::Testbeds;
use isobench_reports::record::{Outcome, Value};
use std::cell::RefCell;

/// Where a value stands among what a cell measures.
#[derive(Clone, Copy)]
struct Place {
    experiment: &'static str,
    sandbox: &'static str,
    metric: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    read: fn(&Value) -> Option<f64>,
}

fn nanoseconds(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(amount) => Some(*amount as f64),
        _ => None,
    }
}

fn mebibytes(value: &Value) -> Option<f64> {
    nanoseconds(value).map(|bytes| bytes / f64::from(1 << 20))
}

fn announced(value: &Value) -> Option<f64> {
    match value {
        Value::Stages(stages) => stages.iter().find(|stage| stage.stage == "announced").map(|stage| stage.at as f64),
        _ => None,
    }
}

fn rate(value: &Value) -> Option<f64> {
    match value {
        Value::Transfer { amount, nanoseconds } => Some(*amount as f64 / *nanoseconds as f64),
        _ => None,
    }
}

/// Of how many there were and the CPU time that they took: nanoseconds for each.
fn for_each(value: &Value) -> Option<f64> {
    rate(value).map(f64::recip)
}

/// The same of bytes: nanoseconds a byte are seconds a gigabyte.
fn seconds_a_gigabyte(value: &Value) -> Option<f64> {
    for_each(value)
}

/// A time of the start or the end of one sandbox beside that of another.
fn startup(
    metric: &'static str,
    read: fn(&Value) -> Option<f64>,
    sandboxes: [&'static str; 2],
) -> anyhow::Result<Pair> {
    let [one, other] = sandboxes.map(|sandbox| Place { experiment: "startup", sandbox, metric, parameters: &[], read });
    pairs(one, other)
}

pub(crate) fn bridge_against_none() -> anyhow::Result<Pair> {
    startup("start.stages", announced, ["container-bridge", "container-none"])
}

pub(crate) fn unikernel_against_runc() -> anyhow::Result<Pair> {
    startup("start.ready", nanoseconds, ["vm-unikernel", "runc"])
}

/// Each call launches the agent by `docker run` on its bridge with a published port and ends it: nanoseconds of one of the
/// experiment's times.
pub(crate) fn docker(metric: &'static str) -> anyhow::Result<impl FnMut() -> anyhow::Result<f64>> {
    let place =
        Place { experiment: "publishing", sandbox: "docker-bridge", metric, parameters: &[], read: nanoseconds };
    let mut bed = Bed::start(&[place])?;
    Ok(move || bed.measured(place))
}

pub(crate) fn unikernel_against_crun() -> anyhow::Result<Pair> {
    startup("start.ready", nanoseconds, ["vm-unikernel", "crun"])
}

pub(crate) fn unikernel_alone_against_crun() -> anyhow::Result<Pair> {
    startup("start.ready", nanoseconds, ["vm-unikernel-none", "crun"])
}

pub(crate) fn unikernel_restored() -> anyhow::Result<Pair> {
    startup("start.ready", nanoseconds, ["vm-unikernel-restored", "vm-unikernel"])
}

pub(crate) fn linux_restored() -> anyhow::Result<Pair> {
    startup("start.ready", nanoseconds, ["vm-linux-restored", "vm-linux"])
}

pub(crate) fn unikernel_gone() -> anyhow::Result<Pair> {
    startup("start.gone", nanoseconds, ["vm-unikernel", "crun"])
}

pub(crate) fn unikernel_round_trip() -> anyhow::Result<Pair> {
    round_trips(UNIKERNEL, CONTAINER)
}

/// CPU nanoseconds of load generator and server for each round trip.
pub(crate) fn unikernel_round_trip_cost() -> anyhow::Result<Pair> {
    round_trip_costs(UNIKERNEL, CONTAINER)
}

/// Beside a container whose server looks for requests as long as the unikernel looks for frames.
pub(crate) fn unikernel_round_trip_polling() -> anyhow::Result<Pair> {
    round_trips(UNIKERNEL, POLLING_CONTAINER)
}

pub(crate) fn unikernel_round_trip_polling_cost() -> anyhow::Result<Pair> {
    round_trip_costs(UNIKERNEL, POLLING_CONTAINER)
}

/// How much longer than a container's a unikernel's round trip may be where nobody looks for frames, in nanoseconds.
const SLEEPING: f64 = 35_000.0;

/// The round trip to a unikernel that sleeps at once, less [`SLEEPING`]: at most the container's.
pub(crate) fn unikernel_sleeping_round_trip() -> anyhow::Result<Pair> {
    let mut pair = round_trips(SLEEPING_UNIKERNEL, CONTAINER)?;
    // No less than a nanosecond: ratios are of what is above zero.
    Ok(Box::new(move || pair().map(|(ours, theirs)| ((ours - SLEEPING).max(1.0), theirs))))
}

/// CPU nanoseconds for each round trip to a unikernel that sleeps at once.
pub(crate) fn unikernel_sleeping_round_trip_cost() -> anyhow::Result<Pair> {
    round_trip_costs(SLEEPING_UNIKERNEL, CONTAINER)
}

const CONTAINER: &str = "container-bridge";
const POLLING_CONTAINER: &str = "container-bridge-polling";
const UNIKERNEL: &str = "vm-unikernel";
const SLEEPING_UNIKERNEL: &str = "vm-unikernel-sleeping";

/// One-byte round trips between the host and two sandboxes on its bridge: their medians.
fn round_trips(ours: &'static str, theirs: &'static str) -> anyhow::Result<Pair> {
    let [ours, theirs] = [ours, theirs].map(|sandbox| round_trip("tcp.round-trip.median", nanoseconds, sandbox));
    pairs(ours, theirs)
}

/// The CPU time of each.
fn round_trip_costs(ours: &'static str, theirs: &'static str) -> anyhow::Result<Pair> {
    let [ours, theirs] = [ours, theirs].map(|sandbox| round_trip("tcp.round-trip.cost", for_each, sandbox));
    pairs(ours, theirs)
}

fn round_trip(metric: &'static str, read: fn(&Value) -> Option<f64>, sandbox: &'static str) -> Place {
    Place { experiment: "latency", sandbox, metric, parameters: &[("path", "host")], read }
}

pub(crate) fn unikernel_upload() -> anyhow::Result<Pair> {
    throughput("tcp.upload")
}

pub(crate) fn unikernel_download() -> anyhow::Result<Pair> {
    throughput("tcp.download")
}

pub(crate) fn unikernel_upload_cost() -> anyhow::Result<Pair> {
    transfer("tcp.upload.cost", seconds_a_gigabyte)
}

pub(crate) fn unikernel_download_cost() -> anyhow::Result<Pair> {
    transfer("tcp.download.cost", seconds_a_gigabyte)
}

fn throughput(metric: &'static str) -> anyhow::Result<Pair> {
    transfer(metric, rate)
}

/// Of one TCP stream between the host and a sandbox on its bridge, in the full suite's windows, whose warm-up outlasts the first
/// touches of a guest's buffers.
fn transfer(metric: &'static str, read: fn(&Value) -> Option<f64>) -> anyhow::Result<Pair> {
    let place = |sandbox| Place {
        experiment: "throughput",
        sandbox,
        metric,
        parameters: &[("path", "host"), ("segmentation", "offload")],
        read,
    };
    pairs_with(place("vm-unikernel"), place("container-bridge"), full_suite())
}

pub(crate) fn loopback_by_hand() -> anyhow::Result<Pair> {
    by_hand("container-container", "loopback", crate::place::loopback()?)
}

pub(crate) fn bridge_by_hand() -> anyhow::Result<Pair> {
    by_hand("container-bridge", "client", crate::place::published()?)
}

/// A path of the product's own beside one that was set up by hand: the same generator, server, window and CPUs.
fn by_hand(sandbox: &'static str, path: &'static str, hand: crate::place::Path) -> anyhow::Result<Pair> {
    let parameters: &'static [_] = match path {
        "loopback" => &[("path", "loopback"), ("segmentation", "offload")],
        _ => &[("path", "client"), ("segmentation", "offload")],
    };
    let ours = Place { experiment: "throughput", sandbox, metric: "tcp.upload", parameters, read: rate };
    let bed = RefCell::new(Bed::start_with(&[ours], full_suite())?);
    let server = generator::serve(&hand)?;
    Ok(Box::new(move || {
        let _running = &server;
        both(
            || bed.borrow_mut().measured(ours).map(|per_nanosecond| per_nanosecond * 1e9),
            || generator::upload(&hand, WARM_UP, WINDOW),
        )
    }))
}

/// As the full suite has them, in milliseconds. Right after another stream one over lo begins up to a tenth slower than after a
/// pause, on either side, for some 50 ms: the two sides come after different things, and the warm-up must outlast that.
const WARM_UP: u64 = 200;
const WINDOW: u64 = 1000;

pub(crate) fn monitor_memory() -> anyhow::Result<Pair> {
    let place = Place {
        experiment: "memory",
        sandbox: "vm-unikernel",
        metric: "memory.vmm-overhead",
        parameters: &[],
        read: mebibytes,
    };
    let mut bed = Bed::start(&[place])?;
    Ok(Box::new(move || Ok((bed.measured(place)?, 1.0))))
}

fn full_suite() -> Settings {
    Settings { quick: false, ..Settings::default() }
}

fn pairs(ours: Place, theirs: Place) -> anyhow::Result<Pair> {
    pairs_with(ours, theirs, Settings::default())
}

fn pairs_with(ours: Place, theirs: Place, settings: Settings) -> anyhow::Result<Pair> {
    let bed = RefCell::new(Bed::start_with(&[ours, theirs], settings)?);
    Ok(Box::new(move || both(|| bed.borrow_mut().measured(ours), || bed.borrow_mut().measured(theirs))))
}

/// The testbeds of one figure, and the journal of what it must leave behind nowhere.
struct Bed {
    testbeds: Option<Testbeds>,
    journal: Option<Journal>,
}

impl Bed {
    fn start(places: &[Place]) -> anyhow::Result<Self> {
        Self::start_with(places, Settings::default())
    }

    fn start_with(places: &[Place], settings: Settings) -> anyhow::Result<Self> {
        let journal = Journal::open()?;
        journal.note_control_groups()?;
        let settings = Settings { run: journal.run().to_owned(), ..settings };
        let testbeds = Testbeds::start(&settings, &journal, |name| places.iter().any(|place| place.sandbox == name));
        // Its drop closes the journal, also where no testbed started.
        let mut bed = Self { testbeds: None, journal: Some(journal) };
        let testbeds = bed.testbeds.insert(testbeds?);
        for place in places {
            let record = testbeds.sandboxes().iter().find(|record| record.name == place.sandbox);
            let record = record.with_context(|| format!("there is no sandbox named `{}`", place.sandbox))?;
            if let Some(reason) = &record.unavailable {
                return Err(anyhow!("{} cannot be measured here: {reason}", place.sandbox));
            }
        }
        Ok(bed)
    }

    fn measured(&mut self, place: Place) -> anyhow::Result<f64> {
        let cell = Cell {
            experiment: place.experiment.into(),
            sandbox: place.sandbox.into(),
            block: 0,
            position: 0,
            warm_up: false,
            program: None,
        };
        let testbeds = self.testbeds.as_mut().context("the testbeds have ended")?;
        let measured = testbeds.measure(&cell)?;
        let found = measured.measurements.iter().find(|measurement| {
            measurement.metric == place.metric
                && place
                    .parameters
                    .iter()
                    .all(|(name, value)| measurement.parameters.get(*name).is_some_and(|found| found == value))
        });
        let found = found.with_context(|| format!("{} in {} was not measured", place.metric, place.sandbox))?;
        match &found.outcome {
            Outcome::Value(value) => (place.read)(value)
                .with_context(|| format!("{} in {} has another kind of value", place.metric, place.sandbox)),
            Outcome::Error(error) => Err(anyhow!("{} in {}: {error}", place.metric, place.sandbox)),
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let stopped = self.testbeds.take().map(Testbeds::stop);
        let leftovers = self.journal.take().map(Journal::close).unwrap_or_default();
        if let Some(Err(error)) = stopped {
            println!("stop the testbeds: {error:#}");
        }
        for leftover in leftovers.iter().filter(|leftover| leftover.error.is_some()) {
            println!("left behind: {}", leftover.path.display());
        }
    }
}
