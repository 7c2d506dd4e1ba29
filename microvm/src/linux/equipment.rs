//! A Linux guest's devices, in the order in which they have their places. That of one that is restored is the same.

use super::LinuxError;
use super::console::Console;
use super::devices::{Place, Places};
use super::session::Session;
use super::{BalloonKind, layout};
use crate::bus::Bus;
use crate::confinement::Role;
use crate::devices::virtio::balloon::{self, BalloonControl};
use crate::devices::virtio::block::Block;
use crate::devices::virtio::card::Card;
use crate::devices::virtio::device::QueueDevice;
use crate::devices::virtio::disk::Disk;
use crate::devices::virtio::entropy::{self, Entropy};
use crate::devices::virtio::tap::Tap;
use crate::devices::virtio::vhost::{Vhost, VhostCard};
use crate::machine::Machine;
use std::fmt::Debug;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;

/// Which devices a guest has beside the console.
#[derive(Debug)]
pub(super) struct Wanted<'s> {
    /// A network card on this tap, with its Ethernet address.
    pub(super) card: Option<(OwnedFd, [u8; 6])>,
    /// Who moves its frames in the monitor's place.
    pub(super) vhost: Option<Vhost>,
    /// Whether only frames from that address leave it, which the monitor alone can see to.
    pub(super) checked: bool,
    /// How long its thread looks for frames before it sleeps.
    pub(super) spin: Duration,
    pub(super) disks: Vec<Disk>,
    pub(super) entropy: bool,
    pub(super) balloon: Option<BalloonKind>,
    /// The streams of programs in the guest, for which it has a virtio console.
    pub(super) session: Option<&'s Session>,
}

/// The devices on their buses.
#[derive(Debug)]
pub(super) struct Equipment {
    pub(super) ports: Bus,
    pub(super) registers: Bus,
    /// Where the virtio devices are.
    pub(super) places: Vec<Place>,
    pub(super) balloon: Option<BalloonControl>,
}

/// Makes the devices; the console is the serial port.
pub(super) fn install<W: Write + Debug + Send + 'static>(
    machine: &Machine,
    console: Console<W>,
    wanted: Wanted<'_>,
) -> Result<Equipment, LinuxError> {
    let memory = machine.memory();
    let (mut ports, mut registers) = (Bus::new(), Bus::new());
    let serial = u64::from(layout::SERIAL_PORT);
    ports.insert(serial..serial + 8, Box::new(console))?;
    let mut places = Places::new(machine.vm(), &mut registers);
    match (wanted.card, wanted.vhost) {
        (Some((tap, mac)), Some(vhost)) => {
            let card = VhostCard::new(Tap::new(tap)?, mac, vhost)?;
            let (interrupt, kicks) = (card.interrupt().clone(), clones(card.kicks())?);
            places.add(card, interrupt.event(), &kicks)?;
        }
        (Some((tap, mac)), None) => {
            let card = Card::new(Tap::new(tap)?, mac, memory.clone(), wanted.spin).map_err(LinuxError::Devices)?;
            let card = if wanted.checked { card.with_source(mac) } else { card };
            let (interrupt, kicks) = (card.interrupt().clone(), clones(std::slice::from_ref(card.kick()))?);
            places.add(card, interrupt.event(), &kicks)?;
        }
        (None, _) => {}
    }
    for (number, disk) in wanted.disks.into_iter().enumerate() {
        let block = Block::new(disk, &format!("isobench-disk-{number}"));
        let identity = block.identity();
        add(&mut places, QueueDevice::new("block", identity, block, Role::Block, memory.clone()))?;
    }
    if wanted.entropy {
        add(&mut places, QueueDevice::new("entropy", entropy::identity(), Entropy, Role::Entropy, memory.clone()))?;
    }
    let mut control = None;
    if let Some(kind) = wanted.balloon {
        let (device, of_balloon) =
            balloon::create(memory.clone(), kind == BalloonKind::Reporting).map_err(LinuxError::Devices)?;
        add(&mut places, Ok(device))?;
        control = Some(of_balloon);
    }
    if let Some(session) = wanted.session {
        add(&mut places, session.device(memory.clone()))?;
    }
    let places = places.into_taken();
    Ok(Equipment { ports, registers, places, balloon: control })
}

/// Adds a device whose queues a thread attends to.
fn add(places: &mut Places<'_>, device: io::Result<QueueDevice>) -> Result<(), LinuxError> {
    let device = device.map_err(LinuxError::Devices)?;
    let (interrupt, kicks) = (device.interrupt().clone(), clones(std::slice::from_ref(device.kick()))?);
    places.add(device, interrupt.event(), &kicks)
}

/// Further descriptors of the same events.
fn clones(events: &[EventFd]) -> Result<Vec<EventFd>, LinuxError> {
    events.iter().map(|event| event.try_clone().map_err(LinuxError::Devices)).collect()
}
