//! How long a launch is waited for where claims are about how long it takes.

use crate::sandboxes::Kind;
use isobench_workload::{Family, Instance};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How many late launches of a kind are waited for to the end: with more, a machine that hangs would make a run endless.
const LATE: u32 = 2;

/// How many seconds a peer's machine has in the quick suite, ten times what it needs: a launch that hangs must not take most of three
/// minutes.
const BRIEFLY: u64 = 30;

/// The deadlines of launches in one testbed.
#[derive(Debug)]
pub(crate) struct Patience {
    /// How long any other step may take.
    step: Duration,
    /// Whether it is the quick suite that waits.
    quick: bool,
    /// How many launches of each kind were not ready within their deadline.
    late: BTreeMap<&'static str, u32>,
}

impl Patience {
    pub(crate) fn new(step: Duration, quick: bool) -> Self {
        Self { step, quick, late: BTreeMap::new() }
    }

    /// How long a launch of a kind may take: beyond the limits of the claims (ten seconds for a container, a minute for a machine), or
    /// what they say could not be seen. A kind that was late before has no longer than any step.
    pub(super) fn deadline(&self, kind: &Kind) -> Duration {
        if self.late.get(kind.name).is_some_and(|late| *late >= LATE) {
            return self.step;
        }
        let peer = kind.is_qemu() || kind.is_user_mode();
        let machine = peer || matches!(kind.family, Family::Unikernel | Family::Linux);
        let seconds = match machine {
            // It boots for a minute where it is emulated, on a busy host for several.
            true if kind.is_distribution() => 240,
            true if peer && self.quick => BRIEFLY,
            true => 120,
            false => 30,
        };
        self.step.max(Duration::from_secs(seconds))
    }

    /// Waits until an instance whose launch is measured is ready.
    pub(super) fn await_ready(&mut self, kind: &Kind, instance: &mut Instance) -> anyhow::Result<()> {
        let (begun, deadline) = (Instant::now(), self.deadline(kind));
        let ready = instance.await_ready(deadline);
        if ready.is_err() && begun.elapsed() >= deadline {
            self.note_late(kind);
        }
        Ok(ready?)
    }

    fn note_late(&mut self, kind: &Kind) {
        *self.late.entry(kind.name).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandboxes::KINDS;
    use isobench_reports::claims::{self, Rule};
    use isobench_workload::ENDS_WITHIN;

    #[test]
    fn a_launch_and_an_end_may_take_longer_than_any_claim_on_them_says() {
        let patience = Patience::new(Duration::from_secs(10), false);
        let rules = claims::claims().iter().flat_map(|claim| &claim.rules);
        let limits = rules.filter_map(|rule| if let Rule::Threshold { limits } = rule { Some(limits) } else { None });
        let mut seen = 0;
        for limit in limits.flatten() {
            let deadline = match &*limit.metric {
                "start.ready" | "lifecycle.creation" => patience.deadline(Kind::named(&limit.sandbox).unwrap()),
                "start.gone" | "lifecycle.deletion" => ENDS_WITHIN,
                _ => continue,
            };
            let nanoseconds = limit.at_least.or(limit.below).unwrap();
            assert!(deadline.as_nanos() as f64 > 1.5 * nanoseconds, "{limit:?}: {deadline:?}");
            seen += 1;
        }
        assert!(seen > 0);
    }

    #[test]
    fn who_was_late_twice_is_not_waited_for_again() {
        let step = Duration::from_secs(10);
        let mut patience = Patience::new(step, true);
        for kind in KINDS {
            for _ in 0..LATE {
                assert!(patience.deadline(kind) > step);
                patience.note_late(kind);
            }
            assert_eq!(patience.deadline(kind), step);
        }
    }
}
