//! The records of testbeds that are kept: which there are, and whether they still live.
//!
//! A record is a file `testbeds/NAME.json` in a [home]. It names the testbed's processes by number and start
//! time, so that a process that was given the number again is not taken for it. A record whose first host is gone is dead:
//! it counts as not there, and the next one of that name, or `isobench gc`, removes it. A damaged record may be that of a testbed
//! that lives: none is made in its place until `isobench gc` has removed it and ended the testbed ([`super::lost`]).

use super::cgroups::Branches;
use crate::{home, journal, json_file};
use anyhow::Context;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How the name of a record ends while it is written.
const UNFINISHED: &str = "new";

/// A testbed that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its name.
    pub(crate) name: String,
    /// When it was made, as in RFC 3339.
    pub(crate) created: String,
    /// The name of its outermost process as a run: number and start time.
    pub(crate) run: String,
    /// Whether an ordinary user made it, so that it lives in a user namespace.
    pub(crate) rootless: bool,
    /// Where its control groups are; empty where this user may make none.
    pub(crate) groups: Branches,
    /// Its hosts, the first one first.
    pub(crate) hosts: Vec<Host>,
}

/// A simulated host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Host {
    /// `NAME` or `NAME/two`.
    pub(crate) name: String,
    /// Its first process, as number and start time: `4711-889012`.
    pub(crate) process: String,
}

impl Host {
    /// Its first process's number on the machine.
    pub(crate) fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.process.split_once('-')?.0.parse().ok()?)
    }

    /// Its first process, held so that its number cannot come to mean another; `None` where it has ended.
    pub(crate) fn open(&self) -> Option<OwnedFd> {
        let pidfd = pidfd_open(self.pid()?, PidfdFlags::empty()).ok()?;
        // The start time is looked at when the process is held already.
        lives(&self.process).then_some(pidfd)
    }
}

impl Record {
    /// Whether its first host is there.
    pub(crate) fn lives(&self) -> bool {
        self.hosts.first().is_some_and(|host| lives(&host.process))
    }

    /// Writes it into a home, whole or not at all.
    pub(crate) fn write(&self, home: &Path) -> anyhow::Result<()> {
        let path = path(home, &self.name);
        let written = || -> std::io::Result<()> {
            fs::DirBuilder::new().mode(0o700).recursive(true).create(home::testbeds(home))?;
            let new = path.with_extension(UNFINISHED);
            fs::write(&new, serde_json::to_vec_pretty(self)?)?;
            fs::rename(&new, &path)
        };
        written().with_context(|| format!("write the record {}", path.display()))
    }

