//! What outlives a run that was killed, and how it is found again.
//!
//! Nearly everything of a run lives in namespaces and goes with their last process. What does not (control groups and
//! directories) is written down before it is made, in a file that the run holds a lock on
//! ([flock(2)](https://man7.org/linux/man-pages/man2/flock.2.html)). The kernel frees the lock with the run's last process,
//! so a journal that can be locked belongs to a dead run, and [`sweep`] removes what it names. Control groups carry the run's
//! name ([`Journal::run`]), so that they are found even where the journal is lost.
//!
//! Nothing here needs to reach the disk: a machine that goes down takes the control groups with it.

mod cgroup;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The parent of every control group that we make, below each hierarchy's root or below the caller's own group.
pub const CGROUP_PARENT: &str = "isobench";

/// How the name of every directory that a run makes outside its namespaces begins.
pub const DIRECTORY_PREFIX: &str = "isobench-";

/// A kind of object that outlives the processes that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A control group, with all groups below it; its path begins with a mount point such as `/sys/fs/cgroup`.
    Cgroup,
    /// A directory, with all that is in it; its name begins with [`DIRECTORY_PREFIX`].
    Directory,
}

/// One line of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    kind: Kind,
    path: PathBuf,
}

/// Why a journal could not be kept, or a leftover not be removed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}", path.display())]
pub struct JournalError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// The journal of one run: a locked file, one line for each object, written before the object is made.
#[derive(Debug)]
pub struct Journal {
    run: String,
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Begins a journal in `$ISOBENCH_HOME`, or else in the first directory that can hold one of `$XDG_RUNTIME_DIR/isobench`,
    /// `/run/isobench` and `/tmp/isobench-UID`.
    ///
    /// # Errors
    /// Where none of them can.
    pub fn open() -> Result<Self, JournalError> {
        let mut refused = None;
        for home in homes() {
            match Self::open_in(&home) {
                Ok(journal) => return Ok(journal),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| error("make", Path::new("/tmp"), std::io::ErrorKind::NotFound.into())))
    }

    /// Begins a journal in a given directory, which is made for its owner alone.
    ///
    /// # Errors
    /// Where the directory belongs to somebody else or cannot be written.
    pub fn open_in(home: &Path) -> Result<Self, JournalError> {
        private_directory(home)?;
        let run = own_name()?;
        // Locked first and named second: a sweep never sees a journal of a live run without its lock.
        let unlocked = home.join(format!("{run}.new"));
        let file = OpenOptions::new().append(true).create(true).truncate(false).mode(0o600).open(&unlocked);
        let file = at("create", &unlocked, file)?;
        at("lock", &unlocked, flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(Into::into))?;
        let path = home.join(format!("{run}.journal"));
        at("name", &path, std::fs::rename(&unlocked, &path))?;
        Ok(Self { run, path, file })
    }

    /// The run's name: process number and start time, as in `4711-889012`. Control groups of the run are
    /// `isobench/NAME...`.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Writes down an object that is about to be made.
    ///
    /// # Errors
    /// Where the line cannot be written: then the object must not be made.
    pub fn note(&self, kind: Kind, path: &Path) -> Result<(), JournalError> {
        // Serialising this type to memory cannot fail unless the path is no text, and all of ours are.
        let mut line =
            at("describe", path, serde_json::to_vec(&Entry { kind, path: path.into() }).map_err(Into::into))?;
        line.push(b'\n');
        at("write", &self.path, (&self.file).write_all(&line))
    }

    /// Writes down the groups that the run's own are made below, in every hierarchy: `isobench/NAME`.
    ///
    /// # Errors
    /// As [`Journal::note`].
    pub fn note_control_groups(&self) -> Result<(), JournalError> {
        self.note_control_groups_of(&self.run)
    }

