//! Names of containers and virtual machines for a shell that completes them.

use crate::home;
use crate::instances::{Kind, kind_of};
use crate::testbed::{enter::Target, record};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use std::ffi::OsStr;
use std::path::PathBuf;

/// Completes the name of a container.
pub(super) fn completer() -> ArgValueCompleter {
    completer_of(Kind::Container)
}

/// Completes the name of an instance of one kind.
pub(in crate::commands) fn completer_of(kind: Kind) -> ArgValueCompleter {
    ArgValueCompleter::new(move |begun: &OsStr| {
        let begun = begun.to_string_lossy();
        let entries =
            places().into_iter().flat_map(|place| std::fs::read_dir(place.join("containers"))).flatten().flatten();
        let entries = entries.filter(|entry| kind_of(&entry.path()) == Some(kind));
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| !name.starts_with('.') && name.starts_with(&*begun)).map(CompletionCandidate::new).collect()
    })
}

/// Where containers of the testbed that is meant may lie, looked at from outside; nothing is made.
fn places() -> Vec<PathBuf> {
    if home::inside().is_some() {
        return vec![home::INSIDE.into()];
    }
    let named = std::env::var("ISOBENCH_TESTBED").ok().and_then(|name| name.parse::<Target>().ok());
    let target = named.unwrap_or(Target { testbed: "default".into(), second: false, client: false });
    let record = record::find(&target.testbed);
    let host = record.and_then(|record| record.hosts.into_iter().find(|host| host.name == target.host()));
    let inside =
        host.and_then(|host| host.pid()).map(|pid| format!("/proc/{}/root{}", pid.as_raw_nonzero(), home::INSIDE));
    inside.map(PathBuf::from).into_iter().chain(home::existing().into_iter().map(|home| home.join("host"))).collect()
}
