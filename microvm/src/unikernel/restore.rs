//! Restoring a unikernel from a snapshot: the recipe of the crate's front page, with what was saved in place of kernel and registers.

use super::{Assembled, LARGEST_FILE, LEAST_MEMORY, UNIKERNEL, UnikernelError, operate, populate, ports, seed, write};
use crate::bus::Bus;
use crate::devices::virtio::card::Card;
use crate::devices::virtio::mmio;
use crate::devices::virtio::tap::Tap;
use crate::layout;
use crate::machine::Machine;
use crate::memory;
use crate::memory::MemoryError;
use crate::operation::Operation;
use crate::outcome::Outcome;
use crate::snapshot::{GuestKind, MachineState, memory as file, processor};
use isobench_guest::contract::{self, BootParameters, Network};
use isobench_workload::Stages;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use vm_memory::{Bytes, GuestAddress};

/// What of a clone is its own.
#[derive(Debug)]
pub struct Restoration {
    /// What was saved, but memory.
    pub state: MachineState,
    /// The memory's file.
    pub memory: File,
    /// Its network card's tap, attached already, and its addresses, where the guest has a card. The port, and whether frames are segmented,
    /// are the guest's as it was saved.
    pub network: Option<(OwnedFd, Network)>,
    /// How it is run.
    pub operation: Operation,
}

/// Goes on with a unikernel where it was saved, as a clone with its own addresses, and runs it to its end. The ready line goes to `output`
/// when it says that it serves as whom it has become.
pub fn restore(
    restoration: Restoration,
    stages: Stages,
    output: impl Write + std::fmt::Debug + Send + 'static,
) -> Result<Outcome, UnikernelError> {
    let Restoration { state, network, .. } = restoration;
    let (guest, least, most) = (&state.guest, LEAST_MEMORY, layout::MOST_UNIKERNEL_MEMORY);
    let ([(0, size)], [saved]) = (&guest.regions[..], &state.processors[..]) else {
        return Err(UnikernelError::Foreign("it has other memory or processors"));
    };
    if guest.kind != GuestKind::Unikernel || guest.linux.is_some() {
        return Err(UnikernelError::Foreign("it is Linux"));
    }
    if guest.network != network.is_some() {
        let (has, has_not) = ("has a network card: give it --tap-fd, --mac and --address", "has no network card");
        return Err(UnikernelError::Network(if guest.network { has } else { has_not }));
    }
    // 1. memory
    if !(least..=most).contains(size) {
        return Err(MemoryError::Size { size: *size, least, most }.into());
    }
    let memory = file::map(&restoration.memory, &guest.regions)?;
    // 2. kvm
    let machine = Machine::new(memory.clone())?;
    machine.keep_local_interrupt_controllers();
    if let Some(jail) = &restoration.operation.jail {
        jail.enter(Some(LARGEST_FILE));
    }
    // 3. vCPU
    let vcpu = machine.create_vcpu(0)?;
    let counter_khz = processor::restore(&vcpu, saved)?;
    // 4. devices
    let (mut ports, mut registers) = (Bus::new(), Bus::new());
    let (card, network) = match network {
        Some((tap, network)) => {
            let card = Card::new(Tap::new(tap)?, network.mac, memory.clone(), restoration.operation.spin)
                .map_err(UnikernelError::Card)?;
            (Some(card), network)
        }
        None => (None, Network::NONE),
    };
    ports::attach(&mut ports, card.as_ref(), true)?;
    if let Some(card) = card {
        let window = contract::NETWORK_CARD..contract::NETWORK_CARD + mmio::WINDOW;
        registers.insert(window, Box::new(card))?;
    }
    // 5. who it is
    // The guest's tables, to which the processor writes what it used, lie behind its parameters. A page that is copied while the guest runs
    // is one that KVM takes away from it first, and one that is read before it is written is mapped twice.
    let tables = contract::BOOT_PARAMETERS..layout::HIGH_DIRECTORY + 0x1000;
    memory::populate(&memory, tables.start, (tables.end - tables.start) as usize)?;
    let mut page = [0; BootParameters::SIZE];
    let address = contract::BOOT_PARAMETERS;
    memory.read_slice(&mut page, GuestAddress(address)).map_err(|source| MemoryError::Access { address, source })?;
    let before = BootParameters::decode(&page).ok_or(UnikernelError::Foreign("it has no boot parameters"))?;
    let Network { port, segmentation, .. } = before.network;
    let parameters = BootParameters {
        network: Network { port, segmentation, ..network },
        counter_khz: counter_khz.into(),
        seed: seed(),
        generation: before.generation.wrapping_add(1),
        ..before
    };
    write(&memory, address, &parameters.encode())?;
    populate(&memory, before.task)?;
    memory::populate_for_reading(&memory, contract::IMAGE, UNIKERNEL.len().next_multiple_of(4096))?;
    // 6. the devices' state; the card's thread begins
    for (address, device) in &state.registers {
        registers.restore(*address, device).map_err(UnikernelError::State)?;
    }
    // 7. run
    let assembled = Assembled { machine, vcpu, ports, registers, task: before.task, network: guest.network };
    operate(assembled, restoration.operation, stages, output)
}
