//! Parameters of the kernel that a container has for itself: those that belong to one of its own namespaces
//! ([proc_sys(5)](https://man7.org/linux/man-pages/man5/proc_sys.5.html), [sysctl(8)](https://man7.org/linux/man-pages/man8/sysctl.8.html)).
#![forbid(unsafe_code)]

use crate::child::{StepResult, open};
use crate::error::Error;
use crate::plan::{Plan, c_string};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::ffi::CString;

/// Those of the namespace for System V and POSIX message queues, semaphores and shared memory.
const OF_IPC: [&str; 9] = [
    "kernel/auto_msgmni",
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// One parameter as the child writes it.
#[derive(Debug)]
pub(crate) struct Parameter {
    path: CString,
    value: Vec<u8>,
}

impl Parameter {
    pub(crate) fn describe(&self) -> String {
        format!("{} to {}", self.path.to_string_lossy(), String::from_utf8_lossy(&self.value))
    }
}

/// Checks that a container has a parameter for itself, which then has a network, or message queues, of its own.
///
/// # Errors
/// [`Error::Invalid`] where it is of the whole machine, or of a namespace that the container has not.
pub fn check(name: &str, network: bool, ipc: bool) -> Result<(), Error> {
    let path = path(name);
    let (own, namespace) = match () {
        () if path.starts_with("net/") => (network, "a network"),
        () if OF_IPC.contains(&&*path) || path.starts_with("fs/mqueue/") => (ipc, "message queues"),
        () => (false, "such a parameter"),
    };
    let plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if own && plain {
        return Ok(());
    }
    let why = format!("cannot be set for the container alone: it has not {namespace} of its own");
    Err(Error::invalid(format!("the kernel parameter {name}"), why))
}

pub(crate) fn parameters(asked: Vec<(String, String)>, network: bool, ipc: bool) -> Result<Vec<Parameter>, Error> {
    let checked = |(name, value): (String, String)| {
        check(&name, network, ipc)?;
        Ok(Parameter { path: c_string(format!("/proc/sys/{}", path(&name)))?, value: value.into_bytes() })
    };
    asked.into_iter().map(checked).collect()
}

/// The path below /proc/sys. As for sysctl(8), where the first separator is a dot, dots separate and slashes stand for dots.
fn path(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'.' => name
            .chars()
            .map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// The kernel looks a network's parameters up in the namespace of the process that opens them, whichever /proc that is by: so
/// the host's will do, and the container's own may be read-only.
pub(crate) fn set_parameters(plan: &Plan) -> StepResult {
    for (item, Parameter { path, value }) in plan.parameters.iter().enumerate() {
        let written = open(path, OFlags::WRONLY).and_then(|file| rustix::io::write(&*file, value));
        match written {
            Ok(length) if length == value.len() => {}
            Ok(_) => return Err((item, Errno::INVAL)),
            Err(errno) => return Err((item, errno)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_sysctl_reads_them() {
        assert_eq!(path("net.ipv4.ping_group_range"), "net/ipv4/ping_group_range");
        assert_eq!(path("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(path("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }

    #[test]
    fn only_what_is_the_containers_own_is_set() {
        let asked = |name: &str| parameters(vec![(name.into(), "1".into())], true, true);
        for name in ["net.ipv4.ip_forward", "kernel.msgmax", "fs.mqueue.msg_max", "net/core/somaxconn"] {
            assert!(asked(name).is_ok(), "{name}");
        }
        for name in
            ["kernel.panic", "vm.swappiness", "net", "net..x", "net/../vm/swappiness", "/net/x", "", "fs.file-max"]
        {
            let error = asked(name).unwrap_err().to_string();
            assert!(error.contains("cannot be set for the container alone"), "{name}: {error}");
        }
        assert!(parameters(vec![("net.core.somaxconn".into(), "1".into())], false, true).is_err());
        assert!(parameters(vec![("kernel.sem".into(), "1".into())], true, false).is_err());
    }
}
