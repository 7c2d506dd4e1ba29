//! What this machine and this program are, as far as the testbed cannot see it from inside.

use isobench_reports::record::Machine;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Read};

/// Version of this program, its git revision where it was built from a checkout, and the C library that it is linked with.
pub const fn version() -> &'static str {
    match option_env!("ISOBENCH_VERSION") {
        Some(version) => version,
        None => env!("CARGO_PKG_VERSION"),
    }
}

/// SHA-256 of this program's own file, hexadecimal.
///
/// # Errors
/// Where it cannot be read.
pub fn program_digest() -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut file = fs::File::open("/proc/self/exe")?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => digest.update(&buffer[..count]),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What ties a run to this boot of this machine: `/proc/sys/kernel/random/boot_id` and the kernel's release.
pub fn boot_and_kernel() -> (String, String) {
    (read("/proc/sys/kernel/random/boot_id"), read("/proc/sys/kernel/osrelease"))
}

/// The machine's name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Completes what the testbed found: the machine's name, what KVM is here, and how busy it was when the run began.
pub fn complete(mut machine: Machine, kvm: String) -> Machine {
    machine.host = host();
    machine.kvm = kvm;
    for (name, path) in [("load", "/proc/loadavg"), ("uptime", "/proc/uptime")] {
        let text = read(path);
        if !text.is_empty() {
            machine.facts.insert(name.into(), text);
        }
    }
    if let Some(power) = power() {
        machine.facts.insert("power".into(), power.into());
    }
    machine
}

/// Time that a hypervisor took from this machine's CPUs since boot, in nanoseconds: field `steal` of the first line of
/// [proc_stat(5)](https://man7.org/linux/man-pages/man5/proc_stat.5.html), in USER_HZ, which is 100 a second on x86-64.
pub fn steal() -> Option<u64> {
    steal_of(&fs::read_to_string("/proc/stat").ok()?)
}

fn steal_of(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: u64 = line.split_ascii_whitespace().nth(7)?.parse().ok()?;
    Some(ticks * 10_000_000)
}

/// `battery` where a supply is a battery that is being emptied: the machine may then slow down by itself.
fn power() -> Option<&'static str> {
    let supplies = fs::read_dir("/sys/class/power_supply").ok()?;
    let mut found = None;
    for supply in supplies.flatten() {
        let text = |name: &str| fs::read_to_string(supply.path().join(name)).unwrap_or_default();
        match (text("type").trim(), text("status").trim()) {
            ("Battery", "Discharging") => return Some("battery"),
            ("Battery", _) | ("Mains", _) => found = Some("mains"),
            _ => {}
        }
    }
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_read_from_the_sum_over_all_cpus() {
        let stat = "cpu  10 20 30 40 50 60 70 80 90 100\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(steal_of(stat), Some(800_000_000));
        assert_eq!(steal_of("cpu0 1 2 3"), None);
    }

    #[test]
    fn this_program_has_a_digest_and_this_boot_a_name() {
        assert_eq!(program_digest().unwrap().len(), 64);
        let (boot, kernel) = boot_and_kernel();
        assert_eq!(boot.len(), 36);
        assert!(!kernel.is_empty() && !host().is_empty());
    }
}
