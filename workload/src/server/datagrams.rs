//! The UDP side of the server.

use crate::clock;
use crate::datagram::{Header, Kind, LARGEST, Reaction, Sessions};
use std::io::Result;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Datagrams answered before connections get their turn again.
const BATCH: usize = 64;

/// The socket and what is known of its sessions.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
    sessions: Sessions,
    /// One source at a time, whoever asks.
    sending: Arc<AtomicBool>,
}

impl Datagrams {
    pub(super) fn new(socket: UdpSocket) -> Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, sessions: Sessions::new(), sending: Arc::default() })
    }

    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Takes in what is there. An answer that cannot be sent is lost, as it may be on its way.
    pub(super) fn answer(&mut self) {
        let mut buffer = [0; LARGEST];
        for _ in 0..BATCH {
            // Nothing more there, or the report of an earlier answer that was refused (udp(7)), which takes one turn.
            let Ok((count, peer)) = self.socket.recv_from(&mut buffer) else { return };
            let datagram = &mut buffer[..count];
            match self.sessions.react(datagram) {
                Reaction::Nothing => {}
                Reaction::Reply => drop(self.socket.send_to(datagram, peer)),
                Reaction::Source { session, milliseconds } => self.source(peer, count, session, milliseconds),
            }
        }
    }

    fn source(&self, peer: SocketAddr, size: usize, session: u32, milliseconds: u64) {
        let Ok(socket) = self.socket.try_clone() else { return };
        if self.sending.swap(true, Ordering::AcqRel) {
            return;
        }
        let sending = Arc::clone(&self.sending);
        let spawned = std::thread::Builder::new().spawn(move || {
            send(&socket, peer, size, session, milliseconds);
            sending.store(false, Ordering::Release);
        });
        if spawned.is_err() {
            self.sending.store(false, Ordering::Release);
        }
    }
}

fn send(socket: &UdpSocket, peer: SocketAddr, size: usize, session: u32, milliseconds: u64) {
    let mut datagram = vec![0x5a; size];
    let end = clock::now() + milliseconds * 1_000_000;
    let mut number = 0;
    while clock::now() < end {
        datagram[..Header::SIZE].copy_from_slice(&Header { kind: Kind::Answer, session, number }.encode());
        match socket.send_to(&datagram, peer) {
            Ok(_) => number += 1,
            // A full queue of our own: tried again, so that what is lost is the path's. The socket itself never waits.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {}
            // Nobody is there any more.
            Err(_) => return,
        }
    }
}
