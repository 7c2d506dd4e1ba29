//! What runs inside a sandbox.

use serde::{Deserialize, Serialize};

/// What a sandbox is asked to run. The agent takes it as arguments ([`Workload::arguments`]); a guest without programs
/// takes it as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Prints the ready line and ends with status 0.
    Exit,
    /// Prints the ready line and waits to be ended.
    Idle,
    /// Serves [`crate::protocol`] on a TCP port; the ready line says that it listens.
    Serve {
        /// The TCP port.
        port: u16,
    },
    /// Writes to so much memory once, says that it is ready when it holds it, and waits to be ended.
    Memory {
        /// Bytes of memory.
        bytes: u64,
    },
    /// Writes to so much memory once, gives it back to the kernel inside, says that it is ready, and waits to be ended.
    Freed {
        /// Bytes of memory.
        bytes: u64,
    },
    /// Drives a server elsewhere and prints one [`DriveOutcome`] as a line of JSON.
    Drive(Drive),
    /// Looks at what can be seen and reached from inside and prints the finding as a line of JSON.
    Probe(Probe),
    /// A program of the user's own, with its arguments; *ready* is its first line of output.
    Program {
        /// Path inside the sandbox, then arguments.
        arguments: Vec<String>,
    },
}

impl Workload {
    /// The arguments that make the agent run this workload, without the agent's own name. A program of the user's own is
    /// started by itself, so that its arguments are its own.
    pub fn arguments(&self) -> Vec<String> {
        match self {
            Self::Exit => vec!["exit".into()],
            Self::Idle => vec!["idle".into()],
            Self::Serve { port } => vec!["serve".into(), port.to_string()],
            Self::Memory { bytes } => vec!["memory".into(), bytes.to_string()],
            Self::Freed { bytes } => vec!["freed".into(), bytes.to_string()],
            Self::Drive(drive) => vec!["drive".into(), json(drive)],
            Self::Probe(probe) => vec!["probe".into(), json(probe)],
            Self::Program { arguments } => arguments.clone(),
        }
    }
}

fn json<T: Serialize>(value: &T) -> String {
    // Serialising these types to memory cannot fail: no maps with odd keys, no failing Serialize.
    serde_json::to_string(value).unwrap_or_default()
}

/// Traffic for a load generator to make against a server that speaks [`crate::protocol`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drive {
    /// The server, `address:port`.
    pub server: std::net::SocketAddr,
    /// What to do.
    pub traffic: Traffic,
    /// How long, in milliseconds, before the measured window: it lets windows and buffers grow to what the path takes.
    #[serde(default)]
    pub warm_up: u64,
    /// How long the measured window is, in milliseconds.
    pub milliseconds: u64,
}

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Traffic {
    /// Bulk bytes from the generator to the server.
    Upload {
        /// TCP connections at the same time.
        streams: u32,
    },
    /// Bulk bytes from the server to the generator.
    Download {
        /// TCP connections at the same time.
        streams: u32,
    },
    /// Closed loop of messages of this many bytes, one at a time, answered in full.
    RoundTrips {
        /// Message size in bytes.
        bytes: u32,
    },
    /// New connections, each answered once; each of those in flight is followed by the next.
    Connections {
        /// Connections at the same time.
        in_flight: u32,
    },
    /// Open loop: one-byte requests on a constant schedule, whatever becomes of those before. Each one's time counts from
    /// when it was due, so that a stall counts against every request that it delayed.
    Load {
        /// Requests a second.
        rate: u32,
        /// TCP connections that take turns.
        connections: u32,
    },
    /// UDP datagrams from the generator to the server, as fast as they go.
    DatagramUpload {
        /// UDP payload of each in bytes.
        bytes: u32,
    },
    /// UDP datagrams from the server to the generator, as fast as they go.
    DatagramDownload {
        /// UDP payload of each in bytes.
        bytes: u32,
    },
}

/// What a load generator saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DriveOutcome {
    /// Payload bytes that arrived at the receiver within the window (messages count once, not there and back).
    pub bytes: u64,
    /// Length of the window as it was, in nanoseconds; for an open loop until the last answer.
    pub nanoseconds: u64,
    /// Round trips, connections or datagrams completed within the window.
    pub completed: u64,
    /// Requests that were due, or datagrams that were sent, within the window.
    pub offered: u64,
    /// Each round trip's or connection's time in nanoseconds: an HDR histogram (3 significant digits, V2 serialization,
    /// base64), empty for bulk traffic.
    pub histogram: String,
    /// What the whole drive moved, warm-up included: bytes of bulk traffic, else completions.
    pub whole: u64,
    /// CPU time of the load generator's process for the whole drive, in nanoseconds.
    pub processor: u64,
    /// What failed, in words, where it failed.
    pub error: Option<String>,
}

/// Questions for the probe inside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Say hello to a server at each of these and report how it ended.
    pub connect: Vec<std::net::SocketAddr>,
    /// Try to listen on each of these TCP ports (any address) and report how it ended.
    pub listen: Vec<u16>,
    /// How long to wait for each answer, in milliseconds; where it is none, long enough for two packets that are lost.
    pub patience: Option<u64>,
    /// Look whether there is a file at each of these paths.
    pub files: Vec<String>,
    /// Look whether there is a process whose command line ends like each of these.
    pub processes: Vec<String>,
    /// Ask name servers.
    pub lookups: Vec<Lookup>,
}

/// A question to a name server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// The name server.
    pub server: std::net::SocketAddr,
    /// The name whose IPv4 addresses are asked for.
    pub name: String,
}

/// What the probe found inside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Names of the network interfaces, sorted.
    pub interfaces: Vec<String>,
    /// Addresses of the network interfaces as `interface address/prefix`, sorted.
    pub addresses: Vec<String>,
    /// IPv4 routes as `destination/prefix via gateway dev interface`, sorted.
    pub routes: Vec<String>,
    /// Inode number of the network namespace, 0 where it cannot be read.
    pub namespace: u64,
    /// For each server asked: the client's IPv4 address as that server saw it, or why there was no answer.
    pub connects: Vec<Result<std::net::Ipv4Addr, String>>,
    /// For each port: nothing, or why it could not be listened on (`EADDRINUSE` by its name).
    pub listens: Vec<Result<(), String>>,
    /// TCP ports that are listened on, as the socket table has them (IPv4), sorted.
    pub listeners: Vec<u16>,
    /// Inode number of the mount namespace, 0 where it cannot be read.
    pub mount_namespace: u64,
    /// Inode number of the pid namespace, 0 where it cannot be read.
    pub process_namespace: u64,
    /// Whether the probe finds its own process in the table of processes.
    pub sees_itself: bool,
    /// For each path, whether there is a file.
    pub files: Vec<bool>,
    /// For each end of a command line, whether there is such a process.
    pub processes: Vec<bool>,
    /// For each name: its addresses, none where the server says that there are none, or why there was no answer.
    pub lookups: Vec<Result<Vec<std::net::Ipv4Addr>, String>>,
}