    /// Removes it.
    pub(crate) fn remove(&self, home: &Path) -> anyhow::Result<()> {
        let path = path(home, &self.name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove the record {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// The living testbed of a name.
pub(crate) fn find(name: &str) -> Option<Record> {
    locate(name).map(|(_, record)| record)
}

/// The living testbed of a name, and the home that its record lies in.
pub(crate) fn locate(name: &str) -> Option<(PathBuf, Record)> {
    locate_in(home::existing(), name)
}

/// A dead record in one home does not hide a living testbed in the next.
fn locate_in(homes: Vec<PathBuf>, name: &str) -> Option<(PathBuf, Record)> {
    homes.into_iter().find_map(|home| {
        let record = read(&path(&home, name)).filter(Record::lives)?;
        Some((home, record))
    })
}

/// Refuses to make a testbed where a damaged record has its name.
pub(crate) fn check(home: &Path, name: &str) -> anyhow::Result<()> {
    json_file::read::<Record>(&path(home, name)).map(drop).with_context(|| {
        format!("the record of the testbed `{name}` is damaged: `isobench gc` removes it and ends the testbed")
    })
}

/// The paths of damaged records.
pub(crate) fn damaged() -> Vec<PathBuf> {
    paths().filter(|path| json_file::read::<Record>(path).is_err()).collect()
}

/// Whether there is a record of a run.
pub(crate) fn is_of(run: &str) -> bool {
    everywhere().iter().any(|(_, record)| record.run == run)
}

/// Every living testbed of this user, by name.
pub(crate) fn all() -> Vec<Record> {
    let mut records: Vec<Record> = everywhere().into_iter().map(|(_, record)| record).filter(Record::lives).collect();
    records.sort_by(|one, other| one.name.cmp(&other.name));
    records
}

/// Removes the records of dead testbeds, and what whoever was killed while writing one has left, or only looks where `dry`; gives their
/// paths.
pub(crate) fn sweep(dry: bool) -> Vec<PathBuf> {
    let dead = everywhere().into_iter().filter(|(_, record)| !record.lives());
    let mut paths: Vec<PathBuf> = dead.map(|(path, _)| path).collect();
    let mut locks = Vec::new();
    for home in home::existing() {
        // Whoever writes one holds the lock.
        let lock = File::open(lock_of(&home)).ok();
        if let Some(lock) = lock.filter(|lock| flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok()) {
            locks.push(lock);
            paths.extend(unfinished(&home));
        }
    }
    paths.retain(|path| dry || fs::remove_file(path).is_ok());
    paths
}

/// Whoever makes or removes a testbed of a home holds this; a second one waits. It ends with its holder.
pub(crate) fn lock(home: &Path) -> anyhow::Result<File> {
    let path = lock_of(home);
    let locked = || -> std::io::Result<File> {
        fs::DirBuilder::new().mode(0o700).recursive(true).create(home::testbeds(home))?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    };
    locked().with_context(|| format!("lock {}", path.display()))
}

fn lock_of(home: &Path) -> PathBuf {
    home::testbeds(home).join("lock")
}

/// Records that were not written to their end; those of the living too, unless the lock is held.
fn unfinished(home: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(home::testbeds(home)).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|kind| kind == UNFINISHED)).collect()
}

fn everywhere() -> Vec<(PathBuf, Record)> {
    paths().filter_map(|path| Some((path.clone(), read(&path)?))).collect()
}

fn paths() -> impl Iterator<Item = PathBuf> {
    let entries = home::existing().into_iter().flat_map(|home| fs::read_dir(home::testbeds(&home))).flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|kind| kind == "json"))
}

fn path(home: &Path, name: &str) -> PathBuf {
    home::testbeds(home).join(format!("{name}.json"))
}

fn read(path: &Path) -> Option<Record> {
    json_file::read(path).ok()?
}

/// Whether a process named by number and start time runs; one that has ended and was not reaped yet does not.
fn lives(process: &str) -> bool {
    let Some((number, _)) = process.split_once('-') else { return false };
    let state = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
    let ended = state.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
    !ended && journal::alive(process) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, process: &str) -> Record {
        Record {
            name: name.into(),
            created: "2026-01-01T00:00:00Z".into(),
            run: process.into(),
            rootless: false,
            groups: Branches::default(),
            hosts: vec![Host { name: name.into(), process: process.into() }],
        }
    }

    #[test]
    fn a_record_is_read_back_and_lives_as_its_process_does() {
        let home = tempfile::tempdir().unwrap();
        let own = record("lab", &journal::own_name().unwrap());
        own.write(home.path()).unwrap();
        assert_eq!(read(&path(home.path(), "lab")), Some(own.clone()));
        assert!(own.lives() && own.hosts[0].open().is_some());
        assert!(!record("lab", &format!("{}-1", std::process::id())).lives(), "the number was given again");
        assert!(!record("lab", "nonsense").lives());
        own.remove(home.path()).unwrap();
        own.remove(home.path()).unwrap();
        assert_eq!(read(&path(home.path(), "lab")), None);
    }

    #[test]
    fn a_dead_record_does_not_hide_a_living_one_in_another_home() {
        let (dead, living) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        record("lab", &format!("{}-1", std::process::id())).write(dead.path()).unwrap();
        let own = record("lab", &journal::own_name().unwrap());
        own.write(living.path()).unwrap();
        let homes = || vec![dead.path().to_owned(), living.path().to_owned()];
        assert_eq!(locate_in(homes(), "lab"), Some((living.path().to_owned(), own)));
        assert_eq!(locate_in(homes(), "other"), None);
    }
}
