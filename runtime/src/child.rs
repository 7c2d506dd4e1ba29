//! What the new process does between clone3 and exec: the second half of the recipe on the crate's front page.
//!
//! It shares its parent's memory. So it reads data that was prepared before, makes system calls and nothing else: it
//! does not allocate, lock, panic or touch thread-local storage. rustix's functions are bare system calls when they are
//! given C strings. Descriptors opened here are never closed by hand: all close at exec.
#![forbid(unsafe_code)]

use crate::plan::{NetworkPlan, Plan, ProgramPlan};
use crate::shared::{Failure, Shared, has_ended};
use crate::{capabilities, parameters, root, system, terminal};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use std::mem::ManuallyDrop;

/// The steps inside, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// Join the control groups of version 1.
    JoinCgroups = 1,
    /// Map the user that launched to root of the new user namespace.
    MapUser,
    /// Join namespaces of others.
    JoinNamespaces,
    /// Set the host name.
    NameHost,
    /// Set parameters of the kernel that belong to its own namespaces.
    SetParameters,
    /// Change to the new root, make its mounts and leave the old root behind.
    ChangeRoot,
    /// Wait until the launching process has attached the network.
    AwaitHost,
    /// Configure the network from inside.
    ConfigureNetwork,
    /// Take over the standard streams.
    RedirectStreams,
    /// Set resource limits, the processors and the session.
    LimitResources,
    /// Open a terminal of its own.
    OpenTerminal,
    /// Wait until the network carries packets.
    AwaitNetwork,
    /// Wait for the order to start.
    AwaitStart,
    /// Drop capabilities and become the user.
    DropCapabilities,
    /// Refuse new privileges.
    RefusePrivileges,
    /// Ask to be killed with the launching thread.
    TieToParent,
    /// Install the system call filter.
    FilterSystemCalls,
    /// Become the program.
    Execute,
}

impl Step {
    pub(crate) const ALL: [Self; 18] = [
        Self::JoinCgroups,
        Self::MapUser,
        Self::JoinNamespaces,
        Self::NameHost,
        Self::SetParameters,
        Self::ChangeRoot,
        Self::AwaitHost,
        Self::ConfigureNetwork,
        Self::RedirectStreams,
        Self::LimitResources,
        Self::OpenTerminal,
        Self::AwaitNetwork,
        Self::AwaitStart,
        Self::DropCapabilities,
        Self::RefusePrivileges,
        Self::TieToParent,
        Self::FilterSystemCalls,
        Self::Execute,
    ];
}

impl std::fmt::Display for Step {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::JoinCgroups => "join cgroup",
            Self::MapUser => "map the user",
            Self::JoinNamespaces => "join namespace",
            Self::NameHost => "set the host name",
            Self::SetParameters => "set the kernel parameter",
            Self::ChangeRoot => "change the root:",
            Self::AwaitHost => "wait for the launching process",
            Self::ConfigureNetwork => "configure the network",
            Self::RedirectStreams => "redirect standard stream",
            Self::LimitResources => "limit resources",
            Self::OpenTerminal => "open a terminal",
            Self::AwaitNetwork => "wait for the network",
            Self::AwaitStart => "wait for the order to start",
            Self::DropCapabilities => "drop capabilities",
            Self::RefusePrivileges => "refuse new privileges",
            Self::TieToParent => "tie its life to its parent's",
            Self::FilterSystemCalls => "install the system call filter",
            Self::Execute => "execute",
        })
    }
}

/// The result of one step's function: the item that failed and why.
pub(crate) type StepResult = Result<(), (usize, Errno)>;

/// Goes through the steps and becomes the program; what is returned is the failure.
pub(crate) fn become_program(plan: &Plan, shared: &Shared) -> Failure {
    match steps(plan, shared) {
        Ok(()) => Failure { step: Step::Execute, item: 0, errno: execute(plan) },
        Err(failure) => failure,
    }
}

