//! What isolation costs a program that runs: the same work by the same code in each sandbox, done by its server and timed from
//! outside.

use super::{Experiment, Ground, Place, Point, Scene, Sheet, WarmUp, ended};
use crate::sandboxes::{self, Kind};
use anyhow::{Context, bail};
use isobench_reports::record::{Outcome, Value};
use isobench_workload::client::Worker;
use isobench_workload::protocol::PORT;
use isobench_workload::work::{self, Pages, Task};
use isobench_workload::{Family, Instance, Sandbox, Workload};
use std::net::SocketAddr;
use std::time::Duration;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "overhead",
    text: "fixed amounts of work inside: integers, floating point, streams and dependent loads through memory, system calls, files",
    quick_blocks: 9,
    takes_program: false,
    // Work is done once before the first block, to find out how much of it takes long enough, and each instance writes to its
    // memory before the clock runs.
    warm_up: WarmUp::Cell,
    metrics: &[COMPUTE, STREAM, CHASE, CALL, FILE, MEMORY, FILE_SYSTEM, SEEN],
    points,
    measure,
};

const COMPUTE: &str = "overhead.compute";
const STREAM: &str = "overhead.stream";
const CHASE: &str = "overhead.chase";
const CALL: &str = "overhead.call";
const FILE: &str = "overhead.file";
const MEMORY: &str = "overhead.memory";
const FILE_SYSTEM: &str = "overhead.file-system";
const SEEN: &str = "overhead.seen";

/// One kind of work with what its samples are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    kind: work::Kind,
    pages: Pages,
    memory: Extent,
    metric: &'static str,
    parameters: &'static [(&'static str, &'static str)],
}

/// How much memory a kind of work has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    None,
    /// Fits into the first cache of every processor.
    Cache,
    /// Larger than the last cache, and than what is translated without a walk through page tables.
    Large,
}

const fn item(
    kind: work::Kind,
    memory: Extent,
    metric: &'static str,
    parameters: &'static [(&'static str, &'static str)],
) -> Item {
    Item { kind, pages: Pages::Usual, memory, metric, parameters }
}

const ITEMS: [Item; 9] = [
    item(work::Kind::Integer, Extent::None, COMPUTE, &[("work", "integer")]),
    item(work::Kind::Floating, Extent::None, COMPUTE, &[("work", "floating")]),
    item(work::Kind::Stream, Extent::Large, STREAM, &[]),
    item(work::Kind::Chase, Extent::Cache, CHASE, &[("memory", "cache"), ("pages", "usual")]),
    item(work::Kind::Chase, Extent::Large, CHASE, &[("memory", "large"), ("pages", "usual")]),
    Item {
        kind: work::Kind::Chase,
        pages: Pages::Huge,
        memory: Extent::Large,
        metric: CHASE,
        parameters: &[("memory", "large"), ("pages", "huge")],
    },
    item(work::Kind::SystemCalls, Extent::None, CALL, &[]),
    item(work::Kind::SmallFile, Extent::None, FILE, &[("size", "small")]),
    item(work::Kind::LargeFile, Extent::None, FILE, &[("size", "large")]),
];

/// Bytes that fit into the first cache.
const CACHE: u64 = 16 << 10;

/// Where every sandbox's numbers begin, so that all come to the same result.
const SEED: u64 = 0x150b_e4c4;

/// How long an order must take at least in a bare process, so that a round trip is lost in it, in nanoseconds.
const LEAST: u64 = 12_000_000;

/// How often each order is given, each time a sample: what else a machine does falls on some of them.
const TIMES: u32 = 3;

impl Item {
    fn point(&self) -> Point {
        Point::with(self.metric, self.parameters)
    }

    /// Whether a sandbox of a kind can do it. The unikernel has no kernel, files or pages of its own choice.
    fn is_for(&self, kind: &Kind) -> bool {
        !(kind.is_unikernel() && (self.kind.needs_kernel() || self.pages == Pages::Huge))
    }

    fn task(&self, large: u64) -> Task {
        let bytes = match self.memory {
            Extent::None => 0,
            Extent::Cache => CACHE,
            Extent::Large => large,
        };
        Task { kind: self.kind, pages: self.pages, bytes, seed: SEED }
    }
}

