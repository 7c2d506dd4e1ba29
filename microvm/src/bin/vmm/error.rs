//! What can be wrong with what was asked for.

use isobench_microvm::devices::virtio::disk::DiskError;
use std::io;
use std::path::PathBuf;

/// Why a command line or a configuration can't be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArgumentError {
    /// No such option.
    #[error("unknown option `{0}` (run without arguments for the list)")]
    Unknown(String),
    /// An option without its value.
    #[error("option --{0} needs a value")]
    Missing(String),
    /// A value that is none.
    #[error("option --{option}: {why}")]
    Value {
        /// The option.
        option: String,
        /// What is wrong with it.
        why: String,
    },
    /// A configuration's file can't be read.
    #[error("read the configuration {name}")]
    File {
        /// Which.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A configuration is none.
    #[error("the configuration {name}{place}: {why}")]
    Configuration {
        /// Which.
        name: String,
        /// The line and field, where they are known.
        place: String,
        /// What is wrong there.
        why: String,
    },
    /// The agent's file can't be read.
    #[error("read the agent {} (cargo build -p isobench-workload makes one)", path.display())]
    Agent {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel refuses to tie it to its parent.
    #[error("tie the monitor's end to its parent's")]
    Parent(#[source] io::Error),
    /// A disk can't be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A socket can't be made.
    #[error("make the socket {}", path.display())]
    Control {
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file of a snapshot can't be used.
    #[error("open the snapshot's file {}", path.display())]
    Snapshot {
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The state of a snapshot can't be used.
    #[error("the snapshot's state: {0}")]
    State(String),
    /// Options that need one another.
    #[error("a guest that serves needs --tap-fd, --mac and --address")]
    NoNetwork,
    /// The plain process serves and does nothing else.
    #[error("the plain process only serves: give --workload serve:PORT")]
    OnlyServes,
}

impl ArgumentError {
    /// A value that is not what is wanted.
    pub(crate) fn wrong(option: &str, value: &str, wanted: &str) -> Self {
        Self::Value { option: option.into(), why: format!("`{value}` is not {wanted}") }
    }
}