fn steps(plan: &Plan, shared: &Shared) -> Result<(), Failure> {
    let at = |step: Step| move |(item, errno): (usize, Errno)| Failure { step, item, errno };
    join_cgroups(plan).map_err(at(Step::JoinCgroups))?;
    map_user(plan).map_err(at(Step::MapUser))?;
    join_namespaces(plan).map_err(at(Step::JoinNamespaces))?;
    name_host(plan).map_err(at(Step::NameHost))?;
    parameters::set_parameters(plan).map_err(at(Step::SetParameters))?;
    root::change_root(plan).map_err(at(Step::ChangeRoot))?;
    await_host(plan, shared).map_err(at(Step::AwaitHost))?;
    configure_network(plan, shared).map_err(at(Step::ConfigureNetwork))?;
    redirect_streams(plan).map_err(at(Step::RedirectStreams))?;
    limit_resources(plan).map_err(at(Step::LimitResources))?;
    terminal::open_terminal(plan).map_err(at(Step::OpenTerminal))?;
    await_network(plan, shared).map_err(at(Step::AwaitNetwork))?;
    await_start(plan, shared).map_err(at(Step::AwaitStart))?;
    if plan.filter_needs_privilege() {
        filter_system_calls(plan).map_err(at(Step::FilterSystemCalls))?;
    }
    capabilities::drop_capabilities(plan).map_err(at(Step::DropCapabilities))?;
    refuse_privileges(plan).map_err(at(Step::RefusePrivileges))?;
    tie_to_parent(plan).map_err(at(Step::TieToParent))?;
    if !plan.filter_needs_privilege() {
        filter_system_calls(plan).map_err(at(Step::FilterSystemCalls))?;
    }
    Ok(())
}

/// Opens a descriptor that stays open until exec.
pub(crate) fn open(path: &std::ffi::CStr, flags: OFlags) -> Result<ManuallyDrop<OwnedFd>, Errno> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).map(ManuallyDrop::new)
}

/// Version 1 only; with version 2 clone3 has created the process in its cgroup.
///
/// A thread that moves itself alone, by `0` in `tasks`, needs no lock that stops all forks and exits of the machine. Moving
/// a process by its number in `cgroup.procs` takes that lock, which waits for a grace period of RCU, milliseconds a
/// hierarchy (`cgroup_procs_write_start` in kernel/cgroup/cgroup.c). This process has one thread, so both do the same.
fn join_cgroups(plan: &Plan) -> StepResult {
    for (item, tasks) in plan.cgroup_joins.iter().enumerate() {
        rustix::io::write(tasks, b"0").map_err(|errno| (item, errno))?;
    }
    Ok(())
}

/// [user_namespaces(7)](https://man7.org/linux/man-pages/man7/user_namespaces.7.html): an ordinary user may map its own
/// user and group once setgroups is denied.
fn map_user(plan: &Plan) -> StepResult {
    for (item, (path, contents)) in plan.user_map.iter().enumerate() {
        let file = open(path, OFlags::WRONLY).map_err(|errno| (item, errno))?;
        rustix::io::write(&*file, contents).map_err(|errno| (item, errno))?;
    }
    Ok(())
}

fn join_namespaces(plan: &Plan) -> StepResult {
    for (item, namespace) in plan.joined_namespaces.iter().enumerate() {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), None).map_err(|errno| (item, errno))?;
    }
    // The process is in its cgroups, so that the namespace's root is those and not the parent's.
    if plan.cgroup_namespace {
        system::unshare_cgroup().map_err(|errno| (plan.joined_namespaces.len(), errno))?;
    }
    if let Some(directory) = &plan.joined_directory {
        rustix::process::chdir(&**directory).map_err(|errno| (plan.joined_namespaces.len() + 1, errno))?;
        // As after a change of the root (CVE-2024-21626).
        match system::working_directory_is_reachable() {
            Ok(true) => {}
            Ok(false) => return Err((plan.joined_namespaces.len() + 1, Errno::XDEV)),
            Err(errno) => return Err((plan.joined_namespaces.len() + 1, errno)),
        }
    }
    Ok(())
}

fn await_host(plan: &Plan, shared: &Shared) -> StepResult {
    match &plan.network {
        NetworkPlan::Attached(_) => shared.await_attached(plan.parent.as_ref()).map_err(|errno| (0, errno)),
        NetworkPlan::Untouched | NetworkPlan::LoopbackOnly | NetworkPlan::Awaited => Ok(()),
    }
}

/// The bridge forwards only some time after the container's end is up; a program that ran before would lose its first packet
/// and wait a second for the next one.
fn await_network(plan: &Plan, shared: &Shared) -> StepResult {
    if plan.awaits_host() { shared.await_settled(plan.parent.as_ref()).map_err(|errno| (0, errno)) } else { Ok(()) }
}