/// The bare process, the container in its usual mode, the machines, the unikernel's code without one, and engines in their usual
/// mode. What a network mode is makes no difference to any of this.
fn points(kind: &Kind) -> Vec<Point> {
    let ours = ["process", "unikernel-process", "container-bridge", "vm-unikernel", "vm-linux"].contains(&kind.name);
    let engine = kind.family == Family::Peer && kind.is_default_bridge();
    if !(ours || engine) {
        return Vec::new();
    }
    let works = ITEMS.iter().filter(|item| item.is_for(kind)).map(Item::point);
    let files = (!kind.is_unikernel()).then(|| Point::plain(FILE_SYSTEM));
    works.chain(files).chain([Point::plain(MEMORY), seen("work"), seen("memory")]).collect()
}

fn seen(what: &str) -> Point {
    Point::with(SEEN, &[("what", what)])
}

/// How much of each item is done in one order, found once in a bare process and the same in every sandbox of a testbed.
#[derive(Clone, Debug)]
pub(crate) struct Calibration {
    /// Bytes of [`Extent::Large`].
    large: u64,
    /// Of each item, in their order: the rounds, and what comes out of them in the end.
    orders: Vec<Order>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Order {
    rounds: u64,
    value: u64,
}

impl Order {
    /// How much one order is, in what the item's metric counts.
    fn amount(self, item: &Item) -> u64 {
        self.rounds * item.kind.amount()
    }
}

impl Calibration {
    fn make(ground: &Ground) -> anyhow::Result<Self> {
        let mut process = ground.agent(Place::Host, &Workload::Serve { port: PORT })?;
        process.await_ready(ground.settings.deadline)?;
        if let Some(affinity) = ground.affinity {
            affinity.pin_server(&process, Family::Process)?;
        }
        let server = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, PORT));
        let large = large(ground.settings.quick);
        let orders = ITEMS.iter().map(|item| Self::order(item, server, large));
        let orders = orders.collect::<anyhow::Result<_>>().context("find out how much work takes long enough");
        process.destroy().map_err(ended)?;
        Ok(Self { large, orders: orders? })
    }

    /// Doubles the rounds until they take long enough, finds how many of them just do, and does as many once more on a task of
    /// its own, as often as every sandbox will.
    fn order(item: &Item, server: SocketAddr, large: u64) -> anyhow::Result<Order> {
        let mut worker = begin(item, server, large)?;
        let mut rounds = 1;
        let taken = loop {
            let taken = worker.work(rounds)?.nanoseconds;
            if taken >= LEAST {
                break taken;
            }
            rounds *= 2;
        };
        // A tenth more, since the next time may be quicker.
        let rounds = (u128::from(rounds) * u128::from(LEAST) * 11 / 10).div_ceil(u128::from(taken)) as u64;
        drop(worker);
        let mut worker = begin(item, server, large)?;
        let mut value = 0;
        for _ in 0..TIMES {
            value = worker.work(rounds)?.value;
        }
        Ok(Order { rounds, value })
    }
}

/// Twice the largest cache, but not so much that a machine must be large for it, nor in the quick suite so much that writing to it
/// takes longer than what is measured.
fn large(quick: bool) -> u64 {
    let sizes = (0..8).filter_map(|index| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        kibibytes(&std::fs::read_to_string(path).ok()?)
    });
    (2 * sizes.max().unwrap_or(0)).clamp(64 << 20, if quick { 64 << 20 } else { 128 << 20 })
}

