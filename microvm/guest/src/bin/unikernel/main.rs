//! The unikernel image. It is entered by `isobench-vmm` in 64-bit mode at CPL 3, with its ports open, memory mapped one to one,
//! its network card running, and no interrupts.
#![no_std]
#![no_main]

mod machine;
mod runtime;

use isobench_guest::contract::{BootParameters, Milestone, QUEUE_SIZE, Task};
use isobench_guest::frame::LARGEST_PAYLOAD;
use isobench_guest::server::{CONNECTOR_BUFFER, MOST_CONNECTIONS, Server};
use isobench_guest::virtio::{Arena, NetworkCard};
use machine::Machine;
use smoltcp::iface::SocketStorage;
use smoltcp::socket::udp::{PacketBuffer, PacketMetadata};

/// Size of a connection's receive buffer and of its transmit buffer, in bytes: what may be on its way without an
/// acknowledgement, so that both sides keep busy on a path where each wake-up takes long.
const SOCKET_BUFFER: usize = 3 << 18;
/// Sizes of the first connection's buffers, where there is memory for them. It takes in more than a peer has in its own buffer, so that
/// what bounds a stream is the peer's writing: it then sends on the processor on which it writes, in place of the one on which this
/// acknowledges. And it sends as many whole frames as the queue takes but two, which are left for acknowledgements and other connections: a
/// single stream then costs half as many turns of guest and card.
const FIRST_RECEIVE_BUFFER: usize = 5 << 19;
const FIRST_TRANSMIT_BUFFER: usize = (QUEUE_SIZE - 2) * LARGEST_PAYLOAD;
/// Datagrams that wait to be taken in, and as many to be sent, and bytes for them.
const DATAGRAMS: usize = 128;
const DATAGRAM_BUFFER: usize = DATAGRAMS * 1536;
/// Where memory is short, buffers are smaller before connections are fewer than this.
const FEWEST_CONNECTIONS: usize = 4;
/// Connections with small buffers, which serve where the others are taken: a peer that reconnects at once would else find the
/// socket of its last connection not listening yet.
const SPARE_CONNECTIONS: usize = 6;
const SPARE_BUFFER: usize = 16 << 10;

/// Runs what the boot parameters say; [`runtime`] calls it on the guest's stack.
fn run() -> ! {
    machine::reached(Milestone::Entered);
    let Some(parameters) = machine::parameters() else { panic!("the boot parameters name no task") };
    match parameters.task {
        Task::Exit => {
            machine::reached(Milestone::Ready);
            machine::exit(0)
        }
        Task::Idle => {
            machine::reached(Milestone::Ready);
            rest(&parameters)
        }
        Task::Serve => serve(&parameters),
        Task::Memory => hold(&parameters),
        Task::WildPointer => machine::write_to_null(),
        Task::Panic => panic!("asked to panic"),
        Task::StackOverflow => {
            machine::reached(overflow(1));
            machine::exit(1)
        }
        Task::Halt => machine::halt(),
        Task::WildJump => machine::jump_into_data(),
        Task::Loop => loop {
            core::hint::spin_loop();
        },
    }
}

/// Writes to each page of so much memory as it is told to, and keeps it.
fn hold(parameters: &BootParameters) -> ! {
    let (_, _, mut arena) = machine::memory(parameters);
    let Some(memory) = arena.cut(parameters.touched as usize) else {
        panic!("{} bytes cannot be written to: {} are free", parameters.touched, arena.left())
    };
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    core::hint::black_box(memory);
    machine::reached(Milestone::Ready);
    rest(parameters)
}

/// Sleeps for ever; as a clone it says anew that it is ready.
fn rest(parameters: &BootParameters) -> ! {
    let mut generation = machine::Generation::of(parameters);
    loop {
        if generation.renewed().is_some() {
            machine::reached(Milestone::Ready);
        }
        machine::sleep(None);
    }
}

fn serve(parameters: &BootParameters) -> ! {
    let (receive, transmit, mut arena) = machine::memory(parameters);
    let Some(card) = NetworkCard::new(receive, transmit, &mut arena, parameters.network.segmentation) else {
        panic!("{} bytes of memory are too few for a network card", parameters.memory)
    };
    let mut machine = Machine::new(card, parameters);
    // Beside the connections: datagrams, and connections that begin here.
    let mut storage = [const { SocketStorage::EMPTY }; MOST_CONNECTIONS + 2];
    let mut metadata = [[PacketMetadata::EMPTY; DATAGRAMS]; 2];
    let [receive, transmit] = &mut metadata;
    let size = DATAGRAM_BUFFER.min(arena.left() / 32);
    let datagrams = arena.cut(size).zip(arena.cut(size)).map(|(received, sent)| {
        (PacketBuffer::new(&mut receive[..], received), PacketBuffer::new(&mut transmit[..], sent))
    });
    let connector = arena.cut(CONNECTOR_BUFFER).zip(arena.cut(CONNECTOR_BUFFER));
    let spares = arena.cut(SPARE_CONNECTIONS * 2 * SPARE_BUFFER);
    let size = SOCKET_BUFFER.min(arena.left() / (2 * FEWEST_CONNECTIONS));
    let mut spares = Arena::new(spares.unwrap_or_default());
    let pairs = |number: usize| number * 2 * SOCKET_BUFFER;
    let roomy = arena.left() >= FIRST_RECEIVE_BUFFER + FIRST_TRANSMIT_BUFFER + pairs(FEWEST_CONNECTIONS - 1);
    let first = roomy.then(|| Some((arena.cut(FIRST_RECEIVE_BUFFER)?, arena.cut(FIRST_TRANSMIT_BUFFER)?))).flatten();
    let buffers = first
        .into_iter()
        .chain(core::iter::from_fn(|| Some((arena.cut(size)?, arena.cut(size)?))))
        .chain(core::iter::from_fn(|| Some((spares.cut(SPARE_BUFFER)?, spares.cut(SPARE_BUFFER)?))));
    let server = Server::new(&mut machine, &parameters.network, parameters.seed, &mut storage, buffers, datagrams);
    // What connections have left: next to nothing, unless there is memory for more of them than there can be.
    let mut server = server.with_memory(arena.cut_numbers());
    if let Some(buffers) = connector {
        server = server.with_connector(buffers, parameters.seed);
    }
    if server.capacity() == 0 {
        panic!("{} bytes of memory are too few for a connection", parameters.memory);
    }
    machine::reached(Milestone::Ready);
    server.run(&mut machine)
}

/// Calls itself for ever, with a frame that can't be optimised away.
#[allow(unconditional_recursion)]
fn overflow(depth: u64) -> Milestone {
    let frame = core::hint::black_box([depth; 64]);
    let deeper = overflow(frame[63] + 1);
    core::hint::black_box(frame);
    deeper
}
