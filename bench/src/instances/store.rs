//! The containers of this host, as directories.

use super::request::Request;
use super::state::{State, Status};
use super::{Kind, attach, control_group, names, processes, refuse};
use crate::json_file::{read, write};
use anyhow::Context;
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file that a supervisor holds a lock on.
pub(super) const LOCK: &str = "lock";

/// What was asked for.
pub(super) const REQUEST: &str = "container.json";

/// How it fares.
pub(super) const STATE: &str = "state.json";

/// The socket on which the supervisor takes orders.
pub(super) const CONTROL: &str = "control";

/// What the container wrote.
const LOG: &str = "log";

/// How the name of a directory begins that is being made, and of one that is being removed.
const NEW: &str = ".new-";
const GONE: &str = ".gone-";

/// The directory in which all containers of this host lie.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    /// The one kind that is looked for.
    kind: Option<Kind>,
}

impl Store {
    /// That of the host in which this process is.
    pub(crate) fn open() -> anyhow::Result<Self> {
        Self::open_in(&crate::home::state()?)
    }

    /// The same where only one kind is meant: the others are not listed, and refused by name.
    pub(crate) fn of(kind: Kind) -> anyhow::Result<Self> {
        Ok(Self { kind: Some(kind), ..Self::open()? })
    }

    fn open_in(state: &Path) -> anyhow::Result<Self> {
        let path = state.join("containers");
        let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(&path);
        made.with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path, kind: None })
    }

    /// Where an ordinary user made this host, it may have no control groups to give: that is said with its first container.
    pub(crate) fn tell_once_without_control_groups(&self) {
        if !crate::testbed::is_rootless().unwrap_or(false) || crate::testbed::cgroups::usable() {
            return;
        }
        let told = OpenOptions::new().write(true).create_new(true).open(self.path.join(".without-control-groups"));
        if told.is_ok() {
            crate::commands::note(
                "this host has no control groups to give: its containers have no limits (`isobench doctor` tells why)",
            );
        }
    }

    /// Makes a container's directory, whole or not at all.
    pub(crate) fn create(&self, name: &str, request: &Request) -> anyhow::Result<Container> {
        let _at_work = at_work(&self.path, FlockOperation::LockShared)?;
        let new = self.path.join(format!("{NEW}{}", request.id));
        let filled = (|| -> anyhow::Result<()> {
            fs::DirBuilder::new().mode(0o700).create(&new)?;
            for layer in ["upper", "work"] {
                // The first is what the container sees as its root.
                fs::DirBuilder::new().mode(0o755).create(new.join(layer))?;
            }
            write(&new.join(REQUEST), request)?;
            write(&new.join(STATE), &State::default())
        })();
        let named =
            filled.with_context(|| format!("make the {} {name} in {}", request.kind().noun(), self.path.display()));
        let named = named.and_then(|()| match rename(&new, &self.path.join(name)) {
            Err(Errno::EXIST) => refuse(self.in_use(name)),
            result => result.with_context(|| format!("name the {} {name}", request.kind().noun())),
        });
        if let Err(error) = named {
            let _ = fs::remove_dir_all(&new);
            return Err(error);
        }
        Ok(Container {
            path: self.path.join(name),
            name: name.to_owned(),
            request: request.clone(),
            state: State::default(),
        })
    }

    /// Why a name cannot be had, and how it could.
    fn in_use(&self, name: &str) -> String {
        let kind = kind_of(&self.path.join(name)).unwrap_or(Kind::Container);
        let (noun, command) = (kind.noun(), kind.command());
        format!("the {noun} name `{name}` is in use: remove it with `isobench {command} rm {name}`, or choose another")
    }

    /// Every instance, the youngest first. What a killed command left half made goes.
    pub(crate) fn list(&self) -> anyhow::Result<Vec<Container>> {
        let entries = fs::read_dir(&self.path).with_context(|| format!("read {}", self.path.display()))?;
        let (mut containers, mut halves) = (Vec::new(), Vec::new());
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(NEW) || name.starts_with(GONE) {
                halves.push(entry.path());
            } else if name.starts_with('.') {
                // The file that tells what has been told.
            } else {
                match self.read(&name) {
                    Ok(Some(container)) if self.kind.is_none_or(|kind| container.request.kind() == kind) => {
                        containers.push(container);
                    }
                    Ok(_) => {}
                    // It is in nobody's way but its own.
                    Err(error) => crate::commands::note(&format!("{error:#}")),
                }
            }
        }
        if !halves.is_empty() && at_work(&self.path, FlockOperation::NonBlockingLockExclusive)?.is_some() {
            for half in halves {
                let _ = fs::remove_dir_all(half);
            }
        }
        containers.sort_by(|one, other| other.request.created.cmp(&one.request.created));
        Ok(containers)
    }

    /// The container of a name, or whose id begins so.
    pub(crate) fn find(&self, reference: &str) -> anyhow::Result<Container> {
        match self.find_if_any(reference)? {
            Some(container) => Ok(container),
            None => refuse(self.absent(reference)),
        }
    }

    /// What is said of one that is not there.
    pub(crate) fn absent(&self, reference: &str) -> String {
        let kind = self.kind.unwrap_or(Kind::Container);
        let (noun, command) = (kind.noun(), kind.command());
        format!("there is no {noun} `{reference}`: `isobench {command} ps -a` lists all")
    }

    /// The same; `None` where there is none.
    pub(crate) fn find_if_any(&self, reference: &str) -> anyhow::Result<Option<Container>> {
        let plain = is_plain(reference);
        if let Some(container) = plain.then(|| self.read(reference)).transpose()?.flatten() {
            let kind = container.request.kind();
            if self.kind.is_some_and(|wanted| wanted != kind) {
                let (noun, command) = (kind.noun(), kind.command());
                return refuse(format!("`{reference}` is a {noun}: `isobench {command}` looks after it"));
            }
            return Ok(Some(container));
        }
        let mut found: Vec<_> = if plain && reference.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let all = self.list()?.into_iter();
            all.filter(|container| container.request.id.starts_with(reference)).collect()
        } else {
            Vec::new()
        };
        if found.len() > 1 {
            let noun = self.kind.unwrap_or(Kind::Container).noun();
            return refuse(format!("more than one {noun}'s id begins with `{reference}`"));
        }
        Ok(found.pop())
    }

    /// Removes what lies under a name and cannot be understood, and ends what runs of it; `false` where there is no such thing.
    pub(crate) fn discard(&self, name: &str) -> anyhow::Result<bool> {
        let path = self.path.join(name);
        let is_whole = || matches!(self.read(name), Ok(Some(_)));
        if !is_plain(name) || !path.is_dir() || is_whole() {
            return Ok(false);
        }
        let state = read_state(&path)?.unwrap_or_default();
        processes::kill(&state.process);
        let lock = match state.process.is_empty() {
            true => lock(&path.join(LOCK))?,
            false => lock_after_end(&path, state.started.as_deref())?,
        };
        let Some(_lock) = lock else {
            return refuse(format!(
                "`{name}` is looked after by a process that cannot be told to end: remove the testbed"
            ));
        };
        // Somebody may have removed it meanwhile, and made a whole one.
        if is_whole() {
            return Ok(false);
        }
        remove_directory(&path).map(|()| true)
    }

    fn read(&self, name: &str) -> anyhow::Result<Option<Container>> {
        let path = self.path.join(name);
        let request = read(&path.join(REQUEST)).with_context(|| {
            let command = self.kind.unwrap_or(Kind::Container).command();
            format!("`{name}` is damaged, `isobench {command} rm -f {name}` removes it")
        })?;
        let Some(request) = request else { return Ok(None) };
        let Some(state) = read_state(&path)? else { return Ok(None) };
        let mut container = Container { path, name: name.to_owned(), request, state };
        if container.state.status.is_alive() && !attach::is_supervised(&container)? {
            // The supervisor has ended: in good order, which is written down by now, or not.
            container.state = read_state(&container.path)?.unwrap_or_default();
            if container.state.status.is_alive() {
                processes::kill(&container.state.process);
                container.state = container.state.killed();
            }
        }
        Ok(Some(container))
    }
}

