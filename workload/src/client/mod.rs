//! The load generator: makes [`Traffic`] against a server that speaks [`crate::protocol`] and [`crate::datagram`].
//!
//! What is measured is a window: it begins after a warm-up, in which windows and buffers grow to what the path takes, and
//! what had not arrived at the receiver by its end is not counted. Buffers are 128 KiB, as iperf3's, so that the two can be
//! compared.

mod bulk;
mod closed;
mod datagrams;
mod open;
mod progress;
mod work;

pub use work::{WorkError, Worked, Worker};

use crate::connect::{Encounter, Target};
use crate::protocol::{Answer, Operation, Request};
use crate::{Drive, DriveOutcome, Traffic, clock};
use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2Serializer};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Bytes handed to the kernel at a time for bulk traffic.
pub const BULK_BUFFER: usize = 128 * 1024;

/// How long a connection, or the last answer after bulk traffic, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most connections at the same time: a number from outside must not take all memory.
const MOST_CONNECTIONS: u32 = 1024;

/// Opens a connection, says hello and waits for the answer: the client's IPv4 address as the server sees it,
/// `0.0.0.0` where the server does not know it.
pub fn hello(server: SocketAddr, deadline: Duration) -> Result<Ipv4Addr> {
    let mut stream = open(server, deadline, Operation::Hello)?;
    Ok(Ipv4Addr::from_bits(answer(&mut stream)?.value as u32))
}

/// Has a server say hello to another one and waits until it tells how that ended.
///
/// # Errors
/// Where the server itself is not reached, does not answer in time, or knows no such operation.
pub fn connect(server: SocketAddr, target: &Target, deadline: Duration) -> Result<Encounter> {
    let mut stream = open(server, deadline, Operation::Connect)?;
    stream.write_all(&target.encode())?;
    let mut bytes = [0; Encounter::SIZE];
    receive(&mut stream, &mut bytes)?;
    Encounter::decode(&bytes).map_err(|malformed| Error::new(ErrorKind::InvalidData, malformed))
}

/// Makes the traffic. A failure is told in the outcome, beside what was moved until then.
pub fn drive(drive: &Drive) -> DriveOutcome {
    let mut outcome = DriveOutcome::default();
    let processor = clock::processor();
    let result = match drive.traffic {
        Traffic::Upload { streams } => bulk::upload(drive, streams, &mut outcome),
        Traffic::Download { streams } => bulk::download(drive, streams, &mut outcome),
        Traffic::RoundTrips { bytes } => closed::round_trips(drive, bytes, &mut outcome),
        Traffic::Connections { in_flight } => closed::connections(drive, in_flight, &mut outcome),
        Traffic::Load { rate, connections } => open::load(drive, rate, connections, &mut outcome),
        Traffic::DatagramUpload { bytes } => datagrams::upload(drive, bytes, &mut outcome),
        Traffic::DatagramDownload { bytes } => datagrams::download(drive, bytes, &mut outcome),
    };
    outcome.processor = clock::processor().saturating_sub(processor);
    outcome.error = result.err().map(|error| format!("drive {}: {error}", drive.server));
    outcome
}

/// The measured part of a drive, on the host's monotonic clock.
#[derive(Clone, Copy, Debug)]
struct Window {
    begin: u64,
    end: u64,
}

impl Window {
    /// The window of a drive that starts now.
    fn of(drive: &Drive) -> Self {
        let begin = clock::now() + drive.warm_up.saturating_mul(1_000_000);
        Self { begin, end: begin + drive.milliseconds.saturating_mul(1_000_000) }
    }

    fn length(self) -> u64 {
        self.end - self.begin
    }
}

/// Upper bound of what a histogram tells apart, in nanoseconds: a minute, longer than any request may take.
const LONGEST_REQUEST: u64 = 60_000_000_000;

fn histogram() -> Result<Histogram<u64>> {
    // With fixed bounds: one that grows by itself would clamp in `saturating_record` to the bounds that it began with.
    Histogram::new_with_bounds(1, LONGEST_REQUEST, 3).map_err(Error::other)
}

fn encoded(histogram: &Histogram<u64>) -> Result<String> {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes).map_err(|error| Error::other(format!("{error:?}")))?;
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// Opens a TCP connection and asks for an operation on it.
fn open(server: SocketAddr, deadline: Duration, operation: Operation) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&server, deadline)?;
    stream.set_read_timeout(Some(deadline))?;
    stream.set_write_timeout(Some(deadline))?;
    stream.set_nodelay(true)?;
    stream.write_all(&Request { operation, length: 0 }.encode())?;
    Ok(stream)
}

fn open_several(server: SocketAddr, count: u32, operation: Operation) -> Result<Vec<TcpStream>> {
    if count == 0 || count > MOST_CONNECTIONS {
        let message = format!("{count} connections at the same time; 1 to {MOST_CONNECTIONS} are possible");
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    (0..count).map(|_| open(server, PATIENCE, operation)).collect()
}

/// Reads so many bytes of what a server says.
///
/// # Errors
/// Where they do not come: said in other words than those of the system, which speak of a buffer that is not filled and of a
/// resource that is not available.
fn receive(stream: &mut TcpStream, bytes: &mut [u8]) -> Result<()> {
    stream.read_exact(bytes).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => Error::new(ErrorKind::UnexpectedEof, "the server closed the connection"),
        ErrorKind::WouldBlock => Error::new(ErrorKind::TimedOut, "the server did not answer in time"),
        _ => error,
    })
}

fn answer(stream: &mut TcpStream) -> Result<Answer> {
    let mut bytes = [0; Answer::SIZE];
    receive(stream, &mut bytes)?;
    Answer::decode(&bytes).map_err(|malformed| Error::new(ErrorKind::InvalidData, malformed))
}

/// Ends a connection by a reset: an orderly close would leave one TIME_WAIT a connection on this side and run out of ports
/// within a few blocks, and what is still in some buffer would be waited for.
fn reset(stream: TcpStream) -> Result<()> {
    Ok(rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_server_that_goes_or_says_nothing_is_named_so() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            // Read first: to close with something unread is to reset.
            let going = || listener.accept().and_then(|(mut stream, _)| stream.read_exact(&mut [0; Request::SIZE]));
            let server = scope.spawn(going);
            let error = hello(address, Duration::from_secs(60)).unwrap_err();
            assert_eq!(error.to_string(), "the server closed the connection");
            server.join().unwrap().unwrap();
        });
        let error = hello(address, Duration::from_millis(50)).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::TimedOut, "the server did not answer in time")
        );
    }
}
