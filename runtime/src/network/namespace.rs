//! A network namespace ([network_namespaces(7)](https://man7.org/linux/man-pages/man7/network_namespaces.7.html)).

use super::NetworkError;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces};
use std::sync::Arc;
use std::thread;

/// A network namespace, kept alive by a descriptor. It has no name and no mount: when the last descriptor, process and
/// socket in it are gone, the kernel takes it down with every link, address, route and rule that it has.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// The calling thread's own.
    pub fn current() -> Result<Self, NetworkError> {
        Self::open("/proc/thread-self/ns/net".into())
    }

    /// That of a process. The caller must know that the process is not reaped yet (its own child, for instance).
    pub fn of_process(process: Pid) -> Result<Self, NetworkError> {
        Self::open(format!("/proc/{}/ns/net", process.as_raw_nonzero()))
    }

    /// That of the process held by a pidfd, however it fares.
    pub fn of_pidfd(pidfd: BorrowedFd<'_>) -> Result<Self, NetworkError> {
        on_own_thread(|| {
            move_into_thread_name_spaces(pidfd, ThreadNameSpaceType::NETWORK)
                .map_err(|source| NetworkError::system("enter", "the network namespace of a process", source))?;
            Self::current()
        })
    }

    /// A fresh one, empty but for a loopback link that is down.
    pub fn create() -> Result<Self, NetworkError> {
        on_own_thread(Self::of_a_thread)
    }

    /// One of the calling thread's own, in which it stays.
    fn of_a_thread() -> Result<Self, NetworkError> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(|source| {
            NetworkError::system("create", "a network namespace", Errno::from_raw_os_error(source as i32))
        })?;
        Self::current()
    }

    /// Runs something inside: at once where the caller is there already, else on a thread of its own, which ends with it.
    /// No way out of `work`, be it an early return or a panic, can leave the caller in the wrong namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetworkError> {
        if self.same(&Self::current()?)? {
            return Ok(work());
        }
        on_own_thread(|| {
            self.go_there()?;
            Ok(work())
        })
    }

    /// Takes the calling thread there.
    fn go_there(&self) -> Result<(), NetworkError> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|source| NetworkError::system("enter", "a network namespace", source))
    }

    /// Whether both are one namespace: the same inode of the same nsfs
    /// ([namespaces(7)](https://man7.org/linux/man-pages/man7/namespaces.7.html)).
    pub fn same(&self, other: &Self) -> Result<bool, NetworkError> {
        Ok(self.identity()? == other.identity()?)
    }

    /// Device and inode, which tell a namespace from every other that lives at the same time.
    pub fn identity(&self) -> Result<(u64, u64), NetworkError> {
        let stat = fstat(&self.0).map_err(|source| NetworkError::system("look at", "a network namespace", source))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Another descriptor of it.
    pub fn duplicate(&self) -> Result<Self, NetworkError> {
        self.0.try_clone().map(Self).map_err(NetworkError::io("duplicate", "a network namespace"))
    }

    fn open(path: String) -> Result<Self, NetworkError> {
        match open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(descriptor) => Ok(Self(descriptor)),
            Err(source) => Err(NetworkError::system("open", path, source)),
        }
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Namespace> for OwnedFd {
    fn from(namespace: Namespace) -> Self {
        namespace.0
    }
}

/// A fresh network namespace for a container that is yet to be launched
/// ([`NetworkMode::Awaited`](crate::NetworkMode::Awaited)), with a socket that was opened in it.
///
/// Making it is a fifth of a launch on a bridge, and needs nothing that is known about the container.
#[derive(Debug)]
pub struct EmptyNamespace {
    pub(crate) descriptor: Arc<OwnedFd>,
    /// Of `NETLINK_ROUTE`: through it the inside is configured by somebody who is not there.
    pub(crate) socket: OwnedFd,
}

impl EmptyNamespace {
    /// Makes one; the caller stays where it is.
    ///
    /// # Errors
    /// What the kernel refused; nothing is left then.
    pub fn create() -> Result<Self, NetworkError> {
        on_own_thread(Self::of_a_thread)
    }

    /// Makes one on the calling thread, which goes there and comes back: for a thread that ends where this fails, and so needs no
    /// other beside it.
    ///
    /// # Errors
    /// As [`EmptyNamespace::create`]; the thread may then be in the namespace still.
    pub fn create_and_return() -> Result<Self, NetworkError> {
        let here = Namespace::current()?;
        let made = Self::of_a_thread()?;
        here.go_there()?;
        Ok(made)
    }

    /// The namespace.
    pub fn descriptor(&self) -> &Arc<OwnedFd> {
        &self.descriptor
    }

    /// One of the calling thread's own, in which it stays.
    fn of_a_thread() -> Result<Self, NetworkError> {
        let Namespace(descriptor) = Namespace::of_a_thread()?;
        // Protocol 0 is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .map_err(|source| NetworkError::system("open", "a netlink socket", source))?;
        Ok(Self { descriptor: Arc::new(descriptor), socket })
    }
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T, NetworkError> + Send) -> Result<T, NetworkError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("network namespace".into()).spawn_scoped(scope, work);
        let thread = thread.map_err(NetworkError::io("start", "a thread for a network namespace"))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
