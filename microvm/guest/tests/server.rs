//! The server on a wire in memory, against smoltcp as its client: no kernel, no virtual machine, no privilege.

use isobench_guest::contract::Network;
use isobench_guest::platform::Platform;
use isobench_guest::server::{CONNECTOR_BUFFER, Server};
use isobench_guest::virtio::Arena;
use isobench_workload::connect::{Encounter, Target};
use isobench_workload::datagram::{Header, Kind};
use isobench_workload::protocol::{Answer, Operation, Request};
use isobench_workload::work::{self, Job, Pages, Refusal, Report, Rounds, Task};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::socket::udp::{self, PacketBuffer, PacketMetadata};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

const SERVER: [u8; 4] = [172, 17, 0, 5];
const CLIENT: [u8; 4] = [172, 17, 0, 1];
const PORT: u16 = 7000;
const SOCKET_BUFFER: usize = 16 << 10;
const CONNECTIONS: usize = 3;
const WORK_MEMORY: usize = 1 << 20;
/// Turns after which a test that gets nowhere has failed.
const PATIENCE: usize = 20_000;

type Frames = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// One end of a wire, with a clock that goes on at each look.
struct End {
    incoming: Frames,
    outgoing: Frames,
    time: i64,
}

struct Incoming(Vec<u8>);
struct Outgoing(Frames);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Outgoing {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        self.0.borrow_mut().push_back(frame);
        result
    }
}

impl Device for End {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing)> {
        let frame = self.incoming.borrow_mut().pop_front()?;
        Some((Incoming(frame), Outgoing(Rc::clone(&self.outgoing))))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing> {
        Some(Outgoing(Rc::clone(&self.outgoing)))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

impl Platform for End {
    fn now(&mut self) -> Instant {
        self.time += 100;
        Instant::from_micros(self.time)
    }

    fn flush(&mut self) {}

    fn wait(&mut self, _: Option<Duration>) {}
}

/// A client and the server on one wire.
struct Bench<'a> {
    server: Server<'a>,
    server_end: End,
    client: Interface,
    client_end: End,
    sockets: SocketSet<'static>,
    next_port: u16,
}

/// Without an allocator in smoltcp, memory that lasts is memory that is never given back.
fn buffers() -> SocketBuffer<'static> {
    SocketBuffer::new(Vec::leak(vec![0; SOCKET_BUFFER]))
}

fn packets() -> PacketBuffer<'static> {
    PacketBuffer::new(Vec::leak(vec![PacketMetadata::EMPTY; 16]), Vec::leak(vec![0; SOCKET_BUFFER]))
}

