//! The `isobench` program's parts: commands, testbed, schedule, experiments and the writer of records.
#![forbid(unsafe_code)]

pub mod cell;
pub mod commands;
pub mod doctor;
pub mod experiments;
pub mod home;
pub mod instances;
pub mod interrupt;
pub mod journal;
mod json_file;
mod kernels;
pub mod labs;
pub mod machine;
pub mod networks;
pub mod plan;
pub mod programs;
pub mod progress;
pub mod recorder;
pub mod roots;
pub mod sandboxes;
pub mod schedule;
pub mod selftest;
pub mod session;
pub mod testbed;
pub mod testbeds;
