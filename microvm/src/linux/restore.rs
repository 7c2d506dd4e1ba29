//! Restoring a Linux guest from a snapshot: the recipe of the crate's front page, with what was saved in place of kernel and registers.

use super::console::{Console, Shared, Transcript};
use super::equipment::{self, Wanted};
use super::operation::{Assembled, operate};
use super::session::Session;
use super::session::terminal::RawTerminal;
use super::{
    Ending, LEAST_MEMORY, LinuxError, MOST_MEMORY, Network, boot_parameters, create_interrupt_controllers,
    interrupt_line, layout, multiprocessor, ports, regions,
};
use crate::devices::virtio::disk::Disk;
use crate::machine::Machine;
use crate::memory::MemoryError;
use crate::operation::Operation;
use crate::snapshot::devices::{DeviceState, ServiceState, VirtioState};
use crate::snapshot::manifest::hexadecimal;
use crate::snapshot::{GuestDisk, GuestKind, LinuxGuest, MachineState, memory, processor};
use isobench_workload::Stages;
use isobench_workload::guest::Identity;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::SystemTime;

/// How many random bytes a clone is given: as many as no other can have by chance, and nobody can guess.
const SEED: usize = 16;

/// What of a clone is its own.
#[derive(Debug)]
pub struct Restoration {
    /// What was saved, but memory.
    pub state: MachineState,
    /// The memory's file.
    pub memory: File,
    /// Its network card's tap, attached already, and its addresses, where the guest has a card.
    pub network: Option<(OwnedFd, Network)>,
    /// Its host name, where it is to have another than the guest that was saved.
    pub host_name: Option<String>,
    /// Files in /etc that it is to have anew, by their names, where it has a session.
    pub files: BTreeMap<String, String>,
    /// Its disks: as many as the guest that was saved has, of the same sizes, read-only.
    pub disks: Vec<Disk>,
    /// See [`super::Config`].
    pub exec: Option<UnixListener>,
    /// How it is run.
    pub operation: Operation,
}

/// Goes on with a Linux guest where it was saved, as a clone with its own addresses, and runs it to its end. The ready line goes to
/// `output` when the agent says that it is whom it was told to be.
pub fn restore(
    restoration: Restoration,
    stages: Stages,
    output: impl Write + Debug + Send + 'static,
) -> Result<Ending, LinuxError> {
    let Restoration { state, network, disks, .. } = restoration;
    let guest = state.guest;
    let linux = checked(guest.kind, guest.linux.clone())?;
    has_what_it_needs(guest.network, &linux, network.is_some(), &disks)?;
    // 1. memory
    let size = guest.memory();
    let usual: Vec<(u64, u64)> = regions(size).into_iter().map(|(start, length)| (start.0, length as u64)).collect();
    if !(LEAST_MEMORY..=MOST_MEMORY).contains(&size) {
        return Err(MemoryError::Size { size, least: LEAST_MEMORY, most: MOST_MEMORY }.into());
    }
    if guest.regions != usual || state.processors.len() > multiprocessor::MOST_PROCESSORS.into() {
        return Err(LinuxError::Foreign("it has other memory or processors"));
    }
    let carried = |(_, device): &(u64, DeviceState)| {
        matches!(device, DeviceState::Virtio(VirtioState { service: Some(ServiceState::Console { .. }), .. }))
    };
    if guest.session != state.registers.iter().any(carried) {
        return Err(LinuxError::Foreign("its session and its console do not fit each other"));
    }
    let memory = memory::map(&restoration.memory, &guest.regions)?;
    // 2. kvm
    let machine = Machine::new(memory)?;
    create_interrupt_controllers(machine.vm())?;
    if let Some(jail) = &restoration.operation.jail {
        jail.enter(None);
    }
    let _terminal = if guest.session { Some(RawTerminal::begin().map_err(LinuxError::Devices)?) } else { None };
    let session = if guest.session { Some(Session::begin_held(restoration.exec)?) } else { None };
    // 3. vCPU
    let mut vcpus = Vec::with_capacity(state.processors.len());
    for saved in &state.processors {
        let vcpu = machine.create_vcpu(saved.number.into())?;
        processor::restore(&vcpu, saved)?;
        vcpus.push(vcpu);
    }
    // After the processors: what waits in the shared controllers goes to those of the processors.
    processor::restore_shared(machine.vm(), &state.vm)?;
    // 4. devices
    let transcript = Shared::new(Transcript::new(stages, output));
    let line = interrupt_line(machine.vm(), layout::SERIAL_LINE)?;
    // 5. who it is
    let identity = identity(network.as_ref().map(|(_, network)| *network), restoration.host_name, restoration.files)?;
    boot_parameters::write_identity(machine.memory(), &identity)?;
    let console = Console::new(line, transcript.clone());
    let wanted = Wanted {
        card: network.map(|(tap, network)| (tap, network.mac)),
        vhost: None,
        checked: true,
        spin: restoration.operation.spin,
        disks,
        entropy: linux.entropy,
        balloon: linux.balloon,
        session: session.as_ref(),
    };
    let mut equipment = equipment::install(&machine, console, wanted)?;
    ports::attach(&mut equipment.ports, transcript.clone())?;
    // 6. the devices' state; their threads begin, and whatever was on its way to the guest is told again
    for (bus, states) in [(&equipment.ports, &state.ports), (&equipment.registers, &state.registers)] {
        for (address, device) in states {
            bus.restore(*address, device).map_err(LinuxError::State)?;
        }
    }
    // 7. run
    let assembled = Assembled { machine, vcpus, equipment, session, transcript, guest, kernel: None, refused: None };
    operate(assembled, restoration.operation)
}

