//! The load generator: makes [`Traffic`] against a server that speaks [`crate::protocol`].
//!
//! Bulk transfers are counted at the receiver and timed until it is known that all has arrived, so that bytes still in
//! some socket's buffer are never counted as moved. Buffers are 128 KiB, as iperf3's, so that the two can be compared.

use crate::protocol::{Answer, Operation, Request};
use crate::{Drive, DriveOutcome, Traffic, clock};
use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2Serializer};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Bytes handed to the kernel at a time for bulk traffic.
pub const BULK_BUFFER: usize = 128 * 1024;

/// How long a connection, or the last answer after bulk traffic, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens a connection, says hello and waits for the answer: the client's IPv4 address as the server sees it,
/// `0.0.0.0` where the server does not know it.
pub fn hello(server: SocketAddr, deadline: Duration) -> Result<Ipv4Addr> {
    let mut stream = open(server, deadline, Operation::Hello)?;
    Ok(Ipv4Addr::from_bits(answer(&mut stream)?.value as u32))
}

/// Makes the traffic. A failure is told in the outcome, beside what was moved until then.
pub fn drive(drive: &Drive) -> DriveOutcome {
    let duration = Duration::from_millis(drive.milliseconds);
    let mut outcome = DriveOutcome::default();
    let result = match drive.traffic {
        Traffic::Upload => upload(drive.server, duration, &mut outcome),
        Traffic::Download => download(drive.server, duration, &mut outcome),
        Traffic::RoundTrips { bytes } => round_trips(drive.server, duration, bytes, &mut outcome),
        Traffic::Connections => connections(drive.server, duration, &mut outcome),
    };
    outcome.error = result.err().map(|error| format!("drive {}: {error}", drive.server));
    outcome
}

fn upload(server: SocketAddr, duration: Duration, outcome: &mut DriveOutcome) -> Result<()> {
    let mut stream = open(server, PATIENCE, Operation::Sink)?;
    let buffer = vec![0x5a_u8; BULK_BUFFER];
    let begun = clock::now();
    let end = begun + duration.as_nanos() as u64;
    while clock::now() < end {
        stream.write_all(&buffer)?;
    }
    stream.shutdown(Shutdown::Write)?;
    outcome.bytes = answer(&mut stream)?.value;
    outcome.nanoseconds = clock::now() - begun;
    Ok(())
}

fn download(server: SocketAddr, duration: Duration, outcome: &mut DriveOutcome) -> Result<()> {
    let begun = clock::now();
    let mut stream = open(server, PATIENCE, Operation::Source)?;
    let mut buffer = vec![0_u8; BULK_BUFFER];
    let end = begun + duration.as_nanos() as u64;
    let mut now = begun;
    while now < end {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "the server stopped sending"));
        }
        outcome.bytes += count as u64;
        now = clock::now();
        outcome.nanoseconds = now - begun;
    }
    Ok(())
}

fn round_trips(server: SocketAddr, duration: Duration, bytes: u32, outcome: &mut DriveOutcome) -> Result<()> {
    let mut stream = open(server, PATIENCE, Operation::Echo)?;
    let sent = vec![0x5a_u8; bytes.max(1) as usize];
    let mut received = vec![0_u8; sent.len()];
    record(duration, outcome, || {
        stream.write_all(&sent)?;
        stream.read_exact(&mut received)
    })?;
    outcome.bytes = outcome.completed * sent.len() as u64;
    Ok(())
}

fn connections(server: SocketAddr, duration: Duration, outcome: &mut DriveOutcome) -> Result<()> {
    record(duration, outcome, || {
        let mut stream = open(server, PATIENCE, Operation::Hello)?;
        answer(&mut stream)?;
        // An orderly close would leave one TIME_WAIT a connection on this side and run out of ports within a few blocks.
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
        Ok(())
    })
}

/// Upper bound of what the histogram tells apart, in nanoseconds: a minute, longer than any request may take.
const LONGEST_REQUEST: u64 = 60_000_000_000;

/// Repeats a request until the time is out and keeps each one's time.
fn record(duration: Duration, outcome: &mut DriveOutcome, mut request: impl FnMut() -> Result<()>) -> Result<()> {
    // With fixed bounds: one that grows by itself would clamp in `saturating_record` to the bounds that it began with.
    let mut histogram = Histogram::<u64>::new_with_bounds(1, LONGEST_REQUEST, 3).map_err(Error::other)?;
    let begun = clock::now();
    let end = begun + duration.as_nanos() as u64;
    let mut before = begun;
    let mut result = Ok(());
    while before < end && result.is_ok() {
        result = request();
        let now = clock::now();
        if result.is_ok() {
            histogram.saturating_record(now - before);
            outcome.completed += 1;
        }
        before = now;
    }
    outcome.nanoseconds = before - begun;
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(&histogram, &mut bytes).map_err(|error| Error::other(format!("{error:?}")))?;
    outcome.histogram = base64::engine::general_purpose::STANDARD.encode(bytes);
    result
}

fn open(server: SocketAddr, deadline: Duration, operation: Operation) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&server, deadline)?;
    stream.set_read_timeout(Some(deadline))?;
    stream.set_write_timeout(Some(deadline))?;
    stream.set_nodelay(true)?;
    stream.write_all(&Request { operation, length: 0 }.encode())?;
    Ok(stream)
}

fn answer(stream: &mut TcpStream) -> Result<Answer> {
    let mut bytes = [0; Answer::SIZE];
    stream.read_exact(&mut bytes)?;
    Answer::decode(&bytes).map_err(|malformed| Error::new(ErrorKind::InvalidData, malformed))
}
