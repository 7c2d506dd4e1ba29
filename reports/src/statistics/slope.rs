//! A line through few points: memory over the number of instances.

use super::bootstrap::median;

/// A line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Rise for each step of x.
    pub slope: f64,
    /// Height at x = 0.
    pub intercept: f64,
}

/// The line whose slope is the median of the slopes between all pairs of points with different x, and whose intercept is
/// the median of what is left (Theil 1950; Sen: *Estimates of the Regression Coefficient Based on Kendall's Tau*, JASA 63
/// (1968), 1379-1389). One wild point, such as a page cache that filled meanwhile, does not move it. `None` where all x are
/// the same.
pub fn theil_sen(points: &[(f64, f64)]) -> Option<Line> {
    let slopes: Vec<f64> = points
        .iter()
        .enumerate()
        .flat_map(|(index, left)| points[index + 1..].iter().map(move |right| (left, right)))
        .filter(|(left, right)| left.0 != right.0)
        .map(|(left, right)| (right.1 - left.1) / (right.0 - left.0))
        .collect();
    let slope = median(&slopes)?;
    let left: Vec<f64> = points.iter().map(|(x, y)| y - slope * x).collect();
    Some(Line { slope, intercept: median(&left)? })
}
