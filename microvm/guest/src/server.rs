//! The server: answers [`isobench_workload::protocol`] on several connections at once, without a heap.
//!
//! One turn takes in all frames that are there, then lets each connection work, then sends. So a batch of segments gets one
//! acknowledgement, which is what carries the throughput.

pub use crate::connector::CONNECTOR_BUFFER;
use crate::connector::{self, Connector};
use crate::contract::Network;
use crate::datagrams::Datagrams;
use crate::filler::Filler;
use crate::labour::{self, Labour};
use crate::order::Progress;
use crate::platform::Platform;
use isobench_workload::protocol::{Answer, METER_MILLISECONDS, Operation, Request};
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::socket::udp::PacketBuffer;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpEndpoint, Ipv4Address};

/// Most connections at once. One smoltcp socket is one listener, so as many may be opened at the same moment.
pub const MOST_CONNECTIONS: usize = 32;
/// Frames taken in before the connections get their turn.
const INGRESS_BATCH: usize = 64;
/// A peer that says nothing to a probe for this long is gone, and its socket is free again.
const PEER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a silent peer is probed.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// How often [`Operation::Meter`] is answered.
const METER_INTERVAL: Duration = Duration::from_millis(METER_MILLISECONDS);

/// What a connection does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Takes in the request.
    Request,
    /// Discards payload, up to `limit` bytes.
    Sink { received: u64, limit: u64 },
    /// The same, and tells how much when it is due.
    Meter { received: u64, limit: u64, due: Instant },
    /// Sends payload.
    Source { left: u64, filler: Filler },
    /// Sends back what it receives.
    Echo,
    /// Does work by order.
    Work(labour::Step),
    /// Has a connection opened by order.
    Connect(connector::Step),
    /// Sends the rest of an answer.
    Answer { bytes: [u8; Answer::SIZE], sent: usize },
    /// Waits for the peer to close.
    Drain,
}

/// A listening socket or its connection.
#[derive(Clone, Copy, Debug)]
struct Connection {
    socket: SocketHandle,
    step: Step,
}

/// The server with its sockets.
#[allow(missing_debug_implementations, reason = "smoltcp's Interface has none")]
pub struct Server<'a> {
    interface: Interface,
    sockets: SocketSet<'a>,
    connections: [Option<Connection>; MOST_CONNECTIONS],
    datagrams: Option<Datagrams>,
    labour: Labour<'a>,
    connector: Connector,
    port: u16,
}

