//! The stages of a sandbox's life.

use serde::{Deserialize, Serialize};

/// One stage, in the order in which they are passed. A sandbox stamps those that it can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// t0: just before the process is created.
    Started,
    /// The call that created the process has returned.
    Created,
    /// The virtual machine monitor runs its first instruction.
    VmmEntered,
    /// The virtual machine monitor is about to run its first vCPU.
    VmmReady,
    /// The guest's first instruction is seen.
    GuestEntered,
    /// The agent (in a Linux guest: /init) runs its first instruction.
    AgentEntered,
    /// The server inside listens.
    Listening,
    /// The ready line has arrived on the host.
    Announced,
    /// The first TCP answer has arrived on the host.
    Answered,
    /// The order to end was given.
    Ending,
    /// The process is reaped.
    Reaped,
    /// The process, cgroup, links, address and ports are seen to be absent.
    Gone,
    /// What the kernel does afterwards for what is absent already, such as freeing a tap's memory, is over too.
    Settled,
}

impl Stage {
    /// The stage's name as it stands in records and in the ready line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Created => "created",
            Self::VmmEntered => "vmm-entered",
            Self::VmmReady => "vmm-ready",
            Self::GuestEntered => "guest-entered",
            Self::AgentEntered => "agent-entered",
            Self::Listening => "listening",
            Self::Announced => "announced",
            Self::Answered => "answered",
            Self::Ending => "ending",
            Self::Reaped => "reaped",
            Self::Gone => "gone",
            Self::Settled => "settled",
        }
    }

    /// Every stage, in order.
    pub const ALL: [Self; 13] = [
        Self::Started,
        Self::Created,
        Self::VmmEntered,
        Self::VmmReady,
        Self::GuestEntered,
        Self::AgentEntered,
        Self::Listening,
        Self::Announced,
        Self::Answered,
        Self::Ending,
        Self::Reaped,
        Self::Gone,
        Self::Settled,
    ];
}

/// The stamps of one instance: stage and time in nanoseconds on the host's monotonic clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stages(Vec<(Stage, u64)>);

impl Stages {
    /// Stamps a stage with a given time.
    pub fn stamp(&mut self, stage: Stage, at: u64) {
        self.0.push((stage, at));
    }

    /// When a stage was passed, if it was seen.
    pub fn at(&self, stage: Stage) -> Option<u64> {
        self.0.iter().find(|(seen, _)| *seen == stage).map(|(_, at)| *at)
    }

    /// Nanoseconds from [`Stage::Started`] to a stage.
    pub fn since_start(&self, stage: Stage) -> Option<u64> {
        Some(self.at(stage)?.saturating_sub(self.at(Stage::Started)?))
    }

    /// All stamps, sorted by time.
    pub fn sorted(&self) -> Vec<(Stage, u64)> {
        let mut stamps = self.0.clone();
        stamps.sort_by_key(|(stage, at)| (*at, *stage));
        stamps
    }
}
