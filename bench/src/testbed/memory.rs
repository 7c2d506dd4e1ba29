//! Memory of the whole host, and of the processes that were started since.

use super::machine::kibibytes;
use anyhow::{Context, bail};
use std::collections::BTreeSet;
use std::fs;

/// Bytes in a page of x86-64.
const PAGE: u64 = 4096;

/// The host's memory and the testbed's processes at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Bytes in use by anything.
    pub(crate) used: u64,
    /// Bytes of it that belong to no program.
    pub(crate) kernel: u64,
    processes: BTreeSet<u32>,
}

impl Snapshot {
    pub(crate) fn take() -> anyhow::Result<Self> {
        let (used, kernel) = of_host()?;
        let mut processes = BTreeSet::new();
        for entry in fs::read_dir("/proc").context("read /proc")? {
            processes.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        Ok(Self { used, kernel, processes })
    }
}

/// Memory of the host that is in use by anything, in bytes.
///
/// # Errors
/// Where /proc/meminfo cannot be read.
pub fn host_memory() -> anyhow::Result<u64> {
    of_host().map(|(used, _)| used)
}

/// Memory that is in use by anything, and that of it which is the kernel's own.
fn of_host() -> anyhow::Result<(u64, u64)> {
    // Folds each CPU's pending counts into the totals (Documentation/admin-guide/sysctl/vm.rst). Only root may; without it
    // the figure is off by some ten pages a CPU.
    let _ = fs::read("/proc/sys/vm/stat_refresh");
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let cached = free_pages_of_cpus(&fs::read_to_string("/proc/zoneinfo").unwrap_or_default());
    let used = used(&text)?.saturating_sub(cached * PAGE);
    Ok((used, kernel(used, &text)?))
}

/// Memory in use, in bytes: all of it, less what is free and what the kernel would give back at once. `MemAvailable` would
/// subtract watermarks and only half of the page cache, an estimate that moves by itself; and shared memory, which
/// `Cached` contains, cannot be given back: a guest's memory may lie in it.
/// ([proc_meminfo(5)](https://man7.org/linux/man-pages/man5/proc_meminfo.5.html))
fn used(meminfo: &str) -> anyhow::Result<u64> {
    let amount = |name| kibibytes(meminfo, name).with_context(|| format!("/proc/meminfo has no {name}"));
    let cache = (amount("Cached")? + amount("Buffers")?).saturating_sub(amount("Shmem")?);
    let reclaimable = amount("MemFree")? + cache + amount("SReclaimable")?;
    Ok((amount("MemTotal")?.saturating_sub(reclaimable)) * 1024)
}

/// Memory of the kernel's own, in bytes: all that is in use and belongs to no program. Its slabs, stacks, page tables and
/// per-CPU objects are counted by name in /proc/meminfo, but not the pages that it takes for itself without a name, of which a
/// network namespace has many.
fn kernel(used: u64, meminfo: &str) -> anyhow::Result<u64> {
    let amount = |name| kibibytes(meminfo, name).with_context(|| format!("/proc/meminfo has no {name}"));
    Ok(used.saturating_sub((amount("AnonPages")? + amount("Shmem")?) * 1024))
}

/// Free pages that each CPU keeps for itself, hundreds of them, which `MemFree` does not contain: `count:` of each page set in
/// /proc/zoneinfo ([proc(5)](https://man7.org/linux/man-pages/man5/proc_zoneinfo.5.html)).
fn free_pages_of_cpus(zones: &str) -> u64 {
    zones.lines().filter_map(|line| line.trim().strip_prefix("count:")?.trim().parse::<u64>().ok()).sum()
}

/// What the processes between two snapshots hold.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Sum of their proportional set sizes, in bytes.
    pub(crate) proportional: u64,
    /// Sum over their control groups, where there are any of their own.
    pub(crate) accounted: Option<u64>,
    /// Proportional set sizes of virtual machine monitors, less the memory of their guests; 0 where there are none.
    pub(crate) monitors: u64,
}

