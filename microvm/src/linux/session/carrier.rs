//! The session's thread: it carries what is ready between the host's descriptors and the streams.

use super::connection::Connection;
use super::streams::Source;
use super::{Session, Typed, write};
use crate::system;
use isobench_workload::guest::{FIRST, Kind, encode};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SocketFlags, accept_with};
use std::io;
use std::os::unix::net::UnixListener;

/// No more connections than these are kept: each may be one program, or wait to be refused.
const MOST_CONNECTIONS: usize = 128;

/// What the thread works on.
#[derive(Debug)]
pub(super) struct Carrier {
    session: Session,
    typed: Typed,
    listener: Option<UnixListener>,
    connections: Vec<Connection>,
}

/// What was found to be ready, beside the connections.
#[derive(Debug, Default)]
struct Ready {
    signals: bool,
    input: bool,
    output: bool,
    error: bool,
    listener: bool,
    connections: Vec<PollFlags>,
}

impl Carrier {
    pub(super) fn new(session: Session, typed: Typed, listener: Option<UnixListener>) -> Self {
        Self { session, typed, listener, connections: Vec::new() }
    }

    /// Carries for as long as the process lives.
    pub(super) fn carry(mut self) {
        loop {
            let ready = self.wait();
            let _ = self.session.0.news.read();
            let _ = self.session.inbox().room().read();
            self.first(&ready);
            for (connection, flags) in self.connections.iter_mut().zip(&ready.connections) {
                if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    connection.receive(&self.session);
                }
            }
            if ready.listener {
                self.accept();
            }
            self.connections();
            self.tell();
        }
    }

    /// Waits until there is something to be done.
    fn wait(&self) -> Ready {
        let (stdin, session) = (io::stdin(), &self.session);
        let (mut waits, reads) = ([false; 2], self.typed.open && session.inbox().has_room());
        let mut reads_input = false;
        if let Some(first) = session.streams().get(FIRST) {
            waits = [Source::Output, Source::Error].map(|source| !first.waiting(source).is_empty());
            reads_input = reads && first.room() > 0;
        }
        let event = |event| PollFd::from_borrowed_fd(system::borrow_event(event), PollFlags::IN);
        let mut waited = vec![event(&session.0.news), event(session.inbox().room())];
        waited.push(PollFd::new(&self.typed.signals, PollFlags::IN));
        let mut add = |wanted: bool, descriptor| {
            if wanted {
                waited.push(descriptor);
            }
            wanted.then_some(waited.len() - 1)
        };
        let input = add(reads_input, PollFd::new(&stdin, PollFlags::IN));
        let output = add(waits[0], PollFd::from_borrowed_fd(rustix::stdio::stdout(), PollFlags::OUT));
        let error = add(waits[1], PollFd::from_borrowed_fd(rustix::stdio::stderr(), PollFlags::OUT));
        let takes = self.connections.len() < MOST_CONNECTIONS;
        let listener =
            self.listener.as_ref().filter(|_| takes).and_then(|socket| add(true, PollFd::new(socket, PollFlags::IN)));
        let connections = waited.len();
        for connection in &self.connections {
            waited.push(PollFd::new(connection.socket(), connection.interest(session)));
        }
        // An interrupted wait is a wait that ended: the loop looks at everything again.
        let _ = poll(&mut waited, None);
        let is_ready = |index: Option<usize>| index.is_some_and(|index| !waited[index].revents().is_empty());
        Ready {
            signals: is_ready(Some(2)),
            input: is_ready(input),
            output: is_ready(output),
            error: is_ready(error),
            listener: is_ready(listener),
            connections: waited[connections..].iter().map(PollFd::revents).collect(),
        }
    }

    /// The first program's signals, input and outputs.
    fn first(&mut self, ready: &Ready) {
        let mut frames = Vec::new();
        if ready.signals {
            self.typed.signals(&mut frames);
        }
        if ready.input {
            let most = self.session.streams().get(FIRST).map_or(0, |first| first.room());
            let given = self.typed.input(most, &mut frames);
            let mut streams = self.session.streams();
            if let Some(first) = streams.get(FIRST) {
                first.gave(given);
            }
            // Under the lock, as everywhere: a snapshot has what was counted.
            self.session.inbox().give(&frames);
        } else if !frames.is_empty() {
            self.session.inbox().give(&frames);
        }
        for (source, is_ready) in [(Source::Output, ready.output), (Source::Error, ready.error)] {
            if !is_ready {
                continue;
            }
            let mut streams = self.session.streams();
            let Some(first) = streams.get(FIRST) else { continue };
            let stream = if source == Source::Output { rustix::stdio::stdout() } else { rustix::stdio::stderr() };
            let taken = write(stream, first.waiting(source));
            first.took(source, taken);
            if first.is_empty() {
                self.session.0.taken.notify_all();
            }
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while self.connections.len() < MOST_CONNECTIONS {
            match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => self.connections.push(Connection::new(socket)),
                Err(_) => return,
            }
        }
    }

    /// Gives every connection what there is for it, and lets go of those that are over.
    fn connections(&mut self) {
        // Of a guest that has broken a bound nothing more is to be had.
        let deaf = self.session.streams().is_deaf();
        let mut index = 0;
        while index < self.connections.len() {
            self.connections[index].gone |= deaf;
            if self.connections[index].send(&self.session) {
                self.connections.swap_remove(index).end(&self.session);
            } else {
                index += 1;
            }
        }
    }

    /// Tells the guest of what has been taken.
    fn tell(&self) {
        let mut frames = Vec::new();
        let mut streams = self.session.streams();
        for (number, count) in streams.news() {
            encode(Kind::Credit, number, &count.to_le_bytes(), &mut frames);
        }
        if streams.all_taken() {
            encode(Kind::Taken, FIRST, &[], &mut frames);
        }
        if !frames.is_empty() {
            self.session.inbox().give(&frames);
        }
    }
}
