//! From records to statistics to verdicts.

mod compare;
mod properties;
mod reader;
mod reference;
mod schema;
mod selftest;
mod summary;
mod synthetic;
mod verdicts;