/// Sum of the proportional set sizes of these processes, in bytes.
pub(crate) fn proportional(processes: &[u32]) -> u64 {
    let rollups = processes.iter().filter_map(|number| fs::read_to_string(format!("/proc/{number}/smaps_rollup")).ok());
    rollups.map(|rollup| kibibytes(&rollup, "Pss").unwrap_or_default() * 1024).sum()
}

/// Pages that processes have, by whether anybody else has them too, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// All that are in memory, those of each process counted anew.
    pub(crate) resident: u64,
    /// The same, each page divided by the number of those that have it.
    pub(crate) proportional: u64,
    /// Those that another process has as well.
    pub(crate) shared: u64,
    /// Those that one process has alone.
    pub(crate) private: u64,
}

/// Sums over all processes that are in `now` and not in `before`
/// ([proc_pid_smaps(5)](https://man7.org/linux/man-pages/man5/proc_pid_smaps.5.html)).
pub(crate) fn pages_of(before: &Snapshot, now: &Snapshot) -> anyhow::Result<Pages> {
    let mut pages = Pages::default();
    for number in now.processes.difference(&before.processes) {
        // A process may end, and a zombie has no memory.
        let Ok(rollup) = fs::read_to_string(format!("/proc/{number}/smaps_rollup")) else { continue };
        pages.add(&rollup).with_context(|| format!("read the pages of process {number}"))?;
    }
    Ok(pages)
}

impl Pages {
    fn add(&mut self, rollup: &str) -> anyhow::Result<()> {
        let sum = |names: &[&str]| -> anyhow::Result<u64> {
            let amounts =
                names.iter().map(|name| kibibytes(rollup, name).with_context(|| format!("there is no {name}")));
            Ok(amounts.sum::<anyhow::Result<u64>>()? * 1024)
        };
        self.resident += sum(&["Rss"])?;
        self.proportional += sum(&["Pss"])?;
        self.shared += sum(&["Shared_Clean", "Shared_Dirty"])?;
        self.private += sum(&["Private_Clean", "Private_Dirty"])?;
        Ok(())
    }
}

/// What all processes hold that are in `now` and not in `before`, and what the kernel holds more than before, in bytes. Other
/// programs' memory is in neither, as it would be in that of the whole host.
pub(crate) fn held_since(before: &Snapshot, now: &Snapshot) -> anyhow::Result<u64> {
    Ok(pages_of(before, now)?.proportional + now.kernel.saturating_sub(before.kernel))
}

/// Memory that a new program can have without swapping, in bytes
/// ([proc_meminfo(5)](https://man7.org/linux/man-pages/man5/proc_meminfo.5.html)).
pub(crate) fn available() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    Ok(kibibytes(&text, "MemAvailable").context("/proc/meminfo has no MemAvailable")? * 1024)
}

/// Sums over all processes that are in `now` and not in `before`: instances, and whatever a peer keeps beside them.
pub(crate) fn processes_of(before: &Snapshot, now: &Snapshot) -> anyhow::Result<Held> {
    let mut held = Held::default();
    let mut groups = BTreeSet::new();
    let own_group = memory_group("self");
    for number in now.processes.difference(&before.processes) {
        let path = format!("/proc/{number}/smaps_rollup");
        // A process may end, and a zombie has no memory.
        let Ok(rollup) = fs::read_to_string(&path) else { continue };
        held.proportional += kibibytes(&rollup, "Pss").unwrap_or_default() * 1024;
        if is_monitor(*number) {
            let maps = fs::read_to_string(format!("/proc/{number}/smaps")).context("read /proc/PID/smaps of a VMM")?;
            held.monitors += beyond_guest(&maps)?;
        }
        groups.extend(memory_group(&number.to_string()).filter(|group| own_group.as_ref() != Some(group)));
    }
    if !groups.is_empty() {
        held.accounted = groups.iter().map(|group| usage(group)).sum();
    }
    Ok(held)
}

