//! The namespaces that a monitor gets from whoever launches it: one for process numbers, since no process can change its own, and
//! an empty network that all monitors of a launcher share, since making one would take a tenth of a launch. What they share has no
//! link and no socket: the monitors' filters let none be made.

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io;
use std::process::{Child, Command};

/// Where a thread's namespaces are: the launching thread's may differ from its process's.
const NETWORK: &str = "/proc/thread-self/ns/net";
const PROCESSES: &str = "/proc/thread-self/ns/pid";

/// A monitor that is to be started, enclosed or not.
pub(crate) struct Monitor<'e> {
    pub(crate) command: Command,
    pub(crate) enclosure: Option<&'e Enclosure>,
    /// Whether it is killed when the calling thread ends.
    pub(crate) tied: bool,
}

impl Monitor<'_> {
    /// Starts it, and tells it what it has.
    pub(crate) fn spawn(&mut self) -> io::Result<Child> {
        if self.tied {
            // It asks for that itself: a step between fork and exec would cost the launch more, since std then copies the process.
            self.command.args(["--dies-with-parent", "on"]);
        }
        match self.enclosure {
            Some(enclosure) => enclosure.spawn(self.command.args(["--network-namespace", "given"])),
            None => self.command.spawn(),
        }
    }
}

/// An empty network, and a way to start processes in it, each in a pid namespace of its own.
#[derive(Debug)]
pub(crate) struct Enclosure(File);

impl Enclosure {
    /// Makes the empty network. This takes the right to make namespaces: root has it, also in a user namespace.
    pub(crate) fn new() -> io::Result<Self> {
        let home = File::open(NETWORK)?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        let empty = File::open(NETWORK);
        setns(&home, CloneFlags::CLONE_NEWNET)?;
        empty.map(Self)
    }

    /// Starts the command as process 1 of a new pid namespace, in the empty network. The calling thread stays where it is.
    fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let (network, processes) = (File::open(NETWORK)?, File::open(PROCESSES)?);
        setns(&self.0, CloneFlags::CLONE_NEWNET)?;
        let child = unshare(CloneFlags::CLONE_NEWPID).map_err(io::Error::from).and_then(|()| command.spawn());
        // Both, whatever happened: the thread must not stay behind.
        let returned = setns(&processes, CloneFlags::CLONE_NEWPID).and(setns(&network, CloneFlags::CLONE_NEWNET));
        match (child, returned) {
            (Ok(child), Ok(())) => Ok(child),
            (Err(error), _) => Err(error),
            (Ok(mut child), Err(error)) => {
                // It ends with the instance that it would have become.
                let _ = child.kill().and_then(|()| child.wait());
                Err(error.into())
            }
        }
    }
}
