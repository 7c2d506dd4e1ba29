//! `isobench vm restore`.

use crate::commands::Status;
use crate::commands::container::run::begin;
use crate::commands::instance_options::{PlaceOptions, network};
use crate::instances::attach::Part;
use crate::instances::{Guest, Kind, Limits, Machine, Network, Request, names, now, refuse};
use anyhow::Context;
use isobench_microvm::snapshot::SnapshotError;
use isobench_microvm::snapshot::open::Snapshot;
use isobench_microvm::snapshot::{Guest as Saved, GuestKind};
use std::path::PathBuf;

/// Go on from a snapshot in one or more new virtual machines, each with an address of its own
///
/// Each clone goes on where the guest was saved, as somebody else: with its own addresses and new random numbers, and without the
/// connections that were open then. All files of the snapshot are verified first, by their SHA-256. Clones share its memory as long as
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
            failed => return Ok(failed),
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
    let guest = match Snapshot::open(&directory) {
        Ok(snapshot) => snapshot.manifest().guest.clone(),
        Err(error @ SnapshotError::Unusable { .. }) => return refuse(error.to_string()),
        Err(error) => return Err(error).with_context(|| format!("open the snapshot {}", directory.display())),
    };
    if guest.kind == GuestKind::Linux {
        return refuse("the snapshot is of a Linux guest, which cannot be restored yet");
    }
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
        let machine = Machine {
            guest: Guest::Unikernel(guest.workload.clone()),
            memory: guest.memory(),
            processors: guest.processors.into(),
            snapshot: Some(directory.clone()),
        };
        requests.push((
            name,
            Request {
                id: names::id(),
                created: now(),
                root: "unikernel".into(),
                directory: PathBuf::new(),
                command: vec!["restore".into(), directory.display().to_string()],
                environment: Vec::new(),
                user: None,
                working_directory: "/".into(),
                host_name: None,
                terminal: false,
                input: false,
                input_once: false,
                remove: rm,
                read_only: false,
                volumes: Vec::new(),
                limits: Limits::default(),
                added_capabilities: Vec::new(),
                dropped_capabilities: Vec::new(),
                network: network.clone(),
                aliases: place.network_alias.clone(),
                address: place.ip,
                mac: place.mac_address,
                name_servers: Vec::new(),
                ports: place.publish.clone(),
                machine: Some(machine),
            },
        ));
    }
    Ok(requests)
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
