//! The metrics there are: the vocabulary that writer, reader and claims share.

use crate::record::{Metric, Value};
use std::collections::BTreeMap;

/// Which of [`Value`]'s kinds a metric's values have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Value::Integer`].
    Integer,
    /// [`Value::Transfer`].
    Transfer,
    /// [`Value::Boolean`].
    Boolean,
    /// [`Value::Texts`].
    Texts,
    /// [`Value::Stages`].
    Stages,
    /// [`Value::Histogram`].
    Histogram,
}

impl Kind {
    /// The kind of a value.
    pub const fn of(value: &Value) -> Self {
        match value {
            Value::Integer(_) => Self::Integer,
            Value::Transfer { .. } => Self::Transfer,
            Value::Boolean(_) => Self::Boolean,
            Value::Texts(_) => Self::Texts,
            Value::Stages(_) => Self::Stages,
            Value::Histogram(_) => Self::Histogram,
        }
    }

    /// Its name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Transfer => "transfer",
            Self::Boolean => "boolean",
            Self::Texts => "texts",
            Self::Stages => "stages",
            Self::Histogram => "histogram",
        }
    }
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Less is better: times, memory.
    Lower,
    /// More is better: rates.
    Higher,
    /// A fact, or a state of the machine.
    Neither,
}

impl Better {
    /// Its name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lower => "lower",
            Self::Higher => "higher",
            Self::Neither => "neither",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Its name, such as `start.ready`.
    pub name: &'static str,
    /// Base unit of what is stored: `ns`, `B`, or empty for facts.
    pub unit: &'static str,
    /// Unit of the number that series and figures are made of: `B/s` for a transfer, else the base unit.
    pub shown_unit: &'static str,
    /// Which way is better.
    pub better: Better,
    /// What it is, in one English sentence.
    pub text: &'static str,
    /// The kind of its values.
    pub kind: Kind,
}

const fn time(name: &'static str, kind: Kind, text: &'static str) -> Definition {
    Definition { name, unit: "ns", shown_unit: "ns", better: Better::Lower, text, kind }
}

const fn memory(name: &'static str, text: &'static str) -> Definition {
    Definition { name, unit: "B", shown_unit: "B", better: Better::Lower, text, kind: Kind::Integer }
}

const fn rate(name: &'static str, text: &'static str) -> Definition {
    Definition { name, unit: "B", shown_unit: "B/s", better: Better::Higher, text, kind: Kind::Transfer }
}

/// CPU time for each byte (which is as many seconds for each gigabyte) or request.
const fn cost(name: &'static str, of: (&'static str, &'static str), text: &'static str) -> Definition {
    let (unit, shown_unit) = of;
    Definition { name, unit, shown_unit, better: Better::Lower, text, kind: Kind::Transfer }
}

/// Time for each of what was done, by the host's clock.
const fn each(name: &'static str, text: &'static str) -> Definition {
    cost(name, OF_REQUESTS, text)
}

const OF_BYTES: (&str, &str) = ("B", "s/GB");
const OF_REQUESTS: (&str, &str) = ("", "ns");

/// Things a second.
const fn frequency(name: &'static str, text: &'static str) -> Definition {
    Definition { name, unit: "", shown_unit: "1/s", better: Better::Higher, text, kind: Kind::Transfer }
}

const fn machine(name: &'static str, text: &'static str) -> Definition {
    Definition { name, unit: "ns", shown_unit: "ns", better: Better::Neither, text, kind: Kind::Integer }
}

const fn fact(name: &'static str, kind: Kind, text: &'static str) -> Definition {
    Definition { name, unit: "", shown_unit: "", better: Better::Neither, text, kind }
}

