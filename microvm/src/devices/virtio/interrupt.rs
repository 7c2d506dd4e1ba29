//! How a device calls the guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// The used-buffer bit of `InterruptStatus` (VIRTIO 1.2, 4.2.2).
pub(super) const USED_BUFFER: u32 = 1;
/// The configuration-change bit of `InterruptStatus` (VIRTIO 1.2, 4.2.2).
const CONFIGURATION_CHANGE: u32 = 2;

/// One device's interrupt: a cause register and an event.
///
/// Who waits for the event depends on the guest: for Linux the event is registered as an irqfd, so that the kernel raises
/// the line; the unikernel runs at CPL 3 and takes no interrupts, so the vCPU thread itself waits for it when the guest asks
/// to sleep.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    status: AtomicU32,
    event: EventFd,
}

impl Interrupt {
    /// An interrupt that is not pending.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(Arc::new(Inner { status: AtomicU32::new(0), event: EventFd::new(EFD_NONBLOCK)? })))
    }

    /// The event that is signalled with each interrupt.
    pub fn event(&self) -> &EventFd {
        &self.0.event
    }

    /// Says that the device has used buffers.
    pub fn used_buffer(&self) {
        self.raise(USED_BUFFER);
    }

    /// Says that the device's configuration, or its need of a reset, has changed.
    pub fn configuration_change(&self) {
        self.raise(CONFIGURATION_CHANGE);
    }

    /// The register `InterruptStatus`.
    pub fn status(&self) -> u32 {
        self.0.status.load(Ordering::SeqCst)
    }

    /// The register `InterruptACK`: the driver has handled these causes.
    pub fn acknowledge(&self, causes: u32) {
        self.0.status.fetch_and(!causes, Ordering::SeqCst);
    }

    /// Sets the register, for a device that goes on where another was saved.
    pub(super) fn restore(&self, status: u32) {
        self.0.status.store(status & (USED_BUFFER | CONFIGURATION_CHANGE), Ordering::SeqCst);
    }

    fn raise(&self, cause: u32) {
        self.0.status.fetch_or(cause, Ordering::SeqCst);
        // A write can fail only when the counter is full, and then the event is pending anyway.
        let _ = self.0.event.write(1);
    }
}
