//! The peer QEMU: the Linux guest of our own machine on two of QEMU's, by KVM where that runs Linux, else by QEMU's own emulation
//! of the processor (TCG), and then labelled so everywhere.

use super::guest_archive::GuestArchive;
use super::spawn::{find_program, spawn, version};
use crate::programs::Program;
use crate::testbed::directory;
use isobench_microvm::counter;
use isobench_microvm::linux::sandbox::MEMORY;
use isobench_workload::{Family, Instance, LaunchError, Sandbox, Workload};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program, and Debian's package that has it.
pub(super) const PROGRAM: &str = "qemu-system-x86_64";
pub(super) const PACKAGE: &str = "qemu-system-x86";

/// What emulates the guest where KVM does not run it.
pub(super) const EMULATION: &str = "software emulation (QEMU TCG)";

/// One kind of QEMU's machines.
#[derive(Debug)]
pub(super) struct Qemu {
    name: &'static str,
    program: PathBuf,
    accelerator: &'static str,
    /// What the guest's kernel is told beside what ours is told.
    told: String,
    kernel: PathBuf,
    archive: GuestArchive,
    launched: u64,
}

impl Qemu {
    /// Finds the program for the machine of a name such as `qemu-microvm`.
    pub(super) fn find(
        name: &'static str,
        kernel: Option<&Path>,
        agent: &Program,
        hardware: bool,
    ) -> Result<(Self, Option<String>), String> {
        let program =
            find_program(PROGRAM).ok_or_else(|| format!("{PROGRAM} is not installed: apt-get install {PACKAGE}"))?;
        let kernel = kernel.ok_or(super::NO_GUEST_KERNEL)?.to_owned();
        let version = version(&program);
        let accelerator = if hardware { "kvm" } else { "tcg" };
        let directory = directory(name).map_err(|error| format!("{error:#}"))?;
        let archive = GuestArchive::new(agent, &directory);
        // Under emulation the guest has the host's time stamp counter and, on this machine, a clock alone to compare it with, which the
        // emulation moves on by fits and starts: on a slow or busy host Linux gives that up and then waits for ever.
        let told = match (hardware, name) {
            (false, "qemu-microvm") => format!(" tsc_early_khz={}", counter::kilohertz()),
            _ => String::new(),
        };
        Ok((Self { name, program, accelerator, told, kernel, archive, launched: 0 }, version))
    }
}

impl Sandbox for Qemu {
    fn name(&self) -> &str {
        self.name
    }

    fn family(&self) -> Family {
        Family::Peer
    }

    fn launch(&mut self, workload: &Workload) -> Result<Instance, LaunchError> {
        self.launched += 1;
        let instance = format!("{}-{}", self.name, self.launched);
        let initramfs = self.archive.write(&instance, workload)?;
        let machine = self.name.strip_prefix("qemu-").unwrap_or(self.name);
        let mut command = Command::new(&self.program);
        command.args(["-machine", machine, "-accel", self.accelerator, "-m", &format!("{}M", MEMORY >> 20)]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"]);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(initramfs);
        // As our own monitor has it, less what a PCI bus is needed for.
        let usual = "console=ttyS0 quiet panic=-1 reboot=t cryptomgr.notests isobench.guest=1";
        command.args(["-append", &format!("{usual}{}", self.told)]);
        Ok(spawn(instance, &mut command)?.instance(None)?.on_another_clock())
    }
}
