//! The order of cells: randomised complete blocks.
//!
//! Every sandbox is measured once in each block of an experiment, in an order shuffled anew for each block, and blocks of
//! different experiments are spread evenly over the run, so that the machine's drift hits all alike
//! ([Mytkowicz et al., *Producing wrong data without doing anything obviously wrong*, ASPLOS 2009]; blocking as in Box,
//! Hunter & Hunter, *Statistics for Experimenters*, chapter 4). The same seed gives the same order.
//!
//! [Mytkowicz et al., *Producing wrong data without doing anything obviously wrong*, ASPLOS 2009]: https://doi.org/10.1145/1508244.1508275

use crate::cell::Cell;
use isobench_reports::record::Plan;

/// The cells of a plan in the order in which they are measured: first one warm-up block of each experiment, numbered 0,
/// then blocks 1, 2, 3... `sandboxes` says which take part in an experiment.
pub fn cells(plan: &Plan, sandboxes: impl Fn(&str) -> Vec<String>) -> Vec<Cell> {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let mut order = Vec::new();
    for (rank, experiment) in plan.experiments.iter().enumerate() {
        let blocks = plan.blocks.get(experiment).copied().unwrap_or(0);
        order.push((Time { numerator: 0, denominator: 1 }, 0, rank));
        for block in 1..=blocks {
            order.push((Time { numerator: block, denominator: blocks }, block, rank));
        }
    }
    order.sort_by(|left, right| left.0.cmp(&right.0).then(left.2.cmp(&right.2)));
    let mut cells = Vec::new();
    for (_, block, rank) in order {
        let mut shuffled = sandboxes(&plan.experiments[rank]);
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

/// When a block is due, as a fraction of the run. The first block of every experiment is due at once, so that a run that
/// is stopped early has something of each.
#[derive(Clone, Copy)]
struct Time {
    numerator: u32,
    denominator: u32,
}

impl Time {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let due = |time: &Self| u64::from(time.numerator.saturating_sub(1));
        let left = due(self) * u64::from(other.denominator);
        let right = due(other) * u64::from(self.denominator);
        left.cmp(&right).then(self.numerator.min(1).cmp(&other.numerator.min(1)))
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
}