    /// Writes down the groups of a part of the run that has a name of its own: `isobench/NAME`.
    ///
    /// # Errors
    /// As [`Journal::note`].
    pub fn note_control_groups_of(&self, name: &str) -> Result<(), JournalError> {
        cgroup::parents().iter().try_for_each(|parent| self.note(Kind::Cgroup, &parent.join(name)))
    }

    /// Ends the journal of a run that has cleaned up: whatever is still there is removed and told.
    pub fn close(self) -> Vec<Leftover> {
        let leftovers = remove_all(&self.run, &self.path, false);
        if leftovers.iter().all(|leftover| leftover.error.is_none()) {
            let _ = std::fs::remove_file(&self.path);
        }
        leftovers
    }
}

/// Something that a dead run left on the machine.
#[derive(Debug)]
pub struct Leftover {
    /// The run's name.
    pub run: String,
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub path: PathBuf,
    /// Why it is still there, where it could not be removed.
    pub error: Option<JournalError>,
}

/// Removes what dead runs left, or only looks where `dry`. A live run's journal is locked, and it is left alone.
pub fn sweep(dry: bool) -> Vec<Leftover> {
    let mut leftovers: Vec<Leftover> = homes().iter().flat_map(|home| sweep_in(home, dry)).collect();
    // By name: groups whose journal is lost.
    for path in cgroup::of_runs() {
        let Some(run) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        if alive(&run) != Some(false) || leftovers.iter().any(|leftover| leftover.path == path) {
            continue;
        }
        // The number may be one of another pid namespace: a run in a container, whose journal cannot be seen from here. What
        // is in use is not dead; a dead run's processes went with its own namespace.
        if cgroup::in_use(&path) {
            continue;
        }
        let error = if dry { None } else { remove(Kind::Cgroup, &path).err() };
        leftovers.push(Leftover { run, kind: Kind::Cgroup, path, error });
    }
    if !dry {
        cgroup::remove_empty_parents();
    }
    leftovers
}

/// Removes what the dead runs left whose journals lie in a directory.
pub fn sweep_in(home: &Path, dry: bool) -> Vec<Leftover> {
    if check_private(home).is_err() {
        return Vec::new();
    }
    let Ok(entries) = std::fs::read_dir(home) else { return Vec::new() };
    let mut leftovers = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let Some(run) = path.file_stem().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("journal") => {}
            Some("new") if alive(&run) == Some(false) && !dry => {
                let _ = std::fs::remove_file(&path);
                continue;
            }
            _ => continue,
        }
        let Ok(file) = OpenOptions::new().read(true).open(&path) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let found = remove_all(&run, &path, dry);
        if !dry && found.iter().all(|leftover| leftover.error.is_none()) {
            let _ = std::fs::remove_file(&path);
        }
        leftovers.extend(found);
    }
    leftovers
}

/// Removes what a journal names and is still there, last made first.
fn remove_all(run: &str, journal: &Path, dry: bool) -> Vec<Leftover> {
    let Ok(file) = File::open(journal) else { return Vec::new() };
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    // A half-written line belongs to an object that was never made.
    let mut entries: Vec<Entry> = lines.filter_map(|line| serde_json::from_str(&line).ok()).collect();
    entries.reverse();
    entries.dedup();
    let there = entries.into_iter().filter(|entry| entry.path.symlink_metadata().is_ok());
    there
        .map(|Entry { kind, path }| {
            let error = if dry { None } else { remove(kind, &path).err() };
            Leftover { run: run.to_owned(), kind, path, error }
        })
        .collect()
}

fn remove(kind: Kind, path: &Path) -> Result<(), JournalError> {
    match kind {
        Kind::Cgroup => at("remove control group", path, cgroup::remove(path)),
        Kind::Directory => {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !path.is_absolute() || !name.starts_with(DIRECTORY_PREFIX) {
                let refused = std::io::Error::other("it is not named as a directory of ours is");
                return Err(error("remove", path, refused));
            }
            // Does not follow symbolic links, and names what is gone already a success.
            match std::fs::remove_dir_all(path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(error("remove", path, source)),
                _ => Ok(()),
            }
        }
    }
}

