//! The driver of the network card: split virtqueues (VIRTIO 1.2, 2.7) over memory-mapped registers (4.2).

mod buffers;
mod card;
mod ring;
mod start;

pub use buffers::{Arena, Buffers};
pub use card::NetworkCard;
pub use ring::Ring;
pub use start::{FEATURES, Registers, SEGMENTATION, StartError, start};
