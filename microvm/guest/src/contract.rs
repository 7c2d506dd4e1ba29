//! What the guest and its monitor agree upon.
//!
//! Guest-physical and guest-virtual addresses are the same. The monitor writes the tables of the processor, the boot
//! parameters and the image, starts the network card as a firmware would ([`crate::virtio::start`]: each of its register
//! accesses would cost an exit), and enters the image's entry point at CPL 3 with the stack pointer at [`STACK_TOP`].

/// The boot parameters, [`BootParameters::encode`]d.
pub const BOOT_PARAMETERS: u64 = 0x1000;
/// Rings of the receive and the transmit queue: a page each.
pub const RINGS: [u64; 2] = [0x10000, 0x11000];
/// The lowest address of the stack; the page below it is not mapped, so that an overflow faults.
pub const STACK_BOTTOM: u64 = 0x41000;
/// Where the stack starts.
pub const STACK_TOP: u64 = 0x80000;
/// Start of the image: code and constants, not writable.
pub const IMAGE: u64 = 0x10_0000;
/// Start of the image's writable data, not executable.
pub const IMAGE_DATA: u64 = 0x18_0000;
/// End of the image, and start of the memory that the guest divides into buffers, up to the end of its memory.
pub const BUFFERS: u64 = 0x20_0000;
/// The registers of the network card.
pub const NETWORK_CARD: u64 = 0xd000_0000;

/// Descriptors in each queue.
pub const QUEUE_SIZE: usize = 32;

/// Port: ends the guest with the written byte as status.
pub const PORT_EXIT: u16 = 0xf0;
/// Port: says which [`Milestone`] is reached.
pub const PORT_BOOT_TIMER: u16 = 0xf1;
/// Port: an exception was taken. The stack pointer is at its vector, error code, and the frame that the processor pushed;
/// all registers are as they were.
pub const PORT_CRASH: u16 = 0xf2;
/// Port: the program has panicked; rdi and rsi hold the address and length of the message.
pub const PORT_PANIC: u16 = 0xf3;
/// Port: sleep until the network card has something, at most the written 32-bit number of microseconds, or without limit
/// where that is [`u32::MAX`].
pub const PORT_SLEEP: u16 = 0xf4;
/// Port: as [`PORT_SLEEP`], and the monitor moves the card's frames itself, on the thread that runs the guest, until the guest
/// sleeps: no other thread need be woken for them. It may end without a frame, and does when the monitor begins to.
pub const PORT_EXCHANGE: u16 = 0xf8;

/// Exceptions for which the guest has gates.
pub const EXCEPTIONS: usize = 32;
/// Size in bytes of each exception's entry code, so that the monitor can lay out the gates without a table.
pub const EXCEPTION_ENTRY_SIZE: u64 = 16;
/// Where the exceptions' entry code begins: the linker script puts it at the start of the image, before all else.
pub const EXCEPTION_ENTRIES: u64 = IMAGE;

/// How far the guest has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Milestone {
    /// Its first instructions run.
    Entered = 1,
    /// Its workload is up: a server listens.
    Ready = 2,
}

impl Milestone {
    /// The milestone with this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Entered),
            2 => Some(Self::Ready),
            _ => None,
        }
    }
}

/// What the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Task {
    /// Says that it is ready and ends with status 0.
    Exit = 0,
    /// Says that it is ready and sleeps.
    Idle = 1,
    /// Serves the protocol.
    Serve = 2,
    /// Ends wrongly, so that it can be tested how that is reported: writes to address 0.
    WildPointer = 3,
    /// Panics.
    Panic = 4,
    /// Uses up its stack.
    StackOverflow = 5,
    /// Never does anything again.
    Loop = 6,
    /// Writes to each page of so many bytes of its memory ([`BootParameters::touched`]), says that it is ready and sleeps.
    Memory = 7,
    /// Halts its processor, which no program at CPL 3 may.
    Halt = 8,
    /// Jumps to memory that holds data.
    WildJump = 9,
}

impl Task {
    /// Every task, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Exit,
        Self::Idle,
        Self::Serve,
        Self::WildPointer,
        Self::Panic,
        Self::StackOverflow,
        Self::Loop,
        Self::Memory,
        Self::Halt,
        Self::WildJump,
    ];
}