/// Reads a size such as `32768K` (Documentation/ABI/testing/sysfs-devices-system-cpu), in bytes.
fn kibibytes(text: &str) -> Option<u64> {
    text.trim().strip_suffix('K')?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Has a server prepare an item. A client that has just gone may still hold the place.
fn begin(item: &Item, server: SocketAddr, large: u64) -> anyhow::Result<Worker> {
    use isobench_workload::client::WorkError;
    use isobench_workload::work::Refusal;
    let deadline = Duration::from_secs(work::MOST_SECONDS + 10);
    let begun = std::time::Instant::now();
    loop {
        match Worker::begin(server, &item.task(large), deadline) {
            Err(WorkError::Refused { refusal: Refusal::Busy, .. }) if begun.elapsed() < deadline => {
                std::thread::yield_now();
            }
            worker => return worker.with_context(|| format!("prepare {:?}", item.kind)),
        }
    }
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, sheet, .. } = scene;
    let calibration = match ground.calibration.clone() {
        Some(calibration) => calibration,
        None => ground.calibration.insert(Calibration::make(ground)?).clone(),
    };
    let large = calibration.large;
    sheet.value(&Point::plain(MEMORY), Value::Integer(large));
    // A machine has memory for what is measured beside what it takes itself.
    let mut larger = sandboxes::with_memory_for_work(ground, kind, large)?;
    let sandbox = larger.as_deref_mut().unwrap_or(sandbox);
    let mut instance = launched(ground, kind, sandbox)?;
    let measured = (|| {
        let server = instance.server().context("it has no address that the host can reach")?;
        let mut chases = Vec::new();
        for (item, order) in ITEMS.iter().zip(&calibration.orders).filter(|(item, _)| item.is_for(kind)) {
            if item.kind == work::Kind::Integer {
                let seen = sees_twice_the_work(item, server, (order.rounds / 4).max(1))?;
                sheet.value(&self::seen("work"), Value::Boolean(seen));
            }
            let mut worker = begin(item, server, large)?;
            let shortest = do_item(item, *order, &mut worker, sheet)?;
            if item.kind == work::Kind::SmallFile {
                let name = file_system(worker.prepared());
                sheet.value(&Point::plain(FILE_SYSTEM), Value::Texts(vec![name]));
            }
            if item.kind == work::Kind::Chase && item.pages == Pages::Usual {
                chases.extend(shortest.map(|nanoseconds| nanoseconds as f64 / order.amount(item) as f64));
            }
        }
        let [near, far] = chases[..] else { bail!("the walks through memory did not both come to what they must") };
        sheet.value(&seen("memory"), Value::Boolean(far > 2.0 * near));
        Ok(())
    })();
    let measured = measured.map_err(|error| explained(&mut instance, error, Duration::from_secs(1)));
    let gone = instance.destroy().map(drop).map_err(ended);
    measured.and(gone)
}

/// Has an item done as often as in the bare process, and answers with the shortest time. Where the result is another one, something was
/// left out: no time of it is a figure, and the item has an error instead.
fn do_item(item: &Item, order: Order, worker: &mut Worker, sheet: &mut Sheet) -> anyhow::Result<Option<u64>> {
    let mut times = Vec::new();
    let mut value = 0;
    for _ in 0..TIMES {
        let worked = worker.work(order.rounds).with_context(|| format!("do {:?}", item.kind))?;
        times.push(worked.nanoseconds);
        value = worked.value;
    }
    if value != order.value {
        let error = format!("{:?} came to {value:#x} instead of {:#x}", item.kind, order.value);
        sheet.write(&item.point(), 0, Outcome::Error(error));
        return Ok(None);
    }
    for (time, &nanoseconds) in (0..).zip(&times) {
        let transfer = Value::Transfer { amount: order.amount(item), nanoseconds };
        sheet.write(&item.point(), time, Outcome::Value(transfer));
    }
    Ok(times.into_iter().min())
}

/// Why work was not done: where the instance ended meanwhile, the connection's end says nothing. The client of an engine hears of
/// it somewhat later.
fn explained(instance: &mut Instance, error: anyhow::Error, patience: Duration) -> anyhow::Error {
    match instance.wait(patience) {
        Ok(exit) => error.context(format!("{} ended with status {}", instance.name(), exit.code())),
        Err(_) => error,
    }
}

/// Whether twice the work is seen to take longer: neither is it left out, nor does the round trip hide it. What else the machine does
/// can only make an order longer, so the shortest of several counts.
fn sees_twice_the_work(item: &Item, server: SocketAddr, rounds: u64) -> anyhow::Result<bool> {
    let mut worker = begin(item, server, 0)?;
    let mut shortest = [u64::MAX; 2];
    for _ in 0..4 {
        for (shortest, rounds) in shortest.iter_mut().zip([rounds, 2 * rounds]) {
            *shortest = worker.work(rounds)?.nanoseconds.min(*shortest);
        }
    }
    let [once, twice] = shortest;
    Ok(twice * 4 > once * 5)
}

