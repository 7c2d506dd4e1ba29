//! What is launched: a [`Specification`] after validation, with all that the child needs laid out in memory beforehand.

use crate::capabilities::{self, Capabilities};
use crate::cgroup::Cgroup;
use crate::error::Error;
use crate::network::{Configuration, Endpoint};
use crate::parameters::{self, Parameter};
use crate::prepared::Taken;
use crate::root::RootPlan;
use crate::seccomp::Filter;
use crate::specification::{Namespaces, NetworkMode, Program, Specification, Stream, User};
use crate::system::Strings;
use crate::terminal::Terminal;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::Mode;
use rustix::process::{Gid, PidfdFlags, Resource, Rlimit, Uid, getpid, pidfd_open};
use rustix::thread::{CapabilitySet, CpuSet};
use std::ffi::{CStr, CString};
use std::sync::Arc;

#[derive(Debug)]
pub(crate) enum ProgramPlan {
    Descriptor(Arc<OwnedFd>),
    /// Candidates, tried in order.
    Paths(Vec<CString>),
}

#[derive(Debug)]
pub(crate) enum NetworkPlan {
    Untouched,
    LoopbackOnly,
    Attached(Configuration),
    /// Connected and configured by the launching process.
    Awaited,
}

#[derive(Debug)]
pub(crate) struct UserPlan {
    pub(crate) user: Uid,
    pub(crate) group: Gid,
    pub(crate) groups: Vec<Gid>,
    pub(crate) set_groups: bool,
}

/// A validated specification. Fields are what the child reads.
#[derive(Debug)]
pub struct Plan {
    pub(crate) program: ProgramPlan,
    pub(crate) arguments: Strings,
    pub(crate) environment: Strings,
    pub(crate) root: Option<RootPlan>,
    pub(crate) clone_flags: u64,
    pub(crate) joined_namespaces: Vec<Arc<OwnedFd>>,
    pub(crate) cgroup_namespace: bool,
    pub(crate) cgroup: Option<Arc<Cgroup>>,
    pub(crate) cgroup_joins: Vec<OwnedFd>,
    pub(crate) user_map: Vec<(&'static CStr, Vec<u8>)>,
    pub(crate) user: Option<UserPlan>,
    pub(crate) umask: Mode,
    pub(crate) host_name: Option<Vec<u8>>,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) network: NetworkPlan,
    pub(crate) endpoint: Option<Endpoint>,
    /// Its stock waits for the launch.
    pub(crate) taken: Option<Taken>,
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) dropped: Vec<CapabilitySet>,
    pub(crate) no_new_privileges: bool,
    pub(crate) filter: Option<Arc<Filter>>,
    pub(crate) resource_limits: Vec<(Resource, Rlimit)>,
    pub(crate) new_session: bool,
    pub(crate) input: Option<OwnedFd>,
    pub(crate) output: Option<OwnedFd>,
    pub(crate) error: Option<OwnedFd>,
    pub(crate) terminal: Option<Terminal>,
    pub(crate) start_order: Option<OwnedFd>,
    /// Where it may run, if it starts with less.
    pub(crate) processors: Option<CpuSet>,
    pub(crate) kept: Vec<OwnedFd>,
    /// This process, where the new one is to end with it.
    pub(crate) parent: Option<OwnedFd>,
    /// Where it begins in a root that is not made but joined.
    pub(crate) joined_directory: Option<CString>,
}

impl Plan {
    /// Validates a specification and prepares all that the child needs. Nothing on the machine is changed.
    pub fn validate(specification: Specification) -> Result<Self, Error> {
        let asked = specification;
        let namespaces = asked.namespaces;
        if asked.arguments.is_empty() {
            return Err(Error::invalid("the list of arguments", "is empty: it begins with the program's own name"));
        }
        if asked.host_name.is_some() && !namespaces.uts && asked.joined_namespaces.is_empty() {
            return Err(Error::invalid("the host name", "needs a uts namespace"));
        }
        if asked.host_name.as_ref().is_some_and(|name| name.is_empty() || name.len() > 64) {
            return Err(Error::invalid("the host name", "is not of 1 to 64 bytes"));
        }
        let root = if namespaces.mount {
            let (mounts, masked, read_only) = (&asked.mounts, &asked.masked_paths, &asked.read_only_paths);
            Some(RootPlan::new(&asked.root, mounts, masked, read_only, &asked.working_directory)?)
        } else {
            None
        };
        let (mut endpoint, mut taken, mut joined_namespaces) = (None, None, asked.joined_namespaces);
        let not_the_hosts = !matches!(asked.network, NetworkMode::Host);
        let own_network = matches!(asked.network, NetworkMode::None | NetworkMode::Attached(_));
        let network = match asked.network {
            NetworkMode::Host => NetworkPlan::Untouched,
            NetworkMode::None => NetworkPlan::LoopbackOnly,
            NetworkMode::Container(namespace) => {
                joined_namespaces.insert(0, namespace);
                NetworkPlan::Untouched
            }
            NetworkMode::Prepared(prepared) => {
                joined_namespaces.insert(0, prepared.namespace);
                (endpoint, taken) = (prepared.endpoint, prepared.taken);
                NetworkPlan::Untouched
            }
            NetworkMode::Attached(attached) => {
                let configuration = attached.configuration().clone();
                endpoint = Some(attached);
                NetworkPlan::Attached(configuration)
            }
            // To join it takes privilege over its owner, which is the launching process's user namespace.
            NetworkMode::Awaited(_) if namespaces.user => {
                return Err(Error::invalid("a network namespace made ahead", "cannot go with a user namespace"));
            }
            NetworkMode::Awaited(namespace) => {
                joined_namespaces.insert(0, namespace);
                NetworkPlan::Awaited
            }
        };
        let cgroup_joins = match &asked.cgroup {
            Some(cgroup) => cgroup.open_joins()?,
            None => Vec::new(),
        };
        Ok(Self {
            program: program(asked.program, &asked.environment)?,
            arguments: Strings::new(c_strings(asked.arguments)?),
            environment: Strings::new(c_strings(asked.environment)?),
            root,
            clone_flags: clone_flags(namespaces, own_network),
            joined_namespaces,
            cgroup_namespace: namespaces.cgroup && std::path::Path::new("/proc/self/ns/cgroup").exists(),
            cgroup: asked.cgroup,
            cgroup_joins,
            user_map: if namespaces.user { user_map() } else { Vec::new() },
            user: asked.user.map(|user| user_plan(user, namespaces.user)),
            umask: Mode::from_raw_mode(asked.umask & 0o777),
            host_name: asked.host_name.map(String::into_bytes),
            parameters: parameters::parameters(asked.parameters, not_the_hosts, namespaces.ipc)?,
            network,
            endpoint,
            taken,
            dropped: asked.capabilities.map(|sets| capabilities::outside(sets.bounding)).unwrap_or_default(),
            capabilities: asked.capabilities,
            no_new_privileges: asked.no_new_privileges,
            filter: asked.seccomp,
            resource_limits: asked.resource_limits,
            new_session: namespaces.pid || asked.terminal.is_some(),
            input: descriptor(asked.input),
            output: descriptor(asked.output),
            error: descriptor(asked.error),
            terminal: asked.terminal,
            start_order: asked.start_order,
            processors: None,
            kept: asked.kept,
            parent: asked.dies_with_parent.then(own_pidfd).transpose()?,
            joined_directory: None,
        })
    }