/// The path of a process's control group that accounts memory: of version 1, or of version 2.
fn memory_group(process: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    group_of(&text)
}

/// `number:controllers:path`, with no controllers for version 2 (cgroups(7)).
fn group_of(text: &str) -> Option<String> {
    let fields = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let mut unified = None;
    for (controllers, path) in fields {
        if controllers.split(',').any(|controller| controller == "memory") {
            return Some(format!("/sys/fs/cgroup/memory{path}/memory.usage_in_bytes"));
        }
        if controllers.is_empty() {
            unified = Some(format!("/sys/fs/cgroup{path}/memory.current"));
        }
    }
    unified
}

fn usage(file: &str) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Whether a process is our own monitor: it runs from a memfd of that name.
fn is_monitor(process: u32) -> bool {
    fs::read_link(format!("/proc/{process}/exe")).is_ok_and(|path| path.to_string_lossy().contains("isobench-vmm"))
}

/// Proportional set size of all mappings but the guest's memory, in bytes. That is the largest one that can be written: a monitor
/// has nothing else of many megabytes but what the allocator has set aside for a second thread, which nobody may touch
/// ([proc_pid_smaps(5)](https://man7.org/linux/man-pages/man5/proc_pid_smaps.5.html)). Where a piece of a file lies right below it that
/// can be written, it is a part of the same memory, and so is what lies right below that: a unikernel's image.
fn beyond_guest(smaps: &str) -> anyhow::Result<u64> {
    let mappings = mappings(smaps);
    let largest = mappings.iter().enumerate().filter(|(_, mapping)| mapping.writable).max_by_key(|(_, it)| it.size);
    let Some((largest, _)) = largest.filter(|(_, mapping)| mapping.size >= SMALLEST_GUEST) else {
        bail!("the guest's memory is not among the mappings of the virtual machine monitor");
    };
    let below = |upper: usize| {
        let lower = upper.checked_sub(1)?;
        (mappings[lower].writable && mappings[lower].end == mappings[upper].begin).then_some(lower)
    };
    let image = below(largest).filter(|image| mappings[*image].of_file);
    let first = image.map_or(largest, |image| below(image).unwrap_or(image));
    let beyond = mappings[..first].iter().chain(&mappings[largest + 1..]);
    Ok(beyond.map(|mapping| mapping.proportional).sum::<u64>() * 1024)
}

/// A mapping of a process; sizes in KiB.
#[derive(Default)]
struct Mapping<'s> {
    begin: &'s str,
    end: &'s str,
    writable: bool,
    of_file: bool,
    size: u64,
    proportional: u64,
}

fn mappings(smaps: &str) -> Vec<Mapping<'_>> {
    let mut mappings: Vec<Mapping<'_>> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(name), Some(word)) = (words.next(), words.next()) else { continue };
        match (name, mappings.last_mut()) {
            ("Size:", Some(mapping)) => mapping.size = word.parse().unwrap_or(0),
            ("Pss:", Some(mapping)) => mapping.proportional = word.parse().unwrap_or(0),
            // The first line of a mapping: its addresses, what may be done to it, offset, device, inode, and its file.
            _ if !name.ends_with(':') => {
                let (begin, end) = name.split_once('-').unwrap_or((name, ""));
                let of_file = words.nth(3).is_some_and(|name| name.starts_with('/'));
                mappings.push(Mapping { begin, end, writable: word.starts_with("rw"), of_file, ..Mapping::default() });
            }
            _ => {}
        }
    }
    mappings
}

