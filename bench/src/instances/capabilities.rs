//! Which capabilities a container has, and the system calls that go with them.

use super::refuse;
use isobench_runtime::Capabilities;
use isobench_runtime::seccomp::{Action, Filter, Policy, Rule};
use rustix::thread::CapabilitySet;
use std::sync::Arc;

/// What Docker's default profile allows beyond the rest to a container with a capability.
const CALLS: [(CapabilitySet, &str); 12] = [
    (CapabilitySet::DAC_READ_SEARCH, "open_by_handle_at"),
    (
        CapabilitySet::SYS_ADMIN,
        "bpf clone fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules \
         lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr perf_event_open quotactl quotactl_fd \
         setdomainname sethostname setns syslog umount2 unshare",
    ),
    (CapabilitySet::SYS_BOOT, "reboot"),
    (CapabilitySet::SYS_MODULE, "delete_module finit_module init_module"),
    (CapabilitySet::SYS_PACCT, "acct"),
    (CapabilitySet::SYS_PTRACE, "kcmp pidfd_getfd process_madvise"),
    (CapabilitySet::SYS_RAWIO, "ioperm iopl"),
    (CapabilitySet::SYS_TIME, "clock_settime settimeofday"),
    (CapabilitySet::SYS_TTY_CONFIG, "vhangup"),
    (CapabilitySet::SYS_NICE, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (CapabilitySet::SYSLOG, "syslog"),
    (CapabilitySet::BPF, "bpf"),
];

/// Which capabilities are asked for: the standard ones, less those that are dropped, and those that are added.
pub(crate) fn chosen(all_added: &[String], all_dropped: &[String]) -> anyhow::Result<CapabilitySet> {
    let (added, dropped) = (set("--cap-add", all_added)?, set("--cap-drop", all_dropped)?);
    // As Docker: whoever drops ALL and adds one has that one, whoever adds ALL and drops one has all others.
    let kept = Capabilities::STANDARD.bounding - dropped;
    Ok(if names_all(all_added) { added - dropped } else { kept | added })
}

/// The sets of a process with these capabilities.
pub(super) fn sets(chosen: CapabilitySet) -> Capabilities {
    Capabilities { bounding: chosen, effective: chosen, permitted: chosen, ..Capabilities::NONE }
}

/// The filter of system calls that goes with them.
pub(super) fn filter(chosen: CapabilitySet) -> anyhow::Result<Arc<Filter>> {
    let beyond = CALLS.iter().filter(|(capability, _)| chosen.contains(*capability));
    let calls: Vec<String> = beyond.flat_map(|(_, calls)| calls.split_ascii_whitespace()).map(String::from).collect();
    if calls.is_empty() {
        return Ok(Filter::standard());
    }
    let mut policy = Policy::standard();
    policy.add_all(&calls, &Rule { conditions: Vec::new(), action: Action::Allow });
    Ok(Arc::new(policy.compile()?))
}

fn names_all(names: &[String]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case("all"))
}

/// All that this process could hand on.
fn possible() -> CapabilitySet {
    CapabilitySet::all().iter().filter(|one| rustix::thread::capability_is_in_bounding_set(*one) == Ok(true)).collect()
}

fn set(option: &str, names: &[String]) -> anyhow::Result<CapabilitySet> {
    let mut set = CapabilitySet::empty();
    for name in names {
        let upper = name.to_ascii_uppercase();
        let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
        set |= match CapabilitySet::from_name(plain) {
            Some(one) => one,
            None if plain == "ALL" => possible(),
            None => {
                return refuse(format!("{option} {name}: there is no such capability (capabilities(7) lists them)"));
            }
        };
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn they_are_chosen_as_docker_chooses_them() {
        let standard = Capabilities::STANDARD.bounding;
        assert_eq!(chosen(&[], &[]).unwrap(), standard);
        assert_eq!(chosen(&names(&["net_admin"]), &[]).unwrap(), standard | CapabilitySet::NET_ADMIN);
        assert_eq!(chosen(&[], &names(&["CAP_CHOWN"])).unwrap(), standard - CapabilitySet::CHOWN);
        assert_eq!(chosen(&names(&["CHOWN"]), &names(&["ALL"])).unwrap(), CapabilitySet::CHOWN);
        assert!(chosen(&names(&["everything"]), &[]).is_err());
    }

    #[test]
    fn every_filter_compiles() {
        for (capability, _) in CALLS {
            filter(capability).unwrap();
        }
    }
}
