//! A network card whose frames the kernel moves between queues and tap, without the monitor
//! ([drivers/vhost/net.c](https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/drivers/vhost/net.c)): no thread
//! of the monitor's is woken, and no frame is copied more than once.
//!
//! The kernel checks addresses and chains of descriptors itself, so a hostile driver faces the kernel's code here, where it faces
//! the monitor's with a [`Card`](super::card::Card). Nor does the kernel look at frames: a clone, of which those with another's
//! address must not leave, has the other card.

use crate::bus::{Device, Reaction};
use crate::devices::virtio::card::{self, CardError};
use crate::devices::virtio::interrupt::{Interrupt, USED_BUFFER};
use crate::devices::virtio::mmio::{self, Effect, Transport, register};
use crate::devices::virtio::tap::Tap;
use crate::snapshot::devices::{DeviceState, RingState, VirtioState};
use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vhost::net::VhostNet;
use vhost::vhost_kern::VhostKernBackend;
use vhost::vhost_kern::net::Net;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::virtio_net;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Receive and transmit.
const QUEUES: usize = 2;

/// Those of the card's features that concern who moves frames; all others are the tap's or the driver's own affair.
const CONCERNING: u64 =
    mmio::VERSION_1 | mmio::EVENT_INDEX | mmio::INDIRECT_DESCRIPTORS | 1 << virtio_net::VIRTIO_NET_F_MRG_RXBUF;

/// The kernel cannot move a card's frames.
#[derive(Debug, thiserror::Error)]
#[error("{operation} of /dev/vhost-net")]
pub struct VhostError {
    operation: &'static str,
    #[source]
    source: vhost::Error,
}

fn failed(operation: &'static str) -> impl FnOnce(vhost::Error) -> VhostError {
    move |source| VhostError { operation, source }
}

/// An open /dev/vhost-net.
pub struct Vhost(Net<Arc<GuestMemoryMmap>>);

impl fmt::Debug for Vhost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Vhost")
    }
}

impl Vhost {
    /// Opens the device for a machine with this memory. The kernel's worker, which from Linux 6.4 on is a thread of this process,
    /// begins with the card.
    ///
    /// # Errors
    /// Where there is none, it is not for this user, or it lacks what the card offers.
    pub fn open(memory: &GuestMemoryMmap) -> Result<Self, VhostError> {
        let net = Net::new(Arc::new(memory.clone())).map_err(failed("open"))?;
        let offered = net.get_features().map_err(failed("get the features"))?;
        if offered & CONCERNING != CONCERNING {
            return Err(failed("get the features")(vhost::Error::InvalidOperation));
        }
        Ok(Self(net))
    }

    /// The memory of the machine that it was opened for.
    fn memory(&self) -> &GuestMemoryMmap {
        self.0.mem()
    }

    /// Makes this process the owner, whose memory it is.
    fn begin(&self) -> Result<(), VhostError> {
        self.0.set_owner().map_err(failed("set the owner"))?;
        // A file and an offset in it are for a worker in another process.
        let regions = self.memory().iter().map(|region| VhostUserMemoryRegionInfo {
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
            ..VhostUserMemoryRegionInfo::default()
        });
        self.0.set_mem_table(&regions.collect::<Vec<_>>()).map(drop).map_err(failed("set the memory"))
    }
}

/// A network card on a tap, its frames moved by the kernel.
#[derive(Debug)]
pub struct VhostCard {
    transport: Transport,
    interrupt: Interrupt,
    vhost: Vhost,
    /// What a write to `QueueNotify` signals for each queue.
    kicks: [EventFd; QUEUES],
    /// Signalled where a queue is broken.
    broken: EventFd,
    tap: Tap,
    backend: File,
    /// The queues as they were laid out, while the kernel moves frames.
    running: Option<Vec<Queue>>,
    /// The queues as they were when the machine was paused.
    paused: Option<Vec<Queue>>,
}

impl VhostCard {
    /// A card after reset.
    ///
    /// # Errors
    /// Where the kernel refuses, or no further descriptor can be had.
    pub fn new(tap: Tap, mac: [u8; 6], vhost: Vhost) -> Result<Self, CardError> {
        vhost.begin()?;
        let event = || EventFd::new(EFD_NONBLOCK).map_err(CardError::Event);
        let interrupt = Interrupt::new().map_err(CardError::Event)?;
        Ok(Self {
            transport: Transport::new(card::identity(mac), interrupt.clone()),
            interrupt,
            vhost,
            kicks: [event()?, event()?],
            broken: event()?,
            backend: File::from(tap.as_fd().try_clone_to_owned().map_err(CardError::Event)?),
            tap,
            running: None,
            paused: None,
        })
    }

