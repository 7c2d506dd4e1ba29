//! The compilation of a policy to a classic BPF program.
//!
//! It is a binary tree over ranges of numbers, not a list: every system call walks it, and when it is installed the kernel
//! itself runs it once for each number to learn which are always allowed (`seccomp_cache_prepare` in kernel/seccomp.c), so that
//! a list of some hundred numbers costs more than half a millisecond a launch, and a tree a tenth of it.
#![forbid(unsafe_code)]

use super::{Action, Comparison, Condition, Filter, Policy, Rule};
use crate::error::Error;
use crate::syscalls;
use crate::system::Instruction;
use rustix::io::Errno;

impl Action {
    pub(super) fn value(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Fail(errno) => libc::SECCOMP_RET_ERRNO | (errno.raw_os_error() as u32 & libc::SECCOMP_RET_DATA),
            Self::Kill => libc::SECCOMP_RET_KILL_PROCESS,
            Self::Trap => libc::SECCOMP_RET_TRAP,
            Self::Log => libc::SECCOMP_RET_LOG,
        }
    }
}

impl Policy {
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
pub(super) const LD_W_ABS: u16 = 0x20;
pub(super) const JA: u16 = 0x05;
pub(super) const JEQ: u16 = 0x15;
pub(super) const JGT: u16 = 0x25;
pub(super) const JGE: u16 = 0x35;
pub(super) const AND: u16 = 0x54;
pub(super) const RET: u16 = 0x06;
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
pub(super) const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
pub(super) const X32: u32 = 0x4000_0000;

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
