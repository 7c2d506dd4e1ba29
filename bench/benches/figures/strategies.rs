//! What a launch costs by each strategy, and whether it depends on who launches.

use crate::{Pair, both, settle};
use anyhow::{Context, ensure};
use isobench_runtime::launch::capture_output;
use isobench_runtime::network::bridge_network::Settings;
use isobench_runtime::network::{BridgeNetwork, Firewall, Namespace};
use isobench_runtime::prepared::{PreparedNetwork, Stock};
use isobench_runtime::{NetworkMode, Plan, Program, Specification, launch};
use isobench_workload::{Resource, clock};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(10);

/// The agent, which announces itself by one line, as in every sandbox.
pub(crate) struct Agent(Arc<OwnedFd>);

impl Agent {
    pub(crate) fn open() -> anyhow::Result<Self> {
        let path =
            std::env::var("ISOBENCH_AGENT").context("ISOBENCH_AGENT does not name the agent; run scripts/figures")?;
        Ok(Self(Arc::new(OwnedFd::from(File::open(&path).with_context(|| format!("open {path}"))?))))
    }

    /// Nanoseconds from before the specification until the line, with a network that is taken in that time. The container
    /// and its place in the network are gone when this returns.
    pub(crate) fn ready(&self, network: impl FnOnce() -> anyhow::Result<NetworkMode>) -> anyhow::Result<f64> {
        let begun = clock::now();
        let mut specification =
            Specification::container(Program::Descriptor(self.0.clone()), ["agent", "exit"].map(String::from).to_vec());
        specification.network = network()?;
        let mut output = capture_output(&mut specification)?;
        let mut launched = Plan::validate(specification).and_then(launch)?;
        output.line(DEADLINE)?;
        let ready = clock::now();
        let exit = launched.process.wait(DEADLINE)?;
        ensure!(exit.code() == 0, "the agent ended with {exit:?}");
        if let Some(endpoint) = launched.endpoint {
            let released = (Box::new(endpoint) as Box<dyn Resource>).release();
            released.map_err(|error| anyhow::anyhow!("release a place in the network: {error}"))?;
        }
        Ok((ready - begun) as f64)
    }
}

/// A network of containers in a namespace that plays the host.
pub(crate) fn bridge() -> anyhow::Result<(Namespace, BridgeNetwork)> {
    let host = Namespace::create()?;
    let network = BridgeNetwork::create(&Firewall::create_in(&host, "figures")?, Settings::default_bridge())?;
    Ok((host, network))
}

/// On the bridge with a network from the stock, against host mode.
pub(crate) fn pooled_against_host() -> anyhow::Result<Pair> {
    let agent = Agent::open()?;
    let (host, network) = bridge()?;
    let stock = Stock::new(2, move || PreparedNetwork::attached(network.endpoint()?))?;
    Ok(Box::new(move || {
        // Held by this: the namespace that plays the host.
        let _host = &host;
        // Both find a full stock.
        let settled = || {
            stock.fill()?;
            settle();
            anyhow::Ok(())
        };
        both(
            || settled().and_then(|()| agent.ready(|| Ok(NetworkMode::Prepared(stock.take()?)))),
            || settled().and_then(|()| agent.ready(|| Ok(NetworkMode::Host))),
        )
    }))
}

/// How long the stock's keeper needs for the next network, against the plain launch that it spares.
pub(crate) fn refill_against_plain() -> anyhow::Result<Pair> {
    let agent = Agent::open()?;
    let (host, network) = bridge()?;
    Ok(Box::new(move || {
        let _host = &host;
        both(
            || {
                let begun = clock::now();
                let prepared = PreparedNetwork::attached(network.endpoint()?)?;
                let made = clock::now();
                drop(prepared);
                Ok((made - begun) as f64)
            },
            || agent.ready(|| Ok(NetworkMode::Attached(network.endpoint()?))),
        )
    }))
}

/// Kernel memory of one network in stock, in KiB.
pub(crate) fn stock_memory() -> anyhow::Result<Pair> {
    const MANY: usize = 50;
    let (host, network) = bridge()?;
    Ok(Box::new(move || {
        let _host = &host;
        let before = steady_kibibytes()?;
        let stock = (0..MANY).map(|_| Ok(PreparedNetwork::attached(network.endpoint()?)?));
        let stock = stock.collect::<anyhow::Result<Vec<_>>>()?;
        let after = steady_kibibytes()?;
        // What the kernel still has to free would be missing in the next pair.
        for prepared in stock {
            prepared.release().map_err(|error| anyhow::anyhow!("give up a prepared network: {error}"))?;
        }
        ensure!(after > before, "the machine's memory changed by more than the networks need");
        Ok(((after - before) / MANY as f64, 1.0))
    }))
}

