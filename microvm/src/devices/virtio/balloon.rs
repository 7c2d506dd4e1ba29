//! The balloon (VIRTIO 1.2, 5.5): the guest is asked to leave pages unused, the host takes them back, and gives them again when the
//! guest wants them. The driver also tells of its memory and, where it is asked to, of pages that are free anyway.

use crate::confinement::Role;
use crate::devices::virtio::attendant::{Active, Service};
use crate::devices::virtio::chain::{self, BrokenRing, Buffers};
use crate::devices::virtio::configuration::Configuration;
use crate::devices::virtio::device::QueueDevice;
use crate::devices::virtio::interrupt::Interrupt;
use crate::devices::virtio::mmio::{self, Identity, Transport};
use crate::snapshot::devices::ServiceState;
use crate::system;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

/// The unit in which pages are counted, whatever the guest's own (5.5.6): bytes.
pub const PAGE: u64 = 4096;

/// Features (5.5.3).
const STATISTICS_QUEUE: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;
const PAGE_REPORTING: u64 = 1 << 5;
/// `struct virtio_balloon_config` (5.5.4): the wanted and the actual number of pages, and two fields of features not offered.
const TARGET: usize = 0;
const ACTUAL: usize = 4;
const CONFIGURATION: usize = 16;

/// Queues: those that every driver uses, and largest sizes. Linux asks for 32 free ranges at once.
const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const REQUIRED: usize = 2;
const QUEUE_SIZE: u16 = 128;
/// Requests done in one go before it is seen whether the device is to stop.
const BATCH: usize = 64;
/// Most pages of one request; Linux names 256.
const MOST_PAGES: usize = 1 << 16;
/// Most statistics that are read of one buffer, and the size of each: tag and value (5.5.6.3).
const MOST_STATISTICS: usize = 32;
const STATISTIC: usize = 10;

/// What the driver tells of the guest's memory (5.5.6.4), where it has told it. Sizes are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Memory swapped in.
    pub swapped_in: Option<u64>,
    /// Memory swapped out.
    pub swapped_out: Option<u64>,
    /// Page faults that needed I/O.
    pub major_faults: Option<u64>,
    /// Page faults that did not.
    pub minor_faults: Option<u64>,
    /// Memory not used for anything.
    pub free: Option<u64>,
    /// Memory in all.
    pub total: Option<u64>,
    /// Memory that a new program could have without swapping.
    pub available: Option<u64>,
    /// Memory with the content of files, which could be given up.
    pub caches: Option<u64>,
}

impl Statistics {
    fn parse(bytes: &[u8]) -> Self {
        let mut all = [None; 8];
        for entry in bytes.chunks_exact(STATISTIC) {
            if let ([a, b], Some(value)) = ([entry[0], entry[1]], entry[2..].first_chunk())
                && let Some(place) = all.get_mut(usize::from(u16::from_le_bytes([a, b])))
            {
                *place = Some(u64::from_le_bytes(*value));
            }
        }
        let [swapped_in, swapped_out, major_faults, minor_faults, free, total, available, caches] = all;
        Self { swapped_in, swapped_out, major_faults, minor_faults, free, total, available, caches }
    }
}

/// How a balloon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonState {
    /// How much memory the guest is asked to leave unused, in bytes.
    pub target: u64,
    /// How much it says that it leaves unused, in bytes.
    pub actual: u64,
    /// What it last told of its memory.
    pub statistics: Statistics,
}

