//! What is to be launched: [`Specification`] is what a caller asks for, [`Plan`] is the same after validation, with all
//! that the child needs laid out in memory beforehand.

use crate::capabilities::{self, Capabilities};
use crate::cgroup::Cgroup;
use crate::error::Error;
use crate::network::{Configuration, EmptyNamespace, Endpoint};
use crate::parameters::{self, Parameter};
use crate::prepared::PreparedNetwork;
use crate::root::{self, Mount, RootPlan};
use crate::seccomp::Filter;
use crate::system::Strings;
use crate::terminal::Terminal;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::Mode;
use rustix::process::{Gid, PidfdFlags, Resource, Rlimit, Uid, getpid, pidfd_open};
use rustix::thread::CapabilitySet;
use std::ffi::{CStr, CString};
use std::path::PathBuf;
use std::sync::Arc;

/// The program inside.
#[derive(Clone, Debug)]
pub enum Program {
    /// An open file, such as a sealed memfd: it need not be in the container's root at all.
    Descriptor(Arc<OwnedFd>),
    /// A path in the container's root; a name without a slash is looked for in the `PATH` of the environment.
    Path(String),
}

/// The container's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// An empty file system in memory.
    Empty,
    /// A directory of the host.
    Directory {
        /// Its path.
        path: PathBuf,
        /// Whether what is mounted below comes along.
        recursive: bool,
        /// Whether nothing in it can be written.
        read_only: bool,
    },
    /// A directory of the host that stays as it is: what the container writes goes to a layer of its own
    /// ([overlayfs](https://docs.kernel.org/filesystems/overlayfs.html)).
    Layered {
        /// The directory below.
        lower: PathBuf,
        /// The layer of the container's own.
        upper: PathBuf,
        /// An empty directory beside it, for the kernel.
        work: PathBuf,
        /// Whether nothing in it can be written.
        read_only: bool,
    },
}

/// Which network the container has.
#[derive(Debug, Default)]
pub enum NetworkMode {
    /// The launching process's own.
    Host,
    /// One of its own with nothing but `lo`.
    #[default]
    None,
    /// That of another container, by a descriptor of its namespace.
    Container(Arc<OwnedFd>),
    /// One of its own that is attached to a network. The host's side is connected by the launching process while the child
    /// builds its root; the inside is configured by the child, with messages prepared beforehand, once the link is there.
    Attached(Endpoint),
    /// The same in a namespace that was made while the rest was got ready. All of the network is then the launching process's
    /// to do, while the child builds its root. Not with a user namespace of the container's own.
    AttachedAhead(Endpoint, EmptyNamespace),
    /// One that was made ahead of the launch.
    Prepared(PreparedNetwork),
}

/// Namespaces that the container has of its own; the network's follows from [`NetworkMode`]
/// ([namespaces(7)](https://man7.org/linux/man-pages/man7/namespaces.7.html)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespaces {
    /// Mounts; without it there is no root of its own.
    pub mount: bool,
    /// Process numbers.
    pub pid: bool,
    /// System V and POSIX message queues, semaphores, shared memory.
    pub ipc: bool,
    /// Host name.
    pub uts: bool,
    /// View of control groups.
    pub cgroup: bool,
    /// Users, with the caller mapped to root.
    pub user: bool,
}

impl Namespaces {
    /// None: a bare process.
    pub const NONE: Self = Self { mount: false, pid: false, ipc: false, uts: false, cgroup: false, user: false };

    /// All; a user namespace only where the caller is not root.
    pub fn standard() -> Self {
        let user = !rustix::process::geteuid().is_root();
        Self { mount: true, pid: true, ipc: true, uts: true, cgroup: true, user }
    }
}

/// A user inside.
#[derive(Clone, Debug)]
pub struct User {
    /// User number.
    pub user: u32,
    /// Group number.
    pub group: u32,
    /// Additional groups.
    pub groups: Vec<u32>,
}

/// A standard stream of the program.
#[derive(Debug, Default)]
pub enum Stream {
    /// The launching process's own.
    #[default]
    Inherit,
    /// An open file.
    Descriptor(OwnedFd),
}

