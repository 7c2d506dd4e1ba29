//! What a snapshot holds of devices. It is read as something that anybody may have written: each part is taken over only where a
//! driver could have brought the device there.

use isobench_workload::guest::{HEADER, LONGEST, MOST_PROGRAMS, WINDOW};
use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState, QueueT};
use vm_superio::serial::SerialState;

/// A device's state does not fit the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// There is none.
    #[error("the guest has no device at {0:#x}")]
    NoDevice(u64),
    /// It is of another kind.
    #[error("a device is of another kind")]
    Kind,
    /// Its registers.
    #[error("a device's registers are in no state that a driver can bring them to")]
    Registers,
    /// Its queues.
    #[error("a device's queues are not valid")]
    Queues,
    /// What it holds beside them.
    #[error("a device holds what no guest can have given it")]
    Held,
}

/// A device's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceState {
    /// A virtio device's.
    Virtio(VirtioState),
    /// The serial port's registers.
    Serial(#[serde(with = "SerialRegisters")] SerialState),
}

/// A virtio device's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirtioState {
    /// Its registers.
    pub registers: TransportState,
    /// Its queues as far as they are worked off; none where it is not active.
    pub active: Vec<RingState>,
    /// What its thread holds.
    pub service: Option<ServiceState>,
}

impl VirtioState {
    /// The queues to go on with, which are those that the driver laid out.
    pub(crate) fn active_queues(&self, laid_out: &[Queue]) -> Result<Vec<Queue>, StateError> {
        let queues: Vec<Queue> = self.active.iter().map(RingState::queue).collect::<Result<_, _>>()?;
        let place = |queue: &Queue| (queue.size(), queue.desc_table(), queue.avail_ring(), queue.used_ring());
        let same = |(queue, other): (&Queue, &Queue)| place(queue) == place(other) && queue.ready() == other.ready();
        let all = queues.len() == laid_out.len() && queues.iter().zip(laid_out).all(same);
        if all { Ok(queues) } else { Err(StateError::Queues) }
    }
}

/// The registers of a virtio device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the names are those of the registers")]
pub struct TransportState {
    pub status: u32,
    pub device_features_select: u32,
    pub driver_features_select: u32,
    pub driver_features: u64,
    pub queue_select: u32,
    pub queues: Vec<RingState>,
    pub interrupt: u32,
    pub configuration: Vec<u8>,
}

/// A queue ([`QueueState`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the names are those of `QueueState`")]
pub struct RingState {
    pub max_size: u16,
    pub next_avail: u16,
    pub next_used: u16,
    pub event_index: bool,
    pub size: u16,
    pub ready: bool,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

impl From<QueueState> for RingState {
    fn from(state: QueueState) -> Self {
        Self {
            max_size: state.max_size,
            next_avail: state.next_avail,
            next_used: state.next_used,
            event_index: state.event_idx_enabled,
            size: state.size,
            ready: state.ready,
            descriptors: state.desc_table,
            available: state.avail_ring,
            used: state.used_ring,
        }
    }
}

impl RingState {
    /// The queue itself.
    pub(crate) fn queue(&self) -> Result<Queue, StateError> {
        let state = QueueState {
            max_size: self.max_size,
            next_avail: self.next_avail,
            next_used: self.next_used,
            event_idx_enabled: self.event_index,
            size: self.size,
            ready: self.ready,
            desc_table: self.descriptors,
            avail_ring: self.available,
            used_ring: self.used,
        };
        Queue::try_from(state).map_err(|_| StateError::Queues)
    }
}

/// What the thread of a device holds beside its queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceState {
    /// The balloon's: the statistics' buffer.
    Balloon(Option<u16>),
    /// The console's.
    Console {
        /// Messages that the guest has not taken yet.
        messages: Vec<[u8; 8]>,
        /// Whether the guest's side is open.
        open: bool,
        /// Bytes that the guest has not taken yet.
        unread: Vec<u8>,
        /// The streams of programs in the guest.
        session: SessionState,
    },
}

impl ServiceState {
    /// Whether a guest and its monitor can have brought a device to this.
    pub(crate) fn is_valid(&self) -> bool {
        match self {
            // Its place in the queue is looked at when it is given back.
            Self::Balloon(_) => true,
            Self::Console { messages, unread, session, .. } => {
                messages.len() <= MOST_MESSAGES && unread.len() <= MOST_UNREAD && session.is_valid()
            }
        }
    }
}

/// Bounds of what a console holds. Bytes are given while there is room, a frame at a time for each program and two beyond.
const MOST_MESSAGES: usize = 16;
const MOST_UNREAD: usize = 2 * MOST_PROGRAMS * WINDOW;

/// A session's state. A clone has none of the output that was not taken when its guest was saved, but counts it, since the guest does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionState {
    /// The beginning of a frame of the guest's.
    pub begun: Vec<u8>,
    /// Number, bytes of output that the guest has not been told to be taken, and bytes of input that it has not told to have taken.
    pub streams: Vec<(u32, usize, usize)>,
    /// The number of the next stream.
    pub next: u32,
    /// Whether the first program has ended, and whether the guest was told that all was taken.
    pub last: bool,
    /// See `last`.
    pub answered: bool,
    /// Whether the guest is heard no more.
    pub deaf: bool,
}

impl SessionState {
    fn is_valid(&self) -> bool {
        let fits = |(number, held, under_way): &(u32, usize, usize)| {
            *number < self.next && *held <= WINDOW && *under_way <= WINDOW
        };
        self.begun.len() <= LONGEST + HEADER
            && self.streams.len() <= MOST_PROGRAMS
            && self.streams.iter().all(fits)
            && self.streams.is_sorted_by(|one, other| one.0 < other.0)
    }
}

/// How the serial port's registers are written and read.
#[derive(Serialize, Deserialize)]
#[serde(remote = "SerialState", deny_unknown_fields)]
struct SerialRegisters {
    baud_divisor_low: u8,
    baud_divisor_high: u8,
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    #[serde(rename = "input")]
    in_buffer: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_no_guest_can_have_is_refused() {
        let valid = SessionState { streams: vec![(0, WINDOW, 0), (3, 0, WINDOW)], next: 4, ..SessionState::default() };
        let state = |session: SessionState, messages: usize| {
            let (messages, unread) = (vec![[0; 8]; messages], Vec::new());
            ServiceState::Console { messages, open: true, unread, session }.is_valid()
        };
        assert!(state(valid.clone(), MOST_MESSAGES) && !state(valid.clone(), MOST_MESSAGES + 1));
        for streams in [
            vec![(0, WINDOW + 1, 0)],
            vec![(0, 0, WINDOW + 1)],
            vec![(4, 0, 0)],
            vec![(3, 0, 0), (3, 0, 0)],
            vec![(3, 0, 0), (2, 0, 0)],
        ] {
            assert!(!state(SessionState { streams, ..valid.clone() }, 0));
        }
        assert!(!state(SessionState { begun: vec![0; LONGEST + HEADER + 1], ..valid.clone() }, 0));
        let many = (0..=MOST_PROGRAMS as u32).map(|number| (number, 0, 0)).collect();
        assert!(!state(SessionState { streams: many, next: u32::MAX, ..valid }, 0));
    }
}
