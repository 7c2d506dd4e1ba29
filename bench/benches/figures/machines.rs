//! Many unikernel machines: how fast they come and go, and what each of them holds.

use crate::strategies::bridge;
use crate::{Pair, both};
use anyhow::{Context, ensure};
use isobench::programs::Program;
use isobench::sandboxes::attach;
use isobench::testbed::host_memory;
use isobench_microvm::sandbox::{Housing, MEMORY, UnikernelSandbox};
use isobench_runtime::cgroup::{Cgroups, Limits};
use isobench_runtime::network::{BridgeNetwork, Namespace};
use isobench_runtime::{ContainerSandbox, SandboxNetwork};
use isobench_workload::{Instance, Sandbox, Workload, protocol::PORT};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How long an instance may take until it answers.
const DEADLINE: Duration = Duration::from_secs(10);

/// Lives that are under way at the same time, each launched, asked and removed by a thread of its own.
const AT_ONCE: usize = 4;

/// Instances that are idle at the same time.
const MANY: usize = 500;

/// The namespace that plays the host, its network, and the programs.
struct Place {
    host: Namespace,
    network: BridgeNetwork,
    monitor: Program,
    agent: Arc<OwnedFd>,
    cgroups: Cgroups,
}

impl Place {
    fn new() -> anyhow::Result<Self> {
        let (host, network) = bridge()?;
        let fallback = std::env::temp_dir();
        let agent = Program::agent(&fallback)?.file().try_clone_to_owned().context("keep the agent's descriptor")?;
        Ok(Self {
            host,
            network,
            monitor: Program::vmm(&fallback)?,
            agent: Arc::new(agent),
            cgroups: Cgroups::discover()?,
        })
    }

    fn unikernel(&self) -> impl Sandbox {
        let housing = Housing::VirtualMachine { memory: MEMORY };
        let network = self.network.clone();
        UnikernelSandbox::new(housing, self.monitor.path(), move || attach(&network)).tied()
    }

    fn container(&self) -> impl Sandbox {
        let network = SandboxNetwork::Bridge { network: self.network.clone(), publish: None };
        ContainerSandbox::new("container-bridge", Arc::clone(&self.agent), network)
            .limited(self.cgroups.clone(), Limits::default())
            .tied()
    }

    /// Lives until so much time is over, and how many.
    fn lives(&self, time: Duration) -> anyhow::Result<u32> {
        let mut sandbox = self.unikernel();
        let (begun, mut lives) = (Instant::now(), 0);
        while begun.elapsed() < time {
            gone(serving(&mut sandbox)?)?;
            lives += 1;
        }
        Ok(lives)
    }

    /// Bytes of the host's memory that one of many idle instances holds.
    fn held(&self, mut sandbox: impl Sandbox) -> anyhow::Result<f64> {
        let before = host_memory()?;
        let instances = (0..MANY).map(|_| serving(&mut sandbox)).collect::<anyhow::Result<Vec<_>>>()?;
        let after = host_memory()?;
        instances.into_iter().rev().try_for_each(gone)?;
        ensure!(after > before, "the machine's memory changed by more than the instances need");
        Ok((after - before) as f64 / MANY as f64)
    }
}

/// An instance that has answered.
fn serving(sandbox: &mut impl Sandbox) -> anyhow::Result<Instance> {
    let mut instance = sandbox.launch(&Workload::Serve { port: PORT })?;
    instance.await_ready(DEADLINE)?;
    Ok(instance)
}

/// Removes an instance, and sees it gone.
fn gone(instance: Instance) -> anyhow::Result<()> {
    let ended = instance.destroy();
    ended.map(drop).map_err(|errors| anyhow::anyhow!("remove an instance: {}", errors[0]))
}

/// Machines created, served from and gone in a second.
pub(crate) fn rate() -> anyhow::Result<Pair> {
    let place = Place::new()?;
    Ok(Box::new(move || {
        let rate = place.host.enter(|| -> anyhow::Result<f64> {
            let begun = Instant::now();
            let lives = thread::scope(|scope| {
                let threads = [(); AT_ONCE].map(|()| scope.spawn(|| place.lives(Duration::from_secs(1))));
                let lives = threads.map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a launcher panicked"))?);
                lives.into_iter().sum::<anyhow::Result<u32>>()
            });
            Ok(f64::from(lives?) / begun.elapsed().as_secs_f64())
        });
        Ok((rate??, 1.0))
    }))
}

/// What one of many idle machines holds, against one of as many containers on the same bridge. `docs/METHODOLOGY.md` says what of it is KVM's.
pub(crate) fn many_against_containers() -> anyhow::Result<Pair> {
    let place = Place::new()?;
    Ok(Box::new(move || {
        let (machines, containers) = (|| place.held(place.unikernel()), || place.held(place.container()));
        both(|| place.host.enter(machines)?, || place.host.enter(containers)?)
    }))
}
