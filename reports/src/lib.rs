//! Records, statistics, verdicts, charts and reports. This crate measures nothing and knows nothing of the machine: a
//! report is a pure function of two files, `run.json` ([`record::Run`]) and `samples.jsonl` ([`record::Sample`]).

pub mod chart;
pub mod claims;
pub mod compare;
pub mod csv;
pub mod font;
pub mod html;
pub mod literature;
pub mod markdown;
pub mod messages;
pub mod metrics;
pub mod palette;
pub mod reader;
pub mod record;
pub mod render;
pub mod schema;
pub mod selftest;
pub mod statistics;
pub mod summary;
pub mod verdict;