impl Bench<'_> {
    fn with(test: impl FnOnce(Bench<'_>)) {
        let (up, down) = (Frames::default(), Frames::default());
        let mut server_end = End { incoming: Rc::clone(&up), outgoing: Rc::clone(&down), time: 0 };
        let mut client_end = End { incoming: down, outgoing: up, time: 0 };
        let network = Network {
            mac: [2, 0, 0, 0, 0, 5],
            address: SERVER,
            prefix: 16,
            gateway: [0; 4],
            port: PORT,
            spin_microseconds: 0,
            segmentation: false,
        };
        let mut memory = vec![0; CONNECTIONS * 2 * SOCKET_BUFFER];
        let mut arena = Arena::new(&mut memory);
        let mut storage = [SocketStorage::EMPTY; CONNECTIONS + 2];
        let mut ends = [[0; CONNECTOR_BUFFER]; 2];
        let [receive, transmit] = &mut ends;
        let pairs = std::iter::from_fn(|| Some((arena.cut(SOCKET_BUFFER)?, arena.cut(SOCKET_BUFFER)?)));
        let mut numbers = vec![0; WORK_MEMORY / 8];
        let server = Server::new(&mut server_end, &network, 1, &mut storage, pairs, Some((packets(), packets())));
        let server = server.with_memory(&mut numbers).with_connector((receive, transmit), 3);
        assert_eq!(server.capacity(), CONNECTIONS);
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress([2, 0, 0, 0, 0, 1])));
        let mut client = Interface::new(config, &mut client_end, Instant::ZERO);
        let [a, b, c, d] = CLIENT;
        client.update_ip_addrs(|list| list.push(IpCidr::new(IpAddress::v4(a, b, c, d), 16)).unwrap());
        let sockets = SocketSet::new(Vec::leak((0..8).map(|_| SocketStorage::EMPTY).collect()));
        test(Bench { server, server_end, client, client_end, sockets, next_port: 50_000 });
    }

    /// Gives both sides turns until `done`.
    fn until(&mut self, handle: SocketHandle, mut done: impl FnMut(&mut Socket<'_>) -> bool) {
        for _ in 0..PATIENCE {
            let now = self.client_end.now();
            self.client.poll(now, &mut self.client_end, &mut self.sockets);
            self.server.turn(&mut self.server_end);
            if done(self.sockets.get_mut::<Socket<'_>>(handle)) {
                return;
            }
        }
        panic!("nothing more happens: {:?}", self.sockets.get::<Socket<'_>>(handle).state());
    }

    fn connect(&mut self, first: &[u8]) -> SocketHandle {
        let handle = self.sockets.add(Socket::new(buffers(), buffers()));
        self.next_port += 1;
        let [a, b, c, d] = SERVER;
        let context = self.client.context();
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        socket.connect(context, (IpAddress::v4(a, b, c, d), PORT), self.next_port).unwrap();
        self.until(handle, |socket| socket.may_send() || !socket.is_open());
        self.sockets.get_mut::<Socket<'_>>(handle).send_slice(first).unwrap();
        handle
    }

    fn ask(&mut self, operation: Operation, length: u64) -> SocketHandle {
        self.connect(&Request { operation, length }.encode())
    }

    fn send(&mut self, handle: SocketHandle, bytes: &[u8]) {
        let mut sent = 0;
        self.until(handle, |socket| {
            sent += socket.send_slice(&bytes[sent..]).unwrap();
            sent == bytes.len()
        });
    }

    /// Receives until the server closes.
    fn rest(&mut self, handle: SocketHandle) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.until(handle, |socket| {
            let _ = socket.recv(|part| {
                bytes.extend_from_slice(part);
                (part.len(), ())
            });
            !socket.may_recv()
        });
        bytes
    }

    fn answer(&mut self, handle: SocketHandle) -> u64 {
        self.until(handle, |socket| socket.recv_queue() >= Answer::SIZE);
        let mut bytes = [0; Answer::SIZE];
        self.sockets.get_mut::<Socket<'_>>(handle).recv_slice(&mut bytes).unwrap();
        Answer::decode(&bytes).unwrap().value
    }

    /// Asks for work and takes the report on the task.
    fn task(&mut self, task: &Task) -> (SocketHandle, Report) {
        let handle = self.ask(Operation::Work, 0);
        self.send(handle, &task.encode());
        (handle, self.report(handle))
    }

    fn report(&mut self, handle: SocketHandle) -> Report {
        self.until(handle, |socket| socket.recv_queue() >= Report::SIZE);
        let mut bytes = [0; Report::SIZE];
        self.sockets.get_mut::<Socket<'_>>(handle).recv_slice(&mut bytes).unwrap();
        Report::decode(&bytes).unwrap()
    }

    /// Has rounds done and gives what came out.
    fn work(&mut self, handle: SocketHandle, rounds: u64) -> u64 {
        self.send(handle, &Rounds(rounds).encode());
        match self.report(handle) {
            Report::Done { value, .. } => value,
            other => panic!("{other:?}"),
        }
    }

    /// A socket of the client's that listens, to be found by the server.
    fn listener(&mut self, port: u16) -> SocketHandle {
        let mut socket = Socket::new(buffers(), buffers());
        socket.listen(port).unwrap();
        self.sockets.add(socket)
    }

    /// Orders a connection.
    fn order(&mut self, address: [u8; 4], port: u16, patience: u32) -> SocketHandle {
        let handle = self.ask(Operation::Connect, 0);
        self.send(handle, &Target { address, port, patience }.encode());
        handle
    }

    fn encounter(&mut self, handle: SocketHandle) -> Encounter {
        self.until(handle, |socket| socket.recv_queue() >= Encounter::SIZE);
        let mut bytes = [0; Encounter::SIZE];
        self.sockets.get_mut::<Socket<'_>>(handle).recv_slice(&mut bytes).unwrap();
        Encounter::decode(&bytes).unwrap()
    }

    /// A UDP socket of the client's.
    fn datagrams(&mut self) -> SocketHandle {
        let mut socket = udp::Socket::new(packets(), packets());
        self.next_port += 1;
        socket.bind(self.next_port).unwrap();
        self.sockets.add(socket)
    }

    fn datagram(&mut self, handle: SocketHandle, bytes: &[u8]) {
        let [a, b, c, d] = SERVER;
        let to = (IpAddress::v4(a, b, c, d), PORT);
        self.sockets.get_mut::<udp::Socket<'_>>(handle).send_slice(bytes, to).unwrap();
        self.turns(20);
    }

    fn turns(&mut self, count: usize) {
        for _ in 0..count {
            let now = self.client_end.now();
            self.client.poll(now, &mut self.client_end, &mut self.sockets);
            self.server.turn(&mut self.server_end);
        }
    }

    /// All datagrams that have come.
    fn received(&mut self, handle: SocketHandle) -> Vec<Vec<u8>> {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(handle);
        std::iter::from_fn(|| socket.recv().ok().map(|(bytes, _)| bytes.to_vec())).collect()
    }

    fn close(&mut self, handle: SocketHandle) {
        self.sockets.get_mut::<Socket<'_>>(handle).close();
        self.until(handle, |socket| matches!(socket.state(), State::Closed | State::TimeWait));
        self.sockets.remove(handle);
    }
}

