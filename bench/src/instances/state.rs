//! How a container fares.

use isobench_runtime::network::Redirection;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// The stage of a container's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Made, and not started yet.
    #[default]
    Created,
    /// Its program runs.
    Running,
    /// Its processes are stopped.
    Paused,
    /// It has ended.
    Exited,
}

impl Status {
    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Exited => "exited",
        }
    }

    /// Whether it has a process.
    pub(crate) const fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// How a container fares: `state.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Its stage.
    pub(crate) status: Status,
    /// Its first process, by number and start time as in `4711-889012`; empty where there is none.
    pub(crate) process: String,
    /// When it was started last, as in RFC 3339.
    pub(crate) started: Option<String>,
    /// When it ended last.
    pub(crate) finished: Option<String>,
    /// With which status it ended.
    pub(crate) exit_code: i32,
    /// Why it could not be started.
    pub(crate) error: Option<String>,
    /// The name of its control groups, where it has any.
    pub(crate) control_group: Option<String>,
    /// The host's side of a virtual machine's link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<String>,
    /// Its places in networks.
    pub(crate) places: Vec<NetworkPlace>,
    /// Ports of the host that lead to it, each with its number.
    pub(crate) ports: Vec<Redirection>,
}

/// A container's place in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkPlace {
    /// The network's name.
    pub(crate) network: String,
    /// The container's address.
    pub(crate) address: Ipv4Addr,
    /// The prefix length of the subnet.
    pub(crate) prefix: u8,
    /// The gateway.
    pub(crate) gateway: Option<Ipv4Addr>,
    /// The link-layer address.
    pub(crate) mac: String,
    /// The link's name inside.
    pub(crate) interface: String,
}

impl State {
    /// The number of the container's first process; 0 where there is none.
    pub(crate) fn pid(&self) -> i32 {
        if !self.status.is_alive() {
            return 0;
        }
        self.process.split_once('-').and_then(|(number, _)| number.parse().ok()).unwrap_or(0)
    }

    /// That of a container of which nothing is known but that it was started, and why no more.
    pub(super) fn unknown(why: String) -> Self {
        Self { status: Status::Running, error: Some(why), ..Self::default() }
    }

    /// The same container after its supervisor was killed, which has killed the container.
    pub(crate) fn killed(mut self) -> Self {
        if self.status.is_alive() {
            self.status = Status::Exited;
            self.exit_code = 137;
            self.link = None;
            self.places.clear();
            self.ports.clear();
        }
        self
    }
}

/// The time now, as in RFC 3339.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_nanos(std::time::SystemTime::now()).to_string()
}
