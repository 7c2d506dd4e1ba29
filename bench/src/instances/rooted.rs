//! What is looked up in a container's root before it runs: its users. A link in it leads nowhere but into the root itself.

use super::refuse;
use crate::testbed;
use anyhow::Context;
use isobench_runtime::User;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Longer files of users are not read to their end.
const LONGEST: u64 = 1 << 20;

/// A user of a container and its home.
#[derive(Debug)]
pub(crate) struct Account {
    /// The numbers; `None` for root.
    pub(crate) user: Option<User>,
    /// Its home directory.
    pub(crate) home: String,
}

/// Looks up `USER[:GROUP]`, each by name or number, in a root's own files.
pub(crate) fn account(root: &Path, asked: Option<&str>) -> anyhow::Result<Account> {
    let users = read(root, "etc/passwd")?;
    // As with Docker, nobody is root: `--user "$NOBODY"`, and `:GROUP` alone.
    let asked = asked.filter(|asked| !asked.is_empty());
    let (user, group) = match asked.unwrap_or("0").split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (asked.unwrap_or("0"), None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entry = users
        .lines()
        .map(fields)
        .find(|entry| entry.first() == Some(&user) || (entry.get(2) == Some(&user) && user.parse::<u32>().is_ok()));
    let number = |index: usize| entry.as_ref().and_then(|entry| entry.get(index)?.parse::<u32>().ok());
    let Some(uid) = user.parse().ok().or(number(2)) else {
        return refuse(format!("the root has no user `{user}`: name one of its /etc/passwd, or a number"));
    };
    let name = entry.as_ref().and_then(|entry| entry.first().copied()).unwrap_or_default();
    let home = entry.as_ref().and_then(|entry| entry.get(5).copied()).filter(|home| home.starts_with('/'));
    let home = home.unwrap_or(if uid == 0 { "/root" } else { "/" }).to_owned();
    if asked.is_none() {
        return Ok(Account { user: None, home });
    }
    let (gid, mut groups) = groups(root, group, name, number(3).unwrap_or(0))?;
    if (uid, gid) == (0, 0) && groups.is_empty() {
        return Ok(Account { user: None, home });
    }
    for (number, what, map) in [(uid, "user", "uid_map"), (gid, "group", "gid_map")] {
        // The kernel takes it for no number at all.
        if number == u32::MAX {
            return refuse(format!("there can be no {what} {number}: the last number is {}", u32::MAX - 1));
        }
        if !is_mapped(&testbed::own(map).unwrap_or_default(), number) {
            return refuse(format!(
                "the {what} {number} does not exist here: this host was made without root and has user 0 alone"
            ));
        }
    }
    // As with Docker: a set-group-id program would else leave the group, and what is denied to it (CVE-2022-36109).
    groups.insert(0, gid);
    Ok(Account { user: Some(User { user: uid, group: gid, groups }), home })
}

/// The group's number, and the further groups of a user who was given none.
fn groups(root: &Path, asked: Option<&str>, user: &str, own: u32) -> anyhow::Result<(u32, Vec<u32>)> {
    let file = read(root, "etc/group")?;
    let entries = || file.lines().map(fields);
    match asked {
        Some(asked) => {
            let named = || entries().find(|entry| entry.first() == Some(&asked))?.get(2)?.parse().ok();
            match asked.parse().ok().or_else(named) {
                Some(number) => Ok((number, Vec::new())),
                None => refuse(format!("the root has no group `{asked}`: name one of its /etc/group, or a number")),
            }
        }
        None => {
            let is_in = |entry: &Vec<&str>| {
                !user.is_empty() && entry.get(3).is_some_and(|members| members.split(',').any(|name| name == user))
            };
            let further = entries().filter(is_in).filter_map(|entry| entry.get(2)?.parse().ok());
            Ok((own, further.filter(|number| *number != own).collect()))
        }
    }
}

fn fields(line: &str) -> Vec<&str> {
    line.split(':').collect()
}

/// The last of the groups from 0 on that there are here without a gap.
pub(super) fn last_group() -> u32 {
    last_mapped(&testbed::own("gid_map").unwrap_or_default())
}

/// The kernel keeps a map in the order of its numbers where it was written so; ours are.
fn last_mapped(map: &str) -> u32 {
    let ranges = map.lines().filter_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse::<u64>().ok());
        let (first, _, count) = (numbers.next()??, numbers.next(), numbers.next()??);
        Some((first, count))
    });
    let end = ranges.fold(0, |end, (first, count)| if first == end { end + count } else { end });
    u32::try_from(end.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// Whether a number is one of those that a user namespace has
/// ([user_namespaces(7)](https://man7.org/linux/man-pages/man7/user_namespaces.7.html)).
fn is_mapped(map: &str, number: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
        let (first, _, count) = (numbers.next(), numbers.next(), numbers.next());
        first.zip(count).is_some_and(|(first, count)| (first..first + count).contains(&u64::from(number)))
    })
}

/// Reads a file of a root; empty where there is none.
fn read(root: &Path, path: &str) -> anyhow::Result<String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, root, flags, Mode::empty());
    let directory = directory.with_context(|| format!("open the root {}", root.display()))?;
    // NONBLOCK: an image may have a pipe there that nobody writes to.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(directory, path, flags, Mode::empty(), resolve) {
        Ok(file) => {
            let mut bytes = Vec::with_capacity(4096);
            let read = File::from(file).take(LONGEST).read_to_end(&mut bytes);
            read.with_context(|| format!("read /{path} of the root {}", root.display()))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(String::new()),
        Err(errno) => Err(errno).with_context(|| format!("open /{path} of the root {}", root.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_looked_up_in_the_root_alone() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:0:5::/srv:/bin/sh\n").unwrap();
        std::fs::write(root.path().join("etc/group"), "root:x:0:\nfive:x:5:\nsix:x:0:web\n").unwrap();
        let account = |asked| account(root.path(), asked);
        assert_eq!(account(None).unwrap().home, "/root");
        assert!(account(Some("0")).unwrap().user.is_none());
        assert!(account(Some("")).unwrap().user.is_none());
        let only_group = account(Some(":five")).unwrap().user.unwrap();
        assert_eq!((only_group.user, only_group.group, only_group.groups), (0, 5, vec![5]));
        let refused = account(Some("nobody")).unwrap_err().to_string();
        assert!(refused.contains("no user `nobody`"), "{refused}");
        assert!(account(Some("0:nogroup")).is_err());
        for none in ["4294967295", "1:4294967295"] {
            let refused = account(Some(none)).unwrap_err().to_string();
            assert!(refused.contains("the last number is 4294967294"), "{refused}");
        }
        std::fs::remove_file(root.path().join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/proc/self/environ", root.path().join("etc/passwd")).unwrap();
        assert!(account(Some("root")).is_err(), "the link leads into the root, where there is nothing");
    }

    #[test]
    fn only_mapped_numbers_exist() {
        assert!(is_mapped("0 0 4294967295\n", 1000));
        assert!(!is_mapped("0 1000 1\n", 1));
        assert!(is_mapped("0 1000 1\n", 0));
        let last = [("0 0 4294967295\n", u32::MAX - 1), ("0 1000 1\n", 0), ("0 1000 1\n1 100000 65536\n", 65536)];
        assert!(last.iter().all(|(map, last)| last_mapped(map) == *last));
    }
}
