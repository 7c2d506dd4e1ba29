//! System call filters ([seccomp(2)](https://man7.org/linux/man-pages/man2/seccomp.2.html)): a policy, and its compilation
//! to a classic BPF program.
//!
//! The program is a binary tree over ranges of numbers, not a list: every system call walks it, and when it is installed
//! the kernel itself runs it once for each number to learn which are always allowed (seccomp_cache_prepare), so that a
//! list of some hundred numbers costs more than half a millisecond a launch, and a tree a tenth of it.
#![forbid(unsafe_code)]

use crate::error::Error;
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

impl Action {
    fn value(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Fail(errno) => libc::SECCOMP_RET_ERRNO | (errno.raw_os_error() as u32 & libc::SECCOMP_RET_DATA),
            Self::Kill => libc::SECCOMP_RET_KILL_PROCESS,
            Self::Trap => libc::SECCOMP_RET_TRAP,
            Self::Log => libc::SECCOMP_RET_LOG,
        }
    }
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

    /// Compiles the policy.
    pub fn compile(&self) -> Result<Filter, Error> {
        let mut code = Code::default();
        let numbers = code.tree(&self.ranges())?;
        let foreign = code.give(Action::Fail(Errno::NOSYS));
        code.jump_to(numbers);
        code.push(load(NUMBER));
        let native = code.end();
        code.branch(JEQ, AUDIT_ARCH_X86_64, native, foreign);
        code.push(load(ARCHITECTURE));
        let program = code.finish();
        if program.len() > 4096 {
            return Err(Error::invalid(
                "the system call policy",
                "needs more than the 4096 instructions that are allowed",
            ));
        }
        Ok(Filter(program))
    }

    /// The whole number line as ranges: where each begins and what is done in it.
    fn ranges(&self) -> Vec<(u32, Leaf<'_>)> {
        let known = (0..=syscalls::LAST).map(|number| match self.rules.get(&number).map(Vec::as_slice) {
            None => (number, Leaf::Always(self.default)),
            Some([Rule { conditions, action }, ..]) if conditions.is_empty() => (number, Leaf::Always(*action)),
            Some(rules) => (number, Leaf::Rules(rules, self.default)),
        });
        // x32 calls are marked by bit 30 under the same architecture.
        let beyond =
            [(syscalls::LAST + 1, Leaf::Always(self.unknown)), (X32, Leaf::Always(Action::Fail(Errno::NOSYS)))];
        let mut ranges: Vec<(u32, Leaf<'_>)> = Vec::with_capacity(128);
        for (start, leaf) in known.chain(beyond) {
            match (ranges.last(), &leaf) {
                (Some((_, Leaf::Always(last))), Leaf::Always(next)) if last == next => {}
                _ => ranges.push((start, leaf)),
            }
        }
        ranges
    }
}

/// What is done in a range.
#[derive(Clone, Copy, Debug)]
enum Leaf<'a> {
    Always(Action),
    Rules(&'a [Rule], Action),
}

// Instruction codes (linux/bpf_common.h) and offsets in `struct seccomp_data`.
const LD_W_ABS: u16 = 0x20;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const AND: u16 = 0x54;
const RET: u16 = 0x06;
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const X32: u32 = 0x4000_0000;

fn load(offset: u32) -> Instruction {
    Instruction { code: LD_W_ABS, jump_true: 0, jump_false: 0, operand: offset }
}

fn jump(code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, operand }
}

/// Where an instruction stands, counted from the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Label(usize);

/// A program that is written from its end to its beginning: jumps lead forwards only, so that what they lead to is always
/// there already, and all decisions share a few returns. The kernel translates a program at each launch; half the
/// instructions are half the time.
#[derive(Debug, Default)]
struct Code {
    reversed: Vec<Instruction>,
    returns: Vec<(Action, Label)>,
}

impl Code {
    /// The farthest that a conditional jump leads.
    const NEAR: usize = u8::MAX as usize;

    fn push(&mut self, instruction: Instruction) {
        self.reversed.push(instruction);
    }

    fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }

    /// The instruction written last, which is the next one that control reaches.
    fn end(&self) -> Label {
        Label(self.reversed.len() - 1)
    }

    /// How many instructions a jump written now passes over.
    fn distance(&self, to: Label) -> usize {
        self.reversed.len() - to.0 - 1
    }

    /// Goes on at the label, unless that is what comes next anyway.
    fn jump_to(&mut self, label: Label) {
        let distance = self.distance(label);
        if distance > 0 {
            self.push(jump(JA, distance as u32, 0, 0));
        }
    }

    /// A place from which `label` is reached that a conditional jump can lead to, with some instructions in between.
    fn near(&mut self, label: Label) -> Label {
        if self.distance(label) + 2 <= Self::NEAR {
            return label;
        }
        self.push(jump(JA, self.distance(label) as u32, 0, 0));
        self.end()
    }

    /// Goes to one label where the comparison holds, to the other one elsewhere.
    fn branch(&mut self, code: u16, operand: u32, holds: Label, fails: Label) {
        let (holds, fails) = (self.near(holds), self.near(fails));
        let (jump_true, jump_false) = (self.distance(holds) as u8, self.distance(fails) as u8);
        self.push(jump(code, operand, jump_true, jump_false));
    }

    /// The return with this action: one that is near, or a new one.
    fn give(&mut self, action: Action) -> Label {
        let known = self.returns.iter().rev().find(|(known, _)| *known == action).map(|(_, label)| *label);
        if let Some(label) = known.filter(|label| self.distance(*label) < Self::NEAR / 2) {
            return label;
        }
        self.push(Instruction { code: RET, jump_true: 0, jump_false: 0, operand: action.value() });
        self.returns.push((action, self.end()));
        self.end()
    }

    /// A decision over the ranges, whose first one begins at or below every number that gets here.
    fn tree(&mut self, ranges: &[(u32, Leaf<'_>)]) -> Result<Label, Error> {
        match ranges {
            [(_, Leaf::Always(action))] => Ok(self.give(*action)),
            [(_, Leaf::Rules(rules, default))] => {
                let mut next = self.give(*default);
                for rule in rules.iter().rev() {
                    next = self.rule(rule, next)?;
                }
                Ok(next)
            }
            _ => {
                let middle = balance(ranges);
                let right = self.tree(&ranges[middle..])?;
                let left = self.tree(&ranges[..middle])?;
                self.branch(JGE, ranges[middle].0, right, left);
                Ok(self.end())
            }
        }
    }

    /// One rule: where its conditions hold its action is taken, else control goes on at `otherwise`.
    fn rule(&mut self, rule: &Rule, otherwise: Label) -> Result<Label, Error> {
        let mut next = self.give(rule.action);
        for condition in rule.conditions.iter().rev() {
            if condition.argument > 5 {
                return Err(Error::invalid("the system call policy", "names an argument beyond the sixth"));
            }
            next = self.condition(condition, next, otherwise);
        }
        Ok(next)
    }

    /// One comparison of a 64-bit argument, of which an instruction sees 32 bits at a time: the high word decides, and where
    /// it is equal the low one.
    fn condition(&mut self, condition: &Condition, holds: Label, fails: Label) -> Label {
        let low = ARGUMENTS + 8 * u32::from(condition.argument);
        let (value_high, value_low) = ((condition.value >> 32) as u32, condition.value as u32);
        let mask = if let Comparison::MaskedEqual(mask) = condition.comparison { mask } else { u64::MAX };
        let (test, when_true, when_false, above, below) = match condition.comparison {
            Comparison::Equal | Comparison::MaskedEqual(_) => (JEQ, holds, fails, fails, fails),
            Comparison::NotEqual => (JEQ, fails, holds, holds, holds),
            Comparison::Greater => (JGT, holds, fails, holds, fails),
            Comparison::GreaterOrEqual => (JGE, holds, fails, holds, fails),
            Comparison::Less => (JGE, fails, holds, fails, holds),
            Comparison::LessOrEqual => (JGT, fails, holds, fails, holds),
        };
        self.branch(test, value_low, when_true, when_false);
        self.word(low, mask as u32);
        let equal = self.end();
        if above == below {
            self.branch(JEQ, value_high, equal, above);
        } else {
            self.branch(JGT, value_high, above, below);
            let unequal = self.end();
            self.branch(JEQ, value_high, equal, unequal);
        }
        self.word(low + 4, (mask >> 32) as u32);
        self.end()
    }

    /// Loads a word of the call's data and masks it.
    fn word(&mut self, offset: u32, mask: u32) {
        if mask != u32::MAX {
            self.push(Instruction { code: AND, jump_true: 0, jump_false: 0, operand: mask });
        }
        self.push(load(offset));
    }
}

/// Where to divide: so that about as many known numbers lie on either side, since installing runs the filter for each.
fn balance(ranges: &[(u32, Leaf<'_>)]) -> usize {
    let known = |number: u32| number.min(syscalls::LAST + 1);
    let (start, end) = (known(ranges[0].0), known(ranges[ranges.len() - 1].0));
    let half = start + (end - start) / 2;
    ranges.partition_point(|(first, _)| *first <= half).clamp(1, ranges.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a program as the kernel would.
    fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(number.to_le_bytes());
        data.extend(architecture.to_le_bytes());
        data.extend(0_u64.to_le_bytes());
        arguments.iter().for_each(|argument| data.extend(argument.to_le_bytes()));
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let one = program[at];
            at += 1;
            let taken = |holds: bool| usize::from(if holds { one.jump_true } else { one.jump_false });
            match one.code {
                LD_W_ABS => {
                    let offset = one.operand as usize;
                    accumulator = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
                }
                AND => accumulator &= one.operand,
                JA => at += one.operand as usize,
                JEQ => at += taken(accumulator == one.operand),
                JGT => at += taken(accumulator > one.operand),
                JGE => at += taken(accumulator >= one.operand),
                RET => return one.operand,
                other => panic!("code {other:#x}"),
            }
        }
    }

    fn docker(number: i64, first: u64) -> u32 {
        run(Filter::standard().program(), AUDIT_ARCH_X86_64, number as u32, [first, 0, 0, 0, 0, 0])
    }

    #[test]
    fn the_standard_policy_is_dockers() {
        let (allow, refuse, absent) =
            (Action::Allow.value(), Action::Fail(Errno::PERM).value(), Action::Fail(Errno::NOSYS).value());
        for allowed in [libc::SYS_read, libc::SYS_execveat, libc::SYS_ptrace, libc::SYS_openat2, libc::SYS_statx] {
            assert_eq!(docker(allowed, 0), allow, "{allowed}");
        }
        for refused in [libc::SYS_mount, libc::SYS_unshare, libc::SYS_bpf, libc::SYS_io_uring_setup, libc::SYS_keyctl] {
            assert_eq!(docker(refused, 0), refuse, "{refused}");
        }
        assert_eq!(docker(libc::SYS_clone, libc::SIGCHLD as u64), allow);
        assert_eq!(docker(libc::SYS_clone, libc::CLONE_NEWUSER as u64), refuse);
        assert_eq!(docker(libc::SYS_clone3, 0), absent);
        assert_eq!(docker(libc::SYS_socket, libc::AF_INET as u64), allow);
        assert_eq!(docker(libc::SYS_socket, libc::AF_ALG as u64), refuse);
        assert_eq!(docker(libc::SYS_socket, libc::AF_VSOCK as u64), refuse);
        assert_eq!(docker(libc::SYS_personality, 0), allow);
        assert_eq!(docker(libc::SYS_personality, 1), refuse);
        assert_eq!(docker(i64::from(syscalls::LAST) + 1, 0), absent);
        assert_eq!(docker(i64::from(X32), 0), absent);
        let i386 = 0x4000_0003;
        assert_eq!(run(Filter::standard().program(), i386, 1, [0; 6]), absent);
    }

    #[test]
    fn every_refused_name_exists() {
        for name in REFUSED.split_ascii_whitespace() {
            assert!(syscalls::all().any(|(known, _)| known == name), "{name}");
        }
    }

    fn holds(condition: &Condition, arguments: [u64; 6]) -> bool {
        let argument = arguments[usize::from(condition.argument)];
        match condition.comparison {
            Comparison::Equal => argument == condition.value,
            Comparison::NotEqual => argument != condition.value,
            Comparison::Less => argument < condition.value,
            Comparison::LessOrEqual => argument <= condition.value,
            Comparison::GreaterOrEqual => argument >= condition.value,
            Comparison::Greater => argument > condition.value,
            Comparison::MaskedEqual(mask) => argument & mask == condition.value,
        }
    }

    /// Numbers of which many share a high or a low word.
    fn value() -> impl Strategy<Value = u64> {
        (0_u64..3, 0_u64..3).prop_map(|(high, low)| high << 32 | low)
    }

    fn condition() -> impl Strategy<Value = Condition> {
        use Comparison::*;
        let comparison = prop_oneof![
            Just(Equal),
            Just(NotEqual),
            Just(Less),
            Just(LessOrEqual),
            Just(GreaterOrEqual),
            Just(Greater),
            value().prop_map(MaskedEqual),
        ];
        (0_u8..6, comparison, value()).prop_map(|(argument, comparison, value)| Condition {
            argument,
            comparison,
            value,
        })
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let action = prop_oneof![
            Just(Action::Allow),
            Just(Action::Kill),
            (1_i32..100).prop_map(|n| Action::Fail(Errno::from_raw_os_error(n)))
        ];
        (proptest::collection::vec(condition(), 0..4), action)
            .prop_map(|(conditions, action)| Rule { conditions, action })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_compiled_policy_decides_as_its_rules_do(
            rules in proptest::collection::btree_map(0_u32..=syscalls::LAST, proptest::collection::vec(rule(), 1..4), 0..100),
            numbers in proptest::collection::vec(0_u32..=syscalls::LAST + 2, 50),
            arguments in proptest::array::uniform6(value()),
        ) {
            let mut policy = Policy::new(Action::Fail(Errno::PERM));
            policy.rules = rules;
            let Ok(program) = policy.compile() else { return Ok(()) };
            for number in numbers {
                let expected = if number > syscalls::LAST {
                    policy.unknown
                } else {
                    let rules = policy.rules.get(&number).map(Vec::as_slice).unwrap_or_default();
                    let rule = rules.iter().find(|rule| rule.conditions.iter().all(|one| holds(one, arguments)));
                    rule.map_or(policy.default, |rule| rule.action)
                };
                prop_assert_eq!(run(program.program(), AUDIT_ARCH_X86_64, number, arguments), expected.value());
            }
        }
    }
}