/// What the guest is told at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootParameters {
    /// What to run.
    pub task: Task,
    /// The network, where the task needs one.
    pub network: Network,
    /// Size of the guest's memory in bytes.
    pub memory: u64,
    /// Frequency of the time-stamp counter in kHz.
    pub counter_khz: u64,
    /// A random number for TCP's sequence numbers.
    pub seed: u64,
    /// How many bytes [`Task::Memory`] writes to; what the guest does not have is a panic.
    pub touched: u64,
    /// How often the guest has gone on from a snapshot. Where the number changes, the guest is another one from then on: a clone, to which
    /// all else that is written here applies, and whose connections are those of somebody else.
    pub generation: u32,
}

/// Addresses of the guest and where it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Ethernet address.
    pub mac: [u8; 6],
    /// IPv4 address.
    pub address: [u8; 4],
    /// Length of the network prefix in bits.
    pub prefix: u8,
    /// The router for all other addresses; all zero for none.
    pub gateway: [u8; 4],
    /// The TCP port.
    pub port: u16,
    /// How long the guest looks for frames before it sleeps, in microseconds.
    pub spin_microseconds: u32,
    /// Whether frames may be larger than packets on a wire, for the other side to segment; else none is, either way.
    pub segmentation: bool,
}

impl Network {
    /// No network, for tasks without one.
    pub const NONE: Self = Self {
        mac: [0; 6],
        address: [0; 4],
        prefix: 0,
        gateway: [0; 4],
        port: 0,
        spin_microseconds: 0,
        segmentation: false,
    };
}

/// Where in the boot parameters the generation lies, for a guest that looks for it alone.
pub const GENERATION: usize = 56;

impl BootParameters {
    /// Size in bytes as written.
    pub const SIZE: usize = 64;

    /// The parameters as the monitor writes them, little-endian.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let network = &self.network;
        bytes[0..8].copy_from_slice(&self.memory.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.counter_khz.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.seed.to_le_bytes());
        bytes[24..30].copy_from_slice(&network.mac);
        bytes[30] = network.prefix;
        bytes[31] = self.task as u8;
        bytes[32..36].copy_from_slice(&network.address);
        bytes[36..40].copy_from_slice(&network.gateway);
        bytes[40..42].copy_from_slice(&network.port.to_le_bytes());
        bytes[42] = network.segmentation.into();
        bytes[44..48].copy_from_slice(&network.spin_microseconds.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.touched.to_le_bytes());
        bytes[GENERATION..GENERATION + 4].copy_from_slice(&self.generation.to_le_bytes());
        bytes
    }

    /// Reads parameters back; `None` where there is no such task.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let [memory, counter_khz, seed, touched] = [0, 8, 16, 48].map(|at| u64::from_le_bytes(array(bytes, at)));
        let network = Network {
            mac: array(bytes, 24),
            prefix: bytes[30],
            address: array(bytes, 32),
            gateway: array(bytes, 36),
            port: u16::from_le_bytes(array(bytes, 40)),
            spin_microseconds: u32::from_le_bytes(array(bytes, 44)),
            segmentation: bytes[42] != 0,
        };
        let task = *Task::ALL.get(usize::from(bytes[31]))?;
        let generation = u32::from_le_bytes(array(bytes, GENERATION));
        Some(Self { task, network, memory, counter_khz, seed, touched, generation })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_read_back_as_they_were_written() {
        for (number, task) in Task::ALL.into_iter().enumerate() {
            assert_eq!(task as usize, number);
            let parameters = BootParameters {
                task,
                network: Network {
                    mac: [2, 3, 4, 5, 6, 7],
                    address: [172, 17, 0, 5],
                    prefix: 16,
                    gateway: [172, 17, 0, 1],
                    port: 7000,
                    spin_microseconds: 50,
                    segmentation: number % 2 == 0,
                },
                memory: 16 << 20,
                counter_khz: 2_100_000,
                seed: 0x0123_4567_89ab_cdef,
                touched: 12 << 20,
                generation: 3,
            };
            assert_eq!(BootParameters::decode(&parameters.encode()), Some(parameters));
        }
        assert_eq!(BootParameters::decode(&[0xff; BootParameters::SIZE]), None);
    }
}
