//! Booting Linux: the recipe of the crate's front page, step by step.
//!
//! The kernel is a file, a vmlinux or a bzImage. The agent is /init in an initramfs that is built in memory, beside the modules
//! that a distribution's kernel needs for its [`devices`]. A kernel with ACPI finds them and the interrupt controllers in
//! the tables of [`acpi`], one without on its command line and in the [`multiprocessor`] table.

pub mod acpi;
pub mod boot_parameters;
pub mod console;
mod crew;
pub mod devices;
pub mod identity;
pub mod initramfs;
mod interrupts;
pub mod kernel;
pub mod layout;
pub mod modules;
pub mod multiprocessor;
mod ports;
mod processor;
pub mod sandbox;
pub mod session;
mod topology;

use crate::bus::{Bus, Overlap};
use crate::confinement::{ConfinementError, Role};
use crate::control::{Asked, Server};
use crate::devices::virtio::balloon;
use crate::devices::virtio::block::Block;
use crate::devices::virtio::card::Card;
use crate::devices::virtio::device::QueueDevice;
use crate::devices::virtio::disk::Disk;
use crate::devices::virtio::entropy::{self, Entropy};
use crate::devices::virtio::tap::{Tap, TapError};
use crate::jail::Jail;
use crate::machine::{Machine, MachineError};
use crate::memory::{self, MemoryError, Pages};
use crate::outcome::{Outcome, Registers};
use crate::vcpu::{Stop, Vcpu, VcpuError};
use console::{Console, Shared, Transcript};
use crew::Shift;
use devices::{Place, Places};
use identity::Identity;
use initramfs::Archive;
use isobench_workload::{Stage, Stages};
use kernel::{Kernel, KernelError};
use kvm_ioctls::{VcpuFd, VmFd};
use modules::{Modules, ModulesError};
use session::Session;
use std::fmt::{Debug, Write as _};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// The least and the most memory: below, no kernel of today boots; above, nothing here was ever tried.
pub const LEAST_MEMORY: u64 = 32 << 20;
/// See [`LEAST_MEMORY`].
pub const MOST_MEMORY: u64 = 64 << 30;

/// What a Linux guest is to be.
#[derive(Debug)]
pub struct Config {
    /// The kernel file.
    pub kernel: PathBuf,
    /// The agent's program: it becomes /init.
    pub agent: Vec<u8>,
    /// The agent's arguments ([`isobench_workload::Workload::arguments`]).
    pub arguments: Vec<String>,
    /// Words that are added to the kernel's command line, such as `loglevel=7`.
    pub append: String,
    /// Its network card's tap, attached already, and its addresses.
    pub network: Option<(OwnedFd, Network)>,
    /// Its disks, which it calls vda, vdb and so on.
    pub disks: Vec<Disk>,
    /// A further archive for the initramfs, such as a root; a multiple of 4 bytes.
    pub archive: Vec<u8>,
    /// Whether the standard streams and signals of this process are those of a program in the guest
    /// ([`isobench_workload::guest`]). Then the agent's lines go nowhere.
    pub session: bool,
    /// The socket on which a session takes further programs ([`session::program`]), where it does.
    pub exec: Option<UnixListener>,
    /// How many processors it has.
    pub processors: u8,
    /// Whether it has a device that gives random numbers.
    pub entropy: bool,
    /// Its balloon, where it has one.
    pub balloon: Option<BalloonKind>,
    /// The socket on which the machine takes [requests](crate::control), where it does.
    pub control: Option<UnixListener>,
    /// Size of its memory in bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// What pages its memory is made of.
    pub pages: Pages,
    /// Whether all its memory is taken before it runs; else when it is touched.
    pub populated: bool,
    /// How long it may run; without limit where `None`.
    pub deadline: Option<Duration>,
    /// How long the card's I/O thread looks for frames before it sleeps.
    pub spin: Duration,
    /// Whether the calling thread is [confined](crate::confinement) before the guest runs, for good: right for a program that
    /// does nothing else.
    pub confined: bool,
    /// The jail that the process enters, for good, before it starts a thread; none for a program that does something else too.
    pub jail: Option<Jail>,
}

