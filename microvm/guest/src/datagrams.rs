//! The UDP side of the server: [`isobench_workload::datagram`] on one socket.

use isobench_workload::datagram::{Header, Kind, LARGEST, Reaction, Sessions};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::udp::{PacketBuffer, Socket, UdpMetadata};
use smoltcp::time::{Duration, Instant};

/// Datagrams taken in, or sent by a source, before the connections get their turn again.
const BATCH: usize = 64;
/// What follows the header in a datagram of a source.
const FILLER: u8 = 0x5a;

/// The socket and what is known of its sessions.
pub(crate) struct Datagrams {
    socket: SocketHandle,
    sessions: Sessions,
    /// One at a time, whoever asks.
    source: Option<Source>,
}

/// Datagrams that go out until a time.
struct Source {
    to: UdpMetadata,
    size: usize,
    session: u32,
    number: u64,
    until: Instant,
}

impl Datagrams {
    pub(crate) fn new<'a>(
        sockets: &mut SocketSet<'a>,
        (receive, transmit): (PacketBuffer<'a>, PacketBuffer<'a>),
        port: u16,
    ) -> Self {
        let mut socket = Socket::new(receive, transmit);
        // A new socket can be bound to any port but 0, which a caller does not give.
        let _ = socket.bind(port);
        Self { socket: sockets.add(socket), sessions: Sessions::new(), source: None }
    }

    /// Takes in what is there and sends what is due; says whether that was anything.
    pub(crate) fn advance(&mut self, sockets: &mut SocketSet<'_>, now: Instant) -> bool {
        let socket = sockets.get_mut::<Socket<'_>>(self.socket);
        let mut busy = false;
        for _ in 0..BATCH {
            let mut buffer = [0; LARGEST];
            // One that is larger than what is measured is cut off here and was not meant.
            let Ok((count, from)) = socket.recv_slice(&mut buffer) else { break };
            busy = true;
            let datagram = &mut buffer[..count];
            match self.sessions.react(datagram) {
                Reaction::Nothing => {}
                // Where there is no room the answer is lost, as it may be on its way.
                Reaction::Reply => drop(socket.send_slice(datagram, from)),
                Reaction::Source { session, milliseconds } => {
                    let until = now + Duration::from_millis(milliseconds);
                    self.source.get_or_insert(Source { to: from, size: count, session, number: 0, until });
                }
            }
        }
        self.send(socket, now) || busy
    }

    fn send(&mut self, socket: &mut Socket<'_>, now: Instant) -> bool {
        let Some(source) = self.source.as_mut().filter(|source| now < source.until) else {
            self.source = None;
            return false;
        };
        for _ in 0..BATCH {
            let Ok(room) = socket.send(source.size, source.to) else { break };
            let header = Header { kind: Kind::Answer, session: source.session, number: source.number };
            room.fill(FILLER);
            if let Some(place) = room.first_chunk_mut() {
                *place = header.encode();
            }
            source.number += 1;
        }
        // There is always a next one, so that the server does not go to sleep meanwhile.
        true
    }
}
