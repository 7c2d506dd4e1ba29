//! The system call policy of a configuration, read and written.

use crate::error::Error;
use crate::seccomp::{Action, Comparison, Condition, Filter, Policy, Rule};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};
use rustix::io::Errno;
use std::sync::Arc;

/// Translates and compiles a policy.
pub(super) fn filter(seccomp: &LinuxSeccomp) -> Result<Arc<Filter>, Error> {
    let mut policy = Policy::new(action(seccomp.default_action(), seccomp.default_errno_ret())?);
    for call in seccomp.syscalls().iter().flatten() {
        policy.add_all(call.names(), &rule(call)?);
    }
    policy.compile().map(Arc::new)
}

fn rule(call: &LinuxSyscall) -> Result<Rule, Error> {
    let conditions = call.args().iter().flatten().map(condition).collect::<Result<_, _>>()?;
    Ok(Rule { conditions, action: action(call.action(), call.errno_ret())? })
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<Action, Error> {
    Ok(match action {
        LinuxSeccompAction::ScmpActAllow => Action::Allow,
        LinuxSeccompAction::ScmpActLog => Action::Log,
        LinuxSeccompAction::ScmpActTrap => Action::Trap,
        LinuxSeccompAction::ScmpActErrno => {
            let errno = errno.unwrap_or(libc::EPERM as u32);
            if errno > 4095 {
                return Err(Error::invalid(format!("the error number {errno} in linux.seccomp"), "is beyond 4095"));
            }
            Action::Fail(Errno::from_raw_os_error(errno as i32))
        }
        LinuxSeccompAction::ScmpActKill
        | LinuxSeccompAction::ScmpActKillThread
        | LinuxSeccompAction::ScmpActKillProcess => Action::Kill,
        LinuxSeccompAction::ScmpActNotify | LinuxSeccompAction::ScmpActTrace => {
            return Err(Error::invalid("the action notify or trace in linux.seccomp", "is not supported"));
        }
    })
}

fn condition(argument: &LinuxSeccompArg) -> Result<Condition, Error> {
    let number = u8::try_from(argument.index()).ok().filter(|number| *number < 6);
    let number = number.ok_or_else(|| Error::invalid("an argument index in linux.seccomp", "is beyond 5"))?;
    let (comparison, value) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => (Comparison::NotEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpLt => (Comparison::Less, argument.value()),
        LinuxSeccompOperator::ScmpCmpLe => (Comparison::LessOrEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpEq => (Comparison::Equal, argument.value()),
        LinuxSeccompOperator::ScmpCmpGe => (Comparison::GreaterOrEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpGt => (Comparison::Greater, argument.value()),
        // As in libseccomp: the first value is the mask, the second what is left after masking.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (Comparison::MaskedEqual(argument.value()), argument.value_two().unwrap_or(0))
        }
    };
    Ok(Condition { argument: number, comparison, value })
}

/// Writes a policy as a configuration has it: one entry for all calls that are always allowed, one a rule for the others.
pub(super) fn describe(policy: &Policy) -> Result<LinuxSeccomp, OciSpecError> {
    let mut always = Vec::new();
    let mut entries = Vec::new();
    for (name, rules) in policy.rules() {
        match rules {
            [Rule { conditions, action: Action::Allow }] if conditions.is_empty() => always.push(name.to_owned()),
            rules => {
                for rule in rules {
                    entries.push(entry(vec![name.to_owned()], rule)?);
                }
            }
        }
    }
    entries.insert(0, entry(always, &Rule { conditions: Vec::new(), action: Action::Allow })?);
    let (action, errno) = written(policy.default_action());
    let mut seccomp = LinuxSeccompBuilder::default()
        .default_action(action)
        .architectures(vec![Arch::ScmpArchX86_64])
        .syscalls(entries)
        .build()?;
    seccomp.set_default_errno_ret(errno);
    Ok(seccomp)
}

fn entry(names: Vec<String>, rule: &Rule) -> Result<LinuxSyscall, OciSpecError> {
    let (action, errno) = written(rule.action);
    let mut entry = LinuxSyscallBuilder::default().names(names).action(action).build()?;
    entry.set_errno_ret(errno);
    if !rule.conditions.is_empty() {
        entry.set_args(Some(rule.conditions.iter().map(argument).collect::<Result<_, _>>()?));
    }
    Ok(entry)
}

fn argument(condition: &Condition) -> Result<LinuxSeccompArg, OciSpecError> {
    let mut mask = None;
    let operator = match condition.comparison {
        Comparison::NotEqual => LinuxSeccompOperator::ScmpCmpNe,
        Comparison::Less => LinuxSeccompOperator::ScmpCmpLt,
        Comparison::LessOrEqual => LinuxSeccompOperator::ScmpCmpLe,
        Comparison::Equal => LinuxSeccompOperator::ScmpCmpEq,
        Comparison::GreaterOrEqual => LinuxSeccompOperator::ScmpCmpGe,
        Comparison::Greater => LinuxSeccompOperator::ScmpCmpGt,
        Comparison::MaskedEqual(bits) => {
            mask = Some(bits);
            LinuxSeccompOperator::ScmpCmpMaskedEq
        }
    };
    let argument = LinuxSeccompArgBuilder::default()
        .index(usize::from(condition.argument))
        .value(mask.unwrap_or(condition.value))
        .op(operator);
    match mask {
        Some(_) => argument.value_two(condition.value).build(),
        None => argument.build(),
    }
}

fn written(action: Action) -> (LinuxSeccompAction, Option<u32>) {
    match action {
        Action::Allow => (LinuxSeccompAction::ScmpActAllow, None),
        Action::Fail(errno) => (LinuxSeccompAction::ScmpActErrno, Some(errno.raw_os_error() as u32)),
        Action::Kill => (LinuxSeccompAction::ScmpActKillProcess, None),
        Action::Trap => (LinuxSeccompAction::ScmpActTrap, None),
        Action::Log => (LinuxSeccompAction::ScmpActLog, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_policy_is_read_back_as_the_same_program() {
        let policy = Policy::standard();
        let written = describe(&policy).unwrap();
        assert_eq!(*filter(&written).unwrap(), policy.compile().unwrap());
    }
}
