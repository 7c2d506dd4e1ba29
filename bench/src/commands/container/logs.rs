//! `isobench container logs`.

use crate::commands::Status;
use crate::instances::attach;
use crate::instances::log::{self, Entry, Reader, Source};
use crate::instances::protocol::Order;
use crate::instances::{Container, Kind, Store};
use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

/// Show what a container wrote
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Arguments {
    /// Go on until it ends
    #[arg(short, long)]
    follow: bool,
    /// Show the last lines only
    #[arg(short = 'n', long, value_name = "NUMBER")]
    tail: Option<usize>,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Show lines since a time, as in RFC 3339, or since so long ago, such as 10m
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<String>,
    /// Its name or id
    #[arg(value_name = "CONTAINER", add = super::completer())]
    name: String,
}

/// A time in the form in which the log has it, whose order is that of the letters.
fn time(text: &str) -> Result<String, String> {
    let wrong = || "give a time such as 2026-01-31T12:00:00Z, or how long ago, such as 10m".to_owned();
    let time = match humantime::parse_duration(text) {
        Ok(ago) => std::time::SystemTime::now().checked_sub(ago).ok_or_else(wrong)?,
        Err(_) => humantime::parse_rfc3339_weak(text).map_err(|_| wrong())?,
    };
    Ok(humantime::format_rfc3339_nanos(time).to_string())
}

pub(in crate::commands) fn run(arguments: Arguments, kind: Kind) -> anyhow::Result<Status> {
    let container = Store::of(kind)?.find(&arguments.name)?;
    // Connected before the first look: whatever is written after it is followed.
    let order = Order::Attach { input: false, output: false, size: None };
    let alive = if arguments.follow { attach::connect(&container, &order)? } else { None };
    let changes = alive.is_some().then(|| watch(&container)).transpose()?;
    let (entries, reader) = log::read(container.path()).context("read the log")?;
    let since = arguments.since.as_deref().unwrap_or_default();
    let entries: Vec<_> = entries.iter().filter(|entry| entry.time.as_str() >= since).collect();
    let skipped = arguments.tail.map_or(0, |tail| entries.len().saturating_sub(tail));
    entries[skipped..].iter().try_for_each(|entry| show(entry, arguments.timestamps))?;
    if let (Some(socket), Some(changes)) = (alive, changes) {
        follow(&container, &socket, &changes, reader, arguments.timestamps)?;
    }
    Ok(Status::Success)
}

fn show(entry: &Entry, timestamps: bool) -> anyhow::Result<()> {
    let stamp = if timestamps { format!("{} ", entry.time) } else { String::new() };
    let text = format!("{stamp}{}", entry.text);
    let written = match entry.stream {
        Source::Stdout => io::stdout().lock().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()),
        Source::Stderr => io::stderr().lock().write_all(text.as_bytes()),
    };
    written.context("write to the standard output")
}

/// The kernel tells of each change in the container's directory
/// ([inotify(7)](https://man7.org/linux/man-pages/man7/inotify.7.html)).
fn watch(container: &Container) -> anyhow::Result<rustix::fd::OwnedFd> {
    let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK);
    let changes = changes.context("watch the log")?;
    let kinds = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE;
    inotify::add_watch(&changes, container.path(), kinds).context("watch the log")?;
    Ok(changes)
}

/// Shows what is added until the supervisor's connection ends, and then the rest.
fn follow(
    container: &Container,
    socket: &UnixStream,
    changes: &rustix::fd::OwnedFd,
    mut reader: Option<Reader>,
    timestamps: bool,
) -> anyhow::Result<()> {
    socket.set_nonblocking(true).context("watch the container")?;
    let path = container.log();
    let mut number = path.metadata().map(|metadata| metadata.ino()).ok();
    loop {
        let mut waited = [PollFd::new(socket, PollFlags::IN), PollFd::new(changes, PollFlags::IN)];
        match poll(&mut waited, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for the log"),
        }
        let spoken = !waited[0].revents().is_empty();
        let ended = spoken && has_ended(socket);
        let mut space = [MaybeUninit::uninit(); 4096];
        let _ = rustix::io::read(changes, &mut space[..]);
        let rest = |reader: &mut Option<Reader>| -> anyhow::Result<()> {
            while let Some(entry) = reader.as_mut().map(Reader::next).transpose().context("read the log")?.flatten() {
                show(&entry, timestamps)?;
            }
            Ok(())
        };
        rest(&mut reader)?;
        // A full log was put aside, and another one begun.
        let now = path.metadata().map(|metadata| metadata.ino()).ok();
        if now.is_some() && (now != number || reader.is_none()) {
            number = now;
            reader = Reader::open(&path).ok();
            rest(&mut reader)?;
        }
        if ended {
            return Ok(());
        }
    }
}

/// Reads what the supervisor says; whether it was the last word.
fn has_ended(mut socket: &UnixStream) -> bool {
    use crate::instances::protocol::{Frame, Kind};
    let mut received = Vec::new();
    let mut buffer = [0_u8; 1024];
    loop {
        match io::Read::read(&mut socket, &mut buffer) {
            Ok(0) => return true,
            Ok(read) => received.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => return true,
        }
    }
    while let Ok(Some(frame)) = Frame::take(&mut received) {
        if frame.kind == Kind::Ended {
            return true;
        }
    }
    false
}