/// The statistics that the thread and the control share.
#[derive(Debug, Default)]
struct Told {
    state: Mutex<ToldState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct ToldState {
    statistics: Statistics,
    /// How often the driver has told them.
    times: u64,
    /// Whether the driver is to tell them again.
    wanted: bool,
}

/// The balloon's queues as a service.
#[derive(Debug)]
pub struct Balloon {
    told: Arc<Told>,
    /// The buffer in which the driver told its statistics: it comes back when they are wanted again.
    held: Option<u16>,
}

/// Sets and reads a balloon, from any thread.
#[derive(Debug)]
pub struct BalloonControl {
    configuration: Configuration,
    interrupt: Interrupt,
    kick: EventFd,
    told: Arc<Told>,
    memory: u64,
}

/// A balloon for a guest with this memory, and what controls it. With `reporting`, the driver is asked to tell of free pages
/// ("free page reporting"), which go back to the host without being asked for.
pub fn create(memory: GuestMemoryMmap, reporting: bool) -> io::Result<(QueueDevice, BalloonControl)> {
    let size = memory.iter().map(vm_memory::GuestMemoryRegion::len).sum();
    let balloon = Balloon::new();
    let told = Arc::clone(&balloon.told);
    let registers = |interrupt| registers(reporting, interrupt);
    let device = QueueDevice::with_registers("balloon", registers, balloon, Role::Balloon, memory)?;
    let control = BalloonControl {
        configuration: device.configuration(),
        interrupt: device.interrupt().clone(),
        kick: device.kick().try_clone()?,
        told,
        memory: size,
    };
    Ok((device, control))
}

fn registers(reporting: bool, interrupt: Interrupt) -> Transport {
    let identity = Identity {
        device: VIRTIO_ID_BALLOON,
        features: mmio::VERSION_1
            | mmio::EVENT_INDEX
            | mmio::INDIRECT_DESCRIPTORS
            | STATISTICS_QUEUE
            | DEFLATE_ON_OOM
            | if reporting { PAGE_REPORTING } else { 0 },
        configuration: vec![0; CONFIGURATION],
        queues: vec![QUEUE_SIZE; REQUIRED + 1 + usize::from(reporting)],
    };
    let transport = Transport::new(identity, interrupt).with_required_queues(REQUIRED);
    transport.with_writable_configuration(ACTUAL..ACTUAL + 4)
}

impl BalloonControl {
    /// Asks the guest to leave this many bytes unused, rounded down to pages and to what it has. It does so in its own time.
    pub fn set_target(&self, bytes: u64) {
        self.configuration.set_word(TARGET, (bytes.min(self.memory) / PAGE) as u32);
        self.interrupt.configuration_change();
    }

    /// How the balloon is, with new statistics where the guest tells them within `patience`, else with the last ones.
    pub fn state(&self, patience: Duration) -> BalloonState {
        let mut state = self.told.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.times;
        state.wanted = true;
        // Full means pending.
        let _ = self.kick.write(1);
        let waited = self.told.changed.wait_timeout_while(state, patience, |state| state.times == before);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        let pages = |at| u64::from(self.configuration.word(at)) * PAGE;
        BalloonState { target: pages(TARGET), actual: pages(ACTUAL), statistics: state.statistics }
    }
}

impl Default for Balloon {
    fn default() -> Self {
        Self::new()
    }
}

impl Balloon {
    /// A balloon whose driver has told nothing yet.
    pub fn new() -> Self {
        Self { told: Arc::default(), held: None }
    }

