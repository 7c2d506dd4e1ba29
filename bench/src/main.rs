//! The `isobench` program.

use isobench::commands::{self, Arguments};
use isobench::{doctor, networks, selftest, testbed};
use std::process::ExitCode;

/// musl's own gives pages back to the kernel again and again, which in a program with two threads interrupts the other one's
/// processor each time: 20 us, dozens of times in each launch.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    // A part of a testbed must be that before anything else is touched: it still has one thread and no state.
    match std::env::args_os().nth(1) {
        Some(word) if word == testbed::SUBCOMMAND => testbed::host::main(),
        Some(word) if word == testbed::enter::SUBCOMMAND => testbed::enter::main(),
        Some(word) if word == doctor::SUBCOMMAND => doctor::trial::main(),
        Some(word) if word == networks::server::SUBCOMMAND => networks::server::main(),
        Some(word) if word == selftest::SUBCOMMAND => selftest::main(),
        _ => {
            commands::complete();
            Arguments::read().map_or_else(|code| code, commands::main)
        }
    }
}
