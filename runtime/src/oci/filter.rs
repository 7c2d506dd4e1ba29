//! The system call policy of a configuration.

use crate::error::Error;
use crate::seccomp::{Action, Comparison, Condition, Filter, Policy, Rule};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};
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
