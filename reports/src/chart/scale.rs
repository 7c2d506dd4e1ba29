//! Scales: from values to pixels, with round ticks.

/// A scale along one axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    logarithmic: bool,
    values: (f64, f64),
    pixels: (f64, f64),
}

impl Scale {
    /// From 0 to `highest`.
    pub(crate) fn linear(highest: f64, pixels: (f64, f64)) -> Self {
        Self::linear_from(0.0, highest, pixels)
    }

    /// From `lowest`, or from 0 where that is above it, to `highest`.
    pub(crate) fn linear_from(lowest: f64, highest: f64, pixels: (f64, f64)) -> Self {
        let lowest = if lowest < 0.0 && lowest.is_finite() { lowest } else { 0.0 };
        let highest = if highest > 0.0 && highest.is_finite() { highest } else { 1.0 };
        Self { logarithmic: false, values: (lowest, highest), pixels }
    }

    /// A logarithmic scale over exactly these positive values.
    pub(crate) fn logarithmic(lowest: f64, highest: f64, pixels: (f64, f64)) -> Self {
        let lowest = if lowest > 0.0 && lowest.is_finite() { lowest } else { 1.0 };
        let highest = if highest.is_finite() { highest.max(lowest * 1.5) } else { lowest * 1.5 };
        Self { logarithmic: true, values: (lowest, highest), pixels }
    }

    /// The pixel of a value. What lies outside of the scale lands outside of its pixels.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let (low, high) = self.values;
        let share = if self.logarithmic {
            (value.max(low * 1e-3) / low).ln() / (high / low).ln()
        } else {
            (value - low) / (high - low)
        };
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }

    /// Round values within the scale: about `count` of them on a linear scale, 1-2-5 or whole decades on a logarithmic one.
    pub(crate) fn ticks(&self, count: u32) -> Vec<f64> {
        let (low, high) = self.values;
        if !self.logarithmic {
            let step = round_step((high - low) / f64::from(count.max(1)));
            let first = (low / step).ceil();
            let ticks = (0..=1000).map(|index| (first + f64::from(index)) * step);
            return ticks.take_while(|tick| *tick <= high * 1.0001).collect();
        }
        let decades = (high / low).log10();
        let multiples: &[f64] = if decades * 3.0 <= f64::from(count) {
            &[1.0, 2.0, 5.0]
        } else if decades * 2.0 <= f64::from(count) {
            &[1.0, 3.0]
        } else {
            &[1.0]
        };
        let mut ticks = Vec::new();
        let mut power = 10_f64.powf(low.log10().floor());
        while power <= high {
            ticks.extend(multiples.iter().map(|multiple| power * multiple).filter(|tick| (low..=high).contains(tick)));
            power *= 10.0;
        }
        ticks
    }
}

/// The smallest of 1, 2, 5 times a power of ten that is at or above a step.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|multiple| multiple * power)
        .find(|round| *round >= step * 0.999)
        .unwrap_or(power)
}

/// Splits rows into panels of their own scale where their magnitudes are too far apart for one: at the widest gap, while the
/// largest is above twelve times the smallest. Rows keep their order within a panel; panels go from small to large.
pub(crate) fn panels(magnitudes: &[f64]) -> Vec<Vec<usize>> {
    if magnitudes.is_empty() {
        return Vec::new();
    }
    let mut sorted: Vec<usize> = (0..magnitudes.len()).collect();
    sorted.sort_by(|one, other| magnitudes[*one].total_cmp(&magnitudes[*other]));
    let mut panels = vec![sorted];
    while panels.len() < 3 {
        let gap = |rows: &[usize], at: usize| magnitudes[rows[at]] / magnitudes[rows[at - 1]].max(1e-9);
        let too_wide = panels.iter().position(|rows| {
            magnitudes[*rows.last().unwrap_or(&0)]
                > 12.0 * rows.first().map_or(f64::INFINITY, |first| magnitudes[*first])
        });
        let Some(index) = too_wide else { break };
        let rows = panels[index].clone();
        let Some(at) = (1..rows.len()).max_by(|one, other| gap(&rows, *one).total_cmp(&gap(&rows, *other))) else {
            break;
        };
        let high = panels[index].split_off(at);
        panels.insert(index + 1, high);
    }
    for rows in &mut panels {
        rows.sort_unstable();
    }
    panels.retain(|rows| !rows.is_empty());
    panels
}

