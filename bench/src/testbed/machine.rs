//! Facts of the machine and of the testbed that bear on a figure.

use super::affinity::Affinity;
use isobench_reports::record::Machine;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What can be read here, without what KVM is: only the doctor finds that out.
pub(crate) fn facts(rootless: bool) -> Machine {
    let text = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let processors = text("/proc/cpuinfo");
    let mut facts = BTreeMap::new();
    for (name, path) in [
        ("governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        ("no-turbo", "/sys/devices/system/cpu/intel_pstate/no_turbo"),
        ("boost", "/sys/devices/system/cpu/cpufreq/boost"),
        ("huge-pages", "/sys/kernel/mm/transparent_hugepage/enabled"),
        ("same-page-merging", "/sys/kernel/mm/ksm/run"),
        ("clock-source", "/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        ("congestion-control", "/proc/sys/net/ipv4/tcp_congestion_control"),
        ("swap", "/proc/swaps"),
    ] {
        let value = text(path);
        if !value.is_empty() {
            facts.insert(name.to_owned(), if name == "swap" { swap(&value) } else { value });
        }
    }
    let vulnerabilities = vulnerabilities(Path::new("/sys/devices/system/cpu/vulnerabilities"));
    if !vulnerabilities.is_empty() {
        facts.insert("cpu-vulnerabilities".to_owned(), vulnerabilities);
    }
    let affinity = Affinity::choose().map_or("one CPU for all".to_owned(), Affinity::describe);
    facts.insert("affinity".to_owned(), affinity);
    Machine {
        // The testbed has a host name of its own; the parent fills in the machine's.
        host: String::new(),
        boot: text("/proc/sys/kernel/random/boot_id"),
        kernel: text("/proc/sys/kernel/osrelease"),
        cpu: field(&processors, "model name").unwrap_or_default(),
        cpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
        memory: kibibytes(&text("/proc/meminfo"), "MemTotal").unwrap_or_default() * 1024,
        cgroups: cgroups(Path::new("/sys/fs/cgroup")).to_owned(),
        kvm: String::new(),
        emulated: is_emulated(),
        rootless,
        facts,
    }
}

/// What the kernel says of the processor's vulnerabilities and what it does about them, since that costs time: those by which it is
/// affected, in one line (Documentation/ABI/testing/sysfs-devices-system-cpu).
fn vulnerabilities(directory: &Path) -> String {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut known: Vec<String> = entries
        .filter_map(|entry| {
            let state = fs::read_to_string(entry.path()).ok()?;
            (state.trim() != "Not affected").then(|| format!("{}: {}", entry.file_name().display(), state.trim()))
        })
        .collect();
    known.sort();
    known.join(" | ")
}

/// The layout of control groups under a mount point ([cgroups(7)](https://man7.org/linux/man-pages/man7/cgroups.7.html)):
/// the root of a v2 hierarchy has `cgroup.controllers`, and a hybrid one keeps it in `unified`.
fn cgroups(mount_point: &Path) -> &'static str {
    if mount_point.join("cgroup.controllers").exists() {
        "v2"
    } else if mount_point.join("unified/cgroup.controllers").exists() {
        "hybrid"
    } else if mount_point.join("memory").exists() {
        "v1"
    } else {
        "none"
    }
}

/// The value of the first `name : value` line.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// An amount from /proc/meminfo, in KiB.
pub(crate) fn kibibytes(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.split_ascii_whitespace().next()?.parse().ok()
}

fn swap(table: &str) -> String {
    if table.lines().count() > 1 { "on".into() } else { "off".into() }
}

/// Whether this machine is QEMU without acceleration: it says so in the hypervisor's CPUID leaf (target/i386/cpu.c).
pub(crate) fn is_emulated() -> bool {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !field(&processors, "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")) {
        return false;
    }
    let leaf = std::arch::x86_64::__cpuid(0x4000_0000);
    [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).concat() == b"TCGTCGTCGTCG"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_fields_are_read() {
        let text = "MemTotal:       24683520 kB\nMemFree: 1 kB\n";
        assert_eq!(kibibytes(text, "MemTotal"), Some(24_683_520));
        assert_eq!(kibibytes(text, "MemAvailable"), None);
    }

    #[test]
    fn vulnerabilities_are_those_that_the_processor_has() {
        let root = tempfile::tempdir().expect("a directory");
        assert_eq!(vulnerabilities(&root.path().join("none")), "");
        for (name, state) in [("srbds", "Not affected"), ("spectre_v1", "Mitigation: barriers"), ("mds", "Vulnerable")]
        {
            fs::write(root.path().join(name), format!("{state}\n")).expect("a file");
        }
        assert_eq!(vulnerabilities(root.path()), "mds: Vulnerable | spectre_v1: Mitigation: barriers");
    }

    #[test]
    fn layouts_are_told_apart() {
        let root = tempfile::tempdir().expect("a directory");
        assert_eq!(cgroups(root.path()), "none");
        fs::create_dir_all(root.path().join("memory")).expect("a directory");
        assert_eq!(cgroups(root.path()), "v1");
        fs::create_dir_all(root.path().join("unified")).expect("a directory");
        fs::write(root.path().join("unified/cgroup.controllers"), "").expect("a file");
        assert_eq!(cgroups(root.path()), "hybrid");
        fs::write(root.path().join("cgroup.controllers"), "").expect("a file");
        assert_eq!(cgroups(root.path()), "v2");
    }
}
