//! The interface that every sandbox implements, the wire protocol between a load generator and a server, and the agent
//! that runs inside.
//!
//! A [`Sandbox`] is one way to isolate (a bare process, a container with one network mode, a virtual machine, a peer such
//! as docker). It launches a [`Workload`] and gives back an [`Instance`]: one running process on the host, its standard
//! output, its address, and the time of each [`Stage`] of its start on the host's monotonic clock.
//!
//! *Ready* means the same for all: where there is a network, the first TCP answer ([`Stage::Answered`]); else one line on
//! the standard output ([`Stage::Announced`]), since a peer such as docker can hand through nothing more than that.
//!
//! Without the feature `std` only [`protocol`], [`datagram`], [`work`] and [`connect`] are left, which is what the unikernel guest shares with the agent.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

pub mod connect;
pub mod datagram;
pub mod protocol;
pub mod work;

#[cfg(feature = "std")]
pub mod announcement;
#[cfg(feature = "std")]
pub mod client;
#[cfg(feature = "std")]
pub mod clock;
#[cfg(feature = "std")]
pub mod guest;
#[cfg(feature = "std")]
mod input;
#[cfg(feature = "std")]
mod instance;
#[cfg(feature = "std")]
mod output;
#[cfg(feature = "std")]
mod process;
#[cfg(feature = "std")]
mod sandbox;
#[cfg(feature = "std")]
pub mod server;
#[cfg(feature = "std")]
mod stage;
#[cfg(feature = "std")]
mod workload;

#[cfg(feature = "std")]
pub use {
    input::Input,
    instance::{
        Aftermath, ENDS_WITHIN, Ended, Errors, Instance, InstanceError, Located, Locator, Released, Resource,
        ResourceError,
    },
    output::{Output, OutputError},
    process::{Exit, Process, ProcessError},
    sandbox::{Family, LaunchError, Sandbox, Unsupported},
    stage::{Stage, Stages},
    workload::{Drive, DriveOutcome, Finding, Lookup, Probe, Traffic, Workload},
};
