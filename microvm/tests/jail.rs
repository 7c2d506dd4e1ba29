//! The jail of a monitor that serves the unikernel, looked at from outside. `linux.rs` looks at that of a Linux guest in the same
//! way. What can't run on this machine is ignored, with the reason as its kind.

mod jailed;
mod support;

use isobench_microvm::confinement::{self, Role};
use isobench_microvm::devices::virtio::tap;
use isobench_microvm::judge::judge;
use isobench_microvm::sandbox::{AttachError, Attachment, Housing, MEMORY, UnikernelSandbox};
use isobench_workload::protocol::PORT;
use isobench_workload::{Sandbox, Workload, announcement};
use jailed::{DESCRIPTORS, Monitor, ends_with};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;
use rustix::fs::{FileType, Mode};
use rustix::net::{SendFlags, SocketFlags, accept_with};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;
use support::{check, ip, no_network};

const VMM: &str = env!("CARGO_BIN_EXE_isobench-vmm");
const GUEST: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 5);
const PATIENCE: Duration = Duration::from_secs(60);
/// Has this program confine itself and then do what a monitor may not.
const TRESPASS: &str = "trespass";
/// Has this program launch a monitor that is tied to it.
const LAUNCH: &str = "launch";
/// Any user who is not root, with nothing.
const SOMEBODY: u32 = 54_321;

