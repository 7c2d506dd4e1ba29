//! The commands, each a function.

use super::configuration::{self, Configured};
use super::state::{Answer, Found, Place, Record, Status, start_time};
use crate::cgroup::{self, Cgroup, Cgroups, Limits};
use crate::error::Error;
use crate::launch::launch;
use crate::plan::Plan;
use crate::specification::Specification;
use isobench_workload::Process;
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a killed container may take to disappear.
const DEADLINE: Duration = Duration::from_secs(10);

/// Runs a container to its end; the result is its exit code.
pub fn run(id: &str, bundle: &Path) -> Result<i32, Error> {
    let signals = block_signals()?;
    let place = Place::create(id)?;
    let result = run_in(&place, id, bundle, &signals);
    let removed = place.remove();
    let code = result?;
    removed.map(|()| code)
}

fn run_in(place: &Place, id: &str, bundle: &Path, signals: &SignalFd) -> Result<i32, Error> {
    let (specification, cgroup) = prepare(id, configuration::read(bundle)?)?;
    let mut process = launch(Plan::validate(specification)?)?.process;
    place.write(&record(id, bundle, process.pid(), cgroup.as_deref()))?;
    let code = forward_signals(&mut process, signals)?;
    if let Some(cgroup) = cgroup.and_then(Arc::into_inner) {
        cgroup.remove(DEADLINE)?;
    }
    Ok(code)
}

/// Makes a container that waits to be started.
pub fn create(id: &str, bundle: &Path, pid_file: Option<&Path>) -> Result<(), Error> {
    let place = Place::create(id)?;
    create_in(&place, id, bundle, pid_file).inspect_err(|_| drop(place.remove()))
}