    /// The card's interrupt, to be wired to whatever the guest waits for.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// The events that a write of each queue's number to `QueueNotify` signals, to be registered as ioeventfds.
    pub fn kicks(&self) -> &[EventFd] {
        &self.kicks
    }

    /// Has the kernel move frames between these queues and the tap.
    fn start(&mut self, queues: Vec<Queue>) -> Result<(), VhostError> {
        let net = &self.vhost.0;
        net.set_features(self.transport.features() & CONCERNING).map_err(failed("set the features"))?;
        for (number, (queue, kick)) in queues.iter().zip(&self.kicks).enumerate() {
            let place = VringConfigData {
                queue_max_size: queue.max_size(),
                queue_size: queue.size(),
                flags: 0,
                desc_table_addr: queue.desc_table(),
                used_ring_addr: queue.used_ring(),
                avail_ring_addr: queue.avail_ring(),
                log_addr: None,
            };
            net.set_vring_num(number, queue.size())
                .and_then(|()| net.set_vring_base(number, queue.next_avail()))
                .and_then(|()| net.set_vring_addr(number, &place))
                .and_then(|()| net.set_vring_call(number, self.interrupt.event()))
                .and_then(|()| net.set_vring_err(number, &self.broken))
                .and_then(|()| net.set_vring_kick(number, kick))
                .map_err(failed("set a queue"))?;
        }
        for number in 0..QUEUES {
            net.set_backend(number, Some(&self.backend)).map_err(failed("set the tap"))?;
        }
        self.running = Some(queues);
        Ok(())
    }

    /// Has the kernel leave queues and tap alone, and gives the queues as far as they are worked off.
    fn stop(&mut self) -> Option<Vec<Queue>> {
        let mut queues = self.running.take()?;
        for (number, queue) in queues.iter_mut().enumerate() {
            let net = &self.vhost.0;
            // It returns when the worker has done what it was about to do, so that nothing is under way between both counters.
            let base = net.set_backend(number, None).and_then(|()| net.get_vring_base(number)).ok()?;
            queue.set_next_avail(base as u16);
            queue.set_next_used(queue.used_idx(self.vhost.memory(), Ordering::Acquire).ok()?.0);
        }
        Some(queues)
    }
}

impl Device for VhostCard {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if offset == register::STATUS && self.running.is_some() && self.broken.read().is_ok() {
            self.transport.needs_reset();
        }
        self.transport.read(offset, data);
        // The kernel raises the line and not the bit. A driver that looks at its queues for nothing loses nothing.
        if offset == register::INTERRUPT_STATUS
            && self.running.is_some()
            && let [first, ..] = data
        {
            *first |= USED_BUFFER as u8;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Reaction {
        match self.transport.write(offset, data, self.vhost.memory()) {
            Effect::None => {}
            Effect::Activate => {
                let offload = self.tap.set_offload(card::offload(&self.transport));
                if offload.is_err() || self.start(self.transport.queues()).is_err() {
                    self.transport.needs_reset();
                }
            }
            Effect::Notify(queue) => {
                // Full means pending.
                let _ = self.kicks.get(usize::from(queue)).map(|kick| kick.write(1));
            }
            Effect::Reset => _ = self.stop(),
        }
        Reaction::Continue
    }

    fn save(&mut self) -> Option<DeviceState> {
        let active = self.running.is_some();
        self.paused = self.stop();
        if active && self.paused.is_none() || self.broken.read().is_ok() {
            self.transport.needs_reset();
        }
        let rings = |queues: &Vec<Queue>| queues.iter().map(|queue| RingState::from(queue.state())).collect();
        let active = self.paused.as_ref().map(rings).unwrap_or_default();
        Some(DeviceState::Virtio(VirtioState { registers: self.transport.state(), active, service: None }))
    }

    fn resume(&mut self) {
        if let Some(queues) = self.paused.take() {
            if self.start(queues).is_err() {
                self.transport.needs_reset();
            }
            // Whatever was on its way to the driver: one too many does no harm.
            self.interrupt.used_buffer();
        }
    }
}