/// What a balloon does besides what it is asked for. Of memory in large pages the host has one back when all of it was given back, so
/// that [`Pages::Small`] shows best what a balloon does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalloonKind {
    /// Nothing.
    Plain,
    /// It gives back to the host what the guest leaves unused for some seconds ("free page reporting").
    Reporting,
}

/// A guest's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The card's Ethernet address.
    pub mac: [u8; 6],
    /// The IPv4 address.
    pub address: Ipv4Addr,
    /// Length of the network's prefix in bits.
    pub prefix: u8,
    /// The router, where there is one.
    pub gateway: Option<Ipv4Addr>,
    /// The IPv6 address with the length of its network's prefix in bits, where the network has IPv6.
    pub address6: Option<(Ipv6Addr, u8)>,
    /// The router for IPv6, where there is one.
    pub gateway6: Option<Ipv6Addr>,
    /// The largest packet in bytes, where it is not Ethernet's 1500.
    pub mtu: Option<u32>,
}

/// Why a Linux guest could not be booted or run.
#[derive(Debug, thiserror::Error)]
pub enum LinuxError {
    /// Its kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel's modules.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// Its memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The virtual machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A call on the virtual machine.
    #[error("{operation} of the virtual machine")]
    System {
        /// The operation.
        operation: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The virtual processor.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// A number of processors that no guest can have here.
    #[error("a guest with {wanted} processors: it must have at least 1, and can have {most} on this machine")]
    Processors {
        /// What was asked for.
        wanted: u8,
        /// The most.
        most: usize,
    },
    /// A kernel for one processor.
    #[error(
        "the kernel {kernel} runs one processor alone: give the guest one, or another kernel (`isobench vm kernel build --smp` makes one)"
    )]
    OneProcessor {
        /// The kernel file.
        kernel: PathBuf,
    },
    /// The tap.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// A device could not be made.
    #[error("make the guest's devices")]
    Devices(#[source] io::Error),
    /// Requests can't be taken.
    #[error("take requests on the machine's control socket")]
    Control(#[source] io::Error),
    /// Two devices at one address.
    #[error(transparent)]
    Overlap(#[from] Overlap),
    /// More devices than lines.
    #[error(
        "the guest would have more virtio devices than the {} that have an interrupt line: give it fewer disks",
        layout::LAST_DEVICE_LINE - layout::FIRST_DEVICE_LINE + 1
    )]
    TooManyDevices,
    /// The initramfs does not fit.
    #[error(
        "the initramfs of {initramfs} bytes does not fit into {memory} bytes of memory beside the kernel, which ends at {kernel:#x}: give the guest more memory"
    )]
    InitramfsTooLarge {
        /// Size of the initramfs.
        initramfs: u64,
        /// Where the kernel ends.
        kernel: u64,
        /// Memory below 4 GiB.
        memory: u64,
    },
    /// The command line is too long.
    #[error(
        "the kernel's command line would have {length} bytes, more than the {} that it takes",
        boot_parameters::LONGEST_COMMAND_LINE
    )]
    CommandLineTooLong {
        /// Its length.
        length: usize,
    },
    /// The thread could not be confined.
    #[error(transparent)]
    Confinement(#[from] ConfinementError),
    /// The zero page could not be written.
    #[error("write the boot parameters")]
    BootParameters(#[source] linux_loader::configurator::Error),
}

/// How a guest ended, and what its kernel said last.
#[derive(Debug)]
pub struct Ending {
    /// How it ended.
    pub outcome: Outcome,
    /// The last lines of the console that were the kernel's or a program's error, for a report where the outcome is bad.
    pub log: Vec<String>,
}

/// Boots Linux and runs it to its end. The agent's ready line, with the host's stamps, and its results go to `output`; `stages`
/// holds what the program has stamped so far.
pub fn run(
    mut config: Config,
    stages: Stages,
    output: impl Write + Debug + Send + 'static,
) -> Result<Ending, LinuxError> {
    let kernel = Kernel::open(&config.kernel)?;
    if config.processors > 1 && Identity::of(&kernel).multiprocessor() == Some(false) {
        return Err(LinuxError::OneProcessor { kernel: config.kernel });
    }
    // 1. memory
    if !(LEAST_MEMORY..=MOST_MEMORY).contains(&config.memory) || !config.memory.is_multiple_of(2 << 20) {
        return Err(MemoryError::Size { size: config.memory, least: LEAST_MEMORY, most: MOST_MEMORY }.into());
    }
    memory::check_against_host(config.memory)?;
    let memory = memory::create_regions(&regions(config.memory))?;
    memory::choose_pages(&memory, config.pages)?;
    if config.populated {
        memory::populate_all(&memory)?;
    }
    // 2. kvm
    let machine = Machine::new(memory.clone())?;
    // Before the processor: it is made with a local interrupt controller only where there is the rest of it.
    create_interrupt_controllers(machine.vm(), config.processors)?;
    // The last files that are opened.
    let mut wanted = Vec::new();
    wanted.extend(config.network.is_some().then_some("virtio_net"));
    wanted.extend((!config.disks.is_empty()).then_some("virtio_blk"));
    wanted.extend(config.entropy.then_some("virtio_rng"));
    wanted.extend(config.balloon.is_some().then_some("virtio_balloon"));
    wanted.extend(config.session.then_some("virtio_console"));
    let modules = match wanted.is_empty() {
        true => Vec::new(),
        false => Modules::find(kernel.path(), kernel.release(), &wanted)?.read()?,
    };
    if let Some(jail) = &config.jail {
        // A disk may be of any size.
        jail.enter(None);
    }
    // Each thread from here on has this one's signals.
    let session = if config.session { Some(Session::begin(config.exec.take())?) } else { None };
    // 3. vCPU
    let most = machine.kvm().get_max_vcpus().min(multiprocessor::MOST_PROCESSORS.into());
    if !(1..=most).contains(&config.processors.into()) {
        return Err(LinuxError::Processors { wanted: config.processors, most });
    }
    let vcpus =
        (0..config.processors).map(|number| machine.create_vcpu(number.into())).collect::<Result<Vec<_>, _>>()?;
    // 4. devices
    let transcript = Shared::new(Transcript::new(stages, output));
    let (mut ports, mut registers) = (Bus::new(), Bus::new());
    let line = interrupt_line(machine.vm(), layout::SERIAL_LINE)?;
    let serial = u64::from(layout::SERIAL_PORT);
    ports.insert(serial..serial + 8, Box::new(Console::new(line, transcript.clone())))?;
    ports::attach(&mut ports, transcript.clone())?;
    let mut places = Places::new(machine.vm(), &mut registers);
    let network = match config.network {
        Some((tap, network)) => {
            let card =
                Card::new(Tap::new(tap)?, network.mac, memory.clone(), config.spin).map_err(LinuxError::Devices)?;
            let (interrupt, kick) = (card.interrupt().clone(), card.kick().try_clone().map_err(LinuxError::Devices)?);
            places.add(card, interrupt.event(), &kick)?;
            Some(network)
        }
        None => None,
    };
    for (number, disk) in config.disks.into_iter().enumerate() {
        let block = Block::new(disk, &format!("isobench-disk-{number}"));
        let identity = block.identity();
        add(&mut places, QueueDevice::new("block", identity, block, Role::Block, memory.clone()))?;
    }
    if config.entropy {
        add(&mut places, QueueDevice::new("entropy", entropy::identity(), Entropy, Role::Entropy, memory.clone()))?;
    }
    let mut control = None;
    if let Some(kind) = config.balloon {
        let (device, of_balloon) =
            balloon::create(memory.clone(), kind == BalloonKind::Reporting).map_err(LinuxError::Devices)?;
        add(&mut places, Ok(device))?;
        control = Some(of_balloon);
    }
    let _server = match config.control {
        Some(listener) => {
            Some(Server::start(listener, Asked { balloon: control, keeper: None }).map_err(LinuxError::Control)?)
        }
        None => None,
    };
    if let Some(session) = &session {
        add(&mut places, session.device(memory.clone()))?;
    }
    let places = places.into_taken();
    // 5. kernel
    let loaded = kernel.load(&memory)?;
    let mut initramfs = initramfs(&config.agent, &config.arguments, &modules);
    initramfs.extend(std::mem::take(&mut config.archive));
    let root = acpi::write(&memory, &places, config.processors)?;
    multiprocessor::write(&memory, config.processors)?;
    let command_line =
        command_line(network.as_ref(), if kernel.release().is_none() { &places } else { &[] }, &config.append);
    boot_parameters::write(&memory, &loaded, &initramfs, &command_line, root)?;
    drop((kernel, initramfs, modules));
    // 6. registers
    processor::write_tables(&memory, loaded.entry)?;
    for (number, vcpu) in (0..).zip(&vcpus) {
        processor::set_features(machine.kvm(), vcpu, number, config.processors)?;
    }
    let mut vcpus = vcpus.into_iter();
    // At least one, as was checked.
    let first = vcpus.next().ok_or(LinuxError::Processors { wanted: 0, most })?;
    processor::set_registers(&first)?;
    // 7. run
    let shift = Shift { ports: &ports, registers: &registers, deadline: config.deadline, confined: config.confined };
    let ready = || transcript.with(|transcript| transcript.stamp(Stage::VmmReady));
    let (stop, vcpu) = crew::run(
        Vcpu::new(first, 0),
        (1..).zip(vcpus).map(|(number, vcpu)| Vcpu::new(vcpu, number)).collect(),
        shift,
        ready,
    )?;
    if let Some(session) = session {
        session.finish();
    }
    let status = transcript.with(|transcript| transcript.status());
    let log = transcript.with(|transcript| transcript.log().map(str::to_owned).collect());
    Ok(Ending { outcome: outcome(stop, status, vcpu.fd(), &machine)?, log })
}

/// Guest memory of this size: below the hole for device registers, and the rest above 4 GiB.
fn regions(size: u64) -> Vec<(GuestAddress, usize)> {
    let low = size.min(layout::LOWEST_HOLE);
    let mut regions = vec![(GuestAddress(0), low as usize)];
    if size > low {
        regions.push((GuestAddress(layout::ABOVE_4_GIB), (size - low) as usize));
    }
    regions
}

/// KVM's own local and I/O interrupt controllers. No timer chip: the local controller's timer needs no calibration by it.
fn create_interrupt_controllers(vm: &VmFd, processors: u8) -> Result<(), LinuxError> {
    let failed = |operation| move |source: kvm_ioctls::Error| LinuxError::System { operation, source: source.into() };
    vm.set_tss_address(layout::KVM_TSS as usize).map_err(failed("set the task state address"))?;
    vm.create_irq_chip().map_err(failed("create the interrupt controllers"))?;
    interrupts::begin_in_virtual_wire_mode(vm, processors).map_err(failed("set the I/O interrupt controller"))
}

/// An event that raises an interrupt line.
fn interrupt_line(vm: &VmFd, number: u32) -> Result<EventFd, LinuxError> {
    let event = EventFd::new(EFD_NONBLOCK).map_err(LinuxError::Devices)?;
    vm.register_irqfd(&event, number)
        .map_err(|source| LinuxError::System { operation: "register an interrupt", source: source.into() })?;
    Ok(event)
}

/// Adds a device whose queues a thread attends to.
fn add(places: &mut Places<'_>, device: io::Result<QueueDevice>) -> Result<(), LinuxError> {
    let device = device.map_err(LinuxError::Devices)?;
    let (interrupt, kick) = (device.interrupt().clone(), device.kick().try_clone().map_err(LinuxError::Devices)?);
    places.add(device, interrupt.event(), &kick)
}

/// The agent as /init, its arguments, the modules in order, and the console that the kernel opens for it.
fn initramfs(agent: &[u8], arguments: &[String], modules: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Archive::new();
    for directory in ["dev", "proc", "sys", "tmp", "isobench", "isobench/modules"] {
        archive.directory(directory);
    }
    archive.character_device("dev/console", 5, 1);
    archive.character_device("dev/null", 1, 3);
    archive.program("init", agent);
    archive.file("isobench/arguments", arguments.join("\0").as_bytes());
    for (index, (name, content)) in modules.iter().enumerate() {
        archive.file(&format!("isobench/modules/{index:02}-{name}"), content);
    }
    archive.finish()
}

/// What the kernel is told: a quiet console, which is the largest saving of all; how to end; what need not be looked for; what the
/// agent reads of it; and `places`, the devices that it would not find.
fn command_line(network: Option<&Network>, places: &[Place], append: &str) -> String {
    let mut line = String::from(
        "console=ttyS0 quiet panic=-1 reboot=k pci=off 8250.nr_uarts=1 cryptomgr.notests isobench.guest=1",
    );
    // Writing to a string cannot fail.
    if let Some(network) = network {
        let _ = write!(line, " isobench.address={}/{}", network.address, network.prefix);
        if let Some(gateway) = network.gateway {
            let _ = write!(line, " isobench.gateway={gateway}");
        }
        if let Some((address, prefix)) = network.address6 {
            let _ = write!(line, " isobench.address6={address}/{prefix}");
        }
        if let Some(gateway) = network.gateway6 {
            let _ = write!(line, " isobench.gateway6={gateway}");
        }
        if let Some(mtu) = network.mtu {
            let _ = write!(line, " isobench.mtu={mtu}");
        }
    }
    for Place { registers, line: number } in places {
        let _ = write!(line, " virtio_mmio.device=4K@{registers:#x}:{number}");
    }
    if !append.is_empty() {
        let _ = write!(line, " {append}");
    }
    line
}

/// What the end of the run loop means: a guest whose agent took leave has exited, by whatever way it resets itself.
fn outcome(stop: Stop, status: Option<u8>, vcpu: &VcpuFd, machine: &Machine) -> Result<Outcome, VcpuError> {
    let at = || {
        let registers = vcpu.get_regs().map_err(VcpuError::system("read the registers"))?;
        let special = vcpu.get_sregs().map_err(VcpuError::system("read the special registers"))?;
        Ok(Box::new(Registers::new(&registers, &special)))
    };
    Ok(match (stop, status) {
        (Stop::Exit(_) | Stop::Shutdown, Some(status)) => Outcome::Exited(status),
        (Stop::Exit(_) | Stop::Shutdown | Stop::Crash | Stop::Panic, _) => Outcome::Reset,
        (Stop::Halted, _) => Outcome::Halted(at()?),
        // Of all that were dismissed there is one that was not.
        (Stop::Deadline | Stop::Dismissed, _) => Outcome::Deadline(at()?),
        (Stop::Internal { suberror, .. }, _) => {
            let registers = vcpu.get_regs().map_err(VcpuError::system("read the registers"))?;
            // The page tables are the guest's own by now: only an address that is mapped one to one can be followed.
            let mut bytes = vec![0; 15];
            let known = machine.memory().read(&mut bytes, GuestAddress(registers.rip)).unwrap_or(0);
            bytes.truncate(known);
            Outcome::Internal { suberror, instruction_pointer: registers.rip, bytes }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_on_above_the_hole() {
        assert_eq!(regions(64 << 20), [(GuestAddress(0), 64 << 20)]);
        let low = layout::LOWEST_HOLE as usize;
        assert_eq!(regions(4 << 30), [(GuestAddress(0), low), (GuestAddress(1 << 32), (4 << 30) - low)]);
    }

    #[test]
    fn the_command_line_says_what_the_agent_needs() {
        let network = Network {
            mac: [2; 6],
            address: Ipv4Addr::new(172, 17, 0, 5),
            prefix: 16,
            gateway: Some(Ipv4Addr::new(172, 17, 0, 1)),
            address6: Some(("fd00::5".parse().unwrap(), 64)),
            gateway6: Some("fd00::1".parse().unwrap()),
            mtu: Some(1400),
        };
        let place = Place { registers: 0xd000_0000, line: 5 };
        let line = command_line(Some(&network), &[place], "");
        assert!(
            line.contains(" isobench.address=172.17.0.5/16 isobench.gateway=172.17.0.1 isobench.address6=fd00::5/64")
        );
        assert!(line.contains(" isobench.gateway6=fd00::1 isobench.mtu=1400"));
        assert!(line.ends_with(" virtio_mmio.device=4K@0xd0000000:5"));
        assert!(!command_line(None, &[], "").contains("virtio"));
    }
}
