//! Our own virtual machines, and the unikernel's code as a plain process beside them: each on a tap of the default bridge.

use crate::programs::Program;
use crate::testbed::network::HostNetwork;
use isobench_microvm::linux::{self, sandbox::LinuxSandbox};
use isobench_microvm::sandbox::{AttachError, Attachment, Housing, UnikernelSandbox};
use isobench_runtime::network::tap::{Offload, Tap};
use isobench_runtime::network::{BridgeNetwork, Lease, Mac, Netlink};
use isobench_workload::Resource;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The sandbox that runs the unikernel in this housing.
pub(super) fn unikernel(
    housing: Housing,
    vmm: &Rc<Program>,
    network: &HostNetwork,
) -> anyhow::Result<UnikernelSandbox<impl FnMut() -> Result<Attachment, AttachError> + use<>>> {
    let (program, path) = (Rc::clone(vmm), vmm.path());
    let mut taps = Taps::new(if housing == Housing::Process { "p" } else { "u" }, &network.bridge)?;
    Ok(UnikernelSandbox::new(housing, path, move || {
        // The path leads to the program only as long as it is held.
        let _held = &program;
        taps.attach()
    }))
}

/// The sandbox that runs Linux with this kernel.
pub(super) fn linux(
    kernel: &Path,
    vmm: &Rc<Program>,
    agent: &Rc<Program>,
    network: &HostNetwork,
) -> anyhow::Result<LinuxSandbox<impl FnMut() -> Result<Attachment, AttachError> + use<>>> {
    let held = (Rc::clone(vmm), Rc::clone(agent));
    // The monitor opens the agent itself, so that the path must lead there from another process.
    let agent = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), agent.file().as_raw_fd()));
    let mut taps = Taps::new("l", &network.bridge)?;
    Ok(LinuxSandbox::new(vmm.path(), kernel.to_owned(), agent, linux::sandbox::MEMORY, move || {
        let _held = &held;
        taps.attach()
    })?)
}

/// Taps on one network, numbered through.
struct Taps {
    prefix: &'static str,
    network: BridgeNetwork,
    netlink: Netlink,
    made: u64,
}

impl Taps {
    fn new(prefix: &'static str, network: &BridgeNetwork) -> anyhow::Result<Self> {
        Ok(Self { prefix, network: network.clone(), netlink: Netlink::open()?, made: 0 })
    }

    fn attach(&mut self) -> Result<Attachment, AttachError> {
        self.made += 1;
        let lease = self.network.pool().lease()?;
        let name = format!("{}{}", self.prefix, self.made);
        let tap = Tap::create(&mut self.netlink, &name, self.network.bridge(), Offload::Segmentation)?;
        let (address, settings) = (lease.address(), self.network.settings());
        Ok(Attachment {
            tap: OwnedFd::from(tap),
            mac: Mac::of(address).0,
            address,
            prefix: settings.subnet.prefix(),
            gateway: Some(settings.gateway),
            resources: vec![Box::new(Place { lease, tap: name })],
        })
    }
}

/// An address whose tap goes when the last process that holds it ends; only then can the address be leased again.
#[derive(Debug)]
struct Place {
    lease: Lease,
    tap: String,
}

impl Resource for Place {
    fn describe(&self) -> String {
        format!("{} and tap {}", self.lease.describe(), self.tap)
    }

    fn release(self: Box<Self>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut netlink = Netlink::open()?;
        let begun = Instant::now();
        while netlink.link(&self.tap)?.is_some() {
            if begun.elapsed() > Duration::from_secs(10) {
                return Err(format!("tap {} is still there after 10 s", self.tap).into());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }
}