type Test = fn() -> Result<(), Failed>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    if let [_, word, role, call] = words.as_slice()
        && word == TRESPASS
    {
        return trespass(role, call);
    }
    if words.get(1).is_some_and(|word| word == LAUNCH) {
        return launch_tied().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let kvm = (!judge().runs_unikernel()).then(|| judge().to_string());
    let root = (!nix::unistd::geteuid().is_root()).then(|| "needs root to look into another process".to_owned());
    let users = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").ok();
    let closed = users.is_none_or(|most| most.trim() == "0").then(|| "this kernel makes no user namespaces".to_owned());
    let looked_at = kvm.clone().or_else(|| root.clone());
    let unshare = Command::new("unshare").arg("-V").output().is_err().then(|| "needs the program unshare".to_owned());
    let setpriv = Command::new("setpriv").arg("-V").output().is_err().then(|| "needs the program setpriv".to_owned());
    let tests: [(&str, Test, Option<String>); 9] = [
        ("v17_a_forbidden_call_kills_the_process", a_forbidden_call_kills, None),
        ("v18_a_serving_monitor_is_jailed", a_serving_monitor_is_jailed, looked_at.clone().or_else(no_network)),
        ("v18_started_by_root_it_is_jailed", started_by_root_it_is_jailed, looked_at.clone().or(setpriv.clone())),
        ("v18_started_by_a_user_it_is_jailed", started_by_a_user_it_is_jailed, looked_at.clone().or(closed.clone())),
        (
            "v18_started_by_a_users_root_it_is_jailed",
            started_by_a_users_root_it_is_jailed,
            looked_at.clone().or(closed).or(unshare),
        ),
        ("its_limits_are_no_more_than_its_launchers", its_limits_are_no_more_than_its_launchers, looked_at.clone()),
        ("it_ends_with_its_launcher", it_ends_with_its_launcher, looked_at.clone().or(setpriv)),
        ("a_tied_one_ends_with_its_launcher", a_tied_one_ends_with_its_launcher, looked_at),
        ("what_is_refused_is_told_once", what_is_refused_is_told_once, kvm.or(root)),
    ];
    let trials = tests.map(|(name, test, obstacle)| {
        let ignored = obstacle.is_some();
        Trial::test(name, test).with_ignored_flag(ignored).with_kind(obstacle.unwrap_or_default())
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

/// A call of a system call, on the standard input where it is one on a descriptor, and who may make it.
type Call = (&'static str, fn(BorrowedFd<'_>), &'static [Role]);

const ROLES: [Role; 9] = [
    Role::Vcpu,
    Role::VcpuAndNetwork,
    Role::Network,
    Role::Block,
    Role::Entropy,
    Role::Balloon,
    Role::Control,
    Role::Console,
    Role::Session,
];

const FRAMES: &[Role] = &[Role::VcpuAndNetwork, Role::Network];

const CALLS: [Call; 26] = [
    ("write", |_| tried(rustix::io::write(std::io::stderr(), &[])), &ROLES),
    ("open", |_| tried(File::open("/")), &[]),
    ("socket", |_| tried(std::os::unix::net::UnixDatagram::unbound()), &[]),
    ("clone", |_| tried(std::thread::Builder::new().spawn(|| ())), &[]),
    ("execve", |_| tried(Command::new("/nonexistent/program").exec()), &[]),
    ("kill", |_| tried(rustix::process::test_kill_process(rustix::process::getpid())), &[]),
    ("ptrace", |_| tried(nix::sys::ptrace::attach(nix::unistd::getppid())), &[]),
    ("mount", |_| tried(mount::<str, str, str, str>(None, "/", None, MsFlags::MS_PRIVATE, None)), &[]),
    ("unshare", |_| tried(nix::sched::unshare(CloneFlags::CLONE_NEWUSER)), &[]),
    ("setresuid", |_| tried(nix::unistd::setresuid(0.into(), 0.into(), 0.into())), &[]),
    ("prctl", |_| tried(rustix::thread::set_no_new_privs(true)), &[]),
    ("prlimit64", |_| tried(rustix::process::getrlimit(rustix::process::Resource::Core)), &[]),
    ("ioctl of a file", |input| tried(rustix::io::ioctl_fionread(input)), &[]),
    ("ioctl of a terminal", |input| tried(rustix::termios::tcgetwinsize(input)), &[Role::Session]),
    ("readv", |input| tried(rustix::io::readv(input, &mut [])), FRAMES),
    ("writev", |input| tried(rustix::io::writev(input, &[])), FRAMES),
    ("preadv", |input| tried(rustix::io::preadv(input, &mut [], 0)), &[Role::Block]),
    ("fdatasync", |input| tried(rustix::fs::fdatasync(input)), &[Role::Block]),
    (
        "getrandom",
        |_| tried(rustix::rand::getrandom(&mut [0; 1], rustix::rand::GetRandomFlags::empty())),
        &[Role::Entropy],
    ),
    ("accept4", |input| tried(accept_with(input, SocketFlags::CLOEXEC)), &[Role::Control, Role::Session]),
    ("sendto", |input| tried(rustix::net::send(input, &[], SendFlags::NOSIGNAL)), &[Role::Control]),
    ("pread64", |input| tried(rustix::io::pread(input, &mut [0; 1], 0)), &[Role::Control]),
    ("pwrite64", |input| tried(rustix::io::pwrite(input, &[], 0)), &[Role::Control]),
    ("ftruncate", |input| tried(rustix::fs::ftruncate(input, 0)), &[Role::Control]),
    ("fstat", |input| tried(rustix::fs::fstat(input)), &[Role::Control]),
    (
        "getrusage",
        |_| tried(nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)),
        &[Role::Control],
    ),
];

/// Whatever comes of a call, it was made.
fn tried<T>(_: T) {}

fn trespass(role: &str, call: &str) -> ExitCode {
    let role = ROLES.iter().find(|each| format!("{each:?}") == role);
    let (Some(role), Some((_, call, _))) = (role, CALLS.iter().find(|(name, ..)| *name == call)) else {
        return ExitCode::from(2);
    };
    if confinement::confine(*role).is_err() {
        return ExitCode::from(2);
    }
    println!("confined");
    call(std::io::stdin().as_fd());
    ExitCode::SUCCESS
}

/// Each thread may what its role takes, and nothing that another's takes: what a filter forgets to refuse is seen here.
fn a_forbidden_call_kills() -> Result<(), Failed> {
    for role in ROLES {
        for (name, _, roles) in CALLS {
            let mut command = Command::new(std::env::current_exe()?);
            let output = command.args([TRESPASS, &format!("{role:?}"), name]).stdin(Stdio::null()).output()?;
            let told = format!("{role:?}, {name}: {output:?}");
            check(output.stdout == b"confined\n", &told)?;
            let status = output.status;
            let allowed = roles.contains(&role);
            check(if allowed { status.success() } else { status.signal() == Some(libc::SIGSYS) }, &told)?;
        }
    }
    Ok(())
}

fn attach() -> Result<Attachment, AttachError> {
    let tap = tap::open("guest0")?;
    ip("link set guest0 up")?;
    ip("address add 172.17.0.1/16 dev guest0")?;
    Ok(Attachment { tap, mac: [2, 0, 0, 0, 0, 5], address: GUEST, prefix: 16, gateway: None, resources: Vec::new() })
}

/// A descriptor that everything inherits which is started meanwhile.
fn inheritable() -> Result<OwnedFd, Failed> {
    let file = OwnedFd::from(File::open("/")?);
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
    Ok(file)
}

/// The namespaces in which this thread starts others.
fn home() -> Result<[PathBuf; 2], Failed> {
    let place = |name| std::fs::read_link(format!("/proc/thread-self/ns/{name}"));
    Ok([place("net")?, place("pid_for_children")?])
}

fn a_serving_monitor_is_jailed() -> Result<(), Failed> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
    let leaked = inheritable()?;
    let before = home()?;
    let mut sandbox = UnikernelSandbox::new(Housing::VirtualMachine { memory: MEMORY }, PathBuf::from(VMM), attach);
    for _ in 0..2 {
        let mut instance = sandbox.launch(&Workload::Serve { port: PORT })?;
        instance.await_ready(PATIENCE)?;
        let monitor = Monitor::new(instance.process().pid());
        monitor.has_no_rights()?;
        monitor.is_not_dumpable()?;
        monitor.has_namespaces(&["mnt", "pid", "ipc", "uts", "net"])?;
        monitor.has_an_empty_root()?;
        monitor.holds_only(&DESCRIPTORS)?;
        instance.destroy().map_err(|errors| format!("{errors:?}"))?;
        // The launcher is where it was, and can start threads, which it could not between two pid namespaces.
        check(home()? == before, format!("the launcher has moved from {before:?} to {:?}", home()?))?;
        let thread = std::thread::spawn(|| 7).join().map_err(|_| "a thread panicked")?;
        check(thread == 7, "no thread")?;
    }
    drop(leaked);
    Ok(())
}

/// A monitor that ends with its test.
struct Idle(Child);

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Starts an idle guest from a command line and waits until it is ready.
fn idle(command: &mut Command) -> Result<Idle, Failed> {
    let mut idle =
        Idle(command.args(["unikernel", "--workload", "idle", "--deadline", "600"]).stdout(Stdio::piped()).spawn()?);
    let mut line = String::new();
    BufReader::new(idle.0.stdout.as_mut().ok_or("no pipe")?).read_line(&mut line)?;
    if line.is_empty() {
        return Err(format!("it ended without a word: {}", idle.0.wait()?).into());
    }
    Ok(idle)
}

fn started_by_root_it_is_jailed() -> Result<(), Failed> {
    let leaked = inheritable()?;
    // As root who is in a group.
    let child = idle(Command::new("setpriv").args(["--groups", &SOMEBODY.to_string(), VMM]).stdin(Stdio::null()))?;
    let monitor = Monitor::new(child.0.id() as i32);
    monitor.has_no_rights()?;
    monitor.is_not_dumpable()?;
    monitor.has_namespaces(&["mnt", "ipc", "uts", "net"])?;
    monitor.has_an_empty_root()?;
    monitor.holds_only(&[&DESCRIPTORS[1..], &["/dev/null"]].concat())?;
    drop(leaked);
    Ok(())
}

/// It has those of the jail, or less where its launcher has less, and finds nothing wrong with that.
fn its_limits_are_no_more_than_its_launchers() -> Result<(), Failed> {
    // Blocks of 512 bytes.
    for (words, descriptors, largest) in [
        ("ulimit -n 4096 && ulimit -f unlimited", "1024", (1 << 30).to_string()),
        ("ulimit -n 512", "512", (1 << 30).to_string()),
        ("ulimit -f 100", "1024", (100 * 512).to_string()),
    ] {
        let script = format!("{words} && exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        let mut child = idle(command.args(["-c", &script, VMM]).stdin(Stdio::null()).stderr(Stdio::piped()))?;
        let text = std::fs::read_to_string(format!("/proc/{}/limits", child.0.id()))?;
        let limit = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
        };
        check(limit("Max open files") == [descriptors; 2], format!("{words}: {text}"))?;
        check(limit("Max file size") == [&*largest; 2], format!("{words}: {text}"))?;
        let mut errors = child.0.stderr.take().ok_or("no pipe")?;
        drop(child);
        let told = std::io::read_to_string(&mut errors)?;
        check(told.is_empty(), told)?;
    }
    Ok(())
}

fn started_by_a_user_it_is_jailed() -> Result<(), Failed> {
    started_by_a_user(&[])
}

/// As in a testbed of an ordinary user, where he is root and there is no other user to become.
fn started_by_a_users_root_it_is_jailed() -> Result<(), Failed> {
    started_by_a_user(&["unshare", "--user", "--map-root-user"])
}

/// Copies the monitor, by another process: what this one has open for writing, each program that another test starts at that moment
/// has too, and then no one can execute it (execve(2), ETXTBSY).
fn copy_monitor(to: &Path) -> Result<(), Failed> {
    let copied = Command::new("cp").arg(VMM).arg(to).status()?;
    check(copied.success(), format!("cp {VMM}: {copied}"))
}

/// Starts a monitor as a user, by these words before it.
fn started_by_a_user(words: &[&str]) -> Result<(), Failed> {
    // In mounts of this thread's own: a KVM that everybody may open, as on a machine whose users are in its group, and a copy of
    // the program that everybody may execute, wherever the tests were built.
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let directory = tempfile::tempdir()?;
    mount(Some("none"), directory.path(), Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    let (program, device) = (directory.path().join("isobench-vmm"), directory.path().join("kvm"));
    copy_monitor(&program)?;
    make_kvm(&device)?;
    mount(Some(&device), "/dev/kvm", none, MsFlags::MS_BIND, none)?;
    let words: Vec<&OsStr> = words.iter().map(OsStr::new).chain([program.as_os_str()]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    let mut child = idle(command.uid(SOMEBODY).gid(SOMEBODY).stdin(Stdio::null()).stderr(Stdio::piped()))?;
    let monitor = Monitor::new(child.0.id() as i32);
    monitor.has_no_rights()?;
    // Where a user is root himself, his are the same.
    if words.len() == 1 {
        monitor.is_not_dumpable()?;
    }
    monitor.has_namespaces(&["user", "mnt", "ipc", "uts", "net"])?;
    monitor.has_an_empty_root()?;
    monitor.holds_only(&[&DESCRIPTORS[1..], &["/dev/null"]].concat())?;
    let mut errors = child.0.stderr.take().ok_or("no pipe")?;
    drop(child);
    let text = std::io::read_to_string(&mut errors)?;
    umount2(directory.path(), MntFlags::MNT_DETACH)?;
    check(text.is_empty(), text)
}

/// A node of KVM that everybody may open.
fn make_kvm(path: &Path) -> Result<(), Failed> {
    let number = std::fs::metadata("/dev/kvm")?.rdev();
    rustix::fs::mknodat(rustix::fs::CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), number)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o666))?;
    Ok(())
}

