//! Which CPU a load generator and a server run on.
//!
//! Left to itself the scheduler puts the two now on one CPU and now on two, and a round trip takes 20 or 60 us accordingly:
//! a difference between sandboxes drowns in that. So the generator has one CPU and the server another one. A virtual machine
//! is more than one thread (vCPU and devices) and keeps every CPU; that is part of what it is.

use anyhow::Context;
use isobench_workload::{Family, Instance};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::collections::BTreeSet;

/// One CPU for each side. There are none where the machine, or this process's share of it, has one CPU alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Affinity {
    generator: usize,
    server: usize,
}

impl Affinity {
    /// The first allowed CPU, and the next one on another core.
    pub(crate) fn choose() -> Option<Self> {
        let allowed = sched_getaffinity(None).ok()?;
        let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
        let generator = *allowed.first()?;
        let path = format!("/sys/devices/system/cpu/cpu{generator}/topology/thread_siblings_list");
        let siblings = cpus(&std::fs::read_to_string(path).unwrap_or_default());
        let others = || allowed.iter().copied().skip(1);
        let server = others().find(|cpu| !siblings.contains(cpu)).or_else(|| others().next())?;
        Some(Self { generator, server })
    }

    /// Puts a load generator where it belongs.
    pub(crate) fn pin_generator(self, instance: &Instance) -> anyhow::Result<()> {
        pin(instance, self.generator)
    }

    /// Puts a server where it belongs; threads that it starts afterwards follow.
    pub(crate) fn pin_server(self, instance: &Instance, family: Family) -> anyhow::Result<()> {
        match family {
            Family::Process | Family::Container | Family::Peer => pin(instance, self.server),
            Family::Unikernel | Family::Linux => Ok(()),
        }
    }

    /// For the records.
    pub(crate) fn describe(self) -> String {
        let Self { generator, server } = self;
        format!("load generator on CPU {generator}, server on CPU {server}, virtual machine on every CPU")
    }
}

fn pin(instance: &Instance, cpu: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(Pid::from_raw(instance.inside_pid()), &set)
        .with_context(|| format!("keep {} on CPU {cpu}", instance.name()))
}

/// Reads a list such as `0,4-6` ([cpuset(7)](https://man7.org/linux/man-pages/man7/cpuset.7.html), "List format").
fn cpus(list: &str) -> BTreeSet<usize> {
    list.trim()
        .split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?.min(CpuSet::MAX_CPU))
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        assert_eq!(cpus("0,4-6\n"), BTreeSet::from([0, 4, 5, 6]));
        assert_eq!(cpus("3"), BTreeSet::from([3]));
        assert!(cpus("").is_empty());
        assert!(cpus("7-x,-,9-2").is_empty());
    }

    #[test]
    fn the_two_sides_differ() {
        if let Some(chosen) = Affinity::choose() {
            assert_ne!(chosen.generator, chosen.server);
        }
    }
}
