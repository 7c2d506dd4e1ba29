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
mod equipment;
mod error;
pub mod identity;
pub mod initramfs;
mod interrupts;
pub mod kernel;
pub mod layout;
pub mod modules;
pub mod multiprocessor;
mod operation;
mod ports;
mod processor;
mod restore;
pub mod sandbox;
pub mod session;
mod topology;

pub use error::LinuxError;
pub use isobench_workload::guest::Network;
pub use operation::Ending;
pub use restore::{Restoration, restore};

use crate::devices::virtio::card::CardError;
use crate::devices::virtio::disk::Disk;
use crate::devices::virtio::vhost::Vhost;
use crate::machine::Machine;
use crate::memory::{self, MemoryError, Pages};
use crate::operation::Operation;
use crate::snapshot::{Guest, GuestDisk, GuestKind, LinuxGuest};
use console::{Console, Shared, Transcript};
use devices::Place;
use equipment::Wanted;
use identity::Identity;
use initramfs::Archive;
use isobench_workload::Stages;
use kernel::Kernel;
use kvm_ioctls::VmFd;
use modules::Modules;
use operation::{Assembled, operate};
use serde::{Deserialize, Serialize};
use session::Session;
use session::terminal::RawTerminal;
use std::fmt::{Debug, Write as _};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use vm_memory::{GuestAddress, GuestMemoryMmap};
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
    /// Who moves the card's frames.
    pub frames: Frames,
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
    /// Size of its memory in bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// What pages its memory is made of.
    pub pages: Pages,
    /// Whether all its memory is taken before it runs; else when it is touched.
    pub populated: bool,
    /// How it is run.
    pub operation: Operation,
}

/// Who moves the frames of a network card between its queues and its tap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frames {
    /// The kernel where this user may have it do that, else the monitor.
    #[default]
    Either,
    /// The kernel, by [vhost](crate::devices::virtio::vhost).
    Kernel,
    /// A thread of the monitor's.
    Monitor,
}

/// What a balloon does besides what it is asked for. Of memory in large pages the host has one back when all of it was given back, so
/// that [`Pages::Small`] shows best what a balloon does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BalloonKind {
    /// Nothing.
    Plain,
    /// It gives back to the host what the guest leaves unused for some seconds ("free page reporting").
    Reporting,
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
    let memory = create_memory(&config)?;
    // 2. kvm
    let machine = Machine::new(memory.clone())?;
    // Before the processor: it is made with a local interrupt controller only where there is the rest of it.
    create_interrupt_controllers(machine.vm())?;
    interrupts::begin_in_virtual_wire_mode(machine.vm(), config.processors).map_err(|source| LinuxError::System {
        operation: "set the I/O interrupt controller",
        source: source.into(),
    })?;
    // The last files that are opened.
    let modules = read_modules(&config, &kernel)?;
    let vhost = open_vhost(&config, &memory)?;
    let mut initramfs = initramfs(&config.agent, &config.arguments, &modules);
    initramfs.extend(std::mem::take(&mut config.archive));
    let guest = describe(&config, &kernel, initramfs.len() as u64);
    if let Some(jail) = &config.operation.jail {
        // A disk may be of any size.
        jail.enter(None);
    }
    let _terminal = if config.session { Some(RawTerminal::begin().map_err(LinuxError::Devices)?) } else { None };
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
    let network = config.network.as_ref().map(|(_, network)| *network);
    let card = config.network.map(|(tap, network)| (tap, network.mac));
    let written = config.disks.iter().any(|disk| !disk.is_read_only());
    let (entropy, balloon, spin) = (config.entropy, config.balloon, config.operation.spin);
    let wanted =
        Wanted { card, vhost, checked: false, spin, disks: config.disks, entropy, balloon, session: session.as_ref() };
    let line = interrupt_line(machine.vm(), layout::SERIAL_LINE)?;
    let mut equipment = equipment::install(&machine, Console::new(line, transcript.clone()), wanted)?;
    ports::attach(&mut equipment.ports, transcript.clone())?;
    let places = std::mem::take(&mut equipment.places);
    // 5. kernel
    let loaded = kernel.load(&memory)?;
    let root = acpi::write(&memory, &places, config.processors)?;
    multiprocessor::write(&memory, config.processors)?;
    // Only who may be saved need listen for who it is then.
    let clones = if config.operation.control.is_some() { " isobench.clones=1" } else { "" };
    let command_line = command_line(
        network.as_ref(),
        if kernel.release().is_none() { &places } else { &[] },
        &[clones, " ", &config.append].concat(),
    );
    boot_parameters::write(&memory, &loaded, &initramfs, &command_line, root)?;
    let kernel = config.operation.control.is_some().then(|| kernel.into_file()).flatten();
    drop((initramfs, modules));
    // 6. registers
    processor::write_tables(&memory, loaded.entry)?;
    for (number, vcpu) in (0..).zip(&vcpus) {
        processor::set_features(machine.kvm(), vcpu, number, config.processors)?;
    }
    if let Some(first) = vcpus.first() {
        processor::set_registers(first)?;
    }
    // 7. run
    let refused = written.then_some("the guest writes to its disk, which a clone cannot share with it");
    operate(Assembled { machine, vcpus, equipment, session, transcript, guest, kernel, refused }, config.operation)
}