impl<'a> Server<'a> {
    /// A server that listens. `buffers` gives the receive and the transmit buffer of one connection after the other, as long as
    /// there is memory, and `datagrams` those of the UDP socket, which takes one of the sockets' places in `storage`; `seed` is
    /// random. It has no memory for work ([`Self::with_memory`]).
    pub fn new(
        platform: &mut impl Platform,
        network: &Network,
        seed: u64,
        storage: &'a mut [SocketStorage<'a>],
        buffers: impl Iterator<Item = (&'a mut [u8], &'a mut [u8])>,
        datagrams: Option<(PacketBuffer<'a>, PacketBuffer<'a>)>,
    ) -> Self {
        let interface = interface(platform, network, seed);
        let most = (storage.len() - usize::from(datagrams.is_some())).min(MOST_CONNECTIONS);
        let mut sockets = SocketSet::new(storage);
        let datagrams = datagrams.map(|buffers| Datagrams::new(&mut sockets, buffers, network.port));
        let mut connections = [None; MOST_CONNECTIONS];
        for (connection, (receive, transmit)) in connections.iter_mut().zip(buffers).take(most) {
            let mut socket = Socket::new(SocketBuffer::new(receive), SocketBuffer::new(transmit));
            socket.set_nagle_enabled(false);
            socket.set_timeout(Some(PEER_TIMEOUT));
            socket.set_keep_alive(Some(PROBE_INTERVAL));
            // A closed socket listens, whatever the port but 0, which a caller does not give.
            let _ = socket.listen(network.port);
            *connection = Some(Connection { socket: sockets.add(socket), step: Step::Request });
        }
        Self {
            interface,
            sockets,
            connections,
            datagrams,
            labour: Labour::default(),
            connector: Connector::default(),
            port: network.port,
        }
    }

    /// The same, with memory for work that is done in memory.
    #[must_use]
    pub fn with_memory(self, memory: &'a mut [u64]) -> Self {
        Self { labour: Labour::new(memory), ..self }
    }

    /// The same, with buffers of [`CONNECTOR_BUFFER`] bytes for connections that it opens by order, which take one more of the
    /// sockets' places in `storage`; `random` is random.
    #[must_use]
    pub fn with_connector(mut self, buffers: (&'a mut [u8], &'a mut [u8]), random: u64) -> Self {
        let (receive, transmit) = buffers;
        let buffers = (SocketBuffer::new(receive), SocketBuffer::new(transmit));
        self.connector = Connector::new(&mut self.sockets, buffers, random);
        self
    }

    /// How many connections there can be at once.
    pub fn capacity(&self) -> usize {
        self.connections.iter().flatten().count()
    }

    /// Serves for ever.
    pub fn run(&mut self, platform: &mut impl Platform) -> ! {
        loop {
            if let Some((network, seed)) = platform.renewed() {
                self.renew(platform, &network, seed);
                platform.listens_again();
            }
            if !self.turn(platform) {
                let now = platform.now();
                // Also where it is zero: there may be no room for a frame before those sent are taken.
                let due = self.connector.due().map(|due| if due > now { due - now } else { Duration::ZERO });
                let limit = self.interface.poll_delay(now, &self.sockets);
                let limit = limit.map_or(due, |limit| Some(due.map_or(limit, |due| due.min(limit))));
                platform.wait(limit);
            }
        }
    }

    /// Becomes somebody else, on the same port: with other addresses, other random numbers, and without the connections that were
    /// another's. Nobody is told that they end here, since where they were made they go on.
    pub fn renew(&mut self, platform: &mut impl Platform, network: &Network, seed: u64) {
        self.interface = interface(platform, network, seed);
        for connection in self.connections.iter_mut().flatten() {
            let socket = self.sockets.get_mut::<Socket<'_>>(connection.socket);
            // A socket that listens anew forgets all of its last connection.
            socket.abort();
            let _ = socket.listen(self.port);
            connection.step = Step::Request;
        }
        self.labour.end();
        self.connector.forget(&mut self.sockets, seed);
    }

    /// Takes in, works and sends once; says whether there was anything to do.
    pub fn turn(&mut self, platform: &mut impl Platform) -> bool {
        let now = platform.now();
        let mut busy = false;
        for _ in 0..INGRESS_BATCH {
            if self.interface.poll_ingress_single(now, platform, &mut self.sockets) == PollIngressSingleResult::None {
                break;
            }
            busy = true;
        }
        for connection in self.connections.iter_mut().flatten() {
            let socket = self.sockets.get_mut::<Socket<'_>>(connection.socket);
            busy |= advance(&mut connection.step, socket, (&mut self.labour, &mut self.connector), now);
        }
        if let Some(datagrams) = &mut self.datagrams {
            busy |= datagrams.advance(&mut self.sockets, now);
        }
        busy |= self.connector.advance(&mut self.interface, &mut self.sockets, now);
        // A call sends at most one frame of each socket; that ends where windows, or the ring, are full.
        while self.interface.poll_egress(now, platform, &mut self.sockets) == PollResult::SocketStateChanged {
            platform.flush();
        }
        platform.flush();
        // Only after sending: a socket that listens anew forgets the last acknowledgement that it owes.
        for connection in self.connections.iter_mut().flatten() {
            let socket = self.sockets.get_mut::<Socket<'_>>(connection.socket);
            if matches!(socket.state(), State::Closed | State::TimeWait) {
                match connection.step {
                    Step::Work(step) => step.leave(&mut self.labour),
                    Step::Connect(step) => step.leave(&mut self.connector, &mut self.sockets),
                    _ => {}
                }
                connection.step = Step::Request;
                let _ = self.sockets.get_mut::<Socket<'_>>(connection.socket).listen(self.port);
                busy = true;
            }
        }
        busy
    }
}

/// The interface of whoever has these addresses.
fn interface(platform: &mut impl Platform, network: &Network, seed: u64) -> Interface {
    let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(network.mac)));
    config.random_seed = seed;
    let now = platform.now();
    let mut interface = Interface::new(config, platform, now);
    let [a, b, c, d] = network.address;
    interface.update_ip_addrs(|addresses| {
        // The list is empty and has room.
        let _ = addresses.push(IpCidr::new(IpAddress::v4(a, b, c, d), network.prefix));
    });
    if network.gateway != [0; 4] {
        // The table is empty and has room.
        let _ = interface.routes_mut().add_default_ipv4_route(Ipv4Address::from(network.gateway));
    }
    interface
}