    /// Without `no_new_privs` only root may install a filter, so it must be done while the process still is.
    pub(crate) fn filter_needs_privilege(&self) -> bool {
        !self.no_new_privileges
    }

    /// Whether the child has to wait for something that only the launching process can do for it.
    pub(crate) fn awaits_host(&self) -> bool {
        matches!(self.network, NetworkPlan::Attached(_) | NetworkPlan::Awaited)
    }

    /// The cgroup into which clone3 itself puts the child (version 2).
    pub(crate) fn cgroup_at_clone(&self) -> Option<BorrowedFd<'_>> {
        self.cgroup.as_ref()?.unified_directory()
    }
}

fn own_pidfd() -> Result<OwnedFd, Error> {
    pidfd_open(getpid(), PidfdFlags::empty()).map_err(Error::system("open", "a pidfd of this process"))
}

fn clone_flags(namespaces: Namespaces, network: bool) -> u64 {
    let flags = [
        (namespaces.mount, libc::CLONE_NEWNS),
        (namespaces.pid, libc::CLONE_NEWPID),
        (namespaces.ipc, libc::CLONE_NEWIPC),
        (namespaces.uts, libc::CLONE_NEWUTS),
        (namespaces.user, libc::CLONE_NEWUSER),
        (network, libc::CLONE_NEWNET),
    ];
    flags.iter().filter(|(wanted, _)| *wanted).fold(0, |all, (_, flag)| all | *flag as u64)
}

/// Root inside is the caller outside: the one mapping that an ordinary user may make without help.
fn user_map() -> Vec<(&'static CStr, Vec<u8>)> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    vec![
        (c"/proc/self/setgroups", b"deny".to_vec()),
        (c"/proc/self/uid_map", format!("0 {user} 1").into_bytes()),
        (c"/proc/self/gid_map", format!("0 {group} 1").into_bytes()),
    ]
}

fn user_plan(user: User, in_user_namespace: bool) -> UserPlan {
    UserPlan {
        user: Uid::from_raw(user.user),
        group: Gid::from_raw(user.group),
        groups: user.groups.into_iter().map(Gid::from_raw).collect(),
        set_groups: !in_user_namespace,
    }
}

fn descriptor(stream: Stream) -> Option<OwnedFd> {
    match stream {
        Stream::Inherit => None,
        Stream::Descriptor(descriptor) => Some(descriptor),
    }
}

fn c_strings(strings: Vec<String>) -> Result<Vec<CString>, Error> {
    strings.into_iter().map(c_string).collect()
}

pub(crate) fn c_string(text: impl Into<Vec<u8>>) -> Result<CString, Error> {
    CString::new(text).map_err(|error| {
        Error::invalid(format!("{:?}", String::from_utf8_lossy(&error.into_vec())), "contains a zero byte")
    })
}

fn program(program: Program, environment: &[String]) -> Result<ProgramPlan, Error> {
    let path = match program {
        Program::Descriptor(descriptor) => return Ok(ProgramPlan::Descriptor(descriptor)),
        Program::Path(path) => path,
    };
    if path.is_empty() {
        return Err(Error::invalid("the program", "has an empty name"));
    }
    if path.contains('/') {
        return Ok(ProgramPlan::Paths(vec![c_string(path)?]));
    }
    let search = environment.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or("/usr/bin:/bin");
    let candidates = search.split(':').map(|directory| c_string(format!("{directory}/{path}")));
    Ok(ProgramPlan::Paths(candidates.collect::<Result<_, _>>()?))
}