/// One container.
#[derive(Debug)]
pub(crate) struct Container {
    path: PathBuf,
    /// Its name.
    pub(crate) name: String,
    /// What was asked for.
    pub(crate) request: Request,
    /// How it fares.
    pub(crate) state: State,
}

impl Container {
    /// What it is and its name, as in `container web`.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.request.kind().noun(), self.name)
    }

    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file of what it wrote.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// Takes the lock that its supervisor holds while it lives; `None` where one does.
    pub(crate) fn lock(&self) -> anyhow::Result<Option<File>> {
        lock(&self.path.join(LOCK))
    }

    /// Takes the lock when its supervisor, which is about to end, has done so; `None` where it has been started anew meanwhile.
    pub(crate) fn lock_after_end(&self) -> anyhow::Result<Option<File>> {
        lock_after_end(&self.path, self.state.started.as_deref())
    }

    /// Takes the lock of one that does not run; `None` where a supervisor has it. One whose container has ended is about to end
    /// itself, and so is one that was `killed` itself meanwhile, whatever it came to write down: that end is waited for.
    fn lock_at_rest(&self, killed: bool) -> anyhow::Result<Option<File>> {
        match killed || self.state.status == Status::Exited {
            true => self.lock_after_end(),
            false => self.lock(),
        }
    }

    /// Changes what is asked for at its next start; it must not run. The function is told what it is and its name.
    pub(crate) fn change(&self, how: impl FnOnce(&mut Request, &str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let path = self.path.join(REQUEST);
        let (Some(_lock), Some(mut request)) = (self.lock_at_rest(false)?, read(&path)?) else {
            return refuse(format!("the {} has just been started or removed", self.title()));
        };
        how(&mut request, &self.title())?;
        write(&path, &request)
    }

    /// Gives it another name.
    pub(crate) fn rename(&self, name: &str) -> anyhow::Result<()> {
        match rename(&self.path, &self.path.with_file_name(name)) {
            Err(Errno::EXIST) => refuse(format!("the {} name `{name}` is in use", self.request.kind().noun())),
            result => result.with_context(|| format!("rename the {}", self.title())),
        }
    }

    /// Removes it; it must have ended, or been `killed` by who asks.
    pub(crate) fn remove(&self, killed: bool) -> anyhow::Result<()> {
        let Some(_lock) = self.lock_at_rest(killed)? else {
            if !self.path.exists() {
                // Somebody else has removed it.
                return Ok(());
            }
            let how = if self.state.status == Status::Paused { "paused" } else { "running" };
            return refuse(format!("the {} is {how}: stop it, or remove it with --force", self.title()));
        };
        // A supervisor that was killed has left them, whether or not it came to write them down.
        control_group::clear(&self.request)?;
        remove_directory(&self.path)
    }
}

