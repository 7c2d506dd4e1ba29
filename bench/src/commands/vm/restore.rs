//! `isobench vm restore`.

use crate::commands::Status;
use crate::commands::container::run::begin;
use crate::commands::instance_options::{PlaceOptions, network};
use crate::doctor;
use crate::instances::attach::Part;
use crate::instances::{Guest, Kind, Machine, Network, Request, names, now, refuse};
use anyhow::Context;
use isobench_microvm::judge::{Verdict, judge};
use isobench_microvm::snapshot::SnapshotError;
use isobench_microvm::snapshot::open::Snapshot;
use isobench_microvm::snapshot::{Guest as Saved, GuestKind};
use serde_json::Value;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Go on from a snapshot in one or more new virtual machines, each with an address of its own
///
/// Each clone goes on where the guest was saved, as somebody else: with its own addresses, host name and new random numbers, and without
/// the connections that were open then. All files of the snapshot are verified first, by their SHA-256. Clones share its memory as long as
/// they do not write to it, so that the directory must stay as it is while they run.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    /// How many virtual machines
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clones: u32,
    /// Its name; several are called NAME-1, NAME-2 and so on. One is made up where none is given
    #[arg(long)]
    name: Option<String>,
    /// Remove each when it ends
    #[arg(long)]
    rm: bool,
    /// Their network: bridge, or one that `isobench network create` made [default: bridge]
    #[arg(long, visible_alias = "net", value_name = "NETWORK", value_parser = network)]
    network: Option<Network>,
    #[command(flatten)]
    place: PlaceOptions,
    /// The directory that `vm snapshot` made
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  isobench vm restore warm --name again -p 8080:7000
  isobench vm restore warm --clones 10 --name web --network mine
  isobench vm ps";

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let requests = requests(arguments)?;
    for (name, request) in &requests {
        match begin(name, request, Part { terminal: false, input: false, signals: false }, true)? {
            Status::Success => {}
            // Nobody waits for what runs in a clone, whose status it could be; why it did not start was said.
            _ => return Ok(Status::BadInput),
        }
    }
    Ok(Status::Success)
}

/// What is to be made, all of which is checked before anything is.
fn requests(arguments: Arguments) -> anyhow::Result<Vec<(String, Request)>> {
    let Arguments { clones, name, rm, network, place, directory } = arguments;
    let directory = match directory.canonicalize() {
        Ok(directory) => directory,
        Err(error) => return refuse(format!("the snapshot {}: {error}", directory.display())),
    };
    let (guest, note) = match Snapshot::open(&directory) {
        Ok(snapshot) => (snapshot.manifest().guest.clone(), snapshot.manifest().note.clone()),
        Err(error @ SnapshotError::Unusable { .. }) => return refuse(error.to_string()),
        // What is missing was not given.
        Err(SnapshotError::File { path, source, .. })
            if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
        {
            return refuse(format!("the snapshot's file {}: {source}", path.display()));
        }
        Err(error) => return Err(error).with_context(|| format!("open the snapshot {}", directory.display())),
    };
    let saved = match guest.kind {
        GuestKind::Unikernel => None,
        GuestKind::Linux => Some(linux(&guest, note, &directory)?),
    };
    let network = chosen(&guest, network)?;
    let of_one = [
        (!place.publish.is_empty(), "-p"),
        (place.ip.is_some(), "--ip"),
        (place.mac_address.is_some(), "--mac-address"),
    ];
    if let Some((_, option)) = of_one.iter().find(|(given, _)| *given && clones > 1) {
        return refuse(format!("{option}: it leads to one virtual machine alone, not to {clones} clones"));
    }
    if let Some((_, option)) = of_one.iter().find(|(given, _)| *given && network == Network::None) {
        return refuse(format!("{option}: the snapshot's guest has no network"));
    }
    let mut requests = Vec::new();
    for number in 1..=clones {
        let name = match &name {
            Some(name) if clones > 1 => format!("{name}-{number}"),
            Some(name) => name.clone(),
            None => names::random(),
        };
        names::check(Kind::Machine, &name)?;
        let of_guest = match &saved {
            None => (Guest::Unikernel(guest.workload.clone()), None),
            Some(request) => {
                let kernel = request.machine.as_ref().map(|machine| machine.guest.clone());
                (kernel.unwrap_or_else(|| Guest::Linux(PathBuf::new())), Some(request))
            }
        };
        let machine = Machine {
            guest: of_guest.0,
            memory: guest.memory(),
            processors: guest.processors.into(),
            snapshot: Some(directory.clone()),
        };
        let alike = of_guest.1.cloned().unwrap_or_else(|| unikernel(&directory));
        requests.push((
            name,
            Request {
                id: names::id(),
                created: now(),
                host_name: None,
                remove: rm,
                network: network.clone(),
                aliases: place.network_alias.clone(),
                address: place.ip,
                mac: place.mac_address,
                ports: place.publish.clone(),
                machine: Some(machine),
                ..alike
            },
        ));
    }
    Ok(requests)
}

/// What a clone of a unikernel has that is no clone's own.
fn unikernel(directory: &Path) -> Request {
    Request {
        root: "unikernel".into(),
        command: vec!["restore".into(), directory.display().to_string()],
        working_directory: "/".into(),
        ..Request::default()
    }
}

/// What was asked for when the Linux guest that was saved was made: its clones have the same root, command and user.
fn linux(guest: &Saved, note: Option<Value>, directory: &Path) -> anyhow::Result<Request> {
    let verdict = judge();
    if !verdict.runs_linux() {
        return refuse(match verdict {
            Verdict::None(_) => doctor::kvm().with_remedy(),
            _ => format!("the snapshot {} is of a Linux guest, and {verdict}", directory.display()),
        });
    }
    let request = note.and_then(|note| serde_json::from_value::<Request>(note).ok());
    let is_linux = |request: &Request| {
        request.machine.as_ref().is_some_and(|machine| matches!(machine.guest, Guest::Linux(_))) && guest.session
    };
    match request.filter(is_linux) {
        Some(request) => Ok(request),
        None => refuse(format!(
            "the snapshot {} does not say what its guest runs: `isobench vm snapshot` makes one that does",
            directory.display()
        )),
    }
}

/// The network of the clones: a guest that has a card needs one, and no other can have one.
fn chosen(guest: &Saved, asked: Option<Network>) -> anyhow::Result<Network> {
    match asked {
        Some(Network::Host | Network::Container(_)) => refuse(
            "--network: a virtual machine has a network card of its own: give bridge, or a network that `isobench network create` made",
        ),
        Some(Network::None) if guest.network => {
            refuse("--network none: the snapshot's guest has a network card, which needs a network")
        }
        Some(Network::Named(_)) if !guest.network => refuse("--network: the snapshot's guest has no network card"),
        Some(network) => Ok(network),
        None if guest.network => Ok(Network::Named("bridge".into())),
        None => Ok(Network::None),
    }
}
