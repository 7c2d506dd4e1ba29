//! A container runtime.
pub mod capabilities;
pub mod cgroup;
mod child;
mod error;
pub mod launch;
pub mod network;
pub mod oci;
mod plan;
pub mod root;
mod sandbox;
pub mod seccomp;
mod syscalls;
mod system;

pub use capabilities::Capabilities;
pub use child::Step;
pub use error::Error;
pub use launch::{Launched, launch};
pub use plan::{Namespaces, NetworkMode, Plan, Program, Root, Specification, Stream, User};
pub use sandbox::{ContainerSandbox, SandboxNetwork};