fn name_host(plan: &Plan) -> StepResult {
    match &plan.host_name {
        Some(name) => rustix::system::sethostname(name).map_err(|errno| (0, errno)),
        None => Ok(()),
    }
}

fn configure_network(plan: &Plan, shared: &Shared) -> StepResult {
    let failed = |errno| (0, errno);
    match &plan.network {
        NetworkPlan::Untouched | NetworkPlan::Awaited => Ok(()),
        NetworkPlan::LoopbackOnly => {
            use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
            let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
            let socket = ManuallyDrop::new(socket.map_err(failed)?);
            system::loopback_up(socket.as_fd()).map_err(failed)
        }
        NetworkPlan::Attached(configuration) => {
            configuration.apply().map_err(|(step, errno)| (step as usize, errno))?;
            shared.configured();
            Ok(())
        }
    }
}

fn redirect_streams(plan: &Plan) -> StepResult {
    if let Some(input) = &plan.input {
        rustix::stdio::dup2_stdin(input).map_err(|errno| (0, errno))?;
    }
    if let Some(output) = &plan.output {
        rustix::stdio::dup2_stdout(output).map_err(|errno| (1, errno))?;
    }
    if let Some(error) = &plan.error {
        rustix::stdio::dup2_stderr(error).map_err(|errno| (2, errno))?;
    }
    system::close_on_exec_from(3).map_err(|errno| (3, errno))?;
    for kept in &plan.kept {
        rustix::io::fcntl_setfd(kept, FdFlags::empty()).map_err(|errno| (5, errno))?;
    }
    system::reset_signals().map_err(|errno| (4, errno))
}

fn limit_resources(plan: &Plan) -> StepResult {
    if let Some(processors) = &plan.processors {
        rustix::thread::sched_setaffinity(None, processors).map_err(|errno| (plan.resource_limits.len() + 2, errno))?;
    }
    for (item, (resource, limit)) in plan.resource_limits.iter().enumerate() {
        rustix::process::setrlimit(*resource, *limit).map_err(|errno| (item, errno))?;
    }
    if plan.new_session {
        rustix::process::setsid().map_err(|errno| (plan.resource_limits.len(), errno))?;
        match system::join_session_keyring() {
            // A kernel without keyrings has none to keep apart.
            Ok(()) | Err(Errno::NOSYS) => {}
            Err(errno) => return Err((plan.resource_limits.len() + 1, errno)),
        }
    }
    Ok(())
}

/// Where creating and starting are two orders: tells the creator that all is set up, then waits for one byte.
fn await_start(plan: &Plan, shared: &Shared) -> StepResult {
    let Some(order) = &plan.start_order else { return Ok(()) };
    shared.set_up();
    let mut byte = [0_u8];
    loop {
        match rustix::io::read(order, &mut byte) {
            Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err((0, errno)),
        }
    }
}

fn refuse_privileges(plan: &Plan) -> StepResult {
    if plan.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(|errno| (0, errno))?;
    }
    Ok(())
}

/// Last but the filter: a change of user or capabilities takes the order back
/// ([PR_SET_PDEATHSIG(2const)](https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html)). A parent that ended
/// before it is seen by its pidfd.
fn tie_to_parent(plan: &Plan) -> StepResult {
    let Some(parent) = &plan.parent else { return Ok(()) };
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|errno| (0, errno))?;
    match has_ended(parent) {
        Ok(false) => Ok(()),
        Ok(true) => Err((1, Errno::SRCH)),
        Err(errno) => Err((1, errno)),
    }
}

fn filter_system_calls(plan: &Plan) -> StepResult {
    match &plan.filter {
        Some(filter) => system::install_filter(filter.program()).map_err(|errno| (0, errno)),
        None => Ok(()),
    }
}

fn execute(plan: &Plan) -> Errno {
    match &plan.program {
        ProgramPlan::Descriptor(program) => {
            system::execute_descriptor(program.as_fd(), &plan.arguments, &plan.environment)
        }
        ProgramPlan::Paths(paths) => {
            // As execvp: the first that exists, and EACCES where one was found that may not be executed.
            let mut last = Errno::NOENT;
            for path in paths {
                match system::execute_path(path, &plan.arguments, &plan.environment) {
                    Errno::NOENT | Errno::NOTDIR => {}
                    Errno::ACCESS => last = Errno::ACCESS,
                    errno => return errno,
                }
            }
            last
        }
    }
}