    /// Gives back the statistics' buffer where they are wanted again, and takes in what the driver has put into a new one.
    fn statistics(&mut self, active: &mut Active, number: usize) -> Result<bool, BrokenRing> {
        let broken = BrokenRing::of("statistics");
        let memory: &GuestMemoryMmap = &active.memory;
        let queue = &mut active.queues[number];
        let mut state = self.told.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut used = false;
        for _ in 0..BATCH {
            if state.wanted
                && let Some(head) = self.held.take()
            {
                state.wanted = false;
                queue.add_used(memory, head, 0).map_err(broken)?;
                used = true;
            }
            let Some(request) = queue.iter(memory).map_err(broken)?.next() else { break };
            let head = request.head_index();
            let mut bytes = [0; MOST_STATISTICS * STATISTIC];
            let count = Buffers::gather(memory, request)
                .map_or(0, |mut buffers| chain::take(&mut buffers.readable, &mut bytes));
            state.statistics = Statistics::parse(&bytes[..count]);
            state.times += 1;
            state.wanted = false;
            self.told.changed.notify_all();
            // One buffer is enough; a driver with more gets the older one back.
            if let Some(older) = self.held.replace(head) {
                queue.add_used(memory, older, 0).map_err(broken)?;
                used = true;
            }
        }
        Ok(used && queue.needs_notification(memory).map_err(broken)?)
    }
}

/// Works on each request of a queue, which comes back as it was.
fn each(
    active: &mut Active,
    number: usize,
    name: &'static str,
    work: impl Fn(&GuestMemoryMmap, Buffers<'_>),
) -> Result<bool, BrokenRing> {
    let broken = BrokenRing::of(name);
    let memory: &GuestMemoryMmap = &active.memory;
    let queue = &mut active.queues[number];
    let mut done = 0;
    while done < BATCH {
        let Some(request) = queue.iter(memory).map_err(broken)?.next() else { break };
        let head = request.head_index();
        if let Some(buffers) = Buffers::gather(memory, request) {
            work(memory, buffers);
        }
        queue.add_used(memory, head, 0).map_err(broken)?;
        done += 1;
    }
    Ok(done > 0 && queue.needs_notification(memory).map_err(broken)?)
}

/// Gives back the pages whose numbers a request holds. Those outside memory are ignored.
fn inflate(memory: &GuestMemoryMmap, mut buffers: Buffers<'_>) {
    let count = (chain::length(&buffers.readable) / 4).min(MOST_PAGES);
    let mut bytes = vec![0; count * 4];
    chain::take(&mut buffers.readable, &mut bytes);
    let page = |word: &[u8]| word.first_chunk().map(|word| u64::from(u32::from_le_bytes(*word)) * PAGE);
    let mut pages: Vec<u64> = bytes.chunks_exact(4).filter_map(page).collect();
    pages.retain(|page| memory.check_range(GuestAddress(*page), PAGE as usize));
    pages.sort_unstable();
    // Neighbours go in one call.
    for run in pages.chunk_by(|page, next| next - page <= PAGE) {
        if let [first, .., last] | [first @ last] = run {
            discard(memory, *first, last - first + PAGE);
        }
    }
}

/// Gives back the whole pages within the ranges that a request names.
fn report(buffers: &Buffers<'_>) {
    for slice in &buffers.writable {
        // Regions begin at pages, in the guest's view as in ours.
        let start = slice.ptr_guard_mut().as_ptr() as usize;
        let (first, end) = (start.next_multiple_of(PAGE as usize), (start + slice.len()) & !(PAGE as usize - 1));
        if first < end
            && let Ok(pages) = slice.subslice(first - start, end - first)
        {
            // A kernel that refuses keeps the pages, which is no error of the guest's.
            let _ = system::discard(&pages);
        }
    }
}

fn discard(memory: &GuestMemoryMmap, address: u64, length: u64) {
    // Neighbouring regions are not one mapping; what lies across them stays.
    if let Ok(slice) = memory.get_slice(GuestAddress(address), length as usize) {
        let _ = system::discard(&slice);
    }
}

impl Service for Balloon {
    fn begin(&mut self) {
        self.held = None;
    }

    fn save(&self) -> Option<ServiceState> {
        Some(ServiceState::Balloon(self.held))
    }

    fn restore(&mut self, state: ServiceState) {
        if let ServiceState::Balloon(held) = state {
            self.held = held;
        }
    }

    fn serve(&mut self, active: &mut Active) -> Result<bool, BrokenRing> {
        if active.queues.len() < REQUIRED {
            return Ok(false);
        }
        let mut notify = each(active, INFLATE, "inflate", inflate)?;
        // The pages come back when the guest touches them.
        notify |= each(active, DEFLATE, "deflate", |_, _| {})?;
        let features = active.features;
        let accepted = [STATISTICS_QUEUE, PAGE_REPORTING].into_iter().filter(|feature| features & feature != 0);
        // Queues of features that were not accepted have no number: the next takes it, as Linux and QEMU have it.
        for (number, feature) in (REQUIRED..).zip(accepted) {
            let ready = active.queues.get(number).is_some_and(QueueT::ready);
            notify |= match feature {
                _ if !ready => false,
                STATISTICS_QUEUE => self.statistics(active, number)?,
                _ => each(active, number, "reporting", |_, buffers| report(&buffers))?,
            };
        }
        Ok(notify)
    }
}
