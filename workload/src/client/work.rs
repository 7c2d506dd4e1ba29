//! The client's side of [`crate::work`].

use super::{open, receive};
use crate::clock;
use crate::protocol::{Malformed, Operation};
use crate::work::{Refusal, Report, Rounds, Task};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A server that has prepared a task for this client.
#[derive(Debug)]
pub struct Worker {
    stream: TcpStream,
    server: SocketAddr,
    prepared: u64,
}

/// What some rounds came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worked {
    /// What came out, which is the same wherever the same task and rounds are done.
    pub value: u64,
    /// From the order until the answer by this side's monotonic clock, in nanoseconds: a round trip is part of it.
    pub nanoseconds: u64,
    /// How long it took by the server's own clock, in nanoseconds. A guest's may lie.
    pub inside: u64,
}

/// Why work was not done.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The connection failed.
    #[error("work on {server}: {what}")]
    Connection {
        /// The server.
        server: SocketAddr,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// What came is no report.
    #[error("work on {server}")]
    Malformed {
        /// The server.
        server: SocketAddr,
        /// What came.
        #[source]
        source: Malformed,
    },
    /// The report is not about what was ordered.
    #[error("work on {0}: the server reported out of turn")]
    OutOfTurn(SocketAddr),
    /// The server does not do it.
    #[error("work on {server}")]
    Refused {
        /// The server.
        server: SocketAddr,
        /// Why.
        #[source]
        refusal: Refusal,
    },
}

impl Worker {
    /// Has a server prepare a task.
    ///
    /// # Errors
    /// Where the server is not reached, does not answer in time, or refuses.
    pub fn begin(server: SocketAddr, task: &Task, deadline: Duration) -> Result<Self, WorkError> {
        let failed = |what| move |source| WorkError::Connection { server, what, source };
        let mut stream = open(server, deadline, Operation::Work).map_err(failed("connect"))?;
        stream.write_all(&task.encode()).map_err(failed("send the task"))?;
        let mut worker = Self { stream, server, prepared: 0 };
        match worker.report()? {
            Report::Prepared { value } => Ok(Self { prepared: value, ..worker }),
            _ => Err(WorkError::OutOfTurn(server)),
        }
    }

    /// What [`Report::Prepared`] told.
    pub fn prepared(&self) -> u64 {
        self.prepared
    }

    /// Has so many rounds done and waits until they are.
    ///
    /// # Errors
    /// As [`Worker::begin`].
    pub fn work(&mut self, rounds: u64) -> Result<Worked, WorkError> {
        let server = self.server;
        let begun = clock::now();
        let sent = self.stream.write_all(&Rounds(rounds).encode());
        sent.map_err(|source| WorkError::Connection { server, what: "send the order", source })?;
        match self.report()? {
            Report::Done { value, nanoseconds: inside } => {
                Ok(Worked { value, nanoseconds: clock::now() - begun, inside })
            }
            _ => Err(WorkError::OutOfTurn(server)),
        }
    }

    #[cfg(test)]
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    fn report(&mut self) -> Result<Report, WorkError> {
        let server = self.server;
        let mut bytes = [0; Report::SIZE];
        receive(&mut self.stream, &mut bytes).map_err(|source| WorkError::Connection {
            server,
            what: "wait for the report",
            source,
        })?;
        match Report::decode(&bytes) {
            Ok(Report::Refused(refusal)) => Err(WorkError::Refused { server, refusal }),
            Ok(report) => Ok(report),
            Err(source) => Err(WorkError::Malformed { server, source }),
        }
    }
}
