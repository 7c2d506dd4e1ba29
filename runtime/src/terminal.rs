//! A terminal of the container's own ([pty(7)](https://man7.org/linux/man-pages/man7/pty.7.html)).
//!
//! The new process opens it in its own /dev/pts, so that it has a name there, and hands the controlling end to the launching
//! process by a socket, as a runtime does over the console socket of the OCI specification.
#![forbid(unsafe_code)]

use crate::child::{StepResult, open};
use crate::error::Error;
use crate::plan::Plan;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::mem::{ManuallyDrop, MaybeUninit};

/// A terminal that is asked for.
#[derive(Debug)]
pub struct Terminal {
    socket: OwnedFd,
    size: Winsize,
}

/// Where the controlling end of a terminal arrives.
#[derive(Debug)]
pub struct Console(OwnedFd);

impl Terminal {
    /// A terminal with so many rows and columns, and the place where its controlling end can be received once the process
    /// is launched.
    pub fn new(rows: u16, columns: u16) -> Result<(Self, Console), Error> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(Error::system("create", "a socket pair for the terminal"))?;
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok((Self { socket: theirs, size }, Console(ours)))
    }
}

impl Console {
    /// The controlling end: what is written there is the terminal's input, what is read the program's output.
    pub fn receive(self) -> Result<OwnedFd, Error> {
        let failed = |errno| Error::system("receive", "the terminal")(errno);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0_u8];
        // It has been sent before the process became its program: nothing is waited for.
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        recvmsg(&self.0, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags).map_err(failed)?;
        let mut received = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        received.next().ok_or_else(|| failed(Errno::BADMSG))
    }
}

/// What [`open_terminal`] does, by the number of its step.
pub(crate) const STEPS: [&str; 7] = [
    "in /dev/pts",
    "and unlock it",
    "and open its other end",
    "and make it the session's own",
    "and give it its size",
    "as standard stream",
    "and hand it to the launching process",
];

/// Opens the terminal and makes it the standard streams and the session's own. Runs in the child, after it has a session.
pub(crate) fn open_terminal(plan: &Plan) -> StepResult {
    let Some(terminal) = &plan.terminal else { return Ok(()) };
    let at = |item: usize| move |errno: Errno| (item, errno);
    let controlling = open(c"/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY).map_err(at(0))?;
    rustix::pty::unlockpt(&*controlling).map_err(at(1))?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let peer = rustix::pty::ioctl_tiocgptpeer(&*controlling, flags).map_err(at(2))?;
    let peer = ManuallyDrop::new(peer);
    rustix::process::ioctl_tiocsctty(&*peer).map_err(at(3))?;
    rustix::termios::tcsetwinsize(&*peer, terminal.size).map_err(at(4))?;
    rustix::stdio::dup2_stdin(&*peer).map_err(at(5))?;
    rustix::stdio::dup2_stdout(&*peer).map_err(at(5))?;
    rustix::stdio::dup2_stderr(&*peer).map_err(at(5))?;
    if let Some(user) = &plan.user {
        // So that the program can open it by name; the group has to exist here.
        rustix::fs::fchown(&*peer, Some(user.user), None).map_err(at(5))?;
    }
    if plan.root.is_some() {
        name_console();
    }
    hand_over(terminal, &controlling).map_err(at(6))
}

/// /dev/console is the terminal as well, where there is a /dev that can have it.
fn name_console() {
    let made = rustix::fs::mknodat(CWD, c"/dev/console", FileType::RegularFile, Mode::from_raw_mode(0o600), 0);
    if matches!(made, Ok(()) | Err(Errno::EXIST)) {
        let _ = rustix::mount::mount_bind(c"/proc/self/fd/0", c"/dev/console");
    }
}

fn hand_over(terminal: &Terminal, controlling: &OwnedFd) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [controlling.as_fd()];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno::NOBUFS);
    }
    sendmsg(&terminal.socket, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::empty()).map(drop)
}