/// Every metric, in the order of tables.
pub const METRICS: &[Definition] = &[
    time("start.stages", Kind::Stages, "Stages of one launch, since just before the process was created."),
    time(
        "start.ready",
        Kind::Integer,
        "From just before the process was created to the first answer, or to the ready line where there is no network.",
    ),
    time(
        "start.gone",
        Kind::Integer,
        "From the order to end until process, control group, links, address and ports are seen to be absent.",
    ),
    time("lifecycle.creation", Kind::Integer, "From just before the process was created until the instance was ready."),
    time("lifecycle.deletion", Kind::Integer, "From the order to end until nothing of the instance was left."),
    time(
        "lifecycle.step",
        Kind::Integer,
        "One step: create (the call that makes the process), start (until ready), stop (until reaped), delete (until gone).",
    ),
    frequency(
        "lifecycle.rate",
        "Instances that were created, were ready and were deleted, so many under way at once, and the time for all.",
    ),
    memory(
        "memory.host",
        "Memory in use on the whole host, by whatever it is; what an instance takes is the slope over their number.",
    ),
    memory("memory.pss", "Proportional set size of all processes of the instances."),
    memory("memory.cgroup", "Memory accounted to the control groups of the instances."),
    memory(
        "memory.engine",
        "Proportional set size of an engine's own processes, which are there before the first instance.",
    ),
    memory("memory.vmm-overhead", "Proportional set size of one virtual machine monitor, less its guest's memory."),
    memory(
        "sharing.pages",
        "Pages of eight instances of one program: resident, proportional, shared with others, or private to one process.",
    ),
    memory(
        "reservation.memory",
        "Memory that a virtual machine was assigned, or what the instance's processes held of the host's at that moment.",
    ),
    fact(
        "reservation.taken",
        Kind::Boolean,
        "Whether writing to memory inside took at least half as much of the host's.",
    ),
    fact(
        "reservation.given-back",
        Kind::Boolean,
        "Whether the host held less afterwards, by at least half of what was freed inside.",
    ),
    Definition {
        name: "density.instances",
        unit: "",
        shown_unit: "",
        better: Better::Higher,
        text: "Idle instances that ran within the budget.",
        kind: Kind::Integer,
    },
    Definition {
        name: "density.budget",
        unit: "B",
        shown_unit: "B",
        better: Better::Neither,
        text: "How much the instances' processes and the kernel may hold beyond what was held before.",
        kind: Kind::Integer,
    },
    each("overhead.compute", "Steps of arithmetic in registers, each needing the one before, and the time for them."),
    rate(
        "overhead.stream",
        "Bytes that streams through memory read and wrote (a = b + 3 c, memory larger than the caches), and the time for them.",
    ),
    each(
        "overhead.chase",
        "Loads from memory, each from where the one before leads, and the time for them: memory that fits into the first cache, or larger than all of them.",
    ),
    each("overhead.call", "Calls of the kernel inside (getpid), and the time for them."),
    each(
        "overhead.file",
        "Files made, written, synced, read and removed in the sandbox's own file system, of 4 KiB or 4 MiB, and the time for them.",
    ),
    Definition {
        name: "overhead.memory",
        unit: "B",
        shown_unit: "B",
        better: Better::Neither,
        text: "How large the memory is that is larger than the caches.",
        kind: Kind::Integer,
    },
    fact("overhead.file-system", Kind::Texts, "The file system that files were made in."),
    fact(
        "overhead.seen",
        Kind::Boolean,
        "Whether a known difference is seen: twice the work takes a quarter longer at least, loads from large memory twice as long as from a cache.",
    ),
    rate(
        "tcp.upload",
        "Bytes that TCP carried towards the server within the window, and its length; one stream where none are named.",
    ),
    cost(
        "tcp.upload.cost",
        OF_BYTES,
        "Bytes carried towards the server, and the CPU time of generator and server for them.",
    ),
    rate(
        "tcp.download",
        "Bytes that TCP carried from the server within the window, and its length; one stream where none are named.",
    ),
    cost(
        "tcp.download.cost",
        OF_BYTES,
        "Bytes carried from the server, and the CPU time of generator and server for them.",
    ),
    frequency("udp.upload", "Datagrams that arrived at the server within the window, and its length."),
    frequency("udp.upload.sent", "Datagrams that were sent to the server within the window, and its length."),
    frequency("udp.download", "Datagrams that arrived from the server within the window, and its length."),
    frequency("udp.download.sent", "Datagrams that the server sent within the window, and its length."),
    time(
        "tcp.round-trip",
        Kind::Histogram,
        "Round trips of single requests on one TCP connection, one after the other (closed loop).",
    ),
    time(
        "tcp.round-trip.median",
        Kind::Integer,
        "Median round trip of single requests on one TCP connection (closed loop).",
    ),
    cost(
        "tcp.round-trip.cost",
        OF_REQUESTS,
        "Requests of a closed loop, and the CPU time of generator and server for them.",
    ),
    time(
        "tcp.load",
        Kind::Histogram,
        "Requests at a fixed rate (open loop), each from when it was due until its answer; what was never answered counts until it was given up.",
    ),
    frequency("tcp.load.rate", "Requests of an open loop that were answered, and the time until the last answer."),
    time("tcp.connection", Kind::Histogram, "Connect, one request and its answer, one after the other (closed loop)."),
    time("tcp.connection.median", Kind::Integer, "Median of connect, one request and its answer (closed loop)."),
    cost(
        "tcp.connection.cost",
        OF_REQUESTS,
        "Connections of a closed loop, and the CPU time of generator and server for them.",
    ),
    frequency(
        "tcp.connection.rate",
        "New connections with several in flight, each answered once, and the time that they took.",
    ),
    time(
        "crowd.start",
        Kind::Integer,
        "Time to ready of the last of so many instances on one network, the others idle.",
    ),
    time(
        "crowd.round-trip",
        Kind::Integer,
        "Median round trip to the last of so many instances on one network (closed loop).",
    ),
    fact("network.interfaces", Kind::Texts, "Names of the network interfaces as seen inside."),
    fact(
        "network.addresses",
        Kind::Texts,
        "Addresses of the network interfaces as seen inside, each with its interface.",
    ),
    fact("network.routes", Kind::Texts, "IPv4 routes as seen inside."),
    fact("network.host-interfaces", Kind::Texts, "Names of the host's network interfaces."),
    fact("network.host-addresses", Kind::Texts, "Addresses of the host's network interfaces, each with its interface."),
    fact("network.namespace-is-host", Kind::Boolean, "Whether the network namespace inside is the host's."),
    fact("network.connects", Kind::Boolean, "Whether a connection from inside to the target succeeds."),
    fact(
        "network.port-conflict",
        Kind::Boolean,
        "Whether listening on a port that is already listened on fails with EADDRINUSE.",
    ),
    fact("network.source-address", Kind::Texts, "The address that a server outside saw as the client's."),
    fact("network.default-mode", Kind::Texts, "The network mode that is used when none is given."),
    fact("network.range", Kind::Texts, "The subnet that the sandbox is in."),
    fact("network.publish", Kind::Boolean, "Whether a published port is reachable from outside."),
    fact(
        "network.has-address",
        Kind::Boolean,
        "Whether an interface inside has the address of the named container, or one of the host's own.",
    ),
    fact("network.links", Kind::Texts, "Kinds of the links that a container brings: inside, and on the host."),
    fact("visibility.listener", Kind::Boolean, "Whether the socket table seen from there has a container's listener."),
    fact("visibility.loopback", Kind::Boolean, "Whether a container's server answers from there by 127.0.0.1."),
    fact(
        "accounting.counted",
        Kind::Boolean,
        "Whether the interface counters of a container rose by what was sent to one of two containers.",
    ),
    fact("publishing.answer", Kind::Texts, "What becomes of the request to publish a port."),
    fact("publishing.reached", Kind::Boolean, "Whether a container's server is reached that way."),
    fact("publishing.refused", Kind::Boolean, "Whether a second container is refused a port of the host."),
    fact("publishing.left-behind", Kind::Texts, "What a container that was refused its port left behind."),
    time(
        "publishing.ready",
        Kind::Integer,
        "From just before the process was created to the first answer, with a published port.",
    ),
    time(
        "publishing.gone",
        Kind::Integer,
        "From the order to end until nothing of a container with a published port was left.",
    ),
    fact("views.seen", Kind::Boolean, "Whether a file or a process is seen from inside."),
    fact("views.namespace-is-host", Kind::Boolean, "Whether a namespace inside is the host's."),
    fact("attachment.interfaces", Kind::Texts, "Interfaces of a running container to which a network card was added."),
    fact("attachment.connects", Kind::Boolean, "Whether a running container reaches the outside."),
    fact("hosts.connects", Kind::Boolean, "Whether a container reaches a server in a container on another host."),
    fact("separation.connects", Kind::Boolean, "Whether a container reaches a server in its own or another network."),
    fact(
        "names.resolves",
        Kind::Boolean,
        "Whether a container's name is answered by the name server with its address.",
    ),
    fact("names.connects", Kind::Boolean, "Whether a container is reached by its name."),
    fact("cell.leak", Kind::Texts, "What a cell left behind: always an error."),
    machine("cell.duration", "How long a cell took, with set-up and clean-up."),
    machine("machine.steal", "Time that a hypervisor took from this machine's CPUs during a cell."),
];

impl Definition {
    /// Whether it is something that is only seen, and no amount of anything.
    pub const fn is_fact(&self) -> bool {
        matches!(self.kind, Kind::Boolean | Kind::Texts)
    }
}

/// The metric of a name.
pub fn find(name: &str) -> Option<&'static Definition> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// The table of metrics for [`crate::record::Run::metrics`].
pub fn table() -> BTreeMap<String, Metric> {
    METRICS
        .iter()
        .map(|metric| {
            let entry = Metric {
                unit: metric.unit.to_owned(),
                better: metric.better.name().to_owned(),
                text: metric.text.to_owned(),
            };
            (metric.name.to_owned(), entry)
        })
        .collect()
}