#[test]
fn hello_tells_the_clients_address_as_often_as_it_is_asked() {
    Bench::with(|mut bench| {
        // More often than there are sockets, so that each must listen again.
        for _ in 0..4 * CONNECTIONS {
            let handle = bench.ask(Operation::Hello, 0);
            assert_eq!(bench.answer(handle), u64::from(u32::from_be_bytes(CLIENT)));
            bench.close(handle);
        }
    });
}

#[test]
fn sink_counts_with_and_without_a_length() {
    Bench::with(|mut bench| {
        let bytes = vec![7; 3 * SOCKET_BUFFER + 1];
        let handle = bench.ask(Operation::Sink, bytes.len() as u64);
        bench.send(handle, &bytes);
        assert_eq!(bench.answer(handle), bytes.len() as u64);
        let handle = bench.ask(Operation::Sink, 0);
        bench.send(handle, &bytes);
        bench.sockets.get_mut::<Socket<'_>>(handle).close();
        assert_eq!(bench.answer(handle), bytes.len() as u64);
    });
}

#[test]
fn source_sends_exactly_what_was_asked_for_and_closes() {
    Bench::with(|mut bench| {
        for length in [1, 1460, SOCKET_BUFFER, 3 * SOCKET_BUFFER + 1] {
            let handle = bench.ask(Operation::Source, length as u64);
            assert_eq!(bench.rest(handle), vec![0x5a; length]);
            bench.close(handle);
        }
    });
}

#[test]
fn one_turn_sends_all_that_the_window_allows() {
    Bench::with(|mut bench| {
        let handle = bench.ask(Operation::Source, 1_000_000);
        // Once the request is there, a turn fills the window, whose packets are no larger than a wire's.
        let mut most = 0;
        for _ in 0..10 {
            bench.server.turn(&mut bench.server_end);
            most = most.max(bench.client_end.incoming.borrow().len());
            let now = bench.client_end.now();
            bench.client.poll(now, &mut bench.client_end, &mut bench.sockets);
        }
        assert!(most >= SOCKET_BUFFER / 1460, "{most} frames at most");
        assert_eq!(bench.rest(handle).len(), 1_000_000);
    });
}

#[test]
fn echo_gives_back_the_same_bytes_on_several_connections() {
    Bench::with(|mut bench| {
        let handles: Vec<SocketHandle> = (0..CONNECTIONS).map(|_| bench.ask(Operation::Echo, 0)).collect();
        for (number, handle) in handles.iter().enumerate() {
            bench.send(*handle, &vec![number as u8; 10_000]);
        }
        for (number, handle) in handles.iter().enumerate() {
            bench.sockets.get_mut::<Socket<'_>>(*handle).close();
            assert_eq!(bench.rest(*handle), vec![number as u8; 10_000]);
        }
    });
}

