//! The peer user-mode Linux: a guest kernel that is a program of the host's, so that it runs natively on any machine. Its processes
//! are traced ones of the host's (ptrace(2)), and it needs no KVM.

use super::guest_archive::GuestArchive;
use super::spawn::{failed, find_program, spawn, version};
use crate::programs::Program;
use crate::testbed::directory;
use isobench_microvm::linux::sandbox::MEMORY;
use isobench_workload::{Family, Instance, LaunchError, Sandbox, Workload};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::Command;

/// The program by the names that it has, and Debian's package that has it.
const PROGRAMS: [&str; 2] = ["linux.uml", "linux"];
const PACKAGE: &str = "user-mode-linux";

/// Who may trace whom ([Yama](https://docs.kernel.org/admin-guide/LSM/Yama.html)); 3 is nobody.
const TRACING: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// Where the launching thread's process numbers are.
const PROCESSES: &str = "/proc/thread-self/ns/pid";

/// A guest kernel as a process, with the agent as its /init.
#[derive(Debug)]
pub(super) struct UserModeLinux {
    program: PathBuf,
    archive: GuestArchive,
    directory: PathBuf,
    launched: u64,
}

impl UserModeLinux {
    pub(super) fn find(agent: &Program) -> Result<(Self, Option<String>), String> {
        let program = PROGRAMS.into_iter().find_map(find_program);
        let program = program.ok_or_else(|| format!("{PACKAGE} is not installed: apt-get install {PACKAGE}"))?;
        if fs::read_to_string(TRACING).is_ok_and(|scope| scope.trim() == "3") {
            return Err(format!("this machine lets nobody trace a process, by which it runs: {TRACING} is 3"));
        }
        let version = version(&program).map(|release| format!("user-mode Linux {release}"));
        let directory = directory(super::USER_MODE_LINUX).map_err(|error| format!("{error:#}"))?;
        let archive = GuestArchive::new(agent, &directory);
        Ok((Self { program, archive, directory, launched: 0 }, version))
    }
}

impl Sandbox for UserModeLinux {
    fn name(&self) -> &str {
        super::USER_MODE_LINUX
    }

    fn family(&self) -> Family {
        Family::Peer
    }

    fn launch(&mut self, workload: &Workload) -> Result<Instance, LaunchError> {
        self.launched += 1;
        let instance = format!("{}-{}", self.name(), self.launched);
        let mut command = Command::new(&self.program);
        command.arg(format!("mem={}M", MEMORY >> 20));
        command.arg(format!("initrd={}", self.archive.write(&instance, workload)?.display()));
        command.arg(format!("uml_dir={}", self.directory.display())).arg(format!("umid={instance}"));
        // Its messages would come before the agent's first line; a guest that ends must not begin anew.
        command.args(["con=null", "con0=fd:0,fd:1", "quiet", "loglevel=1", "noreboot"]);
        command.args(["cryptomgr.notests", "isobench.guest=1"]);
        // The guest's memory is a file there, without a name.
        command.env("TMPDIR", &self.directory);
        let spawned = in_new_processes(|| spawn(instance.clone(), &mut command));
        let spawned = spawned.map_err(|source| failed(&instance, "make a pid namespace", source))??;
        Ok(spawned.instance(None)?.on_another_clock())
    }
}

/// Starts a process as number 1 of a new pid namespace. Its guest's processes are the host's, and one that is stopped for its tracer
/// outlives it: only the namespace takes them all along.
fn in_new_processes<T>(start: impl FnOnce() -> T) -> io::Result<T> {
    let home = File::open(PROCESSES)?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    let started = start();
    setns(&home, CloneFlags::CLONE_NEWPID)?;
    Ok(started)
}
