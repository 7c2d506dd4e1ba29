//! The processes of a container, as the host's /proc shows them.

use crate::journal;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::path::PathBuf;

/// Ticks of the clock in which the kernel tells times in /proc (`USER_HZ`, the same on every machine).
const TICKS: u64 = 100;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its number on this host.
    pub(crate) pid: i32,
    /// Its parent's.
    pub(crate) parent: i32,
    /// Its user.
    pub(crate) user: u32,
    /// Its threads.
    pub(crate) threads: u64,
    /// When it began, in nanoseconds after the start of the machine.
    pub(crate) begun: u64,
    /// The processor time it has used, in nanoseconds.
    pub(crate) used: u64,
    /// Its memory, in bytes.
    pub(crate) memory: u64,
    /// The number of its terminal; 0 where it has none.
    pub(crate) terminal: i32,
    /// Its command line.
    pub(crate) command: String,
    /// The state's letter, such as `S`.
    pub(crate) state: char,
}

/// Every process of the container whose first process has this number, in the order of their numbers.
pub(crate) fn of_container(first: i32) -> Vec<Entry> {
    let Some(space) = pid_namespace(first) else { return Vec::new() };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let inside = numbers.filter(|number| pid_namespace(*number).as_ref() == Some(&space));
    let mut inside: Vec<_> = inside.filter_map(entry).collect();
    inside.sort_by_key(|entry| entry.pid);
    inside
}

/// One process alone.
pub(crate) fn one(number: i32) -> Vec<Entry> {
    entry(number).into_iter().collect()
}

/// Bytes that a process and the children that it has seen off have had read from storage and written to it; `None` where the
/// kernel does not count ([proc_pid_io(5)](https://man7.org/linux/man-pages/man5/proc_pid_io.5.html)).
pub(crate) fn storage(process: i32) -> Option<(u64, u64)> {
    parse_storage(&fs::read_to_string(format!("/proc/{process}/io")).ok()?)
}

/// What is written and dropped again before it came to the storage is not written.
fn parse_storage(text: &str) -> Option<(u64, u64)> {
    let count = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    let written = count("write_bytes:")?.saturating_sub(count("cancelled_write_bytes:")?);
    Some((count("read_bytes:")?, written))
}

fn pid_namespace(process: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/pid")).ok()
}

fn entry(pid: i32) -> Option<Entry> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok())
    };
    let user = field("Uid:").unwrap_or(0) as u32;
    Some(Entry { user, memory: field("VmRSS:").unwrap_or(0) * 1024, ..parse(pid, &stat, &line)? })
}

/// Reads the fields of a stat file ([proc_pid_stat(5)](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html)); the name
/// in parentheses may hold anything.
fn parse(pid: i32, stat: &str, command_line: &[u8]) -> Option<Entry> {
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1;
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    // `after` begins with field 3.
    let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
    let nanoseconds = |ticks: i64| ticks as u64 * (1_000_000_000 / TICKS);
    let words = String::from_utf8_lossy(command_line).trim_end_matches('\0').replace('\0', " ");
    Some(Entry {
        pid,
        parent: number(4)? as i32,
        user: 0,
        threads: number(20)? as u64,
        begun: nanoseconds(number(22)?),
        used: nanoseconds(number(14)? + number(15)?),
        memory: 0,
        terminal: number(7)? as i32,
        command: if words.is_empty() { format!("[{name}]") } else { words },
        state: fields.first()?.chars().next()?,
    })
}

/// Kills a process named by number and start time, if it is still that one.
pub(super) fn kill(process: &str) {
    let number = process.split_once('-').and_then(|(number, _)| Pid::from_raw(number.parse().ok()?));
    let Some(pidfd) = number.and_then(|number| pidfd_open(number, PidfdFlags::empty()).ok()) else { return };
    // Looked at when it is held, so that the number cannot change its meaning in between.
    if journal::alive(process) == Some(true) {
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "7 (a) b (c) S 1 7 7 34816 7 4194560 0 0 0 0 150 50 0 0 20 0 3 0 1000 8192 2 0";
        let entry = parse(7, stat, b"sh\0-c\0true\0").unwrap();
        assert_eq!((entry.parent, entry.threads, entry.state), (1, 3, 'S'));
        assert_eq!((entry.used, entry.begun), (2_000_000_000, 10_000_000_000));
        assert_eq!(entry.command, "sh -c true");
        assert_eq!(parse(7, stat, b"").unwrap().command, "[a) b (c]");
        assert_eq!(parse(7, "7 (a", b""), None);
    }

    #[test]
    fn what_goes_to_storage_is_told_apart_from_what_goes_to_files() {
        let text = "rchar: 9000\nwchar: 800\nsyscr: 7\nsyscw: 6\nread_bytes: 4096\nwrite_bytes: 12288\n\
                    cancelled_write_bytes: 8192\n";
        assert_eq!(parse_storage(text), Some((4096, 4096)));
        assert_eq!(parse_storage("rchar: 9000\n"), None);
    }

    #[test]
    fn this_process_is_one_of_its_own_namespace() {
        let own = std::process::id() as i32;
        assert!(of_container(own).iter().any(|entry| entry.pid == own));
        assert!(of_container(i32::MAX).is_empty());
    }
}
