//! The unikernel's ports: exit, crash, panic, sleep and exchange.

use super::port;
use crate::bus::{Bus, Device, Overlap, Reaction};
use crate::devices::virtio::card::Card;
use crate::devices::virtio::interrupt::Interrupt;
use crate::devices::virtio::worker::Exchange;
use crate::system;
use isobench_guest::contract::{PORT_CRASH, PORT_EXCHANGE, PORT_EXIT, PORT_PANIC, PORT_SLEEP};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::time::Duration;

/// Puts the ports on the bus; without a card a sleep has no end but its limit. A guest that was `restored` may have been about to sleep,
/// and is to look first who it has become: its first sleep ends at once.
pub(super) fn attach(bus: &mut Bus, card: Option<&Card>, restored: bool) -> Result<(), Overlap> {
    bus.insert(port(PORT_EXIT), Box::new(Exit))?;
    bus.insert(port(PORT_CRASH), Box::new(Report(Reaction::Crash)))?;
    bus.insert(port(PORT_PANIC), Box::new(Report(Reaction::Panic)))?;
    let card = card.map(|card| (card.interrupt().clone(), card.exchange()));
    let ports = port(PORT_SLEEP).start..port(PORT_EXCHANGE).end;
    bus.insert(ports, Box::new(Sleep { card, awake: restored }))
}

/// Ends the guest with the written status.
#[derive(Debug)]
pub(crate) struct Exit;

impl Device for Exit {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, _offset: u64, data: &[u8]) -> Reaction {
        Reaction::Exit(data.first().copied().unwrap_or(0))
    }
}

/// Reports that the guest can't go on.
#[derive(Debug)]
struct Report(Reaction);

impl Device for Report {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, _offset: u64, _data: &[u8]) -> Reaction {
        self.0
    }
}

/// Blocks the vCPU until the card's interrupt: what `hlt` is to a guest with interrupts. Or moves the card's frames on the vCPU's
/// own thread, until there is one for the guest.
#[derive(Debug)]
struct Sleep {
    card: Option<(Interrupt, Exchange)>,
    awake: bool,
}

impl Sleep {
    /// Where the port of an exchange lies beside that of a sleep.
    const EXCHANGE: u64 = (PORT_EXCHANGE - PORT_SLEEP) as u64;
}

impl Device for Sleep {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, offset: u64, data: &[u8]) -> Reaction {
        let Ok(word) = <[u8; 4]>::try_from(data) else { return Reaction::Continue };
        if std::mem::take(&mut self.awake) {
            return Reaction::Continue;
        }
        let limit = match u32::from_le_bytes(word) {
            u32::MAX => None,
            microseconds => Some(Duration::from_micros(microseconds.into())),
        };
        match &self.card {
            Some((_, exchange)) if offset == Self::EXCHANGE && exchange.exchange(limit) => return Reaction::Continue,
            Some((_, exchange)) => exchange.end(),
            None => {}
        }
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        // An interrupted wait is over: the deadline's signal must end the guest, and any other only wakes it early.
        let _ = match &self.card {
            Some((interrupt, _)) => {
                let event = system::borrow_event(interrupt.event());
                let result = poll(&mut [PollFd::from_borrowed_fd(event, PollFlags::IN)], limit.as_ref());
                let _ = interrupt.event().read();
                result
            }
            None => poll(&mut [], limit.as_ref()),
        };
        Reaction::Continue
    }
}
