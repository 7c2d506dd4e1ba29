//! The peer that is a virtual machine as people know it: QEMU's q35 with a complete distribution on its disk (systemd, the
//! distribution's own kernel and initramfs), on a tap of the default bridge, until the agent that it starts has answered a request.

use super::qemu::{PACKAGE, PROGRAM};
use super::spawn::{failed, find_program, spawn, version};
use super::virtual_machine;
use crate::programs::Program;
use crate::testbed::directory;
use crate::testbed::network::OwnNetworks;
use anyhow::Context;
use isobench_microvm::linux::kernel;
use isobench_microvm::sandbox::Attachment;
use isobench_runtime::network::BridgeNetwork;
use isobench_workload::protocol::PORT;
use isobench_workload::{Family, Instance, LaunchError, Sandbox, Unsupported, Workload};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::{FdFlags, fcntl_setfd};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Memory of the machine, in MiB: what a distribution needs to start at ease.
const MEMORY: u32 = 512;

/// Where a build puts the disk, beside the guest kernels.
fn image() -> Option<PathBuf> {
    Some(kernel::cache()?.parent()?.join("distribution"))
}

/// QEMU with the distribution.
#[derive(Debug)]
pub(super) struct QemuDistribution {
    program: PathBuf,
    accelerator: &'static str,
    image: PathBuf,
    agent: PathBuf,
    directory: PathBuf,
    network: BridgeNetwork,
    launched: u64,
}

impl QemuDistribution {
    pub(super) fn find(
        agent: &Program,
        networks: &OwnNetworks,
        hardware: bool,
    ) -> Result<(Self, Option<String>), String> {
        let program =
            find_program(PROGRAM).ok_or_else(|| format!("{PROGRAM} is not installed: apt-get install {PACKAGE}"))?;
        let image = image().filter(|image| image.join("disk").exists());
        let image = image.ok_or("there is no disk with a distribution: build one by `isobench vm image`")?;
        let version = version(&program);
        let directory = directory(super::QEMU_DISTRIBUTION).map_err(|error| format!("{error:#}"))?;
        let path = disk_of(agent, &directory).map_err(|error| format!("{error:#}"))?;
        let accelerator = if hardware { "kvm" } else { "tcg" };
        let network = networks.bridge.clone();
        Ok((Self { program, accelerator, image, agent: path, directory, network, launched: 0 }, version))
    }

    fn command(&self, attachment: &Attachment) -> Command {
        let Attachment { tap, mac, address, prefix, gateway, .. } = attachment;
        let disk = |file: &Path, name: &str, how: &str| {
            let drive = format!("file={},format=raw,if=none,id={name},{how}", file.display());
            ["-drive".to_owned(), drive, "-device".to_owned(), format!("virtio-blk-pci,drive={name}")]
        };
        let mut command = Command::new(&self.program);
        command.args(["-machine", "q35", "-accel", self.accelerator, "-m", &format!("{MEMORY}M")]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        // The kernel's and systemd's messages go nowhere; the agent has a port of its own.
        command.args(["-serial", "null", "-serial", "stdio"]);
        command.arg("-kernel").arg(self.image.join("vmlinuz")).arg("-initrd").arg(self.image.join("initrd"));
        let gateway = gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
        let mask = std::net::Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(*prefix)).unwrap_or(0));
        // Read by systemd-network-generator(8).
        let network = format!("net.ifnames=0 ip={address}::{gateway}:{mask}::eth0:none");
        command.args(["-append", &format!("root=/dev/vda rw quiet console=ttyS0 panic=-1 {network}")]);
        // What the machine writes goes into a file without a name, and the disk stays as it was built.
        command.args(disk(&self.image.join("disk"), "root", "snapshot=on")).env("TMPDIR", &self.directory);
        command.args(disk(&self.agent, "agent", "readonly=on")).args(["-device", "virtio-rng-pci"]);
        let [a, b, c, d, e, f] = mac;
        let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        command.args(["-netdev", &format!("tap,id=card,fd={}", tap.as_raw_fd())]);
        command.args(["-device", &format!("virtio-net-pci,netdev=card,mac={mac},romfile=")]);
        command
    }
}

/// The agent as a disk: its bytes, filled up to whole sectors.
fn disk_of(agent: &Program, directory: &Path) -> anyhow::Result<PathBuf> {
    const SECTOR: usize = 512;
    let mut bytes = agent.bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    let path = directory.join("agent");
    fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

impl Sandbox for QemuDistribution {
    fn name(&self) -> &str {
        super::QEMU_DISTRIBUTION
    }

    fn family(&self) -> Family {
        Family::Peer
    }

    fn launch(&mut self, workload: &Workload) -> Result<Instance, LaunchError> {
        if *workload != (Workload::Serve { port: PORT }) {
            let what = format!("anything but a server on port {PORT} in the distribution");
            return Err(Unsupported { what, why: "its disk has the one unit that starts that".into() }.into());
        }
        self.launched += 1;
        let name = format!("{}-{}", self.name(), self.launched);
        let step = |step: &str, source| LaunchError::Step { sandbox: name.clone(), step: step.into(), source };
        let attachment = virtual_machine::attach(&self.network).map_err(|source| step("attach a tap", source))?;
        let mut command = self.command(&attachment);
        let spawned = inherited(&attachment.tap, || spawn(name.clone(), &mut command));
        let spawned = spawned.map_err(|source| failed(&name, "hand over the tap", source))??;
        let mut instance = spawned.instance(Some(SocketAddr::from((attachment.address, PORT))))?.on_another_clock();
        // The machine has its copy of the tap; this one must not keep the link alive.
        attachment.resources.into_iter().for_each(|resource| instance.own(resource));
        Ok(instance)
    }
}

/// Starts a process that inherits this descriptor under its number, and no other one does.
fn inherited<T>(descriptor: &OwnedFd, start: impl FnOnce() -> T) -> rustix::io::Result<T> {
    fcntl_setfd(descriptor, FdFlags::empty())?;
    let started = start();
    fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
    Ok(started)
}
