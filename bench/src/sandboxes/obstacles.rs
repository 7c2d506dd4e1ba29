//! What this machine refuses to whole kinds of sandboxes, found out by trying it once on the testbed.
//!
//! A run then measures what remains and gives each gap its reason, instead of one failed cell after another.

use super::{Kind, Network};
use crate::doctor::{remedy, trial};
use crate::testbed::network::OwnNetworks;
use isobench_runtime::network::tap::Offload;
use isobench_workload::Family;

/// One sentence for each thing that is refused, with what mends it.
#[derive(Debug)]
pub(super) struct Obstacles {
    launch: Option<String>,
    tap: Option<String>,
}

impl Obstacles {
    /// Tries a launch and a tap.
    pub(super) fn find(networks: &OwnNetworks) -> Self {
        let tap = networks.bridge.tap(Offload::None).err().map(|error| {
            let remedy = remedy::network("tap").map(|command| format!(": `{command}`")).unwrap_or_default();
            format!("no tap can be made ({:#}){remedy}", anyhow::Error::from(error))
        });
        Self { launch: trial::obstacle_to_launches(), tap }
    }

    /// What stands in the way of a kind of sandbox.
    pub(super) fn to(&self, kind: &Kind) -> Option<String> {
        let by_clone3 = kind.family == Family::Container || kind.name == "process";
        let machine = kind.is_unikernel() || kind.family == Family::Linux || kind.is_distribution();
        let on_a_tap = machine && kind.network == Network::Bridged;
        match (&self.launch, &self.tap) {
            (Some(sentence), _) if by_clone3 => Some(sentence.clone()),
            (_, Some(sentence)) if on_a_tap => Some(sentence.clone()),
            _ => None,
        }
    }
}
