//! The server inside: answers [`crate::protocol`], a thread for each connection.

use crate::client::BULK_BUFFER;
use crate::protocol::{Answer, Operation, Request};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};

/// Accepts and serves connections for ever.
///
/// # Errors
/// When accepting fails for good. A connection that fails ends alone: whoever is on its other side sees that.
pub fn serve(listener: &TcpListener) -> Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                // Without a thread (EAGAIN under a process limit) the connection is dropped, and the client sees a reset.
                let _ = std::thread::Builder::new().spawn(move || converse(stream));
            }
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
            Err(error) => return Err(error),
        }
    }
}

/// One connection, from its request to its end.
///
/// # Errors
/// When the peer does not speak the protocol or the connection breaks.
pub fn converse(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = [0; Request::SIZE];
    stream.read_exact(&mut bytes)?;
    let request = Request::decode(&bytes).map_err(|malformed| Error::new(ErrorKind::InvalidData, malformed))?;
    match request.operation {
        Operation::Hello => hello(&mut stream),
        Operation::Sink => sink(&mut stream, request.length),
        Operation::Source => source(&mut stream, request.length),
        Operation::Echo => echo(&mut stream),
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

fn sink(stream: &mut TcpStream, length: u64) -> Result<()> {
    let limit = if length == 0 { u64::MAX } else { length };
    let mut buffer = vec![0_u8; BULK_BUFFER];
    let mut received = 0;
    while received < limit {
        match stream.read(&mut buffer)? {
            0 => break,
            count => received += count as u64,
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

fn echo(stream: &mut TcpStream) -> Result<()> {
    let mut buffer = vec![0_u8; 16 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.shutdown(Shutdown::Write),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Drive, Traffic, client};
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    fn started() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve(&listener));
        address
    }

    fn driven(traffic: Traffic) -> crate::DriveOutcome {
        let outcome = client::drive(&Drive { server: started(), traffic, milliseconds: 50 });
        assert_eq!(outcome.error, None);
        assert!(outcome.nanoseconds >= 50_000_000);
        outcome
    }

    #[test]
    fn hello_tells_the_clients_address() {
        assert_eq!(client::hello(started(), Duration::from_secs(5)).unwrap(), Ipv4Addr::LOCALHOST);
    }

    #[test]
    fn bulk_moves_bytes_both_ways() {
        assert!(driven(Traffic::Upload).bytes > BULK_BUFFER as u64);
        assert!(driven(Traffic::Download).bytes > BULK_BUFFER as u64);
    }

    #[test]
    fn each_round_trip_and_connection_is_kept() {
        use base64::Engine as _;
        for traffic in [Traffic::RoundTrips { bytes: 1 }, Traffic::Connections] {
            let outcome = driven(traffic);
            assert!(outcome.completed > 0);
            let bytes = base64::engine::general_purpose::STANDARD.decode(&outcome.histogram).unwrap();
            let histogram: hdrhistogram::Histogram<u64> =
                hdrhistogram::serialization::Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
            assert_eq!(histogram.len(), outcome.completed);
            // One at a time: all of them together take as long as the whole loop.
            let sum = histogram.mean() * histogram.len() as f64;
            assert!((sum / outcome.nanoseconds as f64 - 1.0).abs() < 0.01, "{sum} ns of {} ns", outcome.nanoseconds);
        }
    }

    #[test]
    fn a_length_ends_source_and_sink() {
        let mut stream = TcpStream::connect(started()).unwrap();
        stream.write_all(&Request { operation: Operation::Source, length: 300_000 }.encode()).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), 300_000);
        assert!(received.iter().all(|byte| *byte == 0x5a));

        let mut stream = TcpStream::connect(started()).unwrap();
        stream.write_all(&Request { operation: Operation::Sink, length: 300_000 }.encode()).unwrap();
        stream.write_all(&received).unwrap();
        let mut bytes = [0; Answer::SIZE];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(Answer::decode(&bytes), Ok(Answer { value: 300_000 }));
    }

    #[test]
    fn a_stray_peer_is_refused() {
        let mut stream = TcpStream::connect(started()).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    }

    #[test]
    fn a_server_that_is_not_there_is_told() {
        let drive =
            Drive { server: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), traffic: Traffic::Upload, milliseconds: 10 };
        let outcome = client::drive(&drive);
        assert!(outcome.error.unwrap().starts_with("drive 127.0.0.1:1: "));
        assert_eq!(outcome.bytes, 0);
    }
}