/// The guest's memory, of the pages that are asked for.
fn create_memory(config: &Config) -> Result<GuestMemoryMmap, LinuxError> {
    if !(LEAST_MEMORY..=MOST_MEMORY).contains(&config.memory) || !config.memory.is_multiple_of(2 << 20) {
        return Err(MemoryError::Size { size: config.memory, least: LEAST_MEMORY, most: MOST_MEMORY }.into());
    }
    memory::check_against_host(config.memory)?;
    let memory = memory::create_regions(&regions(config.memory))?;
    memory::choose_pages(&memory, config.pages)?;
    if config.populated {
        memory::populate_all(&memory)?;
    }
    Ok(memory)
}

/// The modules that a kernel needs for the guest's devices, in order.
fn read_modules(config: &Config, kernel: &Kernel) -> Result<Vec<(String, Vec<u8>)>, LinuxError> {
    let mut wanted = Vec::new();
    wanted.extend(config.network.is_some().then_some("virtio_net"));
    wanted.extend((!config.disks.is_empty()).then_some("virtio_blk"));
    wanted.extend(config.entropy.then_some("virtio_rng"));
    wanted.extend(config.balloon.is_some().then_some("virtio_balloon"));
    wanted.extend(config.session.then_some("virtio_console"));
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    Ok(Modules::find(kernel.path(), kernel.release(), &wanted)?.read()?)
}

/// The kernel's way to move the card's frames, where it is to do that.
fn open_vhost(config: &Config, memory: &GuestMemoryMmap) -> Result<Option<Vhost>, LinuxError> {
    Ok(match (&config.network, config.frames) {
        (None, _) | (_, Frames::Monitor) => None,
        (Some(_), Frames::Either) => Vhost::open(memory).ok(),
        (Some(_), Frames::Kernel) => Some(Vhost::open(memory).map_err(CardError::from)?),
    })
}

/// What the guest is, as a snapshot has it. Only of one that can be saved is the kernel looked at for that.
fn describe(config: &Config, kernel: &Kernel, initramfs_bytes: u64) -> Guest {
    let identity = config.operation.control.is_some().then(|| Identity::of(kernel));
    Guest {
        kind: GuestKind::Linux,
        workload: config.arguments.join(" "),
        program: identity.as_ref().and_then(|identity| identity.release.clone()).unwrap_or_default(),
        regions: regions(config.memory).into_iter().map(|(start, length)| (start.0, length as u64)).collect(),
        processors: config.processors,
        network: config.network.is_some(),
        session: config.session,
        linux: Some(LinuxGuest {
            kernel: identity.and_then(|identity| identity.banner).unwrap_or_default(),
            kernel_bytes: kernel.bytes().len() as u64,
            kernel_sha256: None,
            initramfs_bytes,
            disks: config.disks.iter().map(GuestDisk::of).collect(),
            entropy: config.entropy,
            balloon: config.balloon,
        }),
    }
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
fn create_interrupt_controllers(vm: &VmFd) -> Result<(), LinuxError> {
    let failed = |operation| move |source: kvm_ioctls::Error| LinuxError::System { operation, source: source.into() };
    vm.set_tss_address(layout::KVM_TSS as usize).map_err(failed("set the task state address"))?;
    vm.create_irq_chip().map_err(failed("create the interrupt controllers"))
}

/// An event that raises an interrupt line.
fn interrupt_line(vm: &VmFd, number: u32) -> Result<EventFd, LinuxError> {
    let event = EventFd::new(EFD_NONBLOCK).map_err(LinuxError::Devices)?;
    vm.register_irqfd(&event, number)
        .map_err(|source| LinuxError::System { operation: "register an interrupt", source: source.into() })?;
    Ok(event)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

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
