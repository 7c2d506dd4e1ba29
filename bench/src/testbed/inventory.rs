//! What there is in the testbed: two inventories around a cell show what the cell left behind.

use super::cgroups;
use anyhow::Context;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// How long the kernel may take to clean up.
const CLEAN_UP: Duration = Duration::from_secs(2);

/// Kernel objects of the testbed by kind, each named so that a reader finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inventory {
    /// Kind, then names.
    objects: BTreeMap<String, Vec<String>>,
}

impl Inventory {
    /// What this process sees now.
    pub(crate) fn take() -> anyhow::Result<Self> {
        let mut objects = BTreeMap::new();
        let mut add = |kind: &str, mut names: Vec<String>| {
            names.sort();
            objects.insert(kind.to_owned(), names);
        };
        add("cgroup", cgroups::list()?);
        add("link", links(&read("/proc/net/dev")?));
        add("listener", listeners(&read("/proc/net/tcp")?));
        add("mount", mounts(&read("/proc/self/mountinfo")?));
        add("process", processes()?);
        Ok(Self { objects })
    }

    /// What is there once the kernel has had its time to clean up, and what of it was not there `before`: it removes links, groups
    /// and mounts some time after their last process.
    ///
    /// It looks again by the clock because the kernel tells of no event for all that must be gone. Links have one (rtnetlink(7)),
    /// mounts have one (poll(2) on mountinfo) and a process has one (pidfd_open(2)), but a socket that listens has none, which
    /// closes when the last work that holds it is done, and nor has a process that is not known before it is there. It happens
    /// where nothing is measured.
    pub(crate) fn settled(before: &Self) -> anyhow::Result<(Self, Vec<String>)> {
        let begun = Instant::now();
        loop {
            super::host::reap_orphans();
            let now = Self::take()?;
            let left = now.beyond(before);
            if left.is_empty() || begun.elapsed() > CLEAN_UP {
                return Ok((now, left));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What is in `self` and was not in `before`, as `kind name`.
    fn beyond(&self, before: &Self) -> Vec<String> {
        let mut left = Vec::new();
        for (kind, names) in &self.objects {
            let mut known = before.objects.get(kind).cloned().unwrap_or_default();
            for name in names {
                // One by one: two mounts on one directory have the same name.
                match known.iter().position(|other| other == name) {
                    Some(index) => drop(known.swap_remove(index)),
                    None => left.push(format!("{kind} {name}")),
                }
            }
        }
        left
    }
}

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {path}"))
}

/// Names from /proc/net/dev: two lines of heading, then `name: counters`.
fn links(text: &str) -> Vec<String> {
    text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

/// `port N` from each line of /proc/net/tcp in state 0A (TCP_LISTEN, include/net/tcp_states.h).
fn listeners(text: &str) -> Vec<String> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let (local, state) = (fields.next()?, fields.nth(1)?);
            let port = u16::from_str_radix(local.split_once(':')?.1, 16).ok()?;
            (state == "0A").then(|| format!("port {port}"))
        })
        .collect()
}

/// Mount points from mountinfo, field 5 ([proc_pid_mountinfo(5)](https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html)).
fn mounts(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| Some(line.split_ascii_whitespace().nth(4)?.to_owned())).collect()
}

/// `number (name)` of each process in the testbed's pid namespace.
fn processes() -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process that ends while we look is not there.
        if let Ok(command) = fs::read_to_string(format!("/proc/{number}/comm")) {
            found.push(format!("{number} ({})", command.trim_end()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_from_their_table() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 0 0\nbridge0: 1 2\n";
        assert_eq!(links(text), ["lo", "bridge0"]);
    }

    #[test]
    fn only_listening_sockets_are_listeners() {
        let text = "  sl  local_address rem_address   st\n   0: 00000000:1B58 00000000:0000 0A 0\n   1: 0100007F:C350 0100007F:1B58 06 0\n";
        assert_eq!(listeners(text), ["port 7000"]);
    }

    #[test]
    fn a_difference_counts_objects_of_one_name() {
        let inventory = |mounts: &[&str]| Inventory {
            objects: [("mount".to_owned(), mounts.iter().map(|mount| (*mount).to_owned()).collect())].into(),
        };
        let (one, two) = (inventory(&["/x"]), inventory(&["/x", "/x"]));
        assert_eq!(two.beyond(&one), ["mount /x"]);
        assert!(one.beyond(&two).is_empty());
        assert_eq!(one.beyond(&Inventory::default()), ["mount /x"]);
    }

    #[test]
    fn this_process_is_in_the_inventory() {
        let inventory = Inventory::take().expect("an inventory");
        let own = format!("{} (", std::process::id());
        assert!(inventory.objects["process"].iter().any(|process| process.starts_with(&own)));
        assert!(inventory.objects["link"].contains(&"lo".to_owned()));
    }
}
