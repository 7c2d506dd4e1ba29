//! The server inside: answers [`crate::protocol`], a thread for each connection, and [`crate::datagram`] in between.

mod connect;
mod datagrams;
mod kernel;
mod memory;
mod work;

use crate::client::BULK_BUFFER;
use crate::clock;
use crate::protocol::{Answer, METER_MILLISECONDS, Operation, Request};
use connect::Hands;
use datagrams::Datagrams;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use work::Workshop;

/// The sockets of a server: TCP and UDP on the same port.
#[derive(Debug)]
pub struct Sockets {
    listener: TcpListener,
    datagrams: Datagrams,
    workshop: Workshop,
    hands: Hands,
    spin: Duration,
}

/// Asks the kernel for huge pages under memory of which nothing was written yet; says whether it may give some.
pub type Advise = fn(&mut [u64]) -> bool;

impl Sockets {
    /// Listens for TCP on this address, and binds UDP to the same one.
    ///
    /// # Errors
    /// Where either is refused.
    pub fn bind(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        let datagrams = Datagrams::new(UdpSocket::bind(listener.local_addr()?)?)?;
        // One thread waits for both, and must never wait for a connection that was there a moment ago.
        listener.set_nonblocking(true)?;
        Ok(Self { listener, datagrams, workshop: Workshop::default(), hands: Hands::default(), spin: Duration::ZERO })
    }

    /// The same, with a way to ask for huge pages, where work is to be done on them. It takes a call without a safe wrapper
    /// (madvise(2)), which a program has and this library has not.
    #[must_use]
    pub fn with_huge_pages(mut self, advise: Advise) -> Self {
        self.workshop.advise = Some(advise);
        self
    }

    /// The same, where a connection that answers each message looks for the next one so long before it sleeps, as the unikernel does.
    #[must_use]
    pub fn with_spin(self, spin: Duration) -> Self {
        Self { spin, ..self }
    }