/// Whether a name can be one of a directory here: what is none is no path either.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains('/')
}

/// How the container in a directory fares. Where that cannot be understood it is one that runs: its supervisor, if it has one, does
/// know, and writes it down anew with the next change; else it has been killed.
fn read_state(path: &Path) -> anyhow::Result<Option<State>> {
    read(&path.join(STATE)).or_else(|error| Ok(Some(State::unknown(format!("{error:#}")))))
}

/// The lock alone does not tell a supervisor that ends from one that has just begun and may go on for days: what it writes down,
/// once it has launched, does.
fn lock_after_end(directory: &Path, started: Option<&str>) -> anyhow::Result<Option<File>> {
    loop {
        if let Some(lock) = lock(&directory.join(LOCK))? {
            return Ok(Some(lock));
        }
        let state = read_state(directory)?;
        if state.is_none_or(|state| state.started.as_deref() != started) {
            return Ok(None);
        }
        // Whoever launches or ends needs milliseconds.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Takes the lock of a container's directory; `None` where somebody has it, or the directory has gone.
pub(super) fn lock(path: &Path) -> anyhow::Result<Option<File>> {
    let file = match OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path) {
        // The directory has gone meanwhile.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.with_context(|| format!("open {}", path.display()))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("lock {}", path.display())),
    }
}

/// Whoever makes or removes a directory in this one holds it shared meanwhile: where it can be had alone, what is half made or
/// half removed was left by a command that was killed. `None` where it cannot.
fn at_work(path: &Path, operation: FlockOperation) -> anyhow::Result<Option<File>> {
    let directory = File::open(path).with_context(|| format!("open {}", path.display()))?;
    match flock(&directory, operation) {
        Ok(()) => Ok(Some(directory)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("hold {}", path.display())),
    }
}

/// Removes a container's directory: its name is free at once.
pub(super) fn remove_directory(path: &Path) -> anyhow::Result<()> {
    let _at_work = path.parent().map(|parent| at_work(parent, FlockOperation::LockShared)).transpose()?;
    let gone = path.with_file_name(format!("{GONE}{}", names::id()));
    rename(path, &gone).with_context(|| format!("remove {}", path.display()))?;
    // The kernel's own directory there is closed to all but root.
    let _ = fs::set_permissions(gone.join("work/work"), fs::Permissions::from_mode(0o700));
    fs::remove_dir_all(&gone).with_context(|| format!("remove {}", gone.display()))
}

fn rename(from: &Path, to: &Path) -> Result<(), Errno> {
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
}

/// What the instance in a directory is; `None` where there is none, or none that can be seen.
pub(crate) fn kind_of(directory: &Path) -> Option<Kind> {
    let request: Option<Request> = read(&directory.join(REQUEST)).ok()?;
    Some(request?.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_supervisor_is_waited_for_and_not_that_of_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let said = |started: &str| State { started: Some(started.into()), ..State::default() };
        write(&path.join(STATE), &said("first")).unwrap();
        let held = lock(&path.join(LOCK)).unwrap().unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| lock_after_end(path, Some("first")).unwrap());
            std::thread::sleep(Duration::from_millis(5));
            assert!(!waits.is_finished());
            drop(held);
            assert!(waits.join().unwrap().is_some());
        });
        let _held = lock(&path.join(LOCK)).unwrap().unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| lock_after_end(path, Some("first")).unwrap());
            write(&path.join(STATE), &said("second")).unwrap();
            assert!(waits.join().unwrap().is_none());
        });
    }

    #[test]
    fn what_is_half_made_goes_once_nobody_is_at_work() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open_in(state.path()).unwrap();
        let half = store.path.join(".new-0123");
        fs::create_dir(&half).unwrap();
        let working = at_work(&store.path, FlockOperation::LockShared).unwrap();
        assert!(store.list().unwrap().is_empty() && half.exists());
        drop(working);
        assert!(store.list().unwrap().is_empty() && !half.exists());
    }
}