/// What the kernel holds once that changes no more: it may still be freeing hundreds of networks of whatever was measured before.
fn steady_kibibytes() -> anyhow::Result<f64> {
    const STEADY: f64 = 256.0;
    let begun = Instant::now();
    let (mut last, mut quiet) = (unavailable_kibibytes()?, 0);
    while quiet < 5 {
        ensure!(begun.elapsed() < Duration::from_secs(30), "the kernel's memory does not come to rest");
        settle();
        let now = unavailable_kibibytes()?;
        quiet = if (now - last).abs() < STEADY { quiet + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

/// What the kernel holds for itself: slabs, per-CPU areas and page tables (proc_meminfo(5)).
fn unavailable_kibibytes() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let fields = ["Slab:", "Percpu:", "PageTables:", "KernelStack:"];
    let values = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        fields.contains(&words.next()?).then(|| words.next()?.parse::<f64>().ok())?
    });
    Ok(values.sum())
}

/// A launch from a process that touched 1 GiB when it started, against one from a process that touched 1 MiB. Each lives on beside the
/// other, so that both launch on one machine in one state: what was touched just before has emptied the processor's caches and the
/// kernel's lists of free pages, whoever launches next.
pub(crate) fn large_against_small() -> anyhow::Result<Pair> {
    let [mut large, mut small] = [Launcher::start(1 << 30)?, Launcher::start(1 << 20)?];
    Ok(Box::new(move || both(|| large.ready(), || small.ready())))
}

/// The first argument of this program as a [`Launcher`].
pub(crate) const LAUNCHER: &str = "launcher";

/// A process that has touched some memory, and launches a container for each line that it reads.
struct Launcher {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Launcher {
    fn start(bytes: usize) -> anyhow::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.args([LAUNCHER, &bytes.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start a process that launches")?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("the process that launches has no output")?);
        let mut launcher = Self { child, orders, answers };
        // It has touched its memory when it answers for the first time.
        launcher.ready()?;
        Ok(launcher)
    }

    /// Nanoseconds of one launch.
    fn ready(&mut self) -> anyhow::Result<f64> {
        self.orders.as_mut().context("the process that launches has no input")?.write_all(b"\n")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).context("read how long a launch took")?;
        answer.trim().parse().with_context(|| format!("the process that launches said `{}`", answer.trim()))
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.wait();
    }
}

/// The other process: launches until its input ends.
pub(crate) fn launcher(bytes: Option<String>) -> ExitCode {
    let launch = || -> anyhow::Result<()> {
        let agent = Agent::open()?;
        let bytes = bytes.context("it was not said how many bytes to touch")?.parse()?;
        // Every page is written: only what is there would have to be copied.
        let mut touched = vec![0_u8; bytes];
        touched.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        for order in std::io::stdin().lines() {
            order.context("read an order")?;
            println!("{}", agent.ready(|| Ok(NetworkMode::None))?);
        }
        ensure!(std::hint::black_box(&touched).len() == bytes, "the memory is held until here");
        Ok(())
    };
    match launch() {
        Ok(()) => ExitCode::SUCCESS,
        // Instead of an answer.
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Containers a second without a network, created and gone, one after the other, by a launcher that is bound to one
/// processor with all that it launches. One pair is one second of it, all pairs together half a minute without a pause.
pub(crate) fn rate() -> anyhow::Result<Pair> {
    let agent = Agent::open()?;
    Ok(Box::new(move || {
        let all = rustix::thread::sched_getaffinity(None).context("look at the processors of this process")?;
        let mut one = rustix::thread::CpuSet::new();
        one.set(0);
        rustix::thread::sched_setaffinity(None, &one).context("bind this process to one processor")?;
        let (begun, mut launched) = (Instant::now(), 0_u32);
        while begun.elapsed() < Duration::from_secs(1) {
            agent.ready(|| Ok(NetworkMode::None))?;
            launched += 1;
        }
        let elapsed = begun.elapsed().as_secs_f64();
        rustix::thread::sched_setaffinity(None, &all).context("give this process its processors back")?;
        Ok((f64::from(launched) / elapsed, 1.0))
    }))
}
