//! Booting the unikernel: the recipe of the crate's front page, step by step.

mod image;
mod ports;
pub(crate) mod registers;
mod restore;

pub use image::UNIKERNEL;
pub(crate) use ports::Exit as ExitPort;
pub use restore::{Restoration, restore};

use crate::bus::{Bus, Overlap};
use crate::confinement::{self, ConfinementError, Role};
use crate::control::{Asked, Server};
use crate::devices::boot_timer::BootTimer;
use crate::devices::virtio::card::Card;
use crate::devices::virtio::mmio;
use crate::devices::virtio::tap::{Tap, TapError};
use crate::machine::{Machine, MachineError};
use crate::memory::{self, MemoryError};
use crate::operation::Operation;
use crate::outcome::{Crash, CrashCause, Outcome, Registers as ProcessorRegisters};
use crate::snapshot::devices::StateError;
use crate::snapshot::keeper::Keeper;
use crate::snapshot::{Guest, GuestKind};
use crate::system;
use crate::vcpu::{Crew, Stop, Vcpu, VcpuError};
use crate::{bus::Device, layout};
use isobench_guest::contract::{self, BootParameters, Network, Task};
use isobench_guest::frame::BUFFER;
use isobench_guest::virtio::{Registers, StartError};
use isobench_workload::{Stage, Stages, clock};
use kvm_ioctls::VcpuFd;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// The least memory: the image, and enough buffers for a card and a few connections.
pub const LEAST_MEMORY: u64 = 8 << 20;
/// The largest file that the monitor may write: its output may be appended to a log.
const LARGEST_FILE: u64 = 1 << 30;
/// The longest panic message that is taken from a guest, in bytes.
const LONGEST_MESSAGE: u64 = 512;

/// What a unikernel is to be.
#[derive(Debug)]
pub struct Config {
    /// What it runs.
    pub task: Task,
    /// How many bytes of its memory it writes to, where that is its task.
    pub touched: u64,
    /// Its network card's tap, attached already, and its addresses; a guest that only exits or idles has none.
    pub network: Option<(OwnedFd, Network)>,
    /// Size of its memory in bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// How it is run.
    pub operation: Operation,
}