#[test]
fn a_stray_peer_is_reset() {
    Bench::with(|mut bench| {
        let handle = bench.connect(b"GET / HTTP/1.1\r\n\r\n");
        bench.until(handle, |socket| socket.state() == State::Closed);
        let handle = bench.ask(Operation::Hello, 0);
        bench.answer(handle);
    });
}

#[test]
fn a_peer_that_leaves_before_it_asks_frees_its_socket() {
    Bench::with(|mut bench| {
        for _ in 0..2 * CONNECTIONS {
            let handle = bench.connect(b"ISB");
            bench.sockets.get_mut::<Socket<'_>>(handle).close();
            bench.until(handle, |socket| !socket.is_open());
            bench.sockets.remove(handle);
        }
        let handle = bench.ask(Operation::Hello, 0);
        bench.answer(handle);
    });
}

#[test]
fn a_meter_tells_while_bytes_come_in() {
    Bench::with(|mut bench| {
        let length = 40 * SOCKET_BUFFER;
        let handle = bench.ask(Operation::Meter, length as u64);
        bench.send(handle, &vec![7; length]);
        bench.sockets.get_mut::<Socket<'_>>(handle).close();
        let bytes = bench.rest(handle);
        let counts: Vec<u64> = bytes
            .chunks(Answer::SIZE)
            .map(|bytes| Answer::decode(bytes.first_chunk().unwrap()).unwrap().value)
            .collect();
        assert!(counts.len() > 2 && counts.is_sorted(), "{counts:?}");
        assert_eq!(counts.last(), Some(&(length as u64)));
    });
}

#[test]
fn datagrams_are_counted_echoed_and_sent() {
    Bench::with(|mut bench| {
        let handle = bench.datagrams();
        let message = |kind, number| Header { kind, session: 3, number }.encode();
        for _ in 0..5 {
            bench.datagram(handle, &message(Kind::Sink, 0));
        }
        assert!(bench.received(handle).is_empty());
        bench.datagram(handle, &message(Kind::Count, 0));
        assert_eq!(bench.received(handle), [message(Kind::Answer, 5)]);
        let mut long = message(Kind::Echo, 77).to_vec();
        long.resize(1472, 9);
        bench.datagram(handle, &long);
        let mut expected = message(Kind::Answer, 77).to_vec();
        expected.resize(1472, 9);
        assert_eq!(bench.received(handle), [expected]);

        let mut question = message(Kind::Source, 10).to_vec();
        question.resize(64, 0);
        bench.datagram(handle, &question);
        let received = bench.received(handle);
        assert!(received.len() > 10, "{}", received.len());
        assert!(received.iter().all(|datagram| datagram.len() == 64 && datagram[16..] == [0x5a; 48]));
        // Ten milliseconds of a clock that goes on by 100 us with each look.
        bench.turns(2000);
        bench.received(handle);
        bench.turns(50);
        assert!(bench.received(handle).is_empty(), "the source has ended");
    });
}

#[test]
fn stray_datagrams_harm_nobody() {
    Bench::with(|mut bench| {
        let handle = bench.datagrams();
        for stray in [&b""[..], b"ISU", &[0xff; 1472], &Header { kind: Kind::Answer, session: 1, number: 2 }.encode()] {
            bench.datagram(handle, stray);
        }
        assert!(bench.received(handle).is_empty());
        let handle = bench.ask(Operation::Hello, 0);
        bench.answer(handle);
    });
}

/// A task with as little memory as it can have, but a number of lines that no number of loads comes round to.
fn task(kind: work::Kind) -> Task {
    let bytes = if kind == work::Kind::Chase { 67 * 64 } else { kind.least_memory() };
    Task { kind, pages: Pages::Usual, bytes, seed: 11 }
}