fn launched(ground: &Ground, kind: &Kind, sandbox: &mut dyn Sandbox) -> anyhow::Result<Instance> {
    let mut instance = sandbox.launch(&Workload::Serve { port: PORT })?;
    instance.await_ready(ground.settings.deadline)?;
    if let Some(affinity) = ground.affinity {
        affinity.pin_server(&instance, kind.family)?;
    }
    Ok(instance)
}

/// The name of a file system by its number (statfs(2)).
fn file_system(number: u64) -> String {
    let name = match number {
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x794c_7630 => "overlay",
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x2fc1_2fc1 => "zfs",
        0x0102_1997 => "9p",
        other => return format!("{other:#x}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandboxes::KINDS;

    #[test]
    fn an_instance_that_ended_is_why_its_work_was_not_done() {
        let (ended, runs) = (("exit 137", Duration::from_secs(60)), ("exec sleep 1000", Duration::ZERO));
        for ((script, patience), expected) in [(ended, "one ended with status 137: reset"), (runs, "reset")] {
            let mut command = std::process::Command::new("/bin/sh");
            command.args(["-c", script]);
            let mut instance = sandboxes::spawn("one".into(), &mut command).unwrap().instance(None).unwrap();
            assert_eq!(format!("{:#}", explained(&mut instance, anyhow::anyhow!("reset"), patience)), expected);
            instance.destroy().unwrap();
        }
    }

    /// A server that does no work and says each time that this came out.
    fn skipping(value: u64) -> SocketAddr {
        use isobench_workload::protocol::Request;
        use isobench_workload::work::{Report, Rounds};
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; Request::SIZE + Task::SIZE]).unwrap();
            stream.write_all(&Report::Prepared { value: 0 }.encode()).unwrap();
            while stream.read_exact(&mut [0; Rounds::SIZE]).is_ok() {
                stream.write_all(&Report::Done { value, nanoseconds: 1 }.encode()).unwrap();
            }
        });
        address
    }

    #[test]
    fn who_leaves_work_out_has_an_error_and_no_figure() {
        let item = &ITEMS[0];
        for (value, outcomes) in [(7, TIMES as usize), (8, 1)] {
            let mut sheet = Sheet::default();
            let mut worker = begin(item, skipping(value), 0).unwrap();
            let shortest = do_item(item, Order { rounds: 1 << 40, value: 7 }, &mut worker, &mut sheet).unwrap();
            assert_eq!(shortest.is_some(), value == 7);
            assert_eq!(sheet.measurements.len(), outcomes);
            for measurement in &sheet.measurements {
                match &measurement.outcome {
                    Outcome::Value(_) => assert_eq!(value, 7),
                    Outcome::Error(error) => assert_eq!(error, "Integer came to 0x8 instead of 0x7"),
                }
            }
        }
    }

    #[test]
    fn sizes_of_caches_are_read() {
        assert_eq!(kibibytes("32768K\n"), Some(32 << 20));
        assert_eq!(kibibytes("much"), None);
        assert!((64 << 20..=128 << 20).contains(&large(false)));
        assert_eq!(large(true), 64 << 20);
    }

    #[test]
    fn who_has_no_kernel_is_asked_for_none() {
        for kind in KINDS {
            let asks = points(kind).iter().any(|point| point.metric == CALL || point.metric == FILE);
            let takes_part = !points(kind).is_empty();
            assert_eq!(asks, takes_part && !kind.is_unikernel(), "{}", kind.name);
        }
        assert!(points(Kind::named("docker-bridge").unwrap()).len() > ITEMS.len());
        assert!(points(Kind::named("container-host").unwrap()).is_empty());
    }

    #[test]
    fn every_kind_of_work_is_ordered() {
        for kind in work::Kind::ALL {
            assert!(ITEMS.iter().any(|item| item.kind == kind), "{kind:?}");
        }
    }
}
