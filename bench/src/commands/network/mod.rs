//! `isobench network`.

mod connect;
mod view;

use super::place::Place;
use super::{BadInput, Status, output, template};
use crate::home;
use crate::instances::Refusal;
use crate::networks::{self, Request, Store};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Make, list, show and remove networks for containers and virtual machines
///
/// Whoever joins a network gets an address in it by itself and reaches the others by name; two networks do not reach each
/// other. `bridge` is there by itself. It works in the testbed `default` where none is named.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    place: Place,
}

const EXAMPLES: &str = "\
Examples:
  isobench network create web                       a network with a subnet that is free
  isobench network create --subnet 10.5.0.0/24 --gateway 10.5.0.254 --ip-range 10.5.0.128/25 lab
  isobench network create --internal --ipv6 vault   no way out; IPv6 addresses too
  isobench network ls
  isobench network inspect web                      its settings and who is in it, as JSON
  isobench network connect web one                  give the container `one` a place in it too
  isobench network rm web
  isobench network prune                            remove every network that nobody uses";

#[derive(Debug, clap::Subcommand)]
enum Command {
    Create(Create),
    Ls(List),
    Inspect(Inspect),
    Connect(connect::Connect),
    Disconnect(connect::Disconnect),
    Rm(Remove),
    Prune(Prune),
}

/// Make a network; its name is printed
#[derive(Debug, clap::Args)]
struct Create {
    /// Its name: letters, digits, `-`, `_` and `.`
    name: String,
    /// Its subnet, such as 10.5.0.0/24; an IPv6 subnet may be given beside it [default: one that is free]
    #[arg(long = "subnet", value_name = "SUBNET")]
    subnets: Vec<String>,
    /// The host's own address in it, its members' way out [default: the first]
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<Ipv4Addr>,
    /// Give addresses from this part of the subnet alone to those who ask for none in particular
    #[arg(long = "ip-range", value_name = "SUBNET")]
    range: Option<String>,
    /// Let its members reach each other alone
    #[arg(long)]
    internal: bool,
    /// Largest packet on it, in bytes [default: 1500]
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u32>,
    /// Give IPv6 addresses too, from a unique local subnet unless one is given
    #[arg(long)]
    ipv6: bool,
    /// A label, NAME=VALUE
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// The kind of network; there is one kind
    #[arg(short, long, value_parser = ["bridge"], default_value = "bridge", hide_possible_values = true)]
    driver: String,
}

/// List the networks
#[derive(Debug, clap::Args)]
#[command(visible_alias = "list")]
struct List {
    /// Print names alone
    #[arg(short, long)]
    quiet: bool,
    /// How to print them: `table`, `json`, or a template such as '{{.Name}}', also after `table `
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Print JSON
    #[arg(long, conflicts_with_all = ["quiet", "format"])]
    json: bool,
}

/// Show networks with their members, as JSON
#[derive(Debug, clap::Args)]
struct Inspect {
    /// Only what this template names, such as '{{.IPAM.Config.0.Subnet}}'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Their names
    #[arg(required = true)]
    names: Vec<String>,
}

/// Remove networks that nobody uses; their names are printed
#[derive(Debug, clap::Args)]
#[command(visible_alias = "remove")]
struct Remove {
    /// Their names
    #[arg(required = true)]
    names: Vec<String>,
}

/// Remove every network that nobody uses, but `bridge`; their names are printed
#[derive(Debug, clap::Args)]
struct Prune {
    /// For scripts that give it: there is no question to be asked
    #[arg(short, long)]
    force: bool,
    /// Remove `bridge` and our firewall rules too; refused where anybody uses a network
    #[arg(short, long)]
    all: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let Arguments { command, place } = arguments;
    place.inside(|| refusals(work(command)))
}

fn work(command: Command) -> anyhow::Result<Status> {
    let store = Store::open(&home::state()?)?;
    // What processes that were killed have left is taken away by whoever comes next.
    store.sweep()?;
    match command {
        Command::Create(arguments) => create(&store, arguments)?,
        Command::Ls(arguments) => list(&store, &arguments)?,
        Command::Inspect(arguments) => inspect(&store, &arguments)?,
        Command::Connect(arguments) => return connect::connect(arguments),
        Command::Disconnect(arguments) => return connect::disconnect(arguments),
        Command::Rm(arguments) => remove(&store, &arguments.names)?,
        Command::Prune(arguments) => {
            let names = if arguments.all { store.clear()? } else { store.prune()? };
            output::print(&names.into_iter().map(|name| name + "\n").collect::<String>())?;
        }
    }
    Ok(Status::Success)
}

/// What is refused to the user is bad input; what fails is a failure.
fn refusals(result: anyhow::Result<Status>) -> anyhow::Result<Status> {
    result.map_err(|error| {
        if networks::is_refusal(&error) || error.is::<Refusal>() {
            BadInput(format!("{error:#}")).into()
        } else {
            error
        }
    })
}

fn create(store: &Store, arguments: Create) -> anyhow::Result<()> {
    let mut labels = BTreeMap::new();
    for label in arguments.labels {
        let (name, value) = label.split_once('=').unwrap_or((&label, ""));
        labels.insert(name.to_owned(), value.to_owned());
    }
    let request = Request {
        name: arguments.name,
        subnets: arguments.subnets,
        gateway: arguments.gateway,
        range: arguments.range,
        internal: arguments.internal,
        mtu: arguments.mtu,
        ipv6: arguments.ipv6,
        labels,
    };
    output::print(&format!("{}\n", store.create(&request)?.name))
}

fn list(store: &Store, arguments: &List) -> anyhow::Result<()> {
    let networks = view::listed(store)?;
    if arguments.json || arguments.format == "json" {
        return output::print_json(&networks);
    }
    if arguments.quiet {
        return output::print(&networks.iter().map(|network| format!("{}\n", network.name)).collect::<String>());
    }
    match arguments.format.as_str() {
        "table" => output::print(&view::table(&networks)),
        format => output::print(&template::list(format, &networks)?),
    }
}

fn inspect(store: &Store, arguments: &Inspect) -> anyhow::Result<()> {
    let networks: anyhow::Result<Vec<_>> = arguments.names.iter().map(|name| view::inspected(store, name)).collect();
    match arguments.format.as_deref() {
        None | Some("json") => output::print_json(&networks?),
        Some(format) => output::print(&template::list(format, &networks?)?),
    }
}

fn remove(store: &Store, names: &[String]) -> anyhow::Result<()> {
    let mut refused = Vec::new();
    for name in names {
        match store.remove(name) {
            Ok(()) => output::print(&format!("{name}\n"))?,
            Err(error) if networks::is_refusal(&error) => refused.push(format!("{error:#}")),
            Err(error) => return Err(error),
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(BadInput(refused.join("; ")).into()) }
}
