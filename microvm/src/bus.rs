//! A bus: which device answers at which address. The same type serves I/O ports and memory-mapped I/O, and several vCPUs: each
//! device answers one of them at a time.

use crate::snapshot::devices::{DeviceState, StateError};
use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a device wants of the vCPU after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Go on.
    Continue,
    /// The guest has ended with this status.
    Exit(u8),
    /// The guest's exception handler reports a crash: its registers and stack say what.
    Crash,
    /// The guest's program has panicked: registers rdi and rsi are the address and length of its message.
    Panic,
}

/// Something that answers on a bus.
pub trait Device: Debug + Send {
    /// The guest reads `data.len()` bytes at `offset` within the device; what is not filled in reads as it was.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// The guest writes at `offset` within the device.
    fn write(&mut self, offset: u64, data: &[u8]) -> Reaction;

    /// Does the rest of what a pause has come between, before the guest runs again.
    fn go_on(&mut self) {}

    /// Leaves guest memory alone until [`Device::resume`], and gives what a [snapshot](crate::snapshot) must hold of the device;
    /// `None` where that is nothing.
    fn save(&mut self) -> Option<DeviceState> {
        None
    }

    /// Goes on after [`Device::save`].
    fn resume(&mut self) {}

    /// Takes over what [`Device::save`] gave of a device like this one, which is as it was made.
    ///
    /// # Errors
    /// Where it is no state that such a device can have.
    fn restore(&mut self, _state: &DeviceState) -> Result<(), StateError> {
        Err(StateError::Kind)
    }
}

/// A range is taken already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("addresses {wanted:#x?} overlap those of a device at {taken:#x?}")]
pub struct Overlap {
    wanted: Range<u64>,
    taken: Range<u64>,
}

/// A device at its addresses.
#[derive(Debug)]
struct Placed {
    range: Range<u64>,
    device: Mutex<Box<dyn Device>>,
}

impl Placed {
    fn lock(&self) -> MutexGuard<'_, Box<dyn Device>> {
        // A device whose thread panicked ends its guest; until then it answers.
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Devices by address.
#[derive(Debug, Default)]
pub struct Bus {
    devices: Vec<Placed>,
}

impl Bus {
    /// A bus where nothing answers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a device at a range of addresses.
    pub fn insert(&mut self, range: Range<u64>, device: Box<dyn Device>) -> Result<(), Overlap> {
        let overlaps = |placed: &&Placed| placed.range.start < range.end && range.start < placed.range.end;
        if let Some(placed) = self.devices.iter().find(overlaps) {
            return Err(Overlap { wanted: range, taken: placed.range.clone() });
        }
        self.devices.push(Placed { range, device: Mutex::new(device) });
        Ok(())
    }

    /// A read; where nothing answers, all bits are set, as on an ISA bus.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some((offset, mut device)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// A write; where nothing answers it is lost.
    pub fn write(&self, address: u64, data: &[u8]) -> Reaction {
        match self.find(address) {
            Some((offset, mut device)) => device.write(offset, data),
            None => Reaction::Continue,
        }
    }

    /// The devices do the rest of what a pause has come between.
    pub fn go_on(&self) {
        self.devices.iter().for_each(|placed| placed.lock().go_on());
    }

    /// What a snapshot must hold of the devices, each by its address. All of them leave guest memory alone until [`Bus::resume`].
    pub fn save(&self) -> Vec<(u64, DeviceState)> {
        let save = |placed: &Placed| Some((placed.range.start, placed.lock().save()?));
        self.devices.iter().filter_map(save).collect()
    }

    /// The devices go on after [`Bus::save`].
    pub fn resume(&self) {
        self.devices.iter().for_each(|placed| placed.lock().resume());
    }

    /// Gives the device at an address its state.
    ///
    /// # Errors
    /// Where there is no such device, or the state is not one of its own.
    pub fn restore(&self, address: u64, state: &DeviceState) -> Result<(), StateError> {
        let placed = self.devices.iter().find(|placed| placed.range.start == address);
        placed.ok_or(StateError::NoDevice(address))?.lock().restore(state)
    }

    fn find(&self, address: u64) -> Option<(u64, MutexGuard<'_, Box<dyn Device>>)> {
        let placed = self.devices.iter().find(|placed| placed.range.contains(&address))?;
        Some((address - placed.range.start, placed.lock()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Last(u64);

    impl Device for Last {
        fn read(&mut self, _: u64, data: &mut [u8]) {
            data.fill(self.0 as u8);
        }

        fn write(&mut self, offset: u64, _: &[u8]) -> Reaction {
            self.0 = offset;
            Reaction::Continue
        }
    }

    #[test]
    fn a_device_answers_within_its_range_alone() {
        let mut bus = Bus::new();
        bus.insert(0x10..0x20, Box::<Last>::default()).unwrap();
        bus.write(0x1f, &[0]);
        let mut data = [0; 2];
        bus.read(0x10, &mut data);
        assert_eq!(data, [0x0f, 0x0f]);
        bus.read(0x20, &mut data);
        assert_eq!(data, [0xff, 0xff]);
    }

    #[test]
    fn ranges_do_not_overlap() {
        let mut bus = Bus::new();
        bus.insert(0x10..0x20, Box::<Last>::default()).unwrap();
        assert!(bus.insert(0x1f..0x30, Box::<Last>::default()).is_err());
        assert!(bus.insert(0x20..0x30, Box::<Last>::default()).is_ok());
    }
}
