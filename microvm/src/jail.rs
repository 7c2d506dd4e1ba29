//! The jail of a monitor: what a guest that has taken it over would find, which is next to nothing.
//!
//! The monitor enters it by itself, after it has opened all files that it needs and before it starts a thread:
//!
//! 1. **namespaces**: mounts, System V objects, host name and, unless the launcher has given it an empty one, network of its own
//!    ([namespaces(7)](https://man7.org/linux/man-pages/man7/namespaces.7.html)). An ordinary user gets a user namespace with
//!    them, in which nobody has a name. The pid namespace comes from the launcher, since a process can't change its own.
//! 2. **root**: an empty directory that can't be written to takes the place of all mounts
//!    ([pivot_root(2)](https://man7.org/linux/man-pages/man2/pivot_root.2.html)).
//! 3. **identity**: root becomes a user who owns nothing, without any group.
//! 4. **capabilities**: none. The bounding set is left alone: it only counts for a program that is executed, which the filter
//!    forbids, and dropping it would take forty calls.
//! 5. **limits**: no core dump, no more descriptors, no larger files. Not a number of processes, since it counts those of a user,
//!    whom all monitors share: threads are what the filter forbids.
//! 6. **privileges**: none to be gained by any program (`no_new_privs`), and no memory to be read by others of the same user.
//!
//! Then each thread [confines](crate::confinement) itself to a few system calls. Descriptors that were inherited by mistake are
//! closed before the command line is read ([`crate::system::close_inherited`]).
//!
//! What a kernel or a sandbox around the monitor refuses is told, and the guest runs with what there is.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    DumpableBehavior, Signal, chdir, getpid, getppid, kill_process, parent_process_death_signal, pivot_root,
    set_dumpable_behavior, set_parent_process_death_signal,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
use std::io;

/// Who owns nothing, by convention and as the kernel's overflow user.
const NOBODY: u32 = 65534;
/// A directory that every system has, to put the empty one over in the monitor's own view.
const PLACE: &str = "/dev";
/// Descriptors: a guest with all processors and disks that it can have holds fewer.
const MOST_DESCRIPTORS: u64 = 1024;

/// What of the jail depends on the guest and on who starts it.
#[derive(Clone, Copy, Debug)]
pub struct Jail {
    /// Whose network the monitor has.
    pub network: NetworkNamespace,
    /// Is told of each step that was refused.
    pub refused: fn(&Refused),
}

/// Whose network a monitor has. It needs none: its tap is a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkNamespace {
    /// It makes an empty one, which takes about a third of a millisecond.
    Own,
    /// The launcher has put it into an empty one.
    Given,
}

/// A part of the jail that can't be had here.
#[derive(Debug, thiserror::Error)]
#[error("the monitor runs without {what}")]
pub struct Refused {
    /// What is missing.
    what: &'static str,
    /// The cause.
    #[source]
    source: io::Error,
}

impl Jail {
    /// Shuts the calling process in, for good. It must have one thread; no file can be opened from here on. `largest_file` is how
    /// large a file it may write, in bytes; without limit where `None`.
    pub fn enter(&self, largest_file: Option<u64>) {
        let told =
            |what, result: io::Result<()>| result.map_err(|source| (self.refused)(&Refused { what, source })).is_ok();
        // Without mounts of its own, the root is the machine's.
        if told("namespaces of its own", namespaces(self.network)) {
            told("an empty root directory", empty_root());
        }
        told(
            "its end tied to its launcher's",
            tied(|| {
                told("an identity that owns nothing", drop_identity());
                told("its capabilities dropped", drop_capabilities());
            }),
        );
        told("limits of its resources", limit_resources(largest_file));
        told("its privileges refused", refuse_privileges());
    }
}

fn namespaces(network: NetworkNamespace) -> io::Result<()> {
    let mut wanted = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    if network == NetworkNamespace::Own {
        wanted |= CloneFlags::CLONE_NEWNET;
    }
    match unshare(wanted) {
        // An ordinary user: as somebody who may in a user namespace of his own.
        Err(nix::Error::EPERM) => unshare(wanted | CloneFlags::CLONE_NEWUSER)?,
        other => other?,
    }
    Ok(())
}

fn empty_root() -> io::Result<()> {
    let none: Option<&str> = None;
    // What happens here is nobody else's business (mount_namespaces(7)), and the root can only then be changed.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("none"), PLACE, Some("tmpfs"), flags, Some("size=4k,nr_inodes=1,mode=555"))?;
    chdir(PLACE)?;
    // The old root lies over the new one afterwards, so that it needs no directory there and is what the next call detaches.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(chdir("/")?)
}

/// Has the kernel kill the calling process when the thread that started it ends
/// ([PR_SET_PDEATHSIG](https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html)); [`Jail::enter`] keeps it so.
///
/// # Errors
/// Where the kernel refuses, or whoever reads the standard output has ended before: in a pid namespace of its own nothing else tells
/// a process whether its parent is still there.
pub fn die_with_parent() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let output = std::io::stdout();
    let mut reader = [PollFd::new(&output, PollFlags::empty())];
    poll(&mut reader, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    if reader[0].revents().contains(PollFlags::ERR) {
        return Err(io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads the standard output any more"));
    }
    Ok(())
}

/// Keeps the signal that comes when the launcher ends, which the kernel forgets when an identity is changed
/// ([PR_SET_PDEATHSIG](https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html)).
fn tied(change: impl FnOnce()) -> io::Result<()> {
    let (signal, launcher) = (parent_process_death_signal()?, getppid());
    change();
    if let Some(signal) = signal {
        set_parent_process_death_signal(Some(signal))?;
        if getppid() != launcher {
            // It has ended meanwhile, so that the signal has come to nobody.
            kill_process(getpid(), signal)?;
        }
    }
    Ok(())
}

fn drop_identity() -> io::Result<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    let dropped =
        setgroups(&[]).and_then(|()| setresgid(group, group, group)).and_then(|()| setresuid(user, user, user));
    // Where the user namespace knows no such user, root is an ordinary user under another name: he gives up what he is there for
    // a namespace in which he is nobody.
    Ok(dropped.or_else(|_| unshare(CloneFlags::CLONE_NEWUSER))?)
}

fn drop_capabilities() -> io::Result<()> {
    let none = CapabilitySet::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?)
}

fn limit_resources(largest_file: Option<u64>) -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    for (resource, most) in [(Resource::RLIMIT_NOFILE, Some(MOST_DESCRIPTORS)), (Resource::RLIMIT_FSIZE, largest_file)]
    {
        if let Some(most) = most {
            // Whoever has no capabilities cannot have more than he was given.
            let (_, given) = getrlimit(resource)?;
            setrlimit(resource, most.min(given), most.min(given))?;
        }
    }
    Ok(())
}

fn refuse_privileges() -> io::Result<()> {
    set_no_new_privs(true)?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
