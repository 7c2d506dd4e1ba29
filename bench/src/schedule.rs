//! The order of cells: randomised complete blocks.
//!
//! Every sandbox is measured once in each block of an experiment, in an order shuffled anew for each block, and blocks of
//! different experiments are spread evenly over each of two parts of the run, so that the machine's drift hits all alike
//! ([Mytkowicz et al., *Producing wrong data without doing anything obviously wrong*, ASPLOS 2009]; blocking as in Box,
//! Hunter & Hunter, *Statistics for Experimenters*, chapter 4). The same seed gives the same order.
//!
//! [Mytkowicz et al., *Producing wrong data without doing anything obviously wrong*, ASPLOS 2009]: https://doi.org/10.1145/1508244.1508275

use crate::cell::Cell;
use crate::experiments::{self, WarmUp};
use isobench_reports::record::Plan;

/// Blocks of each experiment that come in the first part of a run. They are enough to decide every family of claims; what comes
/// afterwards makes intervals narrower, and is what a run loses whose time is out.
pub(crate) const FIRST: u32 = 10;

/// The cells of a plan in the order in which they are measured: first one warm-up block of each experiment that warms up,
/// numbered 0, then blocks 1, 2, 3... `sandboxes` says which take part in an experiment; the plan may give some of them fewer
/// blocks, which are then spread evenly over the experiment's own: over its first ones where those are enough.
pub fn cells(plan: &Plan, sandboxes: impl Fn(&str) -> Vec<String>) -> Vec<Cell> {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let mut order = Vec::new();
    for (rank, experiment) in plan.experiments.iter().enumerate() {
        let blocks = plan.blocks.get(experiment).copied().unwrap_or(0);
        if warms_up(experiment) {
            order.push((Due::WARM_UP, 0, rank));
        }
        order.extend((1..=blocks).map(|block| (Due::of(block, blocks), block, rank)));
    }
    order.sort_by(|left, right| left.0.cmp(&right.0).then(left.2.cmp(&right.2)));
    let mut cells = Vec::new();
    for (_, block, rank) in order {
        let experiment = &plan.experiments[rank];
        let mut shuffled = sandboxes(experiment);
        shuffled.retain(|sandbox| takes_part(plan, experiment, sandbox, block));
        random.shuffle(&mut shuffled);
        for (position, sandbox) in shuffled.into_iter().enumerate() {
            cells.push(Cell {
                experiment: plan.experiments[rank].clone(),
                sandbox,
                block,
                position: position as u32,
                warm_up: block == 0,
                program: plan.program.clone(),
            });
        }
    }
    cells
}

/// Whether an experiment has a block that does not count, before all others.
fn warms_up(experiment: &str) -> bool {
    experiments::named(experiment).is_none_or(|experiment| experiment.warm_up == WarmUp::Block)
}

/// Whether a sandbox takes part in a block: in each one, or in as many of them as the plan says.
fn takes_part(plan: &Plan, experiment: &str, sandbox: &str, block: u32) -> bool {
    let all = plan.blocks.get(experiment).copied().unwrap_or(0);
    let fewer = plan.sandbox_blocks.get(experiment).and_then(|sandboxes| sandboxes.get(sandbox));
    let Some(wanted) = fewer.copied().filter(|wanted| *wanted <= all) else { return true };
    let all = if wanted <= FIRST { all.min(FIRST) } else { all };
    // The number of wanted blocks that are due by then, to the nearest whole one: a single one lies in the middle.
    let due = |block: u32| (u64::from(block.min(all)) * u64::from(wanted) + u64::from(all / 2)) / u64::from(all);
    // Such a sandbox has no warm-up either: an engine has launched two containers by then, and one block gives no interval.
    block > 0 && due(block) > due(block - 1)
}

/// When a block is due: in which part of the run, and after which fraction of it.
#[derive(Clone, Copy)]
struct Due {
    part: u32,
    before: u32,
    of: u32,
}

impl Due {
    const WARM_UP: Self = Self { part: 0, before: 0, of: 1 };

