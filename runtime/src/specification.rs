//! What a caller asks for.

use crate::capabilities::Capabilities;
use crate::cgroup::Cgroup;
use crate::network::Endpoint;
use crate::prepared::PreparedNetwork;
use crate::root::{self, Mount};
use crate::seccomp::Filter;
use crate::terminal::Terminal;
use rustix::fd::OwnedFd;
use rustix::process::{Resource, Rlimit};
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
    /// One that the launching process gets ready, all of it, while the child builds its root ([`crate::launch_while`]); its
    /// namespace is there before. Not with a user namespace of the container's own.
    Awaited(Arc<OwnedFd>),
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
    /// Its control group, which the caller owns, made by [`crate::cgroup::Cgroups::create`].
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
}
