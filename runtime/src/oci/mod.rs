//! The command line of the Open Container Initiative's runtime specification
//! ([runtime-spec](https://github.com/opencontainers/runtime-spec)): bundles, configurations, and the state of containers
//! that live on after the command that made them.
#![forbid(unsafe_code)]

pub mod commands;
mod configuration;
mod filter;
mod state;
mod template;

pub use configuration::{Configured, parse, read};
pub use template::template;