/// Whether the process that a run is named after still lives; `None` where the name is no run's.
pub(crate) fn alive(run: &str) -> Option<bool> {
    // A part of a run has its own name after the run's: `4711-889012.docker`.
    let (process, started) = run.split_once('.').map_or(run, |(run, _)| run).split_once('-')?;
    let (process, started): (u32, u64) = (process.parse().ok()?, started.parse().ok()?);
    Some(start_time(&format!("/proc/{process}/stat")).ok() == Some(started))
}

/// The name of a run of this process: its number and start time, by which a sweep sees whether it still lives.
///
/// # Errors
/// Where /proc is not there.
pub fn own_name() -> Result<String, JournalError> {
    name_of(std::process::id())
}

/// The name of a run of another process.
///
/// # Errors
/// Where there is no such process.
pub fn name_of(process: u32) -> Result<String, JournalError> {
    let path = format!("/proc/{process}/stat");
    let started = at("read", Path::new(&path), start_time(&path))?;
    Ok(format!("{process}-{started}"))
}

/// Field 22 of a stat file ([proc_pid_stat(5)](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html)); the name before
/// it may hold blanks and parentheses.
fn start_time(path: &str) -> std::io::Result<u64> {
    // The whole line in one piece: the kernel makes it anew for every part that is read.
    let mut bytes = [0; 1024];
    let length = std::io::Read::read(&mut File::open(path)?, &mut bytes)?;
    let text = String::from_utf8_lossy(&bytes[..length]);
    let after_name = text.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let field = after_name.split(' ').nth(19).and_then(|field| field.parse().ok());
    field.ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

/// A home that is named and cannot be one.
#[derive(Debug, thiserror::Error)]
#[error("ISOBENCH_HOME={}: give an absolute path, which means the same directory wherever a command is given", .0.display())]
pub(crate) struct RelativeHome(PathBuf);

/// Refuses a home that is not where the caller thinks it is.
pub(crate) fn check_home() -> Result<(), RelativeHome> {
    let named = std::env::var_os("ISOBENCH_HOME").map(PathBuf::from);
    match named.filter(|path| path.is_relative() && !path.as_os_str().is_empty()) {
        Some(relative) => Err(RelativeHome(relative)),
        None => Ok(()),
    }
}

/// Where journals may lie, best first.
pub(crate) fn homes() -> Vec<PathBuf> {
    let named = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    // Whoever names one is apart from all that others keep.
    if let Some(home) = named("ISOBENCH_HOME") {
        return vec![home];
    }
    let runtime = named("XDG_RUNTIME_DIR");
    let user = rustix::process::geteuid().as_raw();
    let mut homes: Vec<PathBuf> = runtime.into_iter().map(|path| path.join("isobench")).collect();
    homes.push("/run/isobench".into());
    homes.push(format!("/tmp/isobench-{user}").into());
    homes.dedup();
    homes
}

pub(crate) fn private_directory(path: &Path) -> Result<(), JournalError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => Err(error("make", path, source)),
        _ => check_private(path),
    }
}

/// In a directory that others can write, somebody else could have made ours before us and name what we remove.
pub(crate) fn check_private(path: &Path) -> Result<(), JournalError> {
    let metadata = at("look at", path, path.symlink_metadata())?;
    let own = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
    if own && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(error("trust", path, std::io::Error::other("it is not a directory that only its owner, you, can write")))
}

fn error(operation: &'static str, path: &Path, source: std::io::Error) -> JournalError {
    JournalError { operation, path: path.to_owned(), source }
}