#[test]
fn work_comes_to_the_same_as_elsewhere() {
    Bench::with(|mut bench| {
        for kind in work::Kind::ALL.into_iter().filter(|kind| !kind.needs_kernel()) {
            let task = task(kind);
            let mut memory = vec![0; task.bytes as usize / 8];
            let mut job = Job::prepare(&task, &mut memory).unwrap();
            let (handle, report) = bench.task(&task);
            assert_eq!(report, Report::Prepared { value: task.bytes });
            for rounds in [3, 0, 2] {
                (0..rounds).for_each(|_| job.round(&mut memory));
                assert_eq!(bench.work(handle, rounds), job.value(), "{kind:?}");
            }
            bench.close(handle);
        }
    });
}

#[test]
fn there_is_one_task_at_a_time_and_others_are_served_meanwhile() {
    Bench::with(|mut bench| {
        let (worker, _) = bench.task(&task(work::Kind::Chase));
        let (second, report) = bench.task(&task(work::Kind::Integer));
        assert_eq!(report, Report::Refused(Refusal::Busy));
        bench.close(second);
        bench.send(worker, &Rounds(200).encode());
        let handle = bench.ask(Operation::Hello, 0);
        bench.answer(handle);
        bench.close(handle);
        assert_eq!(bench.sockets.get::<Socket<'_>>(worker).recv_queue(), 0, "it is still at work");
        assert!(matches!(bench.report(worker), Report::Done { .. }));
        bench.close(worker);
        let (third, report) = bench.task(&task(work::Kind::Integer));
        assert_eq!(report, Report::Prepared { value: 0 });
        bench.work(third, 1);
    });
}

/// By closing, by a reset, and by falling silent: its place is free again.
#[test]
fn a_client_that_goes_away_ends_its_work() {
    Bench::with(|mut bench| {
        for abort in [false, true] {
            let (handle, report) = bench.task(&task(work::Kind::Integer));
            assert_eq!(report, Report::Prepared { value: 0 });
            bench.send(handle, &Rounds(u64::MAX).encode());
            let socket = bench.sockets.get_mut::<Socket<'_>>(handle);
            if abort {
                socket.abort()
            } else {
                socket.close()
            }
            bench.until(handle, |socket| matches!(socket.state(), State::Closed | State::TimeWait));
            bench.turns(5);
        }
        let (handle, report) = bench.task(&task(work::Kind::Stream));
        assert!(matches!(report, Report::Prepared { .. }), "{report:?}");
        // An hour of its silence.
        bench.server_end.time += 3_600_000_000;
        bench.client_end.time += 3_600_000_000;
        bench.until(handle, |socket| !socket.may_recv());
        let (handle, report) = bench.task(&task(work::Kind::Integer));
        assert_eq!(report, Report::Prepared { value: 0 });
        // As long as it works: told with what was done until then.
        bench.send(handle, &Rounds(u64::MAX).encode());
        bench.turns(20);
        bench.server_end.time += 61_000_000;
        bench.client_end.time += 61_000_000;
        assert!(matches!(bench.report(handle), Report::Refused(Refusal::TooLong { done: 1.. })));
    });
}

#[test]
fn work_that_cannot_be_is_refused_and_nothing_else_is() {
    Bench::with(|mut bench| {
        let most = WORK_MEMORY as u64;
        let memory = |least, most| Refusal::Memory { least, most };
        let chase = task(work::Kind::Chase);
        for (task, refusal) in [
            (task(work::Kind::SystemCalls), Refusal::Unsupported),
            (task(work::Kind::SmallFile), Refusal::Unsupported),
            (task(work::Kind::LargeFile), Refusal::Unsupported),
            (Task { pages: Pages::Huge, ..chase }, Refusal::Unsupported),
            (Task { bytes: most + 1, ..chase }, memory(4096, most)),
            (Task { bytes: u64::MAX, ..chase }, memory(4096, most)),
            (Task { bytes: 0, ..chase }, memory(4096, most)),
            (Task { bytes: 8, ..task(work::Kind::Integer) }, memory(0, 0)),
        ] {
            let (handle, report) = bench.task(&task);
            assert_eq!(report, Report::Refused(refusal), "{task:?}");
            bench.close(handle);
        }
        // A task that is cut short.
        let handle = bench.ask(Operation::Work, 0);
        bench.send(handle, &[1, 0, 0]);
        bench.close(handle);
        let handle = bench.ask(Operation::Work, 0);
        bench.send(handle, &[0xff; Task::SIZE]);
        assert_eq!(bench.report(handle), Report::Refused(Refusal::Unknown));
        bench.close(handle);
        // Memory to the last byte, and one that is no multiple of anything.
        for bytes in [most, most - 13] {
            let (handle, report) = bench.task(&Task { bytes, ..task(work::Kind::Stream) });
            assert_eq!(report, Report::Prepared { value: bytes });
            bench.work(handle, 30);
            bench.close(handle);
        }
    });
}

#[test]
fn a_connection_is_opened_by_order_as_often_as_it_is_asked_for() {
    Bench::with(|mut bench| {
        for round in 0..4_u32 {
            let listener = bench.listener(9000);
            let handle = bench.order(CLIENT, 9000, 5000);
            bench.until(listener, |socket| socket.recv_queue() >= Request::SIZE);
            let socket = bench.sockets.get_mut::<Socket<'_>>(listener);
            let peer = socket.remote_endpoint().unwrap();
            assert_eq!(peer.addr, IpAddress::v4(SERVER[0], SERVER[1], SERVER[2], SERVER[3]));
            let mut bytes = [0; Request::SIZE];
            socket.recv_slice(&mut bytes).unwrap();
            let hello = Request { operation: Operation::Hello, length: 0 };
            assert_eq!(Request::decode(&bytes), Ok(hello));
            socket.send_slice(&Answer { value: u64::from(77 + round) }.encode()).unwrap();
            assert_eq!(bench.encounter(handle), Encounter::Answered { seen: 77 + round });
            bench.close(handle);
            // It goes away by a reset.
            bench.until(listener, |socket| socket.state() == State::Closed);
            bench.sockets.remove(listener);
        }
    });
}

#[test]
fn connections_that_come_to_nothing_are_told_apart() {
    Bench::with(|mut bench| {
        let handle = bench.order(CLIENT, 9000, 5000);
        assert_eq!(bench.encounter(handle), Encounter::Refused);
        bench.close(handle);
        // Nobody has this address, so that nobody answers who has it.
        let handle = bench.order([172, 17, 0, 99], 9000, 300);
        assert_eq!(bench.encounter(handle), Encounter::Silent);
        bench.close(handle);
        // There is no way to this one, and no such port.
        let handle = bench.order(CLIENT, 0, 300);
        assert_eq!(bench.encounter(handle), Encounter::Failed { error: 0 });
        bench.close(handle);
        for words in [&b"HTTP/1.1 400 Bad Request"[..], b""] {
            let listener = bench.listener(9000);
            let handle = bench.order(CLIENT, 9000, 5000);
            bench.until(listener, |socket| socket.recv_queue() >= Request::SIZE);
            let socket = bench.sockets.get_mut::<Socket<'_>>(listener);
            socket.send_slice(words).unwrap();
            if words.is_empty() {
                socket.close();
            }
            assert_eq!(bench.encounter(handle), Encounter::Stranger);
            bench.close(handle);
            bench.sockets.remove(listener);
        }
    });
}

#[test]
fn there_is_one_connection_by_order_at_a_time_and_none_for_who_is_gone() {
    Bench::with(|mut bench| {
        let waiting = bench.order([172, 17, 0, 99], 9000, u32::MAX);
        bench.turns(5);
        let second = bench.order(CLIENT, 9000, 5000);
        assert_eq!(bench.encounter(second), Encounter::Busy);
        bench.close(second);
        bench.sockets.get_mut::<Socket<'_>>(waiting).abort();
        bench.turns(20);
        let third = bench.order(CLIENT, 9000, 5000);
        assert_eq!(bench.encounter(third), Encounter::Refused);
        bench.close(third);
        // A target that is cut short.
        let handle = bench.ask(Operation::Connect, 0);
        bench.send(handle, &[1, 2, 3]);
        bench.close(handle);
        let handle = bench.ask(Operation::Hello, 0);
        bench.answer(handle);
    });
}
