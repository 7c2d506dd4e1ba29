//! The subcommand `restore`: its options, read by hand like the others, and its run.

use crate::arguments::{ArgumentError, LINUX_SPIN, NAMESPACES, UNIKERNEL_SPIN, each, namespace, seconds};
use crate::linux::{self, DiskWords, Handle, listen};
use crate::network::NetworkOptions;
use isobench_guest::contract;
use isobench_microvm::jail::{Jail, NetworkNamespace};
use isobench_microvm::linux::Network;
use isobench_microvm::operation::Operation;
use isobench_microvm::snapshot::{GuestKind, MachineState};
use isobench_microvm::{linux as guest, unikernel};
use isobench_workload::Stages;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::time::Duration;

/// Longest host name that Linux takes (gethostname(2)).
const LONGEST_NAME: usize = 64;
/// The most that is read of what a clone is told of its files; what a line cannot hold is refused later.
const LARGEST_FILES: u64 = 64 << 10;

/// Goes on with a guest and runs it to its end.
pub(crate) fn run(
    words: impl Iterator<Item = OsString>,
    stages: Stages,
) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let (mut network_namespace, mut place) = (NetworkNamespace::Own, NetworkOptions::default());
    let (mut memory, mut state, mut control, mut exec, mut deadline) = (None, None, None, None, None);
    let (mut disks, mut host_name, mut files) = (Vec::new(), None, None);
    let mut spin: Option<u32> = None;
    let own = [
        "--memory-file",
        "--state-file",
        "--deadline",
        "--spin",
        "--control",
        "--exec",
        "--disk",
        "--host-name",
        "--files",
        "--network-namespace",
        // It says to `main` whose the exit statuses are; the state says it too.
        "--session",
    ];
    each(words, &[&NetworkOptions::NAMES, &own], |option, raw| {
        let value = raw.to_string_lossy().into_owned();
        let wrong = |wanted| ArgumentError::Value { option, value: value.clone(), wanted };
        let handle = || Handle::parse(raw.as_bytes()).ok_or_else(|| wrong("a path or an open file descriptor"));
        match option {
            "--memory-file" => memory = Some(handle()?),
            "--state-file" => state = Some(handle()?),
            "--control" => control = Some(handle()?),
            "--exec" => exec = Some(handle()?),
            "--files" => files = Some(handle()?),
            "--disk" => {
                disks.push(DiskWords::parse(raw.clone()).ok_or_else(|| wrong("a file or an open file descriptor"))?);
            }
            "--host-name" => {
                let fits = !value.is_empty() && value.len() <= LONGEST_NAME;
                let plain = value.chars().all(|letter| letter.is_ascii_alphanumeric() || "-._".contains(letter));
                host_name = Some(value.clone()).filter(|_| fits && plain);
                host_name.as_ref().ok_or_else(|| wrong("a host name"))?;
            }
            "--deadline" => deadline = Some(seconds(&value).ok_or_else(|| wrong("a number of seconds"))?),
            "--network-namespace" => network_namespace = namespace(&value).ok_or_else(|| wrong(NAMESPACES))?,
            "--spin" => spin = Some(value.parse().map_err(|_| wrong("a number of microseconds"))?),
            "--session" => {}
            _ => place.set(option, &value).map_err(wrong)?,
        }
        Ok(())
    })?;
    let memory = open(memory.ok_or(ArgumentError::Missing("--memory-file"))?)?;
    let state = open(state.ok_or(ArgumentError::Missing("--state-file"))?)?;
    let state = MachineState::read(&state).map_err(ArgumentError::State)?;
    let control = control.map(|handle| listen("--control", handle)).transpose()?;
    let jail = Some(Jail { network: network_namespace, refused: crate::refused });
    let place = place.finish()?;
    let usual = match state.guest.kind {
        GuestKind::Unikernel => UNIKERNEL_SPIN,
        GuestKind::Linux => LINUX_SPIN,
    };
    let spin = spin.unwrap_or(usual);
    let operation = Operation { control, deadline, spin: Duration::from_micros(spin.into()), confined: true, jail };
    match state.guest.kind {
        GuestKind::Unikernel => {
            let network = place.map(|(tap, network)| (tap, of_unikernel(network, spin)));
            let restoration = unikernel::Restoration { state, memory, network, operation };
            Ok(crate::ending(&unikernel::restore(restoration, stages, std::io::stdout())?, false))
        }
        GuestKind::Linux => {
            let session = state.guest.session;
            let restoration = guest::Restoration {
                state,
                memory,
                network: place,
                host_name,
                files: files.map(read_files).transpose()?.unwrap_or_default(),
                disks: disks.into_iter().map(DiskWords::open).collect::<Result<_, _>>()?,
                exec: exec.map(|handle| listen("--exec", handle)).transpose()?,
                operation,
            };
            let ending = match session {
                true => guest::restore(restoration, stages, std::io::sink())?,
                false => guest::restore(restoration, stages, std::io::stdout())?,
            };
            Ok(linux::told(ending, session))
        }
    }
}

/// The unikernel's place; its port, and whether frames are segmented, are those of the guest that was saved.
fn of_unikernel(network: Network, spin: u32) -> contract::Network {
    contract::Network {
        mac: network.mac,
        address: network.address.octets(),
        prefix: network.prefix,
        gateway: network.gateway.unwrap_or(Ipv4Addr::UNSPECIFIED).octets(),
        spin_microseconds: spin,
        ..contract::Network::NONE
    }
}

/// Reads the files that a clone is to have, which are texts by name.
fn read_files(handle: Handle) -> Result<BTreeMap<String, String>, ArgumentError> {
    let wrong =
        || ArgumentError::Value { option: "--files", value: "what was given".into(), wanted: "a JSON object of texts" };
    let file = open(handle)?;
    let mut text = vec![0; LARGEST_FILES.min(file.metadata().map_err(|_| wrong())?.len()) as usize];
    file.read_exact_at(&mut text, 0).map_err(|_| wrong())?;
    serde_json::from_slice(&text).map_err(|_| wrong())
}

/// A file of a snapshot.
fn open(handle: Handle) -> Result<File, ArgumentError> {
    match handle {
        Handle::Inherited(fd, _) => Ok(fd.into()),
        Handle::File(path) => File::open(&path).map_err(|source| ArgumentError::Snapshot { path, source }),
    }
}
