//! Capabilities: what root may do inside ([capabilities(7)](https://man7.org/linux/man-pages/man7/capabilities.7.html)).

use crate::child::StepResult;
use crate::plan::Plan;
use rustix::thread::{CapabilitySet, CapabilitySets};

/// The five sets of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Limits what exec may ever gain.
    pub bounding: CapabilitySet,
    /// What is in force.
    pub effective: CapabilitySet,
    /// What may be put in force.
    pub permitted: CapabilitySet,
    /// What passes through exec of a file that allows it. Empty by default (CVE-2022-29162).
    pub inheritable: CapabilitySet,
    /// What passes through exec for an ordinary user.
    pub ambient: CapabilitySet,
}

impl Capabilities {
    /// None at all.
    pub const NONE: Self = Self::only(CapabilitySet::empty());

    /// What Docker leaves to a container, in the bounding, effective and permitted sets, less MKNOD: there is no device
    /// control group here, and with it a container could make and open a node of the host's disk (mask 0xa00425fb).
    pub const STANDARD: Self = Self::only(
        CapabilitySet::CHOWN
            .union(CapabilitySet::DAC_OVERRIDE)
            .union(CapabilitySet::FSETID)
            .union(CapabilitySet::FOWNER)
            .union(CapabilitySet::NET_RAW)
            .union(CapabilitySet::SETGID)
            .union(CapabilitySet::SETUID)
            .union(CapabilitySet::SETFCAP)
            .union(CapabilitySet::SETPCAP)
            .union(CapabilitySet::NET_BIND_SERVICE)
            .union(CapabilitySet::SYS_CHROOT)
            .union(CapabilitySet::KILL)
            .union(CapabilitySet::AUDIT_WRITE),
    );

    const fn only(set: CapabilitySet) -> Self {
        Self {
            bounding: set,
            effective: set,
            permitted: set,
            inheritable: CapabilitySet::empty(),
            ambient: CapabilitySet::empty(),
        }
    }
}

/// Every capability that the kernel knows now (CAP_CHECKPOINT_RESTORE, 40, is the last one) and those to come.
const POSSIBLE: u32 = 63;

/// The capabilities outside the bounding set, ready to be dropped one by one: there is no call for all at once.
pub(crate) fn outside(bounding: CapabilitySet) -> Vec<CapabilitySet> {
    (0..POSSIBLE).map(|bit| CapabilitySet::from_bits_retain(1 << bit)).filter(|one| !bounding.contains(*one)).collect()
}

/// Narrows the bounding set, becomes the user, and sets the other sets.
pub(crate) fn drop_capabilities(plan: &Plan) -> StepResult {
    let Some(capabilities) = &plan.capabilities else { return become_user(plan) };
    for (item, capability) in plan.dropped.iter().enumerate() {
        match rustix::thread::remove_capability_from_bounding_set(*capability) {
            Ok(()) => {}
            // Beyond the last one that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            Err(errno) => return Err((item, errno)),
        }
    }
    if plan.user.is_some() {
        // Changing from root to another user would clear the permitted set otherwise.
        rustix::thread::set_keep_capabilities(true).map_err(|errno| (100, errno))?;
    }
    become_user(plan)?;
    let sets = CapabilitySets {
        effective: capabilities.effective,
        permitted: capabilities.permitted,
        inheritable: capabilities.inheritable,
    };
    rustix::thread::set_capabilities(None, sets).map_err(|errno| (104, errno))?;
    for capability in capabilities.ambient.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true).map_err(|errno| (105, errno))?;
    }
    Ok(())
}

fn become_user(plan: &Plan) -> StepResult {
    let Some(user) = &plan.user else { return Ok(()) };
    if user.set_groups {
        rustix::thread::set_thread_groups(&user.groups).map_err(|errno| (101, errno))?;
    }
    rustix::thread::set_thread_res_gid(user.group, user.group, user.group).map_err(|errno| (102, errno))?;
    rustix::thread::set_thread_res_uid(user.user, user.user, user.user).map_err(|errno| (103, errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_set_is_dockers_without_mknod() {
        assert_eq!(Capabilities::STANDARD.bounding.bits(), 0xa004_25fb);
        assert_eq!(outside(Capabilities::STANDARD.bounding).len(), 63 - 13);
    }
}