/// What is done for one connection at a time.
type ByOrder<'l, 'a> = (&'l mut Labour<'a>, &'l mut Connector);

/// Does what a connection can do now; says whether that was anything.
fn advance(step: &mut Step, socket: &mut Socket<'_>, by_order: ByOrder<'_, '_>, now: Instant) -> bool {
    if !socket.is_active() {
        return false;
    }
    let mut busy = false;
    let (labour, connector) = by_order;
    while advance_once(step, socket, (&mut *labour, &mut *connector), now) {
        busy = true;
        // One round of work a turn, so that all others have theirs in between.
        if matches!(step, Step::Work(step) if step.is_at_work()) {
            break;
        }
    }
    busy
}

fn advance_once(step: &mut Step, socket: &mut Socket<'_>, by_order: ByOrder<'_, '_>, now: Instant) -> bool {
    let (labour, connector) = by_order;
    match step {
        Step::Request => take_request(step, socket, now),
        Step::Meter { received, limit, due } => {
            let count = discard(socket, *limit - *received);
            *received += count;
            if *received == *limit || (count == 0 && !socket.may_recv()) {
                *step = answer(*received);
                return true;
            }
            if count > 0 && now >= *due && socket.send_capacity() - socket.send_queue() >= Answer::SIZE {
                // There is room, as just seen.
                let _ = socket.send_slice(&Answer { value: *received }.encode());
                *due = now + METER_INTERVAL;
            }
            count > 0
        }
        Step::Sink { received, limit } => {
            let count = discard(socket, *limit - *received);
            *received += count;
            if *received == *limit || (count == 0 && !socket.may_recv()) {
                *step = answer(*received);
                return true;
            }
            count > 0
        }
        Step::Source { left, filler } => {
            let capacity = socket.send_capacity();
            let count = socket.send(|buffer| {
                let count = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                filler.fill(&mut buffer[..count], capacity);
                (count, count)
            });
            *left -= count.unwrap_or(0) as u64;
            if *left == 0 {
                socket.close();
                *step = Step::Drain;
            }
            count.is_ok_and(|count| count > 0)
        }
        Step::Echo => echo(step, socket),
        Step::Work(work) => {
            let progress = work.advance(socket, labour, now);
            went_on(step, progress)
        }
        Step::Connect(connect) => {
            let progress = connect.advance(socket, connector);
            went_on(step, progress)
        }
        Step::Answer { bytes, sent } => {
            let count = socket.send_slice(&bytes[*sent..]).unwrap_or(0);
            *sent += count;
            if *sent == bytes.len() {
                *step = Step::Drain;
            }
            count > 0
        }
        Step::Drain => {
            let count = discard(socket, u64::MAX);
            if !socket.may_recv() && socket.may_send() {
                socket.close();
            }
            count > 0
        }
    }
}

/// Sees to it that a connection on which nothing more is done by order waits for its peer; says whether there was anything to do.
fn went_on(step: &mut Step, progress: Progress) -> bool {
    if progress == Progress::Ended {
        *step = Step::Drain;
    }
    progress != Progress::None
}

fn take_request(step: &mut Step, socket: &mut Socket<'_>, now: Instant) -> bool {
    if socket.recv_queue() < Request::SIZE {
        // The peer has closed before it has said what it wants.
        if socket.state() == State::CloseWait {
            socket.abort();
        }
        return false;
    }
    let mut bytes = [0; Request::SIZE];
    let count = socket.recv_slice(&mut bytes).unwrap_or(0);
    match Request::decode(&bytes) {
        Ok(request) if count == Request::SIZE => {
            let limit = if request.length == 0 { u64::MAX } else { request.length };
            *step = match request.operation {
                Operation::Hello => answer(peer(socket)),
                Operation::Sink => Step::Sink { received: 0, limit },
                Operation::Meter => Step::Meter { received: 0, limit, due: now },
                Operation::Source => Step::Source { left: limit, filler: Filler::default() },
                Operation::Echo => Step::Echo,
                Operation::Work => Step::Work(labour::Step::Task),
                Operation::Connect => Step::Connect(connector::Step::Target),
            };
        }
        // A stray peer is refused at once.
        _ => socket.abort(),
    }
    true
}

fn answer(value: u64) -> Step {
    Step::Answer { bytes: Answer { value }.encode(), sent: 0 }
}

/// The peer's IPv4 address as a number.
fn peer(socket: &Socket<'_>) -> u64 {
    match socket.remote_endpoint() {
        Some(IpEndpoint { addr: IpAddress::Ipv4(address), .. }) => u64::from(address.to_bits()),
        _ => 0,
    }
}

/// Takes bytes out of the receive buffer, at most `most`.
fn discard(socket: &mut Socket<'_>, most: u64) -> u64 {
    let take = |buffer: &mut [u8]| {
        let count = buffer.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        (count, count)
    };
    socket.recv(take).unwrap_or(0) as u64
}

fn echo(step: &mut Step, socket: &mut Socket<'_>) -> bool {
    // A piece at a time over the stack, because a socket lends one of its buffers at a time.
    let mut piece = [0; 4096];
    let room = (socket.send_capacity() - socket.send_queue()).min(piece.len());
    let count = if room > 0 { socket.recv_slice(&mut piece[..room]).unwrap_or(0) } else { 0 };
    // There is room, as just seen.
    let _ = socket.send_slice(&piece[..count]);
    if count == 0 && !socket.may_recv() && room > 0 {
        socket.close();
        *step = Step::Drain;
    }
    count > 0
}
