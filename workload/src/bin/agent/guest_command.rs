//! A program of the user's in a Linux guest: the agent, which is /init, switches into the root, starts the program there, carries
//! its streams and those of further programs over a port of the guest's virtio console ([`crate::guest_tasks`]), and ends the guest
//! with the first program's exit status.

use crate::Failure;
use crate::guest_tasks::{Task, carry};
use isobench_workload::guest::{COMMAND, Decoder, FIRST, GuestCommand, Kind, ROOT, encode};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags};
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// The agent's argument by which it becomes the program.
pub(crate) const BECOME: &str = "become";

/// How the file of the console's port begins; the device's number among all follows, and the port's.
const PORT: &[u8] = b"/dev/vport";

/// Seconds that the monitor and the kernel may take for something.
const PATIENCE: i64 = 30;

/// Exit statuses as a shell has them.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// That of a guest that could not be made ready for the program.
pub(crate) const OWN_FAILURE: u8 = 125;

/// Runs the command that the initramfs names and gives its exit status.
pub(crate) fn run() -> Result<u8, Failure> {
    let path = format!("/{COMMAND}");
    let text = fs::read_to_string(&path).map_err(|error| format!("read {path}: {error}"))?;
    let command: GuestCommand = serde_json::from_str(&text)?;
    let channel = open_channel()?;
    let mut decoder = Decoder::default();
    tell(&channel, Kind::Ready, FIRST, &[])?;
    let status = match begin(&command) {
        Ok((children, task)) => carry(&channel, &mut decoder, &children, task)?,
        // The kernel's console shows it to nobody.
        Err(error) => {
            tell(&channel, Kind::Error, FIRST, format!("isobench: {error}\n").as_bytes())?;
            OWN_FAILURE
        }
    };
    await_taken(&channel, &mut decoder)?;
    Ok(status)
}

