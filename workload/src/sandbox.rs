//! One way to isolate.

use crate::{Instance, InstanceError, Workload};
use serde::{Deserialize, Serialize};

/// Kinds of isolation: one colour and marker each in every chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// No isolation: the baseline.
    Process,
    /// Our container runtime.
    Container,
    /// Our microVM with the unikernel guest.
    Unikernel,
    /// Our microVM with a Linux guest.
    Linux,
    /// Another project's program.
    Peer,
}

/// A way to isolate, ready to launch: its network, programs and images were given to it when it was made.
pub trait Sandbox {
    /// The name used in records and on the command line, such as `container-bridge`.
    fn name(&self) -> &str;

    /// Which kind of isolation this is.
    fn family(&self) -> Family;

    /// Launches a workload. [`crate::Stage::Started`] is stamped just before the process is created; the instance need not
    /// be ready yet ([`Instance::await_ready`]).
    ///
    /// # Errors
    /// [`LaunchError::Unsupported`] where this kind of isolation cannot do it at all; else what failed. Nothing of a failed
    /// launch is left behind.
    fn launch(&mut self, workload: &Workload) -> Result<Instance, LaunchError>;
}

/// A capability that a sandbox lacks. It is said, never faked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not supported: {why}")]
pub struct Unsupported {
    /// What was asked for.
    pub what: String,
    /// Why this sandbox cannot do it.
    pub why: String,
}

/// Why a launch failed.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// This sandbox cannot do it at all.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// A step of the launch failed.
    #[error("launch {sandbox}: {step}")]
    Step {
        /// The sandbox's name.
        sandbox: String,
        /// Operation and object, such as `create veth v12`.
        step: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The instance started and then failed.
    #[error(transparent)]
    Instance(#[from] InstanceError),
}