    /// The address of both.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts and serves connections, and answers datagrams, for ever.
    ///
    /// # Errors
    /// When accepting fails for good. A connection that fails ends alone: whoever is on its other side sees that.
    pub fn serve(mut self) -> Result<()> {
        loop {
            let mut waited =
                [PollFd::new(&self.listener, PollFlags::IN), PollFd::new(self.datagrams.socket(), PollFlags::IN)];
            match poll(&mut waited, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let [connection, datagram] = waited.map(|socket| !socket.revents().is_empty());
            if datagram {
                self.datagrams.answer();
            }
            if connection {
                self.accept()?;
            }
        }
    }

    fn accept(&self) -> Result<()> {
        match self.listener.accept() {
            Ok((stream, _)) => {
                // Without a thread (EAGAIN under a process limit) the connection is dropped, and the client sees a reset.
                let (workshop, hands, spin) = (self.workshop.clone(), self.hands.clone(), self.spin);
                let _ = std::thread::Builder::new().spawn(move || converse(stream, &workshop, &hands, spin));
                Ok(())
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::WouldBlock
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// One connection, from its request to its end.
///
/// # Errors
/// When the peer does not speak the protocol or the connection breaks.
fn converse(mut stream: TcpStream, workshop: &Workshop, hands: &Hands, spin: Duration) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let mut bytes = [0; Request::SIZE];
    stream.read_exact(&mut bytes)?;
    let request = Request::decode(&bytes).map_err(|malformed| Error::new(ErrorKind::InvalidData, malformed))?;
    match request.operation {
        Operation::Hello => hello(&mut stream),
        Operation::Sink => sink(&mut stream, request.length, None),
        Operation::Meter => sink(&mut stream, request.length, Some(METER_MILLISECONDS * 1_000_000)),
        Operation::Source => source(&mut stream, request.length),
        Operation::Echo => echo(&mut stream, spin),
        Operation::Work => work::work(&mut stream, workshop),
        Operation::Connect => connect::connect(&mut stream, hands),
    }
}

fn hello(stream: &mut TcpStream) -> Result<()> {
    let value = match stream.peer_addr()?.ip() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(_) => 0,
    };
    stream.write_all(&Answer { value }.encode())?;
    // The client closes first, so that this side keeps no TIME_WAIT.
    let _ = stream.read(&mut [0; 1]);
    Ok(())
}

/// Takes bytes in; where there is an interval in nanoseconds, tells their number so far as often.
fn sink(stream: &mut TcpStream, length: u64, interval: Option<u64>) -> Result<()> {
    let limit = if length == 0 { u64::MAX } else { length };
    let mut buffer = vec![0_u8; BULK_BUFFER];
    let (mut received, mut told) = (0, 0);
    while received < limit {
        match stream.read(&mut buffer)? {
            0 => break,
            count => received += count as u64,
        }
        if let Some(interval) = interval {
            let now = clock::now();
            if now - told >= interval {
                told = now;
                stream.write_all(&Answer { value: received }.encode())?;
            }
        }
    }
    stream.write_all(&Answer { value: received }.encode())
}

fn source(stream: &mut TcpStream, length: u64) -> Result<()> {
    let mut left = if length == 0 { u64::MAX } else { length };
    let buffer = vec![0x5a_u8; BULK_BUFFER];
    while left > 0 {
        let count = stream.write(&buffer[..buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX))])?;
        left -= count as u64;
    }
    stream.shutdown(Shutdown::Write)
}

fn echo(stream: &mut TcpStream, spin: Duration) -> Result<()> {
    let mut buffer = vec![0_u8; 16 * 1024];
    loop {
        match read(stream, &mut buffer, spin)? {
            0 => return stream.shutdown(Shutdown::Write),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}

/// Reads what there is, and looks for it so long before it sleeps. The socket itself blocks: a flag of the one call does not
/// (recv(2), `MSG_DONTWAIT`).
fn read(stream: &mut TcpStream, buffer: &mut [u8], spin: Duration) -> Result<usize> {
    if !spin.is_zero() {
        let begun = Instant::now();
        while begun.elapsed() < spin {
            match recv(&*stream, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((_, count)) => return Ok(count),
                Err(Errno::AGAIN | Errno::INTR) => std::hint::spin_loop(),
                Err(error) => return Err(error.into()),
            }
        }
    }
    stream.read(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Drive, Traffic, client};
    use std::net::Ipv4Addr;

    /// A server on a port of its own, for as long as the tests run.
    pub(super) fn started() -> SocketAddr {
        let sockets = Sockets::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = sockets.address().unwrap();
        std::thread::spawn(move || sockets.serve());
        address
    }

    fn drive(server: SocketAddr, traffic: Traffic) -> Drive {
        Drive { server, traffic, warm_up: 10, milliseconds: 50 }
    }

    fn driven(traffic: Traffic) -> crate::DriveOutcome {
        let outcome = client::drive(&drive(started(), traffic));
        assert_eq!(outcome.error, None);
        outcome
    }

    fn decoded(histogram: &str) -> hdrhistogram::Histogram<u64> {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD.decode(histogram).unwrap();
        hdrhistogram::serialization::Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap()
    }

    #[test]
    fn hello_tells_the_clients_address() {
        assert_eq!(client::hello(started(), Duration::from_secs(5)).unwrap(), Ipv4Addr::LOCALHOST);
    }

    #[test]
    fn bulk_moves_bytes_both_ways_on_one_and_several_streams() {
        for streams in [1, 3] {
            for traffic in [Traffic::Upload { streams }, Traffic::Download { streams }] {
                let outcome = driven(traffic);
                assert!(outcome.bytes > BULK_BUFFER as u64, "{outcome:?}");
                assert_eq!(outcome.nanoseconds, 50_000_000);
                assert!(outcome.whole > outcome.bytes, "the warm-up is not counted: {outcome:?}");
                assert!(outcome.processor > 0);
            }
        }
    }

    #[test]
    fn each_round_trip_and_connection_is_kept() {
        for (traffic, in_flight) in
            [(Traffic::RoundTrips { bytes: 1 }, 1.0), (Traffic::Connections { in_flight: 1 }, 1.0)]
        {
            let outcome = driven(traffic);
            assert!(outcome.completed > 0 && outcome.whole > outcome.completed);
            let histogram = decoded(&outcome.histogram);
            assert_eq!(histogram.len(), outcome.completed);
            // One at a time: all of them together take as long as the whole loop.
            let sum = histogram.mean() * histogram.len() as f64 / in_flight;
            assert!((sum / outcome.nanoseconds as f64 - 1.0).abs() < 0.01, "{sum} ns of {} ns", outcome.nanoseconds);
        }
    }

    #[test]
    fn who_looks_for_messages_answers_them_too() {
        // Both those that come within the time and those that come later.
        for spin in [Duration::from_micros(1), Duration::from_secs(3600)] {
            let sockets = Sockets::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap().with_spin(spin);
            let address = sockets.address().unwrap();
            std::thread::spawn(move || sockets.serve());
            let outcome = client::drive(&drive(address, Traffic::RoundTrips { bytes: 1 }));
            assert_eq!(outcome.error, None);
            assert!(outcome.completed > 0);
        }
    }

    #[test]
    fn several_connections_are_in_flight_at_once() {
        let outcome = driven(Traffic::Connections { in_flight: 4 });
        let histogram = decoded(&outcome.histogram);
        assert_eq!(histogram.len(), outcome.completed);
        let sum = histogram.mean() * histogram.len() as f64;
        assert!(sum > 1.5 * outcome.nanoseconds as f64, "{sum} ns within {} ns", outcome.nanoseconds);
    }

    #[test]
    fn an_open_loop_offers_what_it_was_asked_for() {
        let outcome = driven(Traffic::Load { rate: 2000, connections: 3 });
        assert_eq!((outcome.offered, outcome.completed), (100, 100));
        assert_eq!(decoded(&outcome.histogram).len(), 100);
        assert!(outcome.nanoseconds >= 50_000_000);
    }

    /// A server that reads nothing for a while shows in every request that was due meanwhile.
    #[test]
    fn a_stall_of_the_server_is_counted_in_full() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stall = Duration::from_millis(40);
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; Request::SIZE]).unwrap();
            std::thread::sleep(stall);
            let _ = echo(&mut stream, Duration::ZERO);
        });
        let drive = Drive { warm_up: 0, ..drive(address, Traffic::Load { rate: 1000, connections: 1 }) };
        let outcome = client::drive(&drive);
        assert_eq!((outcome.error, outcome.completed), (None, 50));
        // Of 50 requests, one a millisecond, at least the 20 due first waited 20 ms and more, one after the other.
        let histogram = decoded(&outcome.histogram);
        assert!(histogram.count_between(19_000_000, u64::MAX) >= 19, "{:?}", histogram.value_at_quantile(0.5));
    }

    #[test]
    fn datagrams_are_counted_both_ways() {
        for traffic in [Traffic::DatagramUpload { bytes: 64 }, Traffic::DatagramDownload { bytes: 64 }] {
            let outcome = driven(traffic);
            assert!(outcome.completed > 0 && outcome.completed <= outcome.offered, "{outcome:?}");
            assert_eq!(outcome.bytes, outcome.completed * 64);
            assert!(outcome.nanoseconds > 0 && outcome.whole > outcome.completed);
        }
    }

    #[test]
    fn a_length_ends_source_sink_and_meter() {
        let mut stream = TcpStream::connect(started()).unwrap();
        stream.write_all(&Request { operation: Operation::Source, length: 300_000 }.encode()).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), 300_000);
        assert!(received.iter().all(|byte| *byte == 0x5a));

        for operation in [Operation::Sink, Operation::Meter] {
            let mut stream = TcpStream::connect(started()).unwrap();
            stream.write_all(&Request { operation, length: 300_000 }.encode()).unwrap();
            stream.write_all(&received).unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            let answers: Vec<u64> = bytes
                .chunks(Answer::SIZE)
                .map(|bytes| Answer::decode(bytes.first_chunk().unwrap()).unwrap().value)
                .collect();
            assert_eq!(answers.last(), Some(&300_000));
            assert!(answers.is_sorted() && (operation == Operation::Meter) == (answers.len() > 1), "{answers:?}");
        }
    }

    #[test]
    fn a_stray_peer_is_refused() {
        let mut stream = TcpStream::connect(started()).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    }

    #[test]
    fn stray_datagrams_are_not_answered_and_harm_nobody() {
        let server = started();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        use crate::datagram::{Header, Kind};
        let answer = Header { kind: Kind::Answer, session: 1, number: 0 }.encode();
        for stray in [&b""[..], b"ISU", b"GET / HTTP/1.1", &answer, &[0xff; 9000]] {
            socket.send(stray).unwrap();
        }
        let question = Header { kind: Kind::Echo, session: 1, number: 9 };
        socket.send(&question.encode()).unwrap();
        let mut bytes = [0; 100];
        let count = socket.recv(&mut bytes).unwrap();
        assert_eq!(Header::decode(&bytes[..count]), Ok(Header { kind: Kind::Answer, ..question }));
    }

    #[test]
    fn a_server_that_is_not_there_is_told() {
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        for traffic in [
            Traffic::Upload { streams: 2 },
            Traffic::Connections { in_flight: 4 },
            Traffic::Load { rate: 10, connections: 1 },
            Traffic::DatagramUpload { bytes: 64 },
        ] {
            let outcome = client::drive(&drive(nobody, traffic));
            assert!(outcome.error.unwrap().starts_with("drive 127.0.0.1:1: "));
            assert_eq!(outcome.bytes, 0);
        }
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        for traffic in [
            Traffic::Upload { streams: 0 },
            Traffic::Download { streams: u32::MAX },
            Traffic::Connections { in_flight: 0 },
            Traffic::Load { rate: 0, connections: 1 },
            Traffic::Load { rate: u32::MAX, connections: 1 },
        ] {
            let error = client::drive(&drive(started(), traffic)).error.unwrap();
            assert!(error.contains("are possible"), "{error}");
        }
    }
}
