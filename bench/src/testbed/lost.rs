//! Testbeds that run and that no record names any more, since it was damaged or removed by hand: nobody can reach them by name,
//! and `isobench gc` ends them.

use super::SUBCOMMAND;
use super::kept::{OUTER, kill};
use super::record::{self, Host};
use crate::home;
use std::fs;
use std::path::Path;

/// Ends them, or only looks where `dry`; gives the names of their runs.
pub(crate) fn end(dry: bool) -> anyhow::Result<Vec<String>> {
    let mut lost = Vec::new();
    for home in home::existing() {
        let kept: Vec<Host> = runs(&home).map(|run| Host { name: run.clone(), process: run }).filter(keeps).collect();
        if kept.is_empty() {
            continue;
        }
        // Whoever makes a testbed holds this until the record is written.
        let _lock = record::lock(&home)?;
        for testbed in kept.into_iter().filter(|testbed| !record::is_of(&testbed.process)) {
            if !dry {
                kill(&testbed)?;
            }
            lost.push(testbed.process);
        }
    }
    Ok(lost)
}

/// The runs that have a journal in a home.
fn runs(home: &Path) -> impl Iterator<Item = String> {
    let paths = fs::read_dir(home).into_iter().flatten().flatten().map(|entry| entry.path());
    let journals = paths.filter(|path| path.extension().is_some_and(|kind| kind == "journal"));
    journals.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
}

/// Whether a process lives and is the outermost of a testbed that is kept, not a run.
fn keeps(host: &Host) -> bool {
    let Some((_held, pid)) = host.open().zip(host.pid()) else { return false };
    let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    line.split(|byte| *byte == 0).skip(1).take(2).eq([SUBCOMMAND.as_bytes(), OUTER.as_bytes()])
}
