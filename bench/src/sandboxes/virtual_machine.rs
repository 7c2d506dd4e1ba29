//! Our own virtual machines, and the unikernel's code as a plain process beside them: each on a tap of the default bridge.

use crate::programs::Program;
use crate::testbed::directory;
use crate::testbed::network::OwnNetworks;
use isobench_microvm::linux::sandbox::LinuxSandbox;
use isobench_microvm::sandbox::{AttachError, Attachment, Housing, RestoredSandbox, Savable, UnikernelSandbox};
use isobench_runtime::network::BridgeNetwork;
use isobench_runtime::network::tap::Offload;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The sandbox that runs the unikernel in this housing.
pub(super) fn unikernel(
    housing: Housing,
    vmm: &Rc<Program>,
    networks: &OwnNetworks,
) -> UnikernelSandbox<impl FnMut() -> Result<Attachment, AttachError> + use<>> {
    let (program, path) = (Rc::clone(vmm), vmm.path());
    let network = networks.bridge.clone();
    UnikernelSandbox::new(housing, path, move || {
        // The path leads to the program only as long as it is held.
        let _held = &program;
        attach(&network)
    })
}

/// The sandbox that restores what another one boots.
pub(super) fn restored<S: Savable>(booted: S) -> anyhow::Result<RestoredSandbox<S>> {
    let place = directory(booted.restored_name())?;
    Ok(RestoredSandbox::new(booted, place))
}

/// The sandbox that runs Linux with this kernel and so many bytes of memory.
pub(super) fn linux(
    kernel: &Path,
    memory: u64,
    vmm: &Rc<Program>,
    agent: &Rc<Program>,
    networks: &OwnNetworks,
) -> anyhow::Result<LinuxSandbox<impl FnMut() -> Result<Attachment, AttachError> + use<>>> {
    let held = (Rc::clone(vmm), Rc::clone(agent));
    // The monitor opens the agent itself, so that the path must lead there from another process.
    let agent = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), agent.file().as_raw_fd()));
    let network = networks.bridge.clone();
    Ok(LinuxSandbox::new(vmm.path(), kernel.to_owned(), agent, memory, move || {
        let _held = &held;
        attach(&network)
    })?)
}

/// A place for one machine on the network. It is given up when the tap has gone with the last process that holds it.
pub fn attach(network: &BridgeNetwork) -> Result<Attachment, AttachError> {
    let (tap, mut endpoint) = network.tap(Offload::Segmentation)?;
    endpoint.hold(&tap)?;
    let settings = network.settings();
    Ok(Attachment {
        tap: OwnedFd::from(tap),
        mac: endpoint.mac().0,
        address: endpoint.address(),
        prefix: settings.subnet.prefix(),
        gateway: Some(settings.gateway),
        resources: vec![Box::new(endpoint)],
    })
}
