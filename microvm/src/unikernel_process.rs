//! The unikernel's server as a plain process on a tap: same code, same network stack, no virtual machine. It is the control
//! that shows how much of a difference is the stack's.

use crate::devices::virtio::tap::{Offload, Tap, TapError};
use isobench_guest::contract::Network;
use isobench_guest::frame::{self, BUFFER, HEADER};
use isobench_guest::platform::Platform;
use isobench_guest::server::{CONNECTOR_BUFFER, MOST_CONNECTIONS, Server};
use isobench_guest::virtio::Arena;
use isobench_workload::{Stage, Stages, announcement, clock};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::iface::SocketStorage;
use smoltcp::phy::{Device, DeviceCapabilities, PacketMeta};
use smoltcp::socket::udp::{PacketBuffer, PacketMetadata};
use smoltcp::time::{Duration, Instant};
use std::convert::Infallible;
use std::io::Write;
use std::num::NonZeroU16;
use std::os::fd::{AsFd, OwnedFd};

/// As large as the largest in the unikernel: bytes of a connection's receive buffer and of its transmit buffer; and how many connections
/// there are.
const SOCKET_BUFFER: usize = 5 << 19;
const CONNECTIONS: usize = 8;
const DATAGRAMS: usize = 128;
const DATAGRAM_BUFFER: usize = DATAGRAMS * 1536;
/// For work in memory, in bytes.
const WORK_MEMORY: usize = 128 << 20;

/// Serves on the tap until the process is ended; the ready line goes to `output`.
pub fn serve(
    tap: OwnedFd,
    network: &Network,
    mut stages: Stages,
    mut output: impl Write,
) -> Result<Infallible, TapError> {
    let tap = Tap::new(tap)?;
    tap.set_offload(Offload { checksum: true, segmentation4: network.segmentation, segmentation6: false })?;
    stages.stamp(Stage::AgentEntered, clock::now());
    let mut process = Process {
        tap,
        received: vec![0; BUFFER],
        length: 0,
        sent: vec![0; BUFFER],
        spin: u64::from(network.spin_microseconds) * 1000,
        segmentation: network.segmentation,
    };
    // Zeroed pages come from the kernel when they are first touched, as in the guest.
    let mut memory = vec![0; CONNECTIONS * 2 * SOCKET_BUFFER];
    let mut arena = Arena::new(&mut memory);
    let buffers = std::iter::from_fn(|| Some((arena.cut(SOCKET_BUFFER)?, arena.cut(SOCKET_BUFFER)?)));
    let mut storage = [const { SocketStorage::EMPTY }; MOST_CONNECTIONS + 2];
    let mut metadata = [[PacketMetadata::EMPTY; DATAGRAMS]; 2];
    let [receive, transmit] = &mut metadata;
    let [mut received, mut sent] = [(); 2].map(|()| vec![0; DATAGRAM_BUFFER]);
    let datagrams =
        (PacketBuffer::new(&mut receive[..], &mut received[..]), PacketBuffer::new(&mut transmit[..], &mut sent[..]));
    // Taken when it is touched, as all of this.
    let mut work = vec![0; WORK_MEMORY / size_of::<u64>()];
    let server = Server::new(&mut process, network, clock::now(), &mut storage, buffers, Some(datagrams));
    let mut ends = [[0; CONNECTOR_BUFFER]; 2];
    let [receive, transmit] = &mut ends;
    let server = server.with_memory(&mut work);
    let mut server = server.with_connector((&mut receive[..], &mut transmit[..]), clock::now());
    stages.stamp(Stage::Listening, clock::now());
    // Who started us may have closed the pipe.
    let _ = output.write_all(announcement::format(&stages).as_bytes());
    let _ = output.flush();
    server.run(&mut process)
}

/// The tap with the host's clock.
struct Process {
    tap: Tap,
    received: Vec<u8>,
    /// Bytes of the frame that is in `received`, 0 for none.
    length: usize,
    sent: Vec<u8>,
    spin: u64,
    segmentation: bool,
}

impl Process {
    /// Reads a frame where none is waiting; says whether there is one.
    fn fill(&mut self) -> bool {
        if self.length == 0 {
            // Nothing to read, or a tap that is gone: the wait that follows tells them apart.
            self.length = rustix::io::read(self.tap.as_fd(), &mut self.received[..]).unwrap_or(0);
        }
        self.length > HEADER
    }
}

impl Platform for Process {
    fn now(&mut self) -> Instant {
        Instant::from_micros((clock::now() / 1000) as i64)
    }

    fn flush(&mut self) {}

    fn wait(&mut self, limit: Option<Duration>) {
        let started = clock::now();
        let limit = limit.map(|limit| limit.total_micros().saturating_mul(1000));
        while !self.fill() {
            let waited = clock::now() - started;
            if limit.is_some_and(|limit| waited >= limit) {
                return;
            }
            if waited >= self.spin {
                let left = limit.map(|limit| limit - waited).map(|left| Timespec {
                    tv_sec: (left / 1_000_000_000) as i64,
                    tv_nsec: (left % 1_000_000_000) as i64,
                });
                let _ = poll(&mut [PollFd::new(&self.tap, PollFlags::IN)], left.as_ref());
                return;
            }
            std::hint::spin_loop();
        }
    }
}

impl Device for Process {
    type RxToken<'t> = RxToken<'t>;
    type TxToken<'t> = TxToken<'t>;

    fn receive(&mut self, _now: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        if !self.fill() {
            return None;
        }
        let frame = &self.received[HEADER..self.length];
        self.length = 0;
        Some((RxToken(frame), TxToken { tap: &self.tap, bytes: &mut self.sent, segment: None }))
    }

    fn transmit(&mut self, _now: Instant) -> Option<TxToken<'_>> {
        Some(TxToken { tap: &self.tap, bytes: &mut self.sent, segment: None })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        frame::capabilities(self.segmentation)
    }
}

/// A frame that has come.
struct RxToken<'t>(&'t [u8]);

impl smoltcp::phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

/// Room for a frame.
struct TxToken<'t> {
    tap: &'t Tap,
    bytes: &'t mut [u8],
    segment: Option<NonZeroU16>,
}

impl smoltcp::phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let bytes = &mut self.bytes[..HEADER + length];
        let result = write(&mut bytes[HEADER..]);
        if let Some((header, frame)) = bytes.split_first_chunk_mut() {
            frame::finish(header, frame, self.segment);
        }
        // A frame that the host does not take is lost, as on a wire, and TCP sends it again.
        let _ = rustix::io::write(self.tap, bytes);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size;
    }
}