/// Why a unikernel could not be booted or run.
#[derive(Debug, thiserror::Error)]
pub enum UnikernelError {
    /// Its memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The virtual machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The virtual processor.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// The thread could not be confined.
    #[error(transparent)]
    Confinement(#[from] ConfinementError),
    /// The tap.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// A device could not be made.
    #[error("make the network card")]
    Card(#[source] io::Error),
    /// Two devices at one address.
    #[error(transparent)]
    Overlap(#[from] Overlap),
    /// The image is no program that can be loaded.
    #[error("load the unikernel image")]
    Image,
    /// Requests can't be taken.
    #[error("take requests on the machine's control socket")]
    Control(#[source] io::Error),
    /// The snapshot's state does not fit.
    #[error("the snapshot's state: {0}")]
    State(StateError),
    /// The snapshot is of another kind of guest, or lacks something.
    #[error("the snapshot's state is not that of a unikernel's machine: {0}")]
    Foreign(&'static str),
    /// A clone that has a card needs a network, and only such a one.
    #[error("the snapshot's guest {0}")]
    Network(&'static str),
    /// The card did not start.
    #[error("start the network card: {0}")]
    Start(StartError),
}

/// Boots a unikernel and runs it to its end. The ready line goes to `output` when it says that it is ready; `stages` holds what
/// the program has stamped so far.
pub fn run(
    config: Config,
    stages: Stages,
    output: impl Write + std::fmt::Debug + Send + 'static,
) -> Result<Outcome, UnikernelError> {
    // 1. memory
    let (least, most) = (LEAST_MEMORY, layout::MOST_UNIKERNEL_MEMORY);
    if !(least..=most).contains(&config.memory) || !config.memory.is_multiple_of(2 << 20) {
        return Err(MemoryError::Size { size: config.memory, least, most }.into());
    }
    let memory = memory::create(config.memory)?;
    // Nothing can be opened later.
    let program = File::open("/proc/self/exe");
    // 2. kvm
    let machine = Machine::new(memory.clone())?;
    machine.keep_local_interrupt_controllers();
    if let Some(jail) = &config.operation.jail {
        jail.enter(Some(LARGEST_FILE));
    }
    // 3. vCPU
    let vcpu = machine.create_vcpu(0)?;
    // 4. devices
    let mut ports = Bus::new();
    let mut registers = Bus::new();
    let has_network = config.network.is_some();
    let (card, network) = match config.network {
        Some((tap, network)) => {
            let card = Card::new(Tap::new(tap)?, network.mac, memory.clone(), config.operation.spin)
                .map_err(UnikernelError::Card)?;
            (Some(card), network)
        }
        None => (None, Network::NONE),
    };
    ports::attach(&mut ports, card.as_ref(), false)?;
    // 5. kernel
    let entry = image::load(&memory, program.ok().as_ref())?;
    populate(&memory, config.task)?;
    if let Some(mut card) = card {
        isobench_guest::virtio::start(&mut CardRegisters(&mut card), network.segmentation)
            .map_err(UnikernelError::Start)?;
        let window = contract::NETWORK_CARD..contract::NETWORK_CARD + mmio::WINDOW;
        registers.insert(window, Box::new(card))?;
    }
    let counter_khz = vcpu.get_tsc_khz().map_err(VcpuError::system("read the counter's frequency"))?.into();
    let Config { task, memory: size, touched, .. } = config;
    let parameters = BootParameters { task, network, memory: size, counter_khz, seed: seed(), touched, generation: 0 };
    write(&memory, contract::BOOT_PARAMETERS, &parameters.encode())?;
    // 6. registers
    registers::write_tables(&memory, config.memory)?;
    registers::set(&vcpu, entry, registers::PRIVILEGE)?;
    // 7. run
    let assembled = Assembled { machine, vcpu, ports, registers, task, network: has_network };
    operate(assembled, config.operation, stages, output)
}

/// A machine that is ready to run.
struct Assembled {
    machine: Machine,
    vcpu: VcpuFd,
    ports: Bus,
    registers: Bus,
    task: Task,
    network: bool,
}

/// Runs a machine to its guest's end.
fn operate(
    assembled: Assembled,
    operation: Operation,
    mut stages: Stages,
    output: impl Write + std::fmt::Debug + Send + 'static,
) -> Result<Outcome, UnikernelError> {
    let Assembled { machine, vcpu, mut ports, registers, task, network } = assembled;
    let memory = machine.memory().clone();
    let (machine, registers) = (Arc::new(machine), Arc::new(registers));
    let (crew, _server) = match operation.control {
        None => (Arc::default(), None),
        Some(control) => {
            let crew = Arc::new(Crew::pausable(Arc::clone(&machine), false, 1)?);
            let regions = memory.iter().map(|region| (region.start_addr().0, region.len())).collect();
            let guest = Guest {
                kind: GuestKind::Unikernel,
                workload: format!("{task:?}").to_lowercase(),
                program: String::new(),
                regions,
                processors: 1,
                network,
                session: false,
                linux: None,
            };
            // None of its ports remembers anything.
            let (ports, registers, memory) = (Arc::default(), Arc::clone(&registers), memory.clone());
            let keeper = Keeper {
                crew: Arc::clone(&crew),
                ports,
                registers,
                memory,
                guest,
                kernel: None,
                awaits: None,
                refused: None,
            };
            let asked = Asked { balloon: None, keeper: Some(keeper) };
            (crew, Some(Server::start(control, asked).map_err(UnikernelError::Control)?))
        }
    };
    if operation.confined {
        confinement::confine(if network { Role::VcpuAndNetwork } else { Role::Vcpu })?;
    }
    system::release_code();
    stages.stamp(Stage::VmmReady, clock::now());
    let mut timer = BootTimer::new(stages, output);
    timer.heed(Arc::clone(&crew));
    ports.insert(port(contract::PORT_BOOT_TIMER), Box::new(timer))?;
    let mut vcpu = Vcpu::new(vcpu, 0);
    let stop = vcpu.run_in(&crew, &ports, &registers, operation.deadline)?;
    Ok(outcome(stop, &vcpu, &memory)?)
}

/// The range of one port.
pub(crate) fn port(number: u16) -> std::ops::Range<u64> {
    u64::from(number)..u64::from(number) + 1
}

/// A random number, from the kernel.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Eight bytes come whole once the kernel's generator is seeded; before that, zeros are as good as anything.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK);
    u64::from_le_bytes(bytes)
}

fn write(memory: &GuestMemoryMmap, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
    memory.write_slice(bytes, GuestAddress(address)).map_err(|source| MemoryError::Access { address, source })
}

/// Provides the pages that every boot and every clone writes to first: those that the guest would have to fault in cost it ten
/// times as much.
fn populate(memory: &GuestMemoryMmap, task: Task) -> Result<(), MemoryError> {
    /// Of the stack, as much as the server uses.
    const STACK: u64 = 0xb000;
    memory::populate(memory, contract::STACK_TOP - STACK, STACK as usize)?;
    if task == Task::Serve {
        memory::populate(memory, contract::RINGS[0], 0x2000)?;
        // The first buffer to send from, after those to receive into.
        memory::populate(memory, contract::BUFFERS + (contract::QUEUE_SIZE * BUFFER) as u64, 0x1000)?;
    }
    Ok(())
}

/// The card's registers, used by the guest's own start-up code on the host's side of the bus.
struct CardRegisters<'a>(&'a mut Card);

impl Registers for CardRegisters<'_> {
    fn read(&mut self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.0.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.0.write(offset, &value.to_le_bytes());
    }
}

/// What the end of the run loop means.
fn outcome(stop: Stop, vcpu: &Vcpu, memory: &GuestMemoryMmap) -> Result<Outcome, VcpuError> {
    let registers = vcpu.fd().get_regs().map_err(VcpuError::system("read the registers"))?;
    let special = vcpu.fd().get_sregs().map_err(VcpuError::system("read the special registers"))?;
    let at = ProcessorRegisters::new(&registers, &special);
    Ok(match stop {
        Stop::Exit(status) => Outcome::Exited(status),
        Stop::Halted => Outcome::Halted(Box::new(at)),
        Stop::Deadline => Outcome::Deadline(Box::new(at)),
        // It has one vCPU, which is dismissed on request alone.
        Stop::Dismissed => Outcome::Stopped,
        Stop::Shutdown => {
            let cause = if in_guard_page(special.cr2) { CrashCause::StackOverflow } else { CrashCause::TripleFault };
            Outcome::Crashed(Box::new(Crash { cause, registers: at }))
        }
        Stop::Panic => {
            // rdi and rsi are the guest's: bounded and checked.
            let mut bytes = vec![0; registers.rsi.min(LONGEST_MESSAGE) as usize];
            let read = memory.read_slice(&mut bytes, GuestAddress(registers.rdi));
            let message = match read {
                Ok(()) => String::from_utf8_lossy(&bytes).escape_debug().to_string(),
                Err(_) => "with a message outside its memory".into(),
            };
            Outcome::Panicked { message, registers: Box::new(at) }
        }
        Stop::Crash => {
            // Vector, error code, then what the processor pushed: rip, cs, rflags, rsp, ss (Intel SDM, volume 3, 6.14.2).
            let mut frame = [0_u64; 7];
            for (index, word) in frame.iter_mut().enumerate() {
                let address = registers.rsp.wrapping_add(index as u64 * 8);
                *word = memory.read_obj(GuestAddress(address)).unwrap_or(0);
            }
            let [vector, error, rip, _, rflags, rsp, _] = frame;
            let cause = match vector {
                14 if in_guard_page(special.cr2) => CrashCause::StackOverflow,
                _ => CrashCause::Exception { vector: vector as u8, error },
            };
            let registers = ProcessorRegisters { instruction_pointer: rip, flags: rflags, stack_pointer: rsp, ..at };
            Outcome::Crashed(Box::new(Crash { cause, registers }))
        }
        Stop::Internal { suberror, .. } => {
            let mut bytes = vec![0; 15];
            let known = memory.read(&mut bytes, GuestAddress(registers.rip)).unwrap_or(0);
            bytes.truncate(known);
            Outcome::Internal { suberror, instruction_pointer: registers.rip, bytes }
        }
    })
}

fn in_guard_page(address: u64) -> bool {
    (contract::STACK_BOTTOM - 0x1000..contract::STACK_BOTTOM).contains(&address)
}