/// Opens the console's port, which is there once driver and device have agreed on it.
fn open_channel() -> Result<OwnedFd, Failure> {
    let deadline = Instant::now() + Duration::from_secs(PATIENCE as u64);
    loop {
        let names = fs::read_dir("/dev")?.flatten().map(|entry| entry.path());
        let port = names.into_iter().find(|path| path.as_os_str().as_encoded_bytes().starts_with(PORT));
        if let Some(path) = port {
            let opened = rustix::fs::open(&path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
            return Ok(opened.map_err(|error| format!("open {}: {error}", path.display()))?);
        }
        if Instant::now() > deadline {
            return Err("the kernel finds no port of the virtio console".into());
        }
        // A small kernel has nothing that would tell (inotify(7)).
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Says that nothing follows, and waits until the other side has taken everything: with the guest ends what it has not.
fn await_taken(channel: &OwnedFd, decoder: &mut Decoder) -> Result<(), Failure> {
    tell(channel, Kind::Last, FIRST, &[])?;
    let mut taken = false;
    while !taken {
        let timeout = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
        match poll(&mut [PollFd::new(channel, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err("the monitor does not take what was sent".into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(format!("wait for the monitor: {error}").into()),
        }
        let mut buffer = [0; 4096];
        let length = rustix::io::read(channel, &mut buffer)?;
        decoder.take(&buffer[..length], |kind, _, _| taken |= kind == Kind::Taken)?;
    }
    Ok(())
}

/// Switches into the root and starts the program. The descriptor tells of each child that ends.
fn begin(command: &GuestCommand) -> Result<(SignalFd, Task), Failure> {
    switch_root()?;
    rustix::system::sethostname(command.host_name.as_bytes())?;
    // As in a container it is made where it is not there; why it cannot be is told when it is entered.
    let _ = fs::create_dir_all(&command.directory);
    let ends = SigSet::from(Signal::SIGCHLD);
    ends.thread_block()?;
    let children = SignalFd::with_flags(&ends, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    Ok((children, Task::start(FIRST, command)?))
}

/// Makes the root the guest's, with what every program expects to be mounted: what switch_root(8) does.
fn switch_root() -> Result<(), Failure> {
    let root = format!("/{ROOT}");
    let failed = |what: &str, error: Errno| format!("{what} {root}: {error}");
    rustix::mount::mount_bind(&root, &root).map_err(|error| failed("mount", error))?;
    for directory in ["proc", "sys", "dev"] {
        let target = format!("{root}/{directory}");
        fs::create_dir_all(&target).map_err(|error| format!("make {target}: {error}"))?;
        rustix::mount::mount_move(format!("/{directory}"), &target)
            .map_err(|error| failed("move mounts into", error))?;
    }
    std::env::set_current_dir(&root)?;
    rustix::mount::mount_move(".", "/").map_err(|error| failed("move to / the root", error))?;
    rustix::process::chroot(".").map_err(|error| failed("change to", error))?;
    std::env::set_current_dir("/")?;
    let _ = rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE);
    for (kind, target, options) in
        [("devpts", "/dev/pts", c"mode=620,ptmxmode=666"), ("tmpfs", "/dev/shm", c"mode=1777")]
    {
        fs::create_dir_all(target)?;
        match rustix::mount::mount(kind, target, kind, MountFlags::NOSUID | MountFlags::NOEXEC, options) {
            // A kernel without one of them has no use for it.
            Ok(()) | Err(Errno::BUSY | Errno::NODEV) => {}
            Err(error) => return Err(format!("mount {target}: {error}").into()),
        }
    }
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        let _ = std::os::unix::fs::symlink(target, format!("/dev/{link}"));
    }
    Ok(())
}

/// Reaps every child that has ended, those of others too, whose first process this is; each with its exit status.
pub(crate) fn reap(mut each: impl FnMut(i32, u8)) -> Result<(), Failure> {
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => each(pid.as_raw(), code as u8),
            Ok(WaitStatus::Signaled(pid, signal, _)) => each(pid.as_raw(), 128 + signal as u8),
            Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return Ok(()),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(format!("reap children: {error}").into()),
        }
    }
}

/// Becomes the program: sets what is its own, and executes it.
pub(crate) fn become_program(text: &str) -> Result<u8, Failure> {
    let command: GuestCommand = serde_json::from_str(text)?;
    SigSet::empty().thread_set_mask()?;
    rustix::process::setsid()?;
    if command.terminal.is_some() {
        rustix::process::ioctl_tiocsctty(std::io::stdin())?;
    }
    let (program, arguments) = command.command.split_first().ok_or("no command is given")?;
    if let Err(error) = std::env::set_current_dir(&command.directory) {
        return Ok(say(NOT_EXECUTABLE, &format!("the command cannot begin in {}: {error}", command.directory)));
    }
    // This process has one thread: what is set for it is set for the program.
    let groups: Vec<_> = command.groups.iter().map(|group| rustix::process::Gid::from_raw(*group)).collect();
    rustix::thread::set_thread_groups(&groups)?;
    rustix::thread::set_thread_gid(rustix::process::Gid::from_raw(command.group))?;
    rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(command.user))?;
    let mut executed = Command::new(program);
    let variables = command.environment.iter().filter_map(|variable| variable.split_once('='));
    let error = executed.args(arguments).env_clear().envs(variables).exec();
    Ok(match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            say(NOT_FOUND, &format!("there is no command `{program}` in the root {}", command.root))
        }
        _ => say(NOT_EXECUTABLE, &format!("`{program}` in the root {} cannot be executed: {error}", command.root)),
    })
}

/// Says why the program could not be started; the status for it.
fn say(status: u8, sentence: &str) -> u8 {
    let _ = writeln!(std::io::stderr(), "isobench: {sentence}");
    status
}

pub(crate) fn tell(channel: &OwnedFd, kind: Kind, stream: u32, payload: &[u8]) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    encode(kind, stream, payload, &mut bytes);
    send(channel, &bytes)
}

pub(crate) fn send(channel: &OwnedFd, mut bytes: &[u8]) -> Result<(), Failure> {
    while !bytes.is_empty() {
        match rustix::io::write(channel, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(format!("write to the console's port: {error}").into()),
        }
    }
    Ok(())
}