fn it_ends_with_its_launcher() -> Result<(), Failed> {
    // A change of identity makes the kernel forget the signal that was asked for.
    let script = "setpriv --pdeathsig KILL \"$0\" unikernel --workload idle --deadline 600 & echo pid $!; wait";
    ends_with(Command::new("sh").args(["-c", script, VMM]))
}

/// What launches by the library, in a process of its own: says the number of its monitor and that it is ready, and waits to be killed.
fn launch_tied() -> Result<(), Failed> {
    let mut sandbox = UnikernelSandbox::new(Housing::VirtualMachine { memory: MEMORY }, PathBuf::from(VMM), attach);
    sandbox = sandbox.without_network().tied();
    let mut instance = sandbox.launch(&Workload::Idle)?;
    instance.await_ready(PATIENCE)?;
    println!("pid {}\n{}", instance.process().pid(), announcement::READY);
    std::thread::park();
    Ok(())
}

/// Its parent is in another pid namespace.
fn a_tied_one_ends_with_its_launcher() -> Result<(), Failed> {
    ends_with(Command::new(std::env::current_exe()?).arg(LAUNCH))
}

fn what_is_refused_is_told_once() -> Result<(), Failed> {
    // A directory that nothing is mounted on can't be left by pivot_root(2).
    let root = tempfile::tempdir()?;
    copy_monitor(&root.path().join("isobench-vmm"))?;
    std::fs::create_dir(root.path().join("dev"))?;
    make_kvm(&root.path().join("dev/kvm"))?;
    let mut command = Command::new("chroot");
    command.arg(root.path()).args(["/isobench-vmm", "unikernel", "--workload", "exit"]);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    check(output.status.success(), format!("{}: {text}", output.status))?;
    let sentence = "isobench-vmm: the monitor runs without an empty root directory: ";
    check(text.starts_with(sentence) && text.lines().count() == 1, text)
}