/// What a caller asks for.
#[derive(Debug)]
pub struct Specification {
    /// The program.
    pub program: Program,
    /// Its arguments, its own name first.
    pub arguments: Vec<String>,
    /// Its environment, as `NAME=value`.
    pub environment: Vec<String>,
    /// Its working directory in the container.
    pub working_directory: String,
    /// Its root.
    pub root: Root,
    /// What is mounted there, in order.
    pub mounts: Vec<Mount>,
    /// Paths that are hidden.
    pub masked_paths: Vec<String>,
    /// Paths that are made read-only.
    pub read_only_paths: Vec<String>,
    /// Namespaces of its own.
    pub namespaces: Namespaces,
    /// Other existing namespaces to join.
    pub joined_namespaces: Vec<Arc<OwnedFd>>,
    /// Its network.
    pub network: NetworkMode,
    /// Its host name.
    pub host_name: Option<String>,
    /// Parameters of the kernel that belong to its own namespaces, by names such as `net.ipv4.ip_forward`, with their values.
    pub parameters: Vec<(String, String)>,
    /// Its capabilities, or those of the caller.
    pub capabilities: Option<Capabilities>,
    /// Whether exec can never gain privileges.
    pub no_new_privileges: bool,
    /// Its system call filter.
    pub seccomp: Option<Arc<Filter>>,
    /// Its control group, which the caller owns.
    pub cgroup: Option<Arc<Cgroup>>,
    /// Its resource limits.
    pub resource_limits: Vec<(Resource, Rlimit)>,
    /// Its user, where that is not the caller or root of the user namespace.
    pub user: Option<User>,
    /// Its file mode creation mask, where it has a root of its own.
    pub umask: u32,
    /// Standard input.
    pub input: Stream,
    /// Standard output.
    pub output: Stream,
    /// Standard error.
    pub error: Stream,
    /// A terminal of its own, which then is all three standard streams.
    pub terminal: Option<Terminal>,
    /// Where set up and start are two orders: a descriptor on which one byte is the order to start.
    pub start_order: Option<OwnedFd>,
    /// Descriptors that the program has beyond the standard streams, by the numbers that they have here.
    pub kept: Vec<OwnedFd>,
    /// Whether the kernel kills it when the thread that launches it ends
    /// ([PR_SET_PDEATHSIG(2const)](https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html)), be it by a kill of its
    /// process. Without it the container lives on: dropping a [`Process`](isobench_workload::Process) kills it, a launcher that
    /// is killed drops nothing. Its cgroup stays in either case, since only a process can remove one.
    pub dies_with_parent: bool,
}

impl Specification {
    /// A container with Docker's defaults: its mounts, masked and read-only paths, capabilities and system calls; new
    /// privileges are refused as well.
    pub fn container(program: Program, arguments: Vec<String>) -> Self {
        Self {
            mounts: Mount::standard(),
            masked_paths: root::masked(),
            read_only_paths: root::READ_ONLY.map(String::from).to_vec(),
            namespaces: Namespaces::standard(),
            network: NetworkMode::None,
            host_name: Some("container".into()),
            capabilities: Some(Capabilities::STANDARD),
            no_new_privileges: true,
            seccomp: Some(Filter::standard()),
            ..Self::bare(program, arguments)
        }
    }

    /// A process with no isolation at all.
    pub fn bare(program: Program, arguments: Vec<String>) -> Self {
        Self {
            program,
            arguments,
            environment: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
            working_directory: "/".into(),
            root: Root::Empty,
            mounts: Vec::new(),
            masked_paths: Vec::new(),
            read_only_paths: Vec::new(),
            namespaces: Namespaces::NONE,
            joined_namespaces: Vec::new(),
            network: NetworkMode::Host,
            host_name: None,
            parameters: Vec::new(),
            capabilities: None,
            no_new_privileges: false,
            seccomp: None,
            cgroup: None,
            resource_limits: Vec::new(),
            user: None,
            umask: 0o022,
            input: Stream::Inherit,
            output: Stream::Inherit,
            error: Stream::Inherit,
            terminal: None,
            start_order: None,
            kept: Vec::new(),
            dies_with_parent: false,
        }
    }

    /// Puts it into a cgroup, made by [`crate::cgroup::Cgroups::create`].
    pub fn limited_by(mut self, cgroup: Arc<Cgroup>) -> Self {
        self.cgroup = Some(cgroup);
        self
    }
}

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
    AttachedAhead,
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
    pub(crate) ahead: Option<EmptyNamespace>,
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
        let (mut endpoint, mut ahead, mut joined_namespaces) = (None, None, asked.joined_namespaces);
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
                endpoint = prepared.endpoint;
                NetworkPlan::Untouched
            }
            NetworkMode::Attached(attached) => {
                let configuration = attached.configuration().clone();
                endpoint = Some(attached);
                NetworkPlan::Attached(configuration)
            }
            // To join it takes privilege over its owner, which is the launching process's user namespace.
            NetworkMode::AttachedAhead(..) if namespaces.user => {
                return Err(Error::invalid("a network namespace made ahead", "cannot go with a user namespace"));
            }
            NetworkMode::AttachedAhead(attached, namespace) => {
                joined_namespaces.insert(0, Arc::clone(&namespace.namespace));
                (endpoint, ahead) = (Some(attached), Some(namespace));
                NetworkPlan::AttachedAhead
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
            ahead,
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
        matches!(self.network, NetworkPlan::Attached(_) | NetworkPlan::AttachedAhead)
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

pub(crate) fn c_string(text: String) -> Result<CString, Error> {
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