fn at<T>(operation: &'static str, path: &Path, result: std::io::Result<T>) -> Result<T, JournalError> {
    result.map_err(|source| error(operation, path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A journal whose run is dead: the same file, without the lock.
    fn dead_run(home: &Path, objects: &[(Kind, &Path)]) {
        let journal = Journal::open_in(home).unwrap();
        for (kind, path) in objects {
            journal.note(*kind, path).unwrap();
        }
        std::fs::rename(&journal.path, home.join("1-1.journal")).unwrap();
    }

    #[test]
    fn a_live_run_is_left_alone_and_a_dead_one_is_swept() {
        let scratch = tempfile::tempdir().unwrap();
        let home = scratch.path().join("journals");
        let directory = scratch.path().join("isobench-rootfs");
        std::fs::create_dir_all(directory.join("a/b")).unwrap();

        let live = Journal::open_in(&home).unwrap();
        live.note(Kind::Directory, &directory).unwrap();
        assert!(sweep_in(&home, false).is_empty());
        assert!(directory.exists());

        std::fs::rename(&live.path, home.join("1-1.journal")).unwrap();
        drop(live);
        let seen = sweep_in(&home, true);
        assert_eq!((seen.len(), seen[0].run.as_str(), &seen[0].path), (1, "1-1", &directory));
        assert!(directory.exists(), "a dry run only looks");

        assert!(sweep_in(&home, false).iter().all(|leftover| leftover.error.is_none()));
        assert!(!directory.exists());
        assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0, "the journal is gone too");
    }

    #[test]
    fn only_what_is_named_as_ours_is_ever_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let home = scratch.path().join("journals");
        let precious = scratch.path().join("home-of-somebody");
        std::fs::create_dir(&precious).unwrap();
        dead_run(&home, &[(Kind::Directory, &precious), (Kind::Cgroup, &precious)]);
        let swept = sweep_in(&home, false);
        assert!(swept.iter().all(|leftover| leftover.error.is_some()), "{swept:?}");
        assert_eq!(swept.len(), 2);
        assert!(precious.exists());
    }

    #[test]
    fn a_link_is_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let home = scratch.path().join("journals");
        let precious = scratch.path().join("precious");
        std::fs::create_dir_all(precious.join("inside")).unwrap();
        let directory = scratch.path().join("isobench-1");
        std::fs::create_dir(&directory).unwrap();
        std::os::unix::fs::symlink(&precious, directory.join("link")).unwrap();
        dead_run(&home, &[(Kind::Directory, &directory)]);
        sweep_in(&home, false);
        assert!(!directory.exists() && precious.join("inside").exists());
    }

    #[test]
    fn a_half_written_line_and_a_missing_object_are_passed_over() {
        let scratch = tempfile::tempdir().unwrap();
        let home = scratch.path().join("journals");
        dead_run(&home, &[(Kind::Directory, &scratch.path().join("isobench-never-made"))]);
        let mut file = OpenOptions::new().append(true).open(home.join("1-1.journal")).unwrap();
        file.write_all(b"{\"kind\":\"dire").unwrap();
        drop(file);
        assert!(sweep_in(&home, false).is_empty());
        assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0);
    }

    #[test]
    fn a_closed_journal_tells_what_was_left() {
        let scratch = tempfile::tempdir().unwrap();
        let home = scratch.path().join("journals");
        let directory = scratch.path().join("isobench-1");
        let journal = Journal::open_in(&home).unwrap();
        journal.note(Kind::Directory, &directory).unwrap();
        std::fs::create_dir(&directory).unwrap();
        let left = journal.close();
        assert_eq!(left.len(), 1);
        assert!(!directory.exists());
        assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_others_can_write_is_not_trusted() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Journal::open_in(home.path()).is_err());
    }

    #[test]
    fn a_name_tells_whether_its_run_lives() {
        assert_eq!(alive(&own_name().unwrap()), Some(true));
        assert_eq!(alive(&format!("{}-1", std::process::id())), Some(false), "the number was given again");
        assert_eq!(alive(&format!("{}.docker", own_name().unwrap())), Some(true), "a part of it");
        assert_eq!(alive("my-container"), None);
    }
}
