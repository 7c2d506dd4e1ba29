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
use std::time::{Duration, SystemTime};

/// Show what a container wrote
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Arguments {
    /// Go on until it ends
    #[arg(short, long)]
    follow: bool,
    /// Show the last lines only
    #[arg(short = 'n', long, value_name = "NUMBER", value_parser = tail, default_value = "all", allow_negative_numbers = true)]
    tail: usize,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Show lines since a time, as in RFC 3339 or in seconds of Unix time, or since so long ago, such as 10m
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<String>,
    /// Show lines until a time only
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "follow")]
    until: Option<String>,
    /// Its name or id
    #[arg(value_name = "CONTAINER", add = super::completer())]
    name: String,
}

/// Seconds from 1970 to the year 9999.
const LAST_YEAR: u64 = 253_370_764_800;

/// As Docker: `all`, or a number, of which one below 0 means the same.
fn tail(text: &str) -> Result<usize, String> {
    match text.parse::<i64>() {
        Ok(number) => Ok(usize::try_from(number).unwrap_or(usize::MAX)),
        Err(_) if text == "all" => Ok(usize::MAX),
        Err(_) => Err("give a number of lines, or all".into()),
    }
}

/// A time in the form in which the log has it, whose order is that of the letters.
fn time(text: &str) -> Result<String, String> {
    let wrong = || "give a time such as 2026-01-31T12:00:00Z, or how long ago, such as 10m".to_owned();
    let time = match (humantime::parse_duration(text), text.parse().ok().map(Duration::try_from_secs_f64)) {
        (_, Some(since)) => SystemTime::UNIX_EPOCH.checked_add(since.map_err(|_| wrong())?),
        (Ok(ago), None) => SystemTime::now().checked_sub(ago),
        (Err(_), None) => {
            let day = format!("{text}T00:00:00Z");
            humantime::parse_rfc3339_weak(text).or_else(|_| humantime::parse_rfc3339(&day)).ok()
        }
    };
    // What lies beyond the year 9999 cannot be written so.
    let time = time.filter(|time| *time < SystemTime::UNIX_EPOCH + Duration::from_secs(LAST_YEAR)).ok_or_else(wrong)?;
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
    let until = |entry: &Entry| arguments.until.as_ref().is_none_or(|until| entry.time <= *until);
    let entries: Vec<_> = entries.iter().filter(|entry| entry.time.as_str() >= since && until(entry)).collect();
    let skipped = entries.len().saturating_sub(arguments.tail);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_dockers_ways() {
        for (text, time) in [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000000000Z"),
            ("2026-01-31T12:00:00", "2026-01-31T12:00:00.000000000Z"),
            ("2026-01-31", "2026-01-31T00:00:00.000000000Z"),
            ("1769860800", "2026-01-31T12:00:00.000000000Z"),
            ("1769860800.5", "2026-01-31T12:00:00.500000000Z"),
        ] {
            assert_eq!(super::time(text).as_deref(), Ok(time), "{text}");
        }
        assert!(time("10m").unwrap() < time("1s").unwrap());
        for bad in ["", "soon", "-1", "nan", "inf", "1e30", "99999999999999y", "2026-13-01"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_lines_are_the_last_ones() {
        assert_eq!((tail("all"), tail("-1"), tail("0"), tail("7")), (Ok(usize::MAX), Ok(usize::MAX), Ok(0), Ok(7)));
        assert!(tail("some").is_err());
    }
}
