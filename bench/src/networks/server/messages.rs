//! Messages on a connection, each with its length before it, and each within a time of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Sends a message, whole within this time.
pub(super) fn send(stream: &TcpStream, message: &[u8], time: Duration) -> std::io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| ErrorKind::InvalidInput)?;
    Timed::new(stream, time).write_all(&[length.to_be_bytes().as_slice(), message].concat())
}

/// Receives a message, whole within this time; `None` where the other side has ended.
pub(super) fn receive(stream: &TcpStream, time: Duration) -> std::io::Result<Option<Vec<u8>>> {
    let mut stream = Timed::new(stream, time);
    let mut length = [0; 2];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(Some(message))
}

/// A stream with one deadline for all that is done with it: the kernel's own timeout begins anew with each byte that comes.
struct Timed<'stream> {
    stream: &'stream TcpStream,
    deadline: Instant,
}

impl<'stream> Timed<'stream> {
    fn new(stream: &'stream TcpStream, time: Duration) -> Self {
        Self { stream, deadline: Instant::now() + time }
    }

    fn left(&self) -> std::io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    #[test]
    fn messages_come_as_they_were_sent() {
        let (one, other) = pair();
        let time = Duration::from_secs(5);
        for message in [&b""[..], b"question"] {
            send(&one, message, time).unwrap();
            assert_eq!(receive(&other, time).unwrap().as_deref(), Some(message));
        }
        drop(one);
        assert_eq!(receive(&other, time).unwrap(), None);
    }

    #[test]
    fn who_sends_byte_by_byte_is_not_waited_for() {
        let (mut one, other) = pair();
        let slow = std::thread::spawn(move || {
            // Until the other side has ended.
            while one.write_all(&[1]).is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let begin = Instant::now();
        let failed = receive(&other, Duration::from_millis(100)).unwrap_err();
        assert!(matches!(failed.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock), "{failed}");
        // All 257 bytes would take thirteen times as long.
        assert!(begin.elapsed() < Duration::from_secs(1));
        drop(other);
        slow.join().unwrap();
    }
}
