//! Records, statistics, verdicts, charts and reports. This crate measures nothing and knows nothing of the machine: a
//! report is a pure function of two files, `run.json` ([`record::Run`]) and `samples.jsonl` ([`record::Sample`]).

pub mod claims;
pub mod metrics;
pub mod reader;
pub mod record;
pub mod schema;
pub mod statistics;
pub mod summary;
pub mod verdict;
pub mod chart;
pub mod font;
pub mod messages;
pub mod palette;
pub mod render;
