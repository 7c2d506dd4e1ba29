//! The unikernel guest: a server of [`isobench_workload::protocol`] over [smoltcp], without an operating system.
//!
//! The same [`server`] runs in two places, which differ in their [`platform::Platform`] alone:
//! - in the virtual machine (`bin/unikernel`), over the [`virtio`] driver, entered directly in 64-bit mode at CPL 3;
//! - as a plain process on a tap, the control that takes this crate's network stack out of a comparison between machines.
//!
//! [`contract`] is what the guest and its monitor agree upon: addresses, ports, and the block of boot parameters.
#![no_std]
#![deny(unsafe_code)]

mod connector;
pub mod contract;
mod datagrams;
mod filler;
pub mod frame;
mod labour;
mod order;
pub mod platform;
pub mod server;
pub mod virtio;
