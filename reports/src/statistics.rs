//! The statistics of reports: pure functions over numbers, one value for each randomised block.
//!
//! The unit of replication is one launch in a randomised block (Georges, Buytaert, Eeckhout: *Statistically Rigorous Java
//! Performance Evaluation*, OOPSLA 2007; Kalibera, Jones: *Rigorous Benchmarking in Reasonable Time*, ISMM 2013): samples
//! within a block share its machine state, so a block counts once, by its median. Everything here is robust and free of
//! assumptions on the shape of a distribution, because times on a shared machine are skewed and have outliers that are
//! real: medians, intervals by resampling blocks, ranks.
//!
//! - [`bootstrap`]: medians and their intervals (Efron, Tibshirani: *An Introduction to the Bootstrap*, 1993).
//! - [`signed_rank`]: paired comparison (Wilcoxon: *Individual Comparisons by Ranking Methods*, 1945).
//! - [`rank_sum`]: comparison of two runs (Mann, Whitney 1947).
//! - [`paired`]: ratios within blocks, difference beyond a margin, equivalence within one (Schuirmann: *A Comparison of the
//!   Two One-Sided Tests Procedure and the Power Approach*, 1987).
//! - [`holm`]: several verdicts in one family (Holm: *A Simple Sequentially Rejective Multiple Test Procedure*, 1979).
//! - [`slope`]: memory over the number of instances (Theil 1950; Sen 1968).
//! - [`distribution`]: empirical distribution functions, histograms and the quantiles that a sample supports.

pub mod bootstrap;
pub mod distribution;
pub mod holm;
pub mod paired;
pub mod rank_sum;
pub mod signed_rank;
pub mod slope;

pub use bootstrap::{Estimate, MINIMUM_BLOCKS, median, median_estimate};
