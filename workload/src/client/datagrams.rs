//! UDP datagrams as fast as they go: what was sent, what arrived.

use super::{PATIENCE, Window};
use crate::datagram::{Header, Kind, LARGEST};
use crate::{Drive, DriveOutcome, clock};
use std::io::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// How long a question waits before it is asked again: it may be lost like any datagram.
const AGAIN: Duration = Duration::from_millis(200);

/// What may still be on its way after the last datagram was sent gets this long.
const STRAGGLERS: Duration = Duration::from_millis(20);

pub(super) fn upload(drive: &Drive, bytes: u32, outcome: &mut DriveOutcome) -> Result<()> {
    let (socket, session) = open(drive.server)?;
    let mut datagram = filled(bytes);
    let question = |kind| Header { kind, session, number: 0 }.encode();
    // Whoever does not answer would let all of them vanish and be told as a loss.
    ask(&socket, &question(Kind::Count), session)?;
    let window = Window::of(drive);
    let mut number = 0;
    let mut send_until = |end: u64| {
        while clock::now() < end {
            datagram[..Header::SIZE].copy_from_slice(&Header { kind: Kind::Sink, session, number }.encode());
            match socket.send(&datagram) {
                Ok(_) => number += 1,
                // A full queue of the sender's own: the datagram is tried again, so that what is lost is the path's.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(number)
    };
    let sent_before = send_until(window.begin)?;
    // What the warm-up sent is counted first; the window begins when that is known.
    let before = ask(&socket, &question(Kind::Count), session)?;
    let begun = clock::now();
    let sent = send_until(begun + window.length())?;
    outcome.nanoseconds = clock::now() - begun;
    std::thread::sleep(STRAGGLERS);
    let arrived = ask(&socket, &question(Kind::Count), session)?;
    outcome.offered = sent - sent_before;
    outcome.completed = arrived.saturating_sub(before).min(outcome.offered);
    outcome.whole = arrived;
    outcome.bytes = outcome.completed * datagram.len() as u64;
    Ok(())
}

pub(super) fn download(drive: &Drive, bytes: u32, outcome: &mut DriveOutcome) -> Result<()> {
    let (socket, session) = open(drive.server)?;
    let mut question = filled(bytes);
    let size = question.len();
    let milliseconds = drive.warm_up + drive.milliseconds;
    question[..Header::SIZE].copy_from_slice(&Header { kind: Kind::Source, session, number: milliseconds }.encode());
    socket.send(&question)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; LARGEST];
    // The window begins with the first datagram after the warm-up and ends with the last one before its end.
    let mut window: Option<Window> = None;
    let (mut first, mut last): (Option<(u64, u64)>, (u64, u64)) = (None, (0, 0));
    loop {
        let count = match socket.recv(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock && first.is_some() => break,
            Err(error) => return Err(error),
        };
        let Ok(Header { kind: Kind::Answer, session: from, number }) = Header::decode(&buffer[..count]) else {
            continue;
        };
        if from != session {
            continue;
        }
        let now = clock::now();
        let window = *window.get_or_insert_with(|| Window::of(drive));
        outcome.whole += 1;
        if now < window.begin {
            continue;
        }
        if now >= window.end {
            break;
        }
        if first.is_none() {
            first = Some((now, number));
            // The end of a source that ends early is seen by its silence.
            socket.set_read_timeout(Some(STRAGGLERS))?;
        } else {
            outcome.completed += 1;
        }
        last = (now, number);
    }
    let (begun, number) = first.ok_or_else(|| Error::other("no datagram came within the window"))?;
    outcome.nanoseconds = last.0 - begun;
    outcome.offered = last.1.saturating_sub(number).max(outcome.completed);
    outcome.bytes = outcome.completed * size as u64;
    Ok(())
}

fn open(server: SocketAddr) -> Result<(UdpSocket, u32)> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    // Other generators of this boot had other times.
    Ok((socket, (clock::now() / 1000) as u32))
}

fn filled(bytes: u32) -> Vec<u8> {
    vec![0x5a; (bytes as usize).clamp(Header::SIZE, LARGEST)]
}

/// Asks until an answer comes.
fn ask(socket: &UdpSocket, question: &[u8], session: u32) -> Result<u64> {
    let begun = clock::now();
    let mut buffer = [0; LARGEST];
    // A late second answer to the question before would be taken for the first one to this.
    socket.set_nonblocking(true)?;
    while socket.recv(&mut buffer).is_ok() {}
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(AGAIN))?;
    while clock::now() - begun < PATIENCE.as_nanos() as u64 {
        socket.send(question)?;
        match socket.recv(&mut buffer) {
            Ok(count) => match Header::decode(&buffer[..count]) {
                Ok(Header { kind: Kind::Answer, session: from, number }) if from == session => return Ok(number),
                _ => {}
            },
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::new(ErrorKind::TimedOut, "the server answered no datagram"))
}
