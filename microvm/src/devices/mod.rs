//! What the guest sees on its buses.

pub mod boot_timer;
pub mod virtio;
