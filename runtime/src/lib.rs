//! A container runtime.

pub mod network;