    /// The first block of every experiment is due at once, so that a run that is stopped early has something of each.
    fn of(block: u32, blocks: u32) -> Self {
        if block <= FIRST {
            Self { part: 1, before: block - 1, of: blocks.min(FIRST) }
        } else {
            Self { part: 2, before: block - 1 - FIRST, of: blocks - FIRST }
        }
    }

    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let share = |one: &Self, other: &Self| u64::from(one.before) * u64::from(other.of);
        self.part.cmp(&other.part).then_with(|| share(self, other).cmp(&share(other, self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn plan(seed: u64, blocks: &[u32]) -> Plan {
        let experiments: Vec<String> = (0..blocks.len()).map(|number| format!("experiment-{number}")).collect();
        let blocks: BTreeMap<String, u32> = experiments.iter().cloned().zip(blocks.iter().copied()).collect();
        Plan { seed, experiments, blocks, ..Plan::default() }
    }

    fn names(count: usize) -> impl Fn(&str) -> Vec<String> {
        move |_| (0..count).map(|number| format!("sandbox-{number}")).collect()
    }

    proptest! {
        #[test]
        fn every_block_is_a_permutation_of_the_sandboxes(
            seed: u64,
            blocks in prop::collection::vec(1_u32..30, 1..5),
            count in 1_usize..12,
        ) {
            let cells = cells(&plan(seed, &blocks), names(count));
            let expected: usize = blocks.iter().map(|blocks| (*blocks as usize + 1) * count).sum();
            prop_assert_eq!(cells.len(), expected);
            // A block is one contiguous piece of the schedule: its pairs are close in time.
            for block in cells.chunks(count) {
                let seen: BTreeSet<&String> = block.iter().map(|cell| &cell.sandbox).collect();
                prop_assert_eq!(seen.len(), count);
                for (position, cell) in block.iter().enumerate() {
                    prop_assert_eq!(cell.position as usize, position);
                    prop_assert_eq!((&cell.experiment, cell.block), (&block[0].experiment, block[0].block));
                    prop_assert_eq!(cell.warm_up, cell.block == 0);
                }
            }
            // Blocks of one experiment come in ascending order, each once.
            for (number, count) in blocks.iter().enumerate() {
                let own = cells.iter().filter(|cell| cell.experiment == format!("experiment-{number}") && cell.position == 0);
                let order: Vec<u32> = own.map(|cell| cell.block).collect();
                prop_assert_eq!(order, (0..=*count).collect::<Vec<_>>());
            }
        }

        #[test]
        fn the_seed_alone_decides_the_order(seed: u64) {
            prop_assert_eq!(cells(&plan(seed, &[6, 3]), names(9)), cells(&plan(seed, &[6, 3]), names(9)));
        }
    }

    #[test]
    fn another_seed_gives_another_order_and_blocks_differ() {
        let order = |seed| cells(&plan(seed, &[6]), names(9)).into_iter().map(|cell| cell.sandbox).collect::<Vec<_>>();
        assert_ne!(order(1), order(2));
        let first = order(1);
        assert_ne!(first[..9], first[9..18]);
    }

    proptest! {
        #[test]
        fn fewer_blocks_of_a_sandbox_are_as_many_as_asked_for(all in 1_u32..40, wanted in 0_u32..40) {
            let mut plan = plan(1, &[all]);
            plan.sandbox_blocks = [("experiment-0".to_owned(), [("sandbox-1".to_owned(), wanted)].into())].into();
            let cells = cells(&plan, names(2));
            let blocks: Vec<u32> = cells.iter().filter(|cell| cell.sandbox == "sandbox-1").map(|cell| cell.block).collect();
            let warm_up = u32::from(wanted > all);
            prop_assert_eq!(blocks.len() as u32, wanted.min(all) + warm_up);
            // They are spread: no two are further apart than the share says, rounded up.
            let gaps = blocks.windows(2).map(|pair| pair[1] - pair[0]);
            prop_assert!(gaps.max().unwrap_or(0) <= all.div_ceil(wanted.clamp(1, all)));
            if wanted <= FIRST {
                prop_assert!(blocks.iter().all(|block| *block <= FIRST), "{blocks:?}");
            }
        }
    }

    #[test]
    fn an_experiment_has_a_block_to_warm_up_where_it_says_so() {
        for experiment in experiments::all() {
            let name = experiment.name.to_owned();
            let plan = Plan { blocks: [(name.clone(), 2)].into(), experiments: vec![name], ..plan(1, &[]) };
            let blocks = |warm_up| cells(&plan, names(3)).iter().filter(|cell| cell.warm_up == warm_up).count() / 3;
            let expected = usize::from(experiment.warm_up == WarmUp::Block);
            assert_eq!((blocks(true), blocks(false)), (expected, 2), "{}", experiment.name);
        }
    }

    #[test]
    fn a_sandbox_takes_part_only_where_an_experiment_applies() {
        let cells = cells(&plan(1, &[2, 2]), |experiment| match experiment {
            "experiment-0" => vec!["a".into(), "b".into()],
            _ => vec!["a".into()],
        });
        assert_eq!(cells.iter().filter(|cell| cell.sandbox == "a").count(), 6);
        assert_eq!(cells.iter().filter(|cell| cell.sandbox == "b").count(), 3);
    }

    #[test]
    fn experiments_with_few_blocks_are_spread_over_the_run() {
        let cells = cells(&plan(1, &[4, 2]), names(1));
        let order: Vec<(&str, u32)> =
            cells.iter().map(|cell| (&cell.experiment["experiment-".len()..], cell.block)).collect();
        assert_eq!(
            order,
            [("0", 0), ("1", 0), ("0", 1), ("1", 1), ("0", 2), ("0", 3), ("1", 2), ("0", 4)],
            "warm-ups first, then the first block of each, then evenly"
        );
    }

    #[test]
    fn what_only_narrows_an_interval_comes_last() {
        let cells = cells(&plan(1, &[FIRST + 2, 2]), names(1));
        let order: Vec<(&str, u32)> =
            cells.iter().map(|cell| (&cell.experiment["experiment-".len()..], cell.block)).collect();
        assert_eq!(order[order.len() - 3..], [("0", FIRST), ("0", FIRST + 1), ("0", FIRST + 2)]);
        let second = order.iter().position(|cell| *cell == ("1", 2)).unwrap();
        assert_eq!(order[second - 1], ("0", FIRST / 2 + 1));
    }
}