/// Moves labels apart along one axis: each gets at least `distance` from the next, within `from..to` where they fit, with
/// their order kept and none moved further than it must.
pub(crate) fn spread(wanted: &[f64], distance: f64, (from, to): (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|one, other| wanted[*one].total_cmp(&wanted[*other]));
    // Groups of touching labels: mean of their wanted places (each as if it were the group's first), and members.
    let mut groups: Vec<(f64, Vec<usize>)> = Vec::new();
    #[expect(clippy::cast_precision_loss, reason = "a handful of labels")]
    let length = |members: &[usize]| members.len() as f64 * distance;
    let place = |start: f64, members: &[usize]| start.min(to - length(members) + distance).max(from);
    for index in order {
        let mut group = (place(wanted[index], &[index]), vec![index]);
        while let Some((start, members)) = groups.last() {
            if start + length(members) <= group.0 {
                break;
            }
            let mut members = members.clone();
            members.extend(&group.1);
            let offsets = members.iter().enumerate().map(|(rank, member)| wanted[*member] - length(&members[..rank]));
            #[expect(clippy::cast_precision_loss, reason = "a handful of labels")]
            let mean = offsets.sum::<f64>() / members.len() as f64;
            group = (place(mean, &members), members);
            groups.pop();
        }
        groups.push(group);
    }
    let mut placed = vec![0.0; wanted.len()];
    for (start, members) in groups {
        for (rank, member) in members.iter().enumerate() {
            placed[*member] = start + length(&members[..rank]);
        }
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(Scale::linear(9.3, (0.0, 1.0)).ticks(5), [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(Scale::linear_from(-3.0, 9.3, (0.0, 1.0)).ticks(5), [0.0, 5.0]);
        assert_eq!(Scale::linear_from(-6.0, 9.3, (0.0, 1.0)).ticks(5), [-5.0, 0.0, 5.0]);
        assert_eq!(Scale::logarithmic(15.0, 600.0, (0.0, 1.0)).ticks(6), [20.0, 50.0, 100.0, 200.0, 500.0]);
        assert_eq!(Scale::logarithmic(1.0, 1e6, (0.0, 1.0)).ticks(7).len(), 7);
        assert_eq!(Scale::logarithmic(1.0, f64::INFINITY, (0.0, 1.0)).ticks(7), [1.0], "a record may say anything");
        assert!((Scale::logarithmic(1.0, 100.0, (0.0, 10.0)).at(10.0) - 5.0).abs() < 1e-9);
    }

    #[test]
    fn rows_far_apart_get_panels_of_their_own() {
        assert_eq!(panels(&[1.0, 300.0, 2.0, 400.0]), [vec![0, 2], vec![1, 3]]);
        assert_eq!(panels(&[1.0, 2.0, 4.0, 11.0]), [vec![0, 1, 2, 3]]);
        assert_eq!(panels(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(panels(&[0.0, 0.0]).concat().len(), 2);
    }

    proptest! {
        #[test]
        fn labels_never_touch(wanted in prop::collection::vec(0.0..100.0, 1..8)) {
            let placed = spread(&wanted, 10.0, (0.0, 100.0));
            let mut sorted = placed.clone();
            sorted.sort_by(f64::total_cmp);
            prop_assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] >= 10.0 - 1e-9), "{placed:?}");
            prop_assert!(sorted[0] >= -1e-9 && sorted[sorted.len() - 1] <= 100.0 + 1e-9, "{placed:?}");
        }

        #[test]
        fn every_row_is_in_one_panel(magnitudes in prop::collection::vec(0.0..1e9, 0..20)) {
            let mut rows = panels(&magnitudes).concat();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..magnitudes.len()).collect::<Vec<_>>());
        }
    }
}
