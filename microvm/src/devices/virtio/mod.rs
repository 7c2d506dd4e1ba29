//! Virtio devices (VIRTIO 1.2): register transport; network queue handler, tap, and the card that joins them; the
//! card whose frames the kernel moves; and the devices whose
//! queues a thread attends to.

pub mod attendant;
pub mod balloon;
pub mod block;
pub mod card;
pub mod chain;
pub mod configuration;
pub mod console;
pub mod device;
pub mod disk;
pub mod entropy;
pub mod interrupt;
pub mod mmio;
pub mod net;
pub mod tap;
pub mod vhost;
pub(crate) mod worker;