/// No guest of ours has less memory, in KiB.
const SMALLEST_GUEST: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_counts_as_used() {
        let text =
            "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 50 kB\nCached: 300 kB\nShmem: 120 kB\nSReclaimable: 30 kB\n";
        assert_eq!(used(text).expect("all fields"), (1000 - 100 - (350 - 120) - 30) * 1024);
        assert!(used("MemTotal: 1000 kB\n").is_err());
    }

    #[test]
    fn what_belongs_to_no_program_is_the_kernels() {
        assert_eq!(kernel(900 << 10, "AnonPages: 500 kB\nShmem: 60 kB\n").expect("all fields"), 340 << 10);
        assert!(kernel(900 << 10, "Shmem: 60 kB\n").is_err());
    }

    #[test]
    fn pages_that_a_cpu_keeps_are_free() {
        let zones = "Node 0, zone Normal\n  pagesets\n    cpu: 0\n              count:    304\n              high:     1000\n    cpu: 1\n              count:    96\n";
        assert_eq!(free_pages_of_cpus(zones), 400);
    }

    #[test]
    fn the_guests_memory_is_no_overhead() {
        let smaps = "00400000-00500000 r-xp 00000000 00:01 5 /memfd:isobench-vmm (deleted)\nSize: 1024 kB\nPss: 40 kB\n\
                     7f0000000000-7f0001000000 rw-p 00000000 00:00 0\nSize: 16384 kB\nPss: 3000 kB\n\
                     7f0010021000-7f0014000000 ---p 00000000 00:00 0\nSize: 65404 kB\nPss: 0 kB\n\
                     7fff00000000-7fff00021000 rw-p 00000000 00:00 0 [stack]\nSize: 132 kB\nPss: 8 kB\n";
        assert_eq!(beyond_guest(smaps).expect("a guest"), 48 * 1024);
        assert!(beyond_guest("00400000-00500000 r-xp 00000000 00:01 5 /x\nSize: 40 kB\nPss: 40 kB\n").is_err());
        // The monitor's own data and a thread's stack, then a guest with its image.
        let smaps = "7effff000000-7effff004000 rw-p 00000000 00:01 5 /memfd:isobench-vmm (deleted)\nSize: 16 kB\nPss: 16 kB\n\
                     7effff0e0000-7effff100000 rw-p 00000000 00:00 0\nSize: 128 kB\nPss: 12 kB\n\
                     7effff100000-7effff200000 rw-p 00000000 00:00 0\nSize: 1024 kB\nPss: 84 kB\n\
                     7effff200000-7effff218000 rw-p 0002e000 00:01 5 /memfd:isobench-vmm (deleted)\nSize: 96 kB\nPss: 96 kB\n\
                     7effff218000-7f0000100000 rw-p 00000000 00:00 0\nSize: 15264 kB\nPss: 64 kB\n\
                     7f0000100000-7f0000200000 rw-p 00000000 00:00 0\nSize: 1024 kB\nPss: 5 kB\n";
        assert_eq!(beyond_guest(smaps).expect("a guest"), 33 * 1024);
    }

    #[test]
    fn pages_are_shared_or_private() {
        let rollup = "Rss: 100 kB\nPss: 40 kB\nShared_Clean: 60 kB\nShared_Dirty: 10 kB\nPrivate_Clean: 5 kB\n\
                      Private_Dirty: 25 kB\n";
        let mut pages = Pages::default();
        pages.add(rollup).and_then(|()| pages.add(rollup)).expect("all fields");
        let seen = [pages.resident, pages.proportional, pages.shared, pages.private];
        assert_eq!(seen, [200, 80, 140, 60].map(|kibibytes| kibibytes * 1024));
        assert!(pages.add("Rss: 100 kB\n").is_err());
    }

    #[test]
    fn the_group_that_accounts_memory_is_found_in_both_versions() {
        let hybrid = "4:memory:/isobench/a\n1:cpu:/\n0::/\n";
        assert_eq!(group_of(hybrid).as_deref(), Some("/sys/fs/cgroup/memory/isobench/a/memory.usage_in_bytes"));
        assert_eq!(group_of("0::/a\n").as_deref(), Some("/sys/fs/cgroup/a/memory.current"));
    }
}
