//! Whoever has a further program run in the guest, by a connection to the session's socket.

use super::Session;
use super::streams::Source;
use isobench_workload::guest::{Decoder, Kind, encode};
use nix::sys::signal::Signal;
use rustix::event::PollFlags;
use rustix::fd::OwnedFd;
use rustix::io::Errno;

/// So much is read at once: a command and its input come in pieces.
const PIECE: usize = 16 << 10;
/// The exit status of a program that could not be begun.
const OWN_FAILURE: u8 = 125;

/// A connection, and the stream of its program once that has begun.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    decoder: Decoder,
    stream: Option<u32>,
    /// What the other side has not taken yet; nothing more is added while there is something.
    outgoing: Vec<u8>,
    /// Whether nothing follows what is outgoing.
    over: bool,
    /// Whether the other side is gone.
    pub(super) gone: bool,
}

impl Connection {
    /// A connection that does not block.
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, decoder: Decoder::default(), stream: None, outgoing: Vec::new(), over: false, gone: false }
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// What is to be waited for.
    pub(super) fn interest(&self, session: &Session) -> PollFlags {
        let mut streams = session.streams();
        let room = self.stream.is_none_or(|number| streams.get(number).is_some_and(|stream| stream.room() >= PIECE));
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, room && !self.over && session.inbox().has_room());
        flags.set(PollFlags::OUT, !self.outgoing.is_empty());
        flags
    }

    /// Reads what the other side says and hands it on.
    pub(super) fn receive(&mut self, session: &Session) {
        let mut buffer = [0; PIECE];
        let length = match rustix::io::read(&self.socket, &mut buffer) {
            Ok(length) if length > 0 => length,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok(_) | Err(_) => {
                self.gone = true;
                return;
            }
        };
        let (mut frames, mut refusal) = (Vec::new(), None);
        let mut streams = session.streams();
        let Self { decoder, stream, .. } = self;
        let decoded = decoder.take(&buffer[..length], |kind, _, payload| match (kind, *stream) {
            (Kind::Start, None) => match streams.open() {
                Some(number) => {
                    *stream = Some(number);
                    encode(Kind::Start, number, payload, &mut frames);
                }
                None => refusal = Some("too many programs run in the guest"),
            },
            (Kind::Input, Some(number)) => {
                if let Some(stream) = streams.get(number) {
                    stream.gave(payload.len());
                    encode(kind, number, payload, &mut frames);
                }
            }
            (Kind::EndOfInput | Kind::Resize | Kind::Signal, Some(number)) => {
                encode(kind, number, payload, &mut frames);
            }
            // These go the other way, or come too early.
            _ => {}
        });
        // Whoever says what is no frame is heard no more.
        self.gone |= decoded.is_err();
        if let Some(sentence) = refusal {
            encode(Kind::Error, 0, format!("isobench-vmm: {sentence}\n").as_bytes(), &mut self.outgoing);
            encode(Kind::Exited, 0, &[OWN_FAILURE], &mut self.outgoing);
            self.over = true;
        }
        if !frames.is_empty() {
            session.inbox().give(&frames);
        }
    }

    /// Sends what there is for the other side, as far as it takes it now; whether the connection is over.
    pub(super) fn send(&mut self, session: &Session) -> bool {
        loop {
            if self.outgoing.is_empty() && !self.over {
                self.fill(session);
            }
            if self.gone || self.outgoing.is_empty() {
                return self.gone || self.over;
            }
            match rustix::io::write(&self.socket, &self.outgoing) {
                Ok(written) => drop(self.outgoing.drain(..written)),
                Err(Errno::AGAIN) => return false,
                Err(Errno::INTR) => {}
                Err(_) => self.gone = true,
            }
        }
    }

    /// Takes the next piece of the program's outputs, or its end.
    fn fill(&mut self, session: &Session) {
        let Some(number) = self.stream else { return };
        let mut streams = session.streams();
        let Some(stream) = streams.get(number) else { return };
        for (source, kind) in [(Source::Output, Kind::Output), (Source::Error, Kind::Error)] {
            let piece: Vec<u8> = stream.waiting(source).iter().copied().take(PIECE).collect();
            if !piece.is_empty() {
                stream.took(source, piece.len());
                encode(kind, 0, &piece, &mut self.outgoing);
            }
        }
        if let Some(status) = stream.status.filter(|_| self.outgoing.is_empty()) {
            encode(Kind::Exited, 0, &[status], &mut self.outgoing);
            streams.close(number);
            self.stream = None;
            self.over = true;
        }
    }

    /// The other side is gone: its program is killed, and what it writes is lost.
    pub(super) fn end(self, session: &Session) {
        let Some(number) = self.stream else { return };
        session.streams().abandon(number);
        session.inbox().give(&death(number));
    }
}

/// Frames that kill a program.
pub(super) fn death(number: u32) -> Vec<u8> {
    let mut frames = Vec::new();
    encode(Kind::EndOfInput, number, &[], &mut frames);
    encode(Kind::Signal, number, &[Signal::SIGKILL as u8], &mut frames);
    frames
}
