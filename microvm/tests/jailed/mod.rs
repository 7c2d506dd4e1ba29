//! What must hold of a monitor that serves a guest, seen from outside by root.

use crate::support::check;
use isobench_workload::announcement;
use libtest_mimic::Failed;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// A monitor by its number.
pub(crate) struct Monitor(PathBuf);

impl Monitor {
    pub(crate) fn new(pid: i32) -> Self {
        Self(PathBuf::from(format!("/proc/{pid}")))
    }

    fn text(&self, name: &str) -> Result<String, Failed> {
        Ok(std::fs::read_to_string(self.0.join(name)).map_err(|error| format!("{name}: {error}"))?)
    }

    /// It is nobody who may do anything, and all its threads are filtered.
    pub(crate) fn has_no_rights(&self) -> Result<(), Failed> {
        for thread in std::fs::read_dir(self.0.join("task"))? {
            let status = std::fs::read_to_string(thread?.path().join("status"))?;
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                line.map(|value| value.split_whitespace().collect::<Vec<_>>()).ok_or(format!("no {name} in {status}"))
            };
            for identity in ["Uid", "Gid"] {
                let numbers = field(identity)?;
                check(numbers.iter().all(|number| *number != "0"), format!("{identity}: {numbers:?}"))?;
            }
            let groups = field("Groups")?;
            check(groups.is_empty(), format!("groups: {groups:?}"))?;
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                let bits = field(set)?;
                check(bits == ["0000000000000000"], format!("{set}: {bits:?}"))?;
            }
            check(field("NoNewPrivs")? == ["1"], "it may gain privileges")?;
            // The kernel's worker in this process runs the kernel's code alone and asks for nothing.
            let of_the_kernel = field("Name")?.iter().all(|name| name.starts_with("vhost-"));
            check(of_the_kernel || field("Seccomp")? == ["2"], format!("a thread without a filter: {status}"))?;
        }
        let limits = self.text("limits")?;
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
        check(core.split_whitespace().filter(|word| *word == "0").count() == 2, core)
    }

    /// No other process of its user reads its memory: what is not dumpable belongs to root of the user namespace in which it was
    /// started (proc_pid(5)).
    pub(crate) fn is_not_dumpable(&self) -> Result<(), Failed> {
        let owner = std::fs::metadata(self.0.join("mem"))?.uid();
        check(owner == 0, format!("its memory belongs to {owner}"))
    }

    /// It has these namespaces for itself.
    pub(crate) fn has_namespaces(&self, names: &[&str]) -> Result<(), Failed> {
        for name in names {
            let ours = std::fs::read_link(format!("/proc/thread-self/ns/{name}"))?;
            let its = std::fs::read_link(self.0.join("ns").join(name))?;
            check(ours != its, format!("it shares our {name} namespace"))?;
        }
        let links = self.text("net/dev")?;
        let others = links.lines().skip(2).filter(|line| !line.trim_start().starts_with("lo:")).count();
        check(others == 0, format!("links in its network: {links}"))
    }

    /// Its root is one empty directory that can't be written to, and nothing else is mounted.
    pub(crate) fn has_an_empty_root(&self) -> Result<(), Failed> {
        let root = self.0.join("root");
        let content: Vec<_> = std::fs::read_dir(&root)?.collect();
        check(content.is_empty(), format!("in its root: {content:?}"))?;
        check(std::fs::write(root.join("file"), "text").is_err(), "its root can be written to")?;
        let mounts = self.text("mountinfo")?;
        let closed = mounts.contains(" / / ro,nosuid,nodev,noexec");
        check(closed && mounts.lines().count() == 1, format!("its mounts: {mounts}"))?;
        let place = std::fs::read_link(self.0.join("cwd"))?;
        check(place.as_os_str() == "/", format!("its working directory is {}", place.display()))
    }

    /// It holds no descriptors but these and its standard streams.
    pub(crate) fn holds_only(&self, allowed: &[&str]) -> Result<(), Failed> {
        for entry in std::fs::read_dir(self.0.join("fd"))? {
            let entry = entry?;
            let link = std::fs::read_link(entry.path())?.to_string_lossy().into_owned();
            // 0 is the tap where there is one.
            let stream = ["1", "2"].contains(&&*entry.file_name().to_string_lossy());
            check(stream || allowed.contains(&link.as_str()), format!("descriptor {:?} is {link}", entry.file_name()))?;
        }
        Ok(())
    }
}

/// What a monitor of one processor with a network card holds.
pub(crate) const DESCRIPTORS: [&str; 5] =
    ["/dev/net/tun", "/dev/kvm", "anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0", "anon_inode:[eventfd]"];

/// Kills a launcher that has told its monitor's number and that it is ready; the monitor is gone then.
pub(crate) fn ends_with(launcher: &mut Command) -> Result<(), Failed> {
    let mut launcher = launcher.stdout(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(launcher.stdout.take().ok_or("no pipe")?);
    // Its number and its ready line, in any order.
    let mut lines = [String::new(), String::new()];
    for line in &mut lines {
        output.read_line(line)?;
    }
    let number = lines.iter().find_map(|line| line.strip_prefix("pid ")?.trim().parse().ok());
    let number = number.and_then(Pid::from_raw).ok_or_else(|| format!("no number in {lines:?}"))?;
    check(lines.iter().any(|line| line.starts_with(announcement::READY)), format!("not ready: {lines:?}"))?;
    let monitor = pidfd_open(number, PidfdFlags::empty())?;
    launcher.kill()?;
    launcher.wait()?;
    let limit = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let gone = poll(&mut [PollFd::new(&monitor, PollFlags::IN)], Some(&limit))?;
    if gone == 0 {
        pidfd_send_signal(&monitor, Signal::KILL)?;
    }
    check(gone == 1, "it outlives its launcher")
}
