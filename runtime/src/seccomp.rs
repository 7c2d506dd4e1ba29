//! System call filters ([seccomp(2)](https://man7.org/linux/man-pages/man2/seccomp.2.html)): a policy, and the program to which
//! it is compiled.
#![forbid(unsafe_code)]

mod compiler;

use crate::syscalls;
use crate::system::Instruction;
use rustix::io::Errno;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, LazyLock};

/// What happens to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Allow,
    /// It fails with this error.
    Fail(Errno),
    /// It ends the process.
    Kill,
    /// It sends SIGSYS.
    Trap,
    /// It is made and logged.
    Log,
}

/// How an argument is compared, as unsigned 64-bit numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// Less.
    Less,
    /// Less or equal.
    LessOrEqual,
    /// Greater or equal.
    GreaterOrEqual,
    /// Greater.
    Greater,
    /// Equal after masking the argument with this.
    MaskedEqual(u64),
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub argument: u8,
    /// How it is compared.
    pub comparison: Comparison,
    /// With what.
    pub value: u64,
}

/// An action that is taken where all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The conditions; none always holds.
    pub conditions: Vec<Condition>,
    /// The action.
    pub action: Action,
}

/// Which system calls may be made. Other architectures' calls (32-bit, x32) fail with ENOSYS, as on a kernel without them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    default: Action,
    /// For numbers that are younger than this program.
    unknown: Action,
    rules: BTreeMap<u32, Vec<Rule>>,
}

/// A compiled policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Vec<Instruction>);

impl Filter {
    /// Docker's default policy, compiled once a process.
    pub fn standard() -> Arc<Self> {
        static STANDARD: LazyLock<Arc<Filter>> = LazyLock::new(|| {
            // It is far from every limit; a test compiles it.
            Arc::new(Policy::standard().compile().unwrap_or_else(|error| unreachable!("{error}")))
        });
        STANDARD.clone()
    }

    pub(crate) fn program(&self) -> &[Instruction] {
        &self.0
    }
}

/// What Docker's default profile refuses on x86-64 to a container with its default capabilities.
const REFUSED: &str = "\
    _sysctl acct add_key afs_syscall bpf clock_settime create_module delete_module fanotify_init finit_module \
    fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy getpmsg init_module io_uring_enter \
    io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie \
    lsm_get_self_attr lsm_list_modules lsm_set_self_attr mbind migrate_pages mount mount_setattr move_mount \
    move_pages nfsservctl open_by_handle_at open_tree open_tree_attr perf_event_open pidfd_getfd pivot_root \
    process_madvise putpmsg query_module quotactl quotactl_fd reboot request_key security set_mempolicy \
    set_mempolicy_home_node setdomainname sethostname setns settimeofday swapoff swapon sysfs syslog tuxcall \
    umount2 unshare uprobe uselib userfaultfd ustat vhangup vserver";

/// The clone flags that make namespaces.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

impl Policy {
    /// A policy with one action for every system call. Numbers that are younger than this program fail with ENOSYS unless
    /// all are allowed: a libc then falls back to an older call.
    pub fn new(default: Action) -> Self {
        let unknown = if default == Action::Allow { Action::Allow } else { Action::Fail(Errno::NOSYS) };
        Self { default, unknown, rules: BTreeMap::new() }
    }

    /// Adds a rule for a system call by name; rules are tried in the order in which they were added. `false` where this
    /// architecture has no such call.
    pub fn add(&mut self, name: &str, rule: Rule) -> bool {
        let number = syscalls::all().find(|(known, _)| *known == name).map(|(_, number)| number);
        if let Some(number) = number {
            self.rules.entry(number).or_default().push(rule);
        }
        number.is_some()
    }

    /// Adds a rule for many system calls at once, in one pass over the table.
    pub fn add_all(&mut self, names: &[String], rule: &Rule) {
        let names: HashSet<&str> = names.iter().map(String::as_str).collect();
        for (name, number) in syscalls::all() {
            if names.contains(name) {
                self.rules.entry(number).or_default().push(rule.clone());
            }
        }
    }

    /// Docker's default policy, as it stands for a container with Docker's default capabilities.
    pub fn standard() -> Self {
        let mut policy = Self::new(Action::Fail(Errno::PERM));
        let refused: HashSet<&str> = REFUSED.split_ascii_whitespace().collect();
        for (name, number) in syscalls::all() {
            let allowed = |condition: Option<Condition>| Rule {
                conditions: condition.into_iter().collect(),
                action: Action::Allow,
            };
            let condition = |comparison, value| Some(Condition { argument: 0, comparison, value });
            let rules = match name {
                "clone" => vec![allowed(condition(Comparison::MaskedEqual(NEW_NAMESPACES), 0))],
                // So that libc falls back to clone, whose flags can be seen.
                "clone3" => vec![Rule { conditions: vec![], action: Action::Fail(Errno::NOSYS) }],
                // AF_ALG and AF_VSOCK reach much kernel and the hypervisor: all families but these two.
                "socket" => [
                    condition(Comparison::Less, libc::AF_ALG as u64),
                    condition(Comparison::Equal, libc::AF_ALG as u64 + 1),
                    condition(Comparison::Greater, libc::AF_VSOCK as u64),
                ]
                .map(allowed)
                .to_vec(),
                "personality" => [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff]
                    .map(|value| allowed(condition(Comparison::Equal, value)))
                    .to_vec(),
                name if refused.contains(name) => continue,
                _ => vec![allowed(None)],
            };
            policy.rules.insert(number, rules);
        }
        policy
    }

    /// What happens to a system call that no rule names.
    pub(crate) fn default_action(&self) -> Action {
        self.default
    }

    /// The rules by system call, in the order in which they are tried.
    pub(crate) fn rules(&self) -> impl Iterator<Item = (&'static str, &[Rule])> {
        syscalls::all().filter_map(|(name, number)| Some((name, self.rules.get(&number)?.as_slice())))
    }
}

#[cfg(test)]
mod tests;
