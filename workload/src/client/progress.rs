//! What had arrived when.

/// Counts with the times at which they were known.
#[derive(Debug, Default)]
pub(super) struct Progress {
    marks: Vec<(u64, u64)>,
}

/// Marks are at least this far apart, in nanoseconds, so that a fast stream does not fill the memory.
const SPACING: u64 = 500_000;

impl Progress {
    /// So much had arrived by now. Times and counts only grow.
    pub(super) fn mark(&mut self, now: u64, count: u64) {
        if self.marks.last().is_none_or(|(last, _)| now >= last + SPACING) {
            self.marks.push((now, count));
        }
    }

    /// When the last mark was set.
    pub(super) fn last(&self) -> u64 {
        self.marks.last().map_or(0, |(at, _)| *at)
    }

    /// What arrived between two times: what had arrived at each lies on the line between the marks around it. `None` where
    /// there is no mark at or after the end.
    pub(super) fn between(&self, begin: u64, end: u64) -> Option<u64> {
        Some(self.at(end)?.saturating_sub(self.at(begin)?))
    }

    fn at(&self, time: u64) -> Option<u64> {
        let next = self.marks.partition_point(|(at, _)| *at < time);
        let (at, count) = *self.marks.get(next)?;
        let (before, from) = match next.checked_sub(1) {
            Some(index) => self.marks[index],
            // Nothing had arrived before the first mark that is known of.
            None => return Some(if at == time { count } else { 0 }),
        };
        let share = u128::from(count - from) * u128::from(time - before) / u128::from(at - before);
        Some(from + share as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_steady_stream_is_cut_at_the_windows_ends() {
        let mut progress = Progress::default();
        for step in 0..20 {
            progress.mark(step * 1_000_000, step * 4000);
        }
        assert_eq!(progress.between(2_500_000, 12_500_000), Some(40_000));
        assert_eq!(progress.between(0, 19_000_000), Some(76_000));
        assert_eq!(progress.between(0, 19_000_001), None, "nothing is known of later");
    }

    #[test]
    fn a_stall_at_the_end_moves_nothing() {
        let mut progress = Progress::default();
        progress.mark(0, 0);
        progress.mark(1_000_000, 1000);
        progress.mark(9_000_000, 1000);
        assert_eq!(progress.between(1_000_000, 9_000_000), Some(0));
        assert_eq!(progress.last(), 9_000_000);
    }

    proptest! {
        #[test]
        fn neighbouring_windows_add_up(steps in prop::collection::vec((500_000_u64..5_000_000, 0_u64..1_000_000), 2..40)) {
            let (mut progress, mut at, mut count) = (Progress::default(), 0, 0);
            progress.mark(0, 0);
            for (time, bytes) in steps {
                at += time;
                count += bytes;
                progress.mark(at, count);
            }
            let middle = at / 3;
            let sum = progress.between(0, middle).unwrap() + progress.between(middle, at).unwrap();
            prop_assert_eq!(sum, count);
        }
    }
}
