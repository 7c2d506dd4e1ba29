//! The unikernel's ports: exit, crash, panic and sleep.

use super::port;
use crate::bus::{Bus, Device, Overlap, Reaction};
use crate::devices::virtio::card::Card;
use crate::devices::virtio::interrupt::Interrupt;
use crate::system;
use isobench_guest::contract::{PORT_CRASH, PORT_EXIT, PORT_PANIC, PORT_SLEEP};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Puts the ports on the bus; without a card a sleep has no end but its limit. A guest that was `restored` may have been about to sleep,
/// and is to look first who it has become: its first sleep ends at once.
pub(super) fn attach(bus: &mut Bus, card: Option<&Card>, restored: bool) -> Result<(), Overlap> {
    bus.insert(port(PORT_EXIT), Box::new(Exit))?;
    bus.insert(port(PORT_CRASH), Box::new(Report(Reaction::Crash)))?;
    bus.insert(port(PORT_PANIC), Box::new(Report(Reaction::Panic)))?;
    bus.insert(
        port(PORT_SLEEP),
        Box::new(Sleep { interrupt: card.map(|card| card.interrupt().clone()), awake: restored }),
    )
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

/// Blocks the vCPU until the card's interrupt: what `hlt` is to a guest with interrupts.
#[derive(Debug)]
struct Sleep {
    interrupt: Option<Interrupt>,
    awake: bool,
}

impl Device for Sleep {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, _offset: u64, data: &[u8]) -> Reaction {
        let Ok(word) = <[u8; 4]>::try_from(data) else { return Reaction::Continue };
        if std::mem::take(&mut self.awake) {
            return Reaction::Continue;
        }
        let limit = match u32::from_le_bytes(word) {
            u32::MAX => None,
            microseconds => Some(Timespec {
                tv_sec: i64::from(microseconds / 1_000_000),
                tv_nsec: i64::from(microseconds % 1_000_000) * 1000,
            }),
        };
        // An interrupted wait is over: the deadline's signal must end the guest, and any other only wakes it early.
        let _ = match &self.interrupt {
            Some(interrupt) => {
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
