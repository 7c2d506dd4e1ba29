//! Virtio devices (VIRTIO 1.2): register transport, network queue handler, tap, and the card that joins them.

pub mod card;
pub mod interrupt;
pub mod mmio;
pub mod net;
pub mod tap;
mod worker;