fn create_in(place: &Place, id: &str, bundle: &Path, pid_file: Option<&Path>) -> Result<(), Error> {
    let (mut specification, cgroup) = prepare(id, configuration::read(bundle)?)?;
    let fifo = place.start_fifo();
    let named = || fifo.display().to_string();
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .map_err(Error::system("make", named()))?;
    // Open for both, so that opening does not wait and the end of the starter is no end of file.
    let opened = rustix::fs::open(&fifo, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    specification.start_order = Some(opened.map_err(Error::system("open", named()))?);
    let process = launch(Plan::validate(specification)?)?.process;
    let noted = place.write(&record(id, bundle, process.pid(), cgroup.as_deref())).and_then(|()| {
        let Some(path) = pid_file else { return Ok(()) };
        std::fs::write(path, process.pid().to_string()).map_err(Error::io("write", path.display().to_string()))
    });
    if noted.is_ok() {
        // The container outlives this command.
        std::mem::forget(process);
        return noted;
    }
    drop(process);
    // The plan of a container that waits is never freed (`launch`), and keeps its group with it: it has to go by its paths.
    for path in cgroup.iter().flat_map(|cgroup| cgroup.paths()) {
        let _ = cgroup::end_tree(path, DEADLINE);
    }
    noted
}

/// Starts a container that was created.
pub fn start(id: &str) -> Result<(), Error> {
    let (place, record) = Place::find(id)?;
    match place.status(&record) {
        Status::Created => {}
        Status::Running => return Err(Error::invalid(format!("the container {id}"), "has been started already")),
        Status::Stopped => return Err(Error::invalid(format!("the container {id}"), "has ended: delete it")),
    }
    let fifo = place.start_fifo();
    let named = || fifo.display().to_string();
    let opened = rustix::fs::open(&fifo, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    let order = opened.map_err(Error::system("open", named()))?;
    rustix::io::write(&order, b"0").map_err(Error::system("write to", named()))?;
    std::fs::remove_file(&fifo).map_err(Error::io("remove", named()))
}

/// Prints the state of a container.
pub fn state(id: &str) -> Result<String, Error> {
    let (place, record) = Place::find(id)?;
    let status = place.status(&record);
    let pid = if status == Status::Stopped { 0 } else { record.pid };
    let answer = Answer { oci_version: "1.2.0", id, status, pid, bundle: &record.bundle };
    serde_json::to_string_pretty(&answer).map_err(|error| Error::invalid("the state", error.to_string()))
}

/// Sends a signal to a container's first process.
pub fn kill(id: &str, signal: &str) -> Result<(), Error> {
    let signal = parse_signal(signal)?;
    let (_, record) = Place::find(id)?;
    match hold(&record) {
        Some(pidfd) => pidfd_send_signal(&pidfd, signal).map_err(Error::system("signal container", id)),
        None => Err(Error::invalid(format!("the container {id}"), "is not running")),
    }
}

/// Removes what is left of a container; with `force` it is killed first.
pub fn delete(id: &str, force: bool) -> Result<(), Error> {
    let (place, record) = match Place::look(id)? {
        (place, Found::Recorded(record)) => (place, record),
        (place, Found::Abandoned) => {
            // Where the record does not tell, it is the default group, and what is in it waits for a start that never comes.
            let cgroups = Cgroups::discover().map(|cgroups| cgroups.paths(id)).unwrap_or_default();
            cgroups.iter().try_for_each(|path| cgroup::end_tree(path, DEADLINE))?;
            return place.remove();
        }
    };
    if let Some(pidfd) = hold(&record) {
        if !force {
            return Err(Error::invalid(
                format!("the container {id}"),
                "has not ended: kill it, or delete it with --force",
            ));
        }
        pidfd_send_signal(&pidfd, Signal::KILL).map_err(Error::system("kill container", id))?;
        // Readable when the process has ended.
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).map_err(Error::system("wait for container", id))?;
    }
    for path in &record.cgroups {
        cgroup::remove_tree(path, DEADLINE)?;
    }
    place.remove()
}

/// Makes the cgroup. Root always has one; an ordinary user needs one only for limits, and is told where there is none.
fn prepare(id: &str, configured: Configured) -> Result<(Specification, Option<Arc<Cgroup>>), Error> {
    let path = configured.cgroup_path.clone().unwrap_or_else(|| format!("{}/{id}", cgroup::PARENT));
    let path = path.trim_matches('/');
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let made = Cgroups::discover_under(parent).and_then(|cgroups| cgroups.create(name, &configured.limits));
    match made {
        Ok(cgroup) => {
            let cgroup = Arc::new(cgroup);
            Ok((configured.with_cgroup(&cgroup), Some(cgroup)))
        }
        Err(_) if !rustix::process::geteuid().is_root() && configured.limits == Limits::default() => {
            Ok((configured.specification, None))
        }
        Err(error) => Err(error),
    }
}

fn record(id: &str, bundle: &Path, pid: i32, cgroup: Option<&Cgroup>) -> Record {
    Record {
        id: id.into(),
        pid,
        start_time: start_time(pid).map_or(0, |(time, _)| time),
        bundle: bundle.canonicalize().unwrap_or_else(|_| bundle.into()),
        cgroups: cgroup.map(|cgroup| cgroup.paths().map(Path::to_path_buf).collect()).unwrap_or_default(),
    }
}

/// A container's process, if it is still the one that was recorded.
fn hold(record: &Record) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(record.pid)?, PidfdFlags::empty()).ok()?;
    // Looked at after it is held, so that the number cannot change its meaning in between.
    matches!(start_time(record.pid), Some((time, true)) if time == record.start_time).then_some(pidfd)
}

fn parse_signal(text: &str) -> Result<Signal, Error> {
    let name = text.trim_start_matches("SIG");
    let number = name.parse::<i32>().ok().or_else(|| {
        let named: nix::sys::signal::Signal = format!("SIG{name}").parse().ok()?;
        Some(named as i32)
    });
    number
        .and_then(Signal::from_named_raw)
        .ok_or_else(|| Error::invalid(format!("the signal `{text}`"), "is not known"))
}

/// Takes the signals that ask this command to end; they will be the container's.
fn block_signals() -> Result<SignalFd, Error> {
    use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    let mut set = SigSet::empty();
    [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2].into_iter().for_each(|signal| set.add(signal));
    let failed = |errno| Error::system("take over", "signals")(Errno::from_raw_os_error(errno as i32));
    set.thread_block().map_err(failed)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)
}

/// Waits for the container's end and hands signals on to it meanwhile.
fn forward_signals(process: &mut Process, signals: &SignalFd) -> Result<i32, Error> {
    loop {
        let pidfd = process.pidfd();
        let mut waited = [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        match poll(&mut waited, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::system("wait for", "the container")(errno)),
        }
        if !waited[0].revents().is_empty() {
            return Ok(process.wait(DEADLINE)?.code());
        }
        while let Ok(Some(received)) = signals.read_signal() {
            if let Some(signal) = Signal::from_named_raw(received.ssi_signo as i32) {
                process.signal(signal)?;
            }
        }
    }
}
