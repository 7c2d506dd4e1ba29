//! A child process held by its pidfd.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use std::time::Duration;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It ended by itself with this status.
    Status(i32),
    /// It was ended by this signal.
    Signal(i32),
}

impl Exit {
    /// The status as a shell would give it: 128 + signal for a signalled process.
    pub fn code(self) -> i32 {
        match self {
            Self::Status(status) => status,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Why a process could not be watched, signalled or reaped.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// A system call on the process failed.
    #[error("{operation} process {pid}")]
    System {
        /// The operation.
        operation: &'static str,
        /// The process.
        pid: i32,
        /// The cause.
        #[source]
        source: rustix::io::Errno,
    },
    /// It did not end in time.
    #[error("process {pid} did not end within {waited:?}")]
    Deadline {
        /// The process.
        pid: i32,
        /// How long was waited.
        waited: Duration,
    },
}

/// A child of this process. Dropping it kills and reaps it, so that no error path leaves one behind.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    exit: Option<Exit>,
}

impl Process {
    /// Takes over a child that is not reaped by anything else, by number.
    pub fn from_child(pid: u32) -> Result<Self, ProcessError> {
        let pid = Pid::from_raw(pid as i32).ok_or(ProcessError::System {
            operation: "open",
            pid: pid as i32,
            source: rustix::io::Errno::SRCH,
        })?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|source| ProcessError::System {
            operation: "open pidfd of",
            pid: pid.as_raw_nonzero().get(),
            source,
        })?;
        Ok(Self { pid, pidfd, exit: None })
    }

    /// Takes over a child whose pidfd came with its creation (clone3 with `CLONE_PIDFD`).
    pub fn from_pidfd(pid: Pid, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd, exit: None }
    }

    /// The process's number in this process's pid namespace.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// The pidfd: readable when the process has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends a signal; a process that has ended already is no error.
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        if self.exit.is_some() {
            return Ok(());
        }
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(source) => Err(ProcessError::System { operation: "signal", pid: self.pid(), source }),
        }
    }

    /// Waits until the process ends, at most so long, and reaps it. Asking again gives the same answer.
    pub fn wait(&mut self, deadline: Duration) -> Result<Exit, ProcessError> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let pid = self.pid();
        let failed = |operation, source| ProcessError::System { operation, pid, source };
        let timeout = Timespec { tv_sec: deadline.as_secs() as i64, tv_nsec: deadline.subsec_nanos().into() };
        let ready = loop {
            let mut waited = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match poll(&mut waited, Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.map_err(|source| failed("wait for", source))?,
            }
        };
        if ready == 0 {
            return Err(ProcessError::Deadline { pid, waited: deadline });
        }
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)
            .map_err(|source| failed("reap", source))?;
        let exit = match status {
            Some(status) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Status(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Status(-1),
            },
            None => Exit::Status(-1),
        };
        self.exit = Some(exit);
        Ok(exit)
    }

    /// Whether the process has been reaped, and how it ended.
    pub fn exit(&self) -> Option<Exit> {
        self.exit
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit.is_none() {
            let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
            let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        }
    }
}
