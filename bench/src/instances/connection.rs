//! Whoever talks to a supervisor.

use super::protocol::{self, Answer, Frame, Kind};
use anyhow::Context;
use rustix::event::PollFlags;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

/// With so much that was not taken yet, nothing more is read for a connection.
const ENOUGH: usize = 256 << 10;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It has not said yet.
    New,
    /// It takes part in the container's streams.
    Attached {
        /// Whether what it sends is the container's input.
        input: bool,
        /// Whether it is sent what the container writes.
        output: bool,
    },
    /// It takes part in those of a further process, by its number.
    Executing(u64),
    /// It has its answer.
    Answered,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    socket: UnixStream,
    received: Vec<u8>,
    outgoing: Vec<u8>,
    /// What it is for.
    pub(super) role: Role,
    /// Whether the other side is gone.
    pub(super) gone: bool,
    /// Whether the other side said that it goes on purpose.
    pub(super) detached: bool,
}

impl Connection {
    pub(super) fn new(socket: UnixStream) -> anyhow::Result<Self> {
        socket.set_nonblocking(true).context("make a connection non-blocking")?;
        let (received, outgoing) = (Vec::new(), Vec::new());
        Ok(Self { socket, received, outgoing, role: Role::New, gone: false, detached: false })
    }

    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// What is to be waited for.
    pub(super) fn interest(&self, read: bool) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, read);
        flags.set(PollFlags::OUT, !self.outgoing.is_empty());
        flags
    }

    /// Whether it has taken nearly all that it was sent.
    pub(super) fn keeps_up(&self) -> bool {
        self.outgoing.len() < ENOUGH
    }

    /// Whether all that it was sent has gone out.
    pub(super) fn is_flushed(&self) -> bool {
        self.gone || self.outgoing.is_empty()
    }

    /// Sends bytes.
    pub(super) fn send(&mut self, kind: Kind, bytes: &[u8]) {
        protocol::encode(kind, bytes, &mut self.outgoing);
        self.flush();
    }

    /// Sends an answer.
    pub(super) fn answer(&mut self, answer: &Answer) {
        Frame::of(Kind::Answer, answer).encode(&mut self.outgoing);
        self.flush();
    }

    /// Sends an exit code.
    pub(super) fn end(&mut self, code: i32) {
        Frame::number(Kind::Ended, code).encode(&mut self.outgoing);
        self.flush();
        self.role = Role::Answered;
    }

    /// Sends as much as the other side takes now.
    pub(super) fn flush(&mut self) {
        while !self.outgoing.is_empty() && !self.gone {
            match self.socket.write(&self.outgoing) {
                Ok(written) => drop(self.outgoing.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.gone = true,
            }
        }
    }

    /// Receives what is there and gives the complete frames.
    pub(super) fn receive(&mut self) -> Vec<Frame> {
        let mut buffer = [0_u8; 16 << 10];
        match self.socket.read(&mut buffer) {
            Ok(0) => self.gone = true,
            Ok(read) => self.received.extend_from_slice(&buffer[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.gone = true,
        }
        let mut frames = Vec::new();
        loop {
            match Frame::take(&mut self.received) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return frames,
                // Whoever sends something else is no command of ours.
                Err(_) => {
                    self.gone = true;
                    return frames;
                }
            }
        }
    }
}
