//! Containers and virtual machines that outlive the command that began them, without a daemon.
//!
//! Each has a directory `containers/NAME` in the [state directory](crate::home), and while it runs one small supervisor:
//!
//! | file | what |
//! |---|---|
//! | `container.json` | what was asked for ([`Request`]), written anew where it is given other networks |
//! | `state.json` | how it fares ([`state::State`]), replaced whole at each change |
//! | `lock` | held by the supervisor as long as it lives ([flock(2)]): the kernel tells others of its end |
//! | `log` | what the container wrote, a JSON line each ([`log`]) |
//! | `control` | the socket on which the supervisor takes orders ([`protocol`]) |
//! | `monitor` | the socket on which a virtual machine's monitor takes requests (`isobench_microvm::control`) |
//! | `programs` | the socket on which a virtual machine's monitor takes further programs |
//! | `upper`, `work` | what the container changed in its root |
//! | `hosts`, `hostname`, `resolv.conf` | what it sees under those names in /etc; those of the container whose network it joins |
//!
//! A virtual machine is an instance like a container, with a monitor as its process; what makes it one is [`machine`].
//!
//! The supervisor is this program again, in a session of its own. It launches the container by the `runtime` library, keeps
//! the log, carries streams to and from whoever is attached, and ends with the container. Whoever kills it kills the
//! container: the kernel ends a process that is tied to its parent, and with a process 1 all others. What is left then is the
//! directory, in which the next command sees a container that has ended by a signal.
//!
//! [flock(2)]: https://man7.org/linux/man-pages/man2/flock.2.html

pub(crate) mod attach;
mod attachment;
pub(crate) mod capabilities;
mod connection;
mod control_group;
mod execution;
mod files;
mod kind;
mod launching;
pub(crate) mod log;
mod machine;
mod monitor;
pub(crate) mod names;
mod pause;
mod place;
pub(crate) mod processes;
pub(crate) mod protocol;
mod request;
pub(crate) mod rooted;
mod state;
mod store;
mod supervisor;
mod task;

pub(crate) use crate::networks::{Refusal, refuse};
pub(crate) use kind::Kind;
pub(crate) use launching::volume_source;
pub(crate) use machine::{Guest, Machine, check_memory, usual_memory};
pub(crate) use monitor::monitor_socket;
pub(crate) use request::{Execution, FurtherNetwork, Limits, Network, Request, Volume};
pub(crate) use state::{Status, now};
pub(crate) use store::{Container, Store, kind_of};

/// Exit status for an error of our own, as Docker has it.
pub(crate) const OWN_FAILURE: i32 = 125;
