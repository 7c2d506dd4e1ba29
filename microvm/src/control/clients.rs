//! Those who are connected: lines come from them, and lines go to them. None can hold up another, or have more kept for it than its bounds.

use super::protocol::LONGEST_REQUEST;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, accept_with, recvmsg, send,
};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

/// Connections at one time. Of more, the one that has been quiet for longest is closed.
const MOST_CONNECTIONS: usize = 16;
/// Descriptors that may come with a request.
pub(super) const MOST_DESCRIPTORS: usize = 8;
/// What is read at once, in bytes.
const PART: usize = 4096;
/// How long nobody is accepted where there is no descriptor for anybody: the socket says all the while that somebody is there.
const PAUSE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Which connection a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientNumber(u64);

/// A line, and the descriptors that came with it.
#[derive(Debug)]
pub struct Received {
    /// From whom.
    pub client: ClientNumber,
    /// Without its end; `None` where it is longer than it may be.
    pub line: Option<Vec<u8>>,
    /// The descriptors, in their order.
    pub descriptors: Vec<OwnedFd>,
}

/// A socket on which clients come, and those who have.
#[derive(Debug)]
pub struct Clients {
    listener: UnixListener,
    /// The one that was quiet for longest comes first.
    connections: Vec<Connection>,
    number: u64,
    /// Whether there was no descriptor left for whoever came last.
    exhausted: bool,
}

#[derive(Debug)]
struct Connection {
    number: ClientNumber,
    stream: UnixStream,
    received: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// Whether the rest of a line that is too long is still to come.
    skipping: bool,
    /// Whether nothing more comes.
    ended: bool,
}

impl Clients {
    /// Nobody yet.
    ///
    /// # Errors
    /// Where the socket cannot be set not to wait for somebody who has gone again.
    pub fn new(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener, connections: Vec::new(), number: 0, exhausted: false })
    }

    /// Waits for the next line; `None` once `stop` can be read from.
    ///
    /// # Errors
    /// Where it cannot wait (poll(2)).
    pub fn next(&mut self, stop: Option<BorrowedFd<'_>>) -> io::Result<Option<Received>> {
        loop {
            if let Some(received) = self.take_line() {
                return Ok(Some(received));
            }
            self.connections.retain(|connection| !connection.ended);
            let mut waited: Vec<PollFd<'_>> =
                self.connections.iter().map(|connection| PollFd::new(&connection.stream, PollFlags::IN)).collect();
            let accepting = if self.exhausted { PollFlags::empty() } else { PollFlags::IN };
            waited.push(PollFd::new(&self.listener, accepting));
            let patience = std::mem::take(&mut self.exhausted).then_some(&PAUSE);
            waited.extend(stop.map(|stop| PollFd::from_borrowed_fd(stop, PollFlags::IN)));
            match poll(&mut waited, patience) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            let ready: Vec<bool> = waited.iter().map(|each| !each.revents().is_empty()).collect();
            let count = self.connections.len();
            if ready.get(count + 1).copied().unwrap_or(false) {
                return Ok(None);
            }
            for (connection, _) in self.connections.iter_mut().zip(&ready).filter(|(_, ready)| **ready) {
                connection.receive();
            }
            if ready[count] {
                self.accept();
            }
        }
    }

    /// Somebody who has come may be gone again. Where there are no descriptors left, the one that has been quiet for longest makes room.
    fn accept(&mut self) {
        let stream = match accept_with(&self.listener, SocketFlags::CLOEXEC) {
            Ok(stream) => stream,
            Err(Errno::MFILE | Errno::NFILE) => {
                self.exhausted = self.connections.is_empty();
                self.close_quietest();
                return;
            }
            Err(_) => return,
        };
        if self.connections.len() == MOST_CONNECTIONS {
            self.close_quietest();
        }
        self.number += 1;
        self.connections.push(Connection {
            number: ClientNumber(self.number),
            stream: stream.into(),
            received: Vec::new(),
            descriptors: Vec::new(),
            skipping: false,
            ended: false,
        });
    }

    fn close_quietest(&mut self) {
        self.connections.drain(..self.connections.len().min(1));
    }

    fn take_line(&mut self) -> Option<Received> {
        let place = self.connections.iter().position(Connection::has_line)?;
        let mut connection = self.connections.remove(place);
        let (client, line) = (connection.number, connection.line());
        let descriptors = std::mem::take(&mut connection.descriptors);
        self.connections.push(connection);
        Some(Received { client, line, descriptors })
    }

    /// Sends an answer; whether the client has it. One that does not read what it asked for is closed.
    pub fn answer(&mut self, client: ClientNumber, line: &str) -> bool {
        let Some(place) = self.connections.iter().position(|connection| connection.number == client) else {
            return false;
        };
        let sent = send_line(&self.connections[place].stream, line);
        if !sent {
            self.connections.remove(place);
        }
        sent
    }

    /// A further handle on a connection, by which a line can be sent when these clients are somebody else's.
    ///
    /// # Errors
    /// Where it is gone, or there are no descriptors left.
    pub fn handle(&self, client: ClientNumber) -> io::Result<UnixStream> {
        let connection = self.connections.iter().find(|connection| connection.number == client);
        connection.ok_or(io::ErrorKind::NotConnected)?.stream.try_clone()
    }
}

/// Sends a line whole and at once; whether that went well.
pub(super) fn send_line(stream: &UnixStream, line: &str) -> bool {
    let sent = send(stream, line.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    sent.is_ok_and(|sent| sent == line.len())
}

impl Connection {
    /// Takes in what has come.
    fn receive(&mut self) {
        let mut part = [0; PART];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = match recvmsg(&self.stream, &mut [IoSliceMut::new(&mut part)], &mut ancillary, flags) {
            Ok(received) => received.bytes,
            Err(Errno::INTR | Errno::AGAIN) => return,
            Err(_) => 0,
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                self.descriptors.extend(rights);
            }
        }
        // What comes beyond what there may be is closed again.
        self.descriptors.truncate(MOST_DESCRIPTORS);
        self.ended = received == 0;
        let mut bytes = &part[..received];
        if self.skipping {
            let Some(end) = memchr::memchr(b'\n', bytes) else { return };
            self.skipping = false;
            bytes = &bytes[end + 1..];
        }
        self.received.extend(bytes);
    }

    /// A line without an end is one where nothing more comes.
    fn has_line(&self) -> bool {
        memchr::memchr(b'\n', &self.received).is_some()
            || self.received.len() >= LONGEST_REQUEST
            || (self.ended && !self.received.is_empty())
    }

    /// Takes the first line out; `None` where it is too long.
    fn line(&mut self) -> Option<Vec<u8>> {
        let end = memchr::memchr(b'\n', &self.received).filter(|end| *end < LONGEST_REQUEST);
        match end {
            Some(end) => {
                let rest = self.received.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.received, rest);
                line.pop();
                Some(line)
            }
            None if self.received.len() < LONGEST_REQUEST => Some(std::mem::take(&mut self.received)),
            None => {
                let received = std::mem::take(&mut self.received);
                match memchr::memchr(b'\n', &received) {
                    Some(end) => self.received = received[end + 1..].to_vec(),
                    None => self.skipping = true,
                }
                None
            }
        }
    }
}
