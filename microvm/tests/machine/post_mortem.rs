//! What there is to be seen of a device that does not do what it is there for: for a test that fails once in a hundred runs, and has to tell
//! then where it stopped.

use isobench_microvm::control;
use isobench_microvm::snapshot::devices::{DeviceState, RingState, VirtioState};
use isobench_microvm::snapshot::open::Snapshot;
use isobench_microvm::snapshot::take::{Afterwards, take};
use isobench_microvm::snapshot::{MachineState, SnapshotError};
use std::fmt::Write;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Queues of a balloon that tells its statistics and reports free pages.
const QUEUES: usize = 4;

/// The balloon of the machine with this control socket: whether its driver answers, and where both sides of its queues are. The machine is
/// paused by it; a directory holds its snapshot meanwhile. What cannot be found out is said in its place.
pub(super) fn of_a_balloon(socket: &Path, directory: &Path) -> String {
    // Who answers this has had a notification each way.
    let mut text = match control::balloon(socket) {
        Ok(state) => format!("the driver tells: {state:?}"),
        Err(error) => format!("the driver's statistics cannot be asked for: {error}"),
    };
    let rings = rings(socket, &directory.join("post-mortem")).unwrap_or_else(|error| format!("no snapshot: {error}"));
    let _ = write!(text, "\n{rings}");
    text
}

fn rings(socket: &Path, snapshot: &Path) -> Result<String, SnapshotError> {
    take(socket, snapshot, Afterwards::Stay)?;
    let opened = Snapshot::open(snapshot)?;
    let state = match MachineState::read(opened.state()) {
        Ok(state) => state,
        Err(why) => return Ok(why),
    };
    let mut text = String::new();
    for (address, device) in &state.registers {
        if let DeviceState::Virtio(device) = device
            && device.active.len() == QUEUES
        {
            let VirtioState { registers, active, service } = device;
            let (status, interrupt) = (registers.status, registers.interrupt);
            let _ = writeln!(text, "device at {address:#x}: status {status}, pending {interrupt}, {service:?}");
            active
                .iter()
                .enumerate()
                .for_each(|(number, ring)| _ = writeln!(text, "{}", one(number, ring, opened.memory())));
        }
    }
    Ok(text)
}

/// A queue as its device has it, and as it is in the guest's memory, which is one region here (VIRTIO 1.2, 2.7.6 to 2.7.10): a driver that
/// waits has `available` beyond `used`; where the device's next one is not `available`, it was not woken.
fn one(number: usize, ring: &RingState, memory: &File) -> String {
    let word = |at: u64| {
        let mut bytes = [0; 2];
        memory.read_exact_at(&mut bytes, at).map(|()| u16::from_le_bytes(bytes)).ok()
    };
    let size = u64::from(ring.size);
    let (available, used) = (word(ring.available + 2), word(ring.used + 2));
    let (used_event, available_event) = (word(ring.available + 4 + 2 * size), word(ring.used + 4 + 8 * size));
    format!(
        "queue {number}: the device's next available {} and used {}; in memory available {available:?}, used {used:?}, the driver is to be told \
         after {used_event:?}, the device after {available_event:?}",
        ring.next_avail, ring.next_used
    )
}
