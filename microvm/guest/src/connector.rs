//! The server's side of [`isobench_workload::connect`]: one connection of its own at a time.

use crate::order::{Progress, Received, receive};
use isobench_workload::connect::{Encounter, Target};
use isobench_workload::protocol::{Answer, Operation, Request};
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State as TcpState};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpAddress, IpEndpoint};

/// How many bytes the receive buffer and the transmit buffer must have.
pub const CONNECTOR_BUFFER: usize = 64;

/// The ports that its connections come from: those that nobody else has (RFC 6335, section 6).
const PORTS: core::ops::Range<u16> = 49_152..65_535;

/// The socket for connections that begin here, where there is one, and what is under way on it.
#[derive(Debug, Default)]
pub(crate) struct Connector {
    socket: Option<SocketHandle>,
    state: State,
    /// Of the next connection.
    port: u16,
}

/// How far the one connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Free,
    /// Somebody wants this.
    Wanted(Target),
    /// It is open or being opened, and given up then.
    Open { until: Instant, asked: bool },
    /// It has ended, and nobody was told yet.
    Ended(Encounter),
}

impl Connector {
    /// With a socket of its own among the others. The number is random: a port that was used a moment ago may still be remembered
    /// on the way.
    pub(crate) fn new<'a>(
        sockets: &mut SocketSet<'a>,
        (receive, transmit): (SocketBuffer<'a>, SocketBuffer<'a>),
        random: u64,
    ) -> Self {
        let mut socket = Socket::new(receive, transmit);
        socket.set_nagle_enabled(false);
        let port = PORTS.start + (random % PORTS.len() as u64) as u16;
        Self { socket: Some(sockets.add(socket)), state: State::Free, port }
    }

    /// Forgets what is under way, without a word to anybody.
    pub(crate) fn forget(&mut self, sockets: &mut SocketSet<'_>, random: u64) {
        let Some(handle) = self.socket else { return };
        let socket = sockets.get_mut::<Socket<'_>>(handle);
        // A socket that listens forgets its last connection; one that is closed again listens no more.
        socket.abort();
        let _ = socket.listen(PORTS.start);
        socket.abort();
        self.state = State::Free;
        self.port = PORTS.start + (random % PORTS.len() as u64) as u16;
    }

    /// When something must be done at the latest.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Open { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Does what can be done now; says whether that was anything.
    pub(crate) fn advance(&mut self, interface: &mut Interface, sockets: &mut SocketSet<'_>, now: Instant) -> bool {
        let Some(handle) = self.socket else { return false };
        let socket = sockets.get_mut::<Socket<'_>>(handle);
        let ended = match self.state {
            State::Free | State::Ended(_) => return false,
            State::Wanted(target) => {
                let [a, b, c, d] = target.address;
                let remote = IpEndpoint::new(IpAddress::v4(a, b, c, d), target.port);
                let local = self.port;
                self.port = if local + 1 < PORTS.end { local + 1 } else { PORTS.start };
                match socket.connect(interface.context(), remote, local) {
                    Ok(()) => {
                        let until = now + Duration::from_millis(target.patience.into());
                        self.state = State::Open { until, asked: false };
                        return true;
                    }
                    // No address to come from, or none to go to.
                    Err(_) => Encounter::Failed { error: 0 },
                }
            }
            State::Open { until, .. } if now >= until => Encounter::Silent,
            State::Open { until, asked: false } => match socket.state() {
                TcpState::SynSent => return false,
                TcpState::Closed => Encounter::Refused,
                _ => {
                    let request = Request { operation: Operation::Hello, length: 0 };
                    if socket.send_slice(&request.encode()) == Ok(Request::SIZE) {
                        self.state = State::Open { until, asked: true };
                        return true;
                    }
                    Encounter::Stranger
                }
            },
            State::Open { asked: true, .. } => {
                if socket.recv_queue() < Answer::SIZE {
                    if socket.state() == TcpState::Established {
                        return false;
                    }
                    Encounter::Stranger
                } else {
                    let mut bytes = [0; Answer::SIZE];
                    // They are there, as just seen.
                    let _ = socket.recv_slice(&mut bytes);
                    match Answer::decode(&bytes) {
                        Ok(answer) => Encounter::Answered { seen: answer.value as u32 },
                        Err(_) => Encounter::Stranger,
                    }
                }
            }
        };
        // By a reset, as a client ends it, so that the other side keeps nothing of it.
        socket.abort();
        self.state = State::Ended(ended);
        true
    }
}

/// How far a client of the connector is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Its target is awaited.
    Target,
    /// The end is awaited.
    End,
}

impl Step {
    /// Gives up the connector, where this client has it.
    pub(crate) fn leave(self, connector: &mut Connector, sockets: &mut SocketSet<'_>) {
        if matches!(self, Self::End) {
            let Some(handle) = connector.socket else { return };
            sockets.get_mut::<Socket<'_>>(handle).abort();
            connector.state = State::Free;
        }
    }

    pub(crate) fn advance(&mut self, socket: &mut Socket<'_>, connector: &mut Connector) -> Progress {
        let ended = match self {
            Self::Target => {
                let mut bytes = [0; Target::SIZE];
                match receive(socket, &mut bytes) {
                    Received::All => {}
                    Received::Less => return Progress::None,
                    Received::Closed => {
                        socket.close();
                        return Progress::Ended;
                    }
                }
                if connector.socket.is_some() && connector.state == State::Free {
                    connector.state = State::Wanted(Target::decode(&bytes));
                    *self = Self::End;
                    return Progress::Some;
                }
                Encounter::Busy
            }
            Self::End => {
                let State::Ended(ended) = connector.state else { return Progress::None };
                connector.state = State::Free;
                ended
            }
        };
        // Nothing else was sent on this connection, so that there is room.
        let _ = socket.send_slice(&ended.encode());
        socket.close();
        Progress::Ended
    }
}
