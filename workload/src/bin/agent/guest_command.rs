//! A program of the user's in a Linux guest: the agent, which is /init, switches into the root, starts the program there, carries
//! its streams over a port of the guest's virtio console, and ends the guest with the program's exit status.

use crate::Failure;
use isobench_workload::Input;
use isobench_workload::guest::{COMMAND, Decoder, GuestCommand, Kind, ROOT, encode};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
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
const OWN_FAILURE: u8 = 125;

/// Runs the command that the initramfs names and gives its exit status.
pub(crate) fn run() -> Result<u8, Failure> {
    let path = format!("/{COMMAND}");
    let text = fs::read_to_string(&path).map_err(|error| format!("read {path}: {error}"))?;
    let command: GuestCommand = serde_json::from_str(&text)?;
    let channel = open_channel()?;
    let mut decoder = Decoder::default();
    tell(&channel, Kind::Ready, &[])?;
    let status = match begin(&command, &text) {
        Ok((children, task)) => carry(&channel, &mut decoder, &children, task)?,
        // The kernel's console shows it to nobody.
        Err(error) => {
            tell(&channel, Kind::Error, format!("isobench: {error}\n").as_bytes())?;
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
    tell(channel, Kind::Last, &[])?;
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
        decoder.take(&buffer[..length], |kind, _| taken |= kind == Kind::Taken)?;
    }
    Ok(())
}

/// Switches into the root and starts the program. The descriptor tells of each child that ends.
fn begin(command: &GuestCommand, text: &str) -> Result<(SignalFd, Task), Failure> {
    switch_root()?;
    rustix::system::sethostname(command.host_name.as_bytes())?;
    let ends = SigSet::from(Signal::SIGCHLD);
    ends.thread_block()?;
    let children = SignalFd::with_flags(&ends, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    // Everybody else's process goes by this one, so a program of its own sets what a fork would have to.
    let mut program = Command::new("/proc/self/exe");
    program.arg(BECOME).arg(text).env_clear();
    Ok((children, Task::start(program, command.terminal)?))
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

/// The program with its streams.
struct Task {
    pid: i32,
    input: Input,
    outputs: Vec<(Kind, OwnedFd)>,
    terminal: Option<OwnedFd>,
}

impl Task {
    fn start(mut program: Command, terminal: Option<(u16, u16)>) -> Result<Self, Failure> {
        let (mut input, mut outputs, mut controlling) = (Input::default(), Vec::new(), None);
        if let Some((rows, columns)) = terminal {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let master = rustix::pty::openpt(flags).map_err(|error| format!("make a terminal: {error}"))?;
            rustix::pty::unlockpt(&master)?;
            resize(&master, rows, columns);
            let name = rustix::pty::ptsname(&master, Vec::new())?;
            let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
            program.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
            input = Input::new(master.try_clone()?)?;
            outputs.push((Kind::Output, non_blocking(master.try_clone()?)?));
            controlling = Some(master);
        } else {
            program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = program.spawn().map_err(|error| format!("start the program: {error}"))?;
        // Its ends of the terminal must not stay open here.
        drop(program);
        if let Some(pipe) = child.stdin.take() {
            input = Input::new(pipe.into())?;
        }
        if let (Some(output), Some(error)) = (child.stdout.take(), child.stderr.take()) {
            outputs.push((Kind::Output, non_blocking(output.into())?));
            outputs.push((Kind::Error, non_blocking(error.into())?));
        }
        let pid = child.id() as i32;
        Ok(Self { pid, input, outputs, terminal: controlling })
    }

    /// Does what a frame asks for.
    fn obey(&mut self, kind: Kind, payload: &[u8]) {
        match (kind, payload) {
            (Kind::Input, bytes) => self.input.give(bytes),
            // A terminal's input ends by a character.
            (Kind::EndOfInput, _) if self.terminal.is_none() => self.input.end(),
            (Kind::Resize, &[rows, more_rows, columns, more_columns]) => {
                if let Some(terminal) = &self.terminal {
                    let (rows, columns) = ([rows, more_rows], [columns, more_columns]);
                    resize(terminal, u16::from_le_bytes(rows), u16::from_le_bytes(columns));
                }
            }
            (Kind::Signal, &[number]) => {
                if let Ok(signal) = Signal::try_from(i32::from(number)) {
                    // It may have ended.
                    let _ = nix::sys::signal::kill(Pid::from_raw(self.pid), signal);
                }
            }
            _ => {}
        }
    }

    /// Sends what is there on an output; whether there was anything. An output that has ended is forgotten.
    fn carry(&mut self, number: usize, channel: &OwnedFd) -> Result<bool, Failure> {
        let mut buffer = [0; 16 << 10];
        let Some((kind, output)) = self.outputs.get(number) else { return Ok(false) };
        match rustix::io::read(output, &mut buffer) {
            Ok(length) if length > 0 => {
                let mut bytes = Vec::with_capacity(length + 8);
                encode(*kind, &buffer[..length], &mut bytes);
                send(channel, &bytes)?;
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            // A terminal whose other end nobody has any more gives EIO.
            Ok(_) | Err(_) => {
                self.outputs.remove(number);
                Ok(false)
            }
        }
    }
}

/// Carries the program's streams until it has ended; gives its exit status.
fn carry(channel: &OwnedFd, decoder: &mut Decoder, children: &SignalFd, mut task: Task) -> Result<u8, Failure> {
    loop {
        let takes = task.input.has_room();
        let mut waited = vec![PollFd::new(children, PollFlags::IN)];
        waited.extend(task.outputs.iter().map(|(_, output)| PollFd::new(output, PollFlags::IN)));
        let outputs = task.outputs.len();
        waited.push(PollFd::new(channel, if takes { PollFlags::IN } else { PollFlags::empty() }));
        waited.extend(task.input.blocked().map(|input| PollFd::from_borrowed_fd(input, PollFlags::OUT)));
        match poll(&mut waited, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(format!("wait for the program: {error}").into()),
        }
        let ready: Vec<bool> = waited.iter().map(|waited| !waited.revents().is_empty()).collect();
        drop(waited);
        // From the last one on, since one that has ended is forgotten.
        for number in (0..outputs).rev().filter(|number| ready[1 + number]) {
            task.carry(number, channel)?;
        }
        if takes && ready[1 + outputs] {
            let mut buffer = [0; 4096];
            let length = rustix::io::read(channel, &mut buffer).unwrap_or(0);
            decoder.take(&buffer[..length], |kind, payload| task.obey(kind, payload))?;
        }
        task.input.write();
        if ready[0] {
            while let Ok(Some(_)) = children.read_signal() {}
            if let Some(status) = reap(task.pid)? {
                for number in (0..task.outputs.len()).rev() {
                    while task.carry(number, channel)? {}
                }
                return Ok(status);
            }
        }
    }
}

/// Reaps every child that has ended, those of others too, whose first process this is; the program's status, where it is one.
fn reap(program: i32) -> Result<Option<u8>, Failure> {
    let mut status = None;
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == program => status = Some(code as u8),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == program => status = Some(128 + signal as u8),
            Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return Ok(status),
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

fn tell(channel: &OwnedFd, kind: Kind, payload: &[u8]) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    encode(kind, payload, &mut bytes);
    send(channel, &bytes)
}

fn send(channel: &OwnedFd, mut bytes: &[u8]) -> Result<(), Failure> {
    while !bytes.is_empty() {
        match rustix::io::write(channel, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(format!("write to the console's port: {error}").into()),
        }
    }
    Ok(())
}

fn non_blocking(descriptor: OwnedFd) -> Result<OwnedFd, Failure> {
    fcntl_setfl(&descriptor, OFlags::NONBLOCK)?;
    Ok(descriptor)
}

fn resize(terminal: &OwnedFd, rows: u16, columns: u16) {
    let _ = tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_takes_input_and_gives_output_and_its_end() {
        let mut program = Command::new("/bin/sh");
        program.args(["-c", "read line; echo \"$line\"; echo error >&2; exit 7"]);
        let mut task = Task::start(program, None).unwrap();
        task.obey(Kind::Input, b"typed\n");
        task.obey(Kind::EndOfInput, &[]);
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut frames = Vec::new();
        let mut decoder = Decoder::default();
        while !task.outputs.is_empty() {
            for number in (0..task.outputs.len()).rev() {
                if task.carry(number, &write).unwrap() {
                    let mut buffer = [0; 4096];
                    let length = rustix::io::read(&read, &mut buffer).unwrap();
                    decoder.take(&buffer[..length], |kind, payload| frames.push((kind, payload.to_vec()))).unwrap();
                }
            }
            std::thread::yield_now();
        }
        frames.sort_by_key(|(kind, _)| *kind as u8);
        assert_eq!(frames, [(Kind::Output, b"typed\n".to_vec()), (Kind::Error, b"error\n".to_vec())]);
        let status = waitpid(Pid::from_raw(task.pid), None).unwrap();
        assert_eq!(status, WaitStatus::Exited(Pid::from_raw(task.pid), 7));
    }
}
