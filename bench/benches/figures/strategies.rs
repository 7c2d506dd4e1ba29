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
use std::os::fd::OwnedFd;
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
        let before = unavailable_kibibytes()?;
        let stock = (0..MANY).map(|_| Ok(PreparedNetwork::attached(network.endpoint()?)?));
        let stock = stock.collect::<anyhow::Result<Vec<_>>>()?;
        let after = unavailable_kibibytes()?;
        // What the kernel still has to free would be missing in the next pair.
        for prepared in stock {
            prepared.release().map_err(|error| anyhow::anyhow!("give up a prepared network: {error}"))?;
        }
        ensure!(after > before, "the machine's memory changed by more than the networks need");
        Ok(((after - before) / MANY as f64, 1.0))
    }))
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

/// A launch from a process that has touched 1 GiB, against one from a process that has touched 1 MiB.
pub(crate) fn large_against_small() -> anyhow::Result<Pair> {
    let agent = Agent::open()?;
    let launched_with = move |bytes: usize| {
        // Every page is written: only what is there would have to be copied.
        let mut touched = vec![0_u8; bytes];
        touched.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        // Writing so much has emptied the processor's caches, on one side alone: a launch that is not counted fills them again.
        agent.ready(|| Ok(NetworkMode::None))?;
        let ready = agent.ready(|| Ok(NetworkMode::None));
        ensure!(std::hint::black_box(&touched).len() == bytes, "the memory is held until here");
        ready
    };
    Ok(Box::new(move || both(|| launched_with(1 << 30), || launched_with(1 << 20))))
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
