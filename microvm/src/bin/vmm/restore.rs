//! The subcommand `restore`: its options, read by hand like the others, and its run.

use crate::arguments::{ArgumentError, NAMESPACES, address, each, mac, namespace, seconds};
use crate::linux::{Handle, listen};
use isobench_guest::contract;
use isobench_microvm::jail::{Jail, NetworkNamespace};
use isobench_microvm::snapshot::{GuestKind, MachineState};
use isobench_microvm::system::inherited_fd;
use isobench_microvm::unikernel::{self, Restoration};
use isobench_workload::Stages;
use std::ffi::OsString;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::Duration;

/// Goes on with a guest and runs it to its end.
pub(crate) fn run(
    words: impl Iterator<Item = OsString>,
    stages: Stages,
) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut network_namespace = NetworkNamespace::Own;
    let (mut tap, mut card, mut place, mut gateway) = (None, None, None, None);
    let (mut memory, mut state, mut control, mut deadline) = (None, None, None, None);
    let mut spin: u32 = 50;
    let options = [
        "--memory-file",
        "--state-file",
        "--tap-fd",
        "--mac",
        "--address",
        "--gateway",
        "--deadline",
        "--spin",
        "--control",
        "--network-namespace",
    ];
    each(words, options, |option, raw| {
        let value = raw.to_string_lossy().into_owned();
        let wrong = |wanted| ArgumentError::Value { option, value: value.clone(), wanted };
        let handle = || Handle::parse(raw.as_bytes()).ok_or_else(|| wrong("a path or an open file descriptor"));
        match option {
            "--memory-file" => memory = Some(handle()?),
            "--state-file" => state = Some(handle()?),
            "--control" => control = Some(handle()?),
            "--tap-fd" => {
                let number = value.parse().map_err(|_| wrong("a file descriptor"))?;
                tap = Some(inherited_fd(number).map_err(|_| wrong("an open file descriptor"))?);
            }
            "--mac" => card = Some(mac(&value).ok_or_else(|| wrong("an Ethernet address"))?),
            "--address" => {
                place =
                    Some(address(&value).ok_or_else(|| wrong("an IPv4 address with a prefix, such as 172.17.0.5/16"))?);
            }
            "--gateway" => {
                let router: Ipv4Addr = value.parse().map_err(|_| wrong("an IPv4 address"))?;
                gateway = Some(router).filter(|router| !router.is_unspecified());
            }
            "--deadline" => deadline = Some(seconds(&value).ok_or_else(|| wrong("a number of seconds"))?),
            "--network-namespace" => network_namespace = namespace(&value).ok_or_else(|| wrong(NAMESPACES))?,
            _ => spin = value.parse().map_err(|_| wrong("a number of microseconds"))?,
        }
        Ok(())
    })?;
    let memory = open(memory.ok_or(ArgumentError::Missing("--memory-file"))?)?;
    let state = open(state.ok_or(ArgumentError::Missing("--state-file"))?)?;
    let state = MachineState::read(&state).map_err(ArgumentError::State)?;
    let control = control.map(|handle| listen("--control", handle)).transpose()?;
    let (jail, confined) = (Some(Jail { network: network_namespace, refused: crate::refused }), true);
    let place = match (tap, card, place) {
        (Some(tap), Some(mac), Some(place)) => Some((tap, mac, place)),
        (None, ..) => None,
        _ => return Err(ArgumentError::NoNetwork.into()),
    };
    let waits = Duration::from_micros(spin.into());
    match state.guest.kind {
        GuestKind::Unikernel => {
            let network = place.map(|(tap, mac, (address, prefix))| {
                let network = contract::Network {
                    mac,
                    address: address.octets(),
                    prefix,
                    gateway: gateway.unwrap_or(Ipv4Addr::UNSPECIFIED).octets(),
                    spin_microseconds: spin,
                    ..contract::Network::NONE
                };
                (tap, network)
            });
            let restoration = Restoration { state, memory, network, control, deadline, spin: waits, confined, jail };
            Ok(crate::ending(&unikernel::restore(restoration, stages, std::io::stdout())?, false))
        }
        GuestKind::Linux => Err("a Linux guest cannot be restored yet".into()),
    }
}

/// A file of a snapshot.
fn open(handle: Handle) -> Result<File, ArgumentError> {
    match handle {
        Handle::Inherited(fd, _) => Ok(fd.into()),
        Handle::File(path) => File::open(&path).map_err(|source| ArgumentError::Snapshot { path, source }),
    }
}
