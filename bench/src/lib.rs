//! The `isobench` program's parts: commands, testbed, schedule, experiments and the writer of records.
#![forbid(unsafe_code)]

pub mod cell;
