//! Our own virtual machines, and the unikernel's code as a plain process beside them: each on a tap of the default bridge.

use crate::programs::Program;
use crate::testbed::directory;
use crate::testbed::network::OwnNetworks;
use isobench_microvm::linux::Frames;
use isobench_microvm::linux::sandbox::LinuxSandbox;
use isobench_microvm::sandbox::{AttachError, Attachment, Housing, RestoredSandbox, Savable, UnikernelSandbox};
use isobench_runtime::network::BridgeNetwork;
use isobench_runtime::network::tap::Offload;
use rustix::fs::{Access, access};
use rustix::system::uname;
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
    let sandbox = LinuxSandbox::new(vmm.path(), kernel.to_owned(), agent, memory, move || {
        let _held = &held;
        attach(&network)
    })?;
    Ok(sandbox.with_frames(frames()))
}

/// Who moves a Linux guest's frames: the kernel (vhost-net) where this user may have it do that and its work is charged to the monitor,
/// so that it is in the CPU time that is measured. That is so from Linux 6.4 on, where its worker is a thread of the monitor's
/// (`vhost_task`); before, it is one of the kernel's own.
pub(crate) fn frames() -> Frames {
    let permitted = access("/dev/vhost-net", Access::READ_OK | Access::WRITE_OK).is_ok();
    if permitted && charges_its_owner(&uname().release().to_string_lossy()) { Frames::Kernel } else { Frames::Monitor }
}

/// Whether a kernel of this release has vhost's workers as threads of their owner.
fn charges_its_owner(release: &str) -> bool {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map_while(|part| part.parse().ok());
    numbers.next().zip(numbers.next()).is_some_and(|version: (u32, u32)| version >= (6, 4))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vhost_is_charged_to_its_owner_from_linux_6_4_on() {
        for release in ["6.4.0", "6.12.57+deb13-amd64", "6.8.0-31-generic", "7.0-rc1"] {
            assert!(charges_its_owner(release), "{release}");
        }
        for release in ["6.1.0-56-cloud-amd64", "5.15.0", "6", "", "x"] {
            assert!(!charges_its_owner(release), "{release}");
        }
    }
}
