//! The server's side of [`crate::connect`].

use crate::client;
use crate::connect::{Encounter, Target};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Connections that may be tried at the same time.
const MOST: u32 = 16;

/// How many connections are being tried.
#[derive(Clone, Debug, Default)]
pub(super) struct Hands(Arc<AtomicU32>);

/// One of them.
struct Hand<'h>(&'h AtomicU32);

impl Hands {
    fn take(&self) -> Option<Hand<'_>> {
        let free = |taken: u32| (taken < MOST).then_some(taken + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).ok().map(|_| Hand(&self.0))
    }
}

impl Drop for Hand<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Takes a target, says hello there, and tells how it ended.
pub(super) fn connect(stream: &mut TcpStream, hands: &Hands) -> Result<()> {
    let mut bytes = [0; Target::SIZE];
    stream.read_exact(&mut bytes)?;
    let encounter = hands.take().map_or(Encounter::Busy, |_hand| meet(&Target::decode(&bytes)));
    stream.write_all(&encounter.encode())
}

fn meet(target: &Target) -> Encounter {
    let server = SocketAddr::from((Ipv4Addr::from(target.address), target.port));
    // No time at all is an error of the library's, not of the network's.
    let patience = Duration::from_millis(u64::from(target.patience.max(1)));
    match client::hello(server, patience) {
        Ok(seen) => Encounter::Answered { seen: seen.to_bits() },
        Err(error) => ended(&error),
    }
}

fn ended(error: &Error) -> Encounter {
    match error.kind() {
        ErrorKind::ConnectionRefused => Encounter::Refused,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Encounter::Silent,
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            Encounter::Stranger
        }
        _ => Encounter::Failed { error: error.raw_os_error().unwrap_or_default().unsigned_abs() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::started;
    use rustix::net::{AddressFamily, SocketType};
    use std::net::{SocketAddrV4, TcpListener};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn met(server: SocketAddr, port: u16, patience: u32) -> Encounter {
        client::connect(server, &Target { address: [127, 0, 0, 1], port, patience }, PATIENCE).unwrap()
    }

    #[test]
    fn each_end_is_told_apart() {
        let (server, other) = (started(), started());
        let seen = Ipv4Addr::LOCALHOST.to_bits();
        assert_eq!(met(server, other.port(), 20_000), Encounter::Answered { seen });
        assert_eq!(met(server, server.port(), 20_000), Encounter::Answered { seen }, "its own self is somebody else");
        // It accepts and never says anything.
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = silent.local_addr().unwrap().port();
        assert_eq!(met(server, port, 50), Encounter::Silent);
        let stranger = std::thread::spawn(move || {
            // The one from before, then the one to talk to.
            let _silent = silent.accept().unwrap();
            let (mut stream, _) = silent.accept().unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
            stream
        });
        assert_eq!(met(server, port, 20_000), Encounter::Stranger);
        stranger.join().unwrap();
        // A port that somebody has and nobody listens on.
        let taken = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&taken, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = SocketAddrV4::try_from(rustix::net::getsockname(&taken).unwrap()).unwrap();
        assert_eq!(met(server, address.port(), 20_000), Encounter::Refused);
    }

    #[test]
    fn hands_are_counted_and_come_back() {
        let hands = Hands::default();
        let taken: Vec<_> = (0..MOST).map(|_| hands.take().unwrap()).collect();
        assert!(hands.take().is_none());
        drop(taken);
        assert!(hands.take().is_some());
    }
}