fn checked(kind: GuestKind, linux: Option<LinuxGuest>) -> Result<LinuxGuest, LinuxError> {
    match (kind, linux) {
        (GuestKind::Linux, Some(linux)) => Ok(linux),
        (GuestKind::Linux, None) => Err(LinuxError::Foreign("it does not say what the guest is made of")),
        (GuestKind::Unikernel, _) => Err(LinuxError::Foreign("it is the unikernel's")),
    }
}

/// Whether a clone is given what the guest had that was saved, and nothing else.
fn has_what_it_needs(card: bool, linux: &LinuxGuest, network: bool, disks: &[Disk]) -> Result<(), LinuxError> {
    let lacking = |what: String| Err(LinuxError::Lacking(what));
    match (card, network) {
        (true, false) => return lacking("has a network card: give it --tap-fd, --mac and --address".into()),
        (false, true) => return lacking("has no network card".into()),
        _ => {}
    }
    let sizes = |disks: &[GuestDisk]| disks.iter().map(|disk| disk.bytes).collect::<Vec<_>>();
    let given: Vec<GuestDisk> = disks.iter().map(GuestDisk::of).collect();
    let (wanted, found) = (sizes(&linux.disks), sizes(&given));
    if wanted != found {
        return lacking(format!("has disks of {wanted:?} bytes, and was given some of {found:?} by --disk"));
    }
    if disks.iter().any(|disk| !disk.is_read_only()) {
        return lacking("has disks that are only read: give it each as --disk FILE:ro".into());
    }
    // What it has read of one it keeps.
    if let Some(changed) = given.iter().zip(&linux.disks).position(|(given, had)| given.modified != had.modified) {
        let number = changed + 1;
        return lacking(format!(
            "keeps what it has read of its disks, of which number {number} was changed or is another file: give it the one that it had, or a \
             copy with its time of change"
        ));
    }
    Ok(())
}

/// What the agent reads of who it is from now on.
fn identity(
    network: Option<Network>,
    host_name: Option<String>,
    files: BTreeMap<String, String>,
) -> Result<Vec<u8>, LinuxError> {
    let mut seed = [0; SEED];
    let mut filled = 0;
    while filled < SEED {
        let given = rustix::rand::getrandom(&mut seed[filled..], rustix::rand::GetRandomFlags::empty());
        filled += given.map_err(|error| LinuxError::System {
            operation: "get random numbers for the clone",
            source: error.into(),
        })?;
    }
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    let identity = Identity { network, host_name, time, seed: hexadecimal(&seed), files };
    serde_json::to_vec(&identity).map_err(|error| LinuxError::Devices(error.into()))
}
