//! How often a Linux guest leaves the processor on its way to /init: our machine beside QEMU's smallest, with the same kernel and the
//! same initramfs. A count, so that it says the same on an emulated machine as on hardware.

use crate::{Pair, both};
use anyhow::{Context, bail, ensure};
use isobench::programs::Program;
use isobench_microvm::linux::{initramfs::Archive, kernel, sandbox::MEMORY};
use isobench_workload::{Workload, announcement};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Exits of all virtual machines that there are, of all their processors
/// ([debugfs](https://docs.kernel.org/virt/kvm/api.html), the statistic `exits`).
const EXITS: &str = "/sys/kernel/debug/kvm/exits";

/// How long it may take until the kernel has forgotten a machine that ended.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn linux_against_qemu() -> anyhow::Result<Pair> {
    // It is there, but not to be read, where nobody may look into the kernel (kernel_lockdown(7)).
    fs::read(EXITS).with_context(|| {
        format!("read {EXITS}, which needs KVM that runs Linux, and debugfs: scripts/rig figures has both")
    })?;
    let place = tempfile::tempdir().context("make a directory for the initramfs")?;
    let (vmm, agent) = (Program::vmm(place.path())?, Program::agent(place.path())?);
    let kernel = kernel::find().context("there is no guest kernel: isobench vm kernel fetch")?;
    let initramfs = initramfs(&agent, place.path())?;
    Ok(Box::new(move || {
        let _held = &place;
        both(|| exits(&mut ours(&vmm, &agent, &kernel)), || exits(&mut qemu(&kernel, &initramfs)))
    }))
}

/// What our monitor puts into the guest's memory, less the modules of devices, of which neither guest has any.
fn initramfs(agent: &Program, place: &Path) -> anyhow::Result<PathBuf> {
    let mut archive = Archive::new();
    for directory in ["dev", "proc", "sys", "tmp", "isobench", "isobench/modules"] {
        archive.directory(directory);
    }
    archive.character_device("dev/console", 5, 1);
    archive.character_device("dev/null", 1, 3);
    archive.program("init", agent.bytes());
    archive.file("isobench/arguments", Workload::Idle.arguments().join("\0").as_bytes());
    let path = place.join("initramfs");
    fs::write(&path, archive.finish()).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn ours(vmm: &Program, agent: &Program, kernel: &Path) -> Command {
    let mut command = Command::new(vmm.path());
    command.arg("linux").arg("--kernel").arg(kernel).arg("--agent");
    // The monitor opens it by itself, so that the path must lead there from another process.
    command.arg(format!("/proc/{}/fd/{}", std::process::id(), agent.file().as_raw_fd()));
    command.args(["--memory", &MEMORY.to_string(), "--argument", "idle"]);
    command
}

fn qemu(kernel: &Path, initramfs: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-machine", "microvm,accel=kvm", "-cpu", "host", "-m", &format!("{}M", MEMORY >> 20)]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    command.args(["-append", "console=ttyS0 quiet panic=-1 reboot=t cryptomgr.notests isobench.guest=1"]);
    command
}

/// A machine that ends with this.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Exits until the agent, which is /init, has said its line.
fn exits(command: &mut Command) -> anyhow::Result<f64> {
    let begun = Instant::now();
    while count()? > 0 {
        ensure!(begun.elapsed() < PATIENCE, "there is another virtual machine, whose exits would be counted too");
        std::thread::sleep(Duration::from_millis(10));
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut machine = Machine(child.with_context(|| format!("start {program}"))?);
    let output = machine.0.stdout.take().context("read what the guest says")?;
    for line in BufReader::new(output).lines() {
        let line = line.with_context(|| format!("read from {program}"))?;
        if line.trim_start().starts_with(announcement::READY) {
            return Ok(count()? as f64);
        }
    }
    let mut told = String::new();
    if let Some(mut errors) = machine.0.stderr.take() {
        let _ = std::io::Read::read_to_string(&mut errors, &mut told);
    }
    bail!("{program} ended before the guest said anything: {}", told.trim())
}

/// A file of debugfs, which tells nobody that it has changed: whoever waits for a number has to look again.
fn count() -> anyhow::Result<u64> {
    let text = fs::read_to_string(EXITS).with_context(|| format!("read {EXITS}"))?;
    text.trim().parse().with_context(|| format!("read a number in {EXITS}"))
}
