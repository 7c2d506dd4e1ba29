//! `isobench network connect` and `disconnect`: orders to the supervisor of a container that runs, which holds its places.

use crate::commands::Status;
use crate::instances::{Store, attach, protocol::Order};
use std::net::Ipv4Addr;

/// Give a running container a place in a network too
///
/// It gets a link of its own, `eth1` or the next one that is free. A container without a network (`--network none`) gets its
/// way out by it.
#[derive(Debug, clap::Args)]
pub(super) struct Connect {
    /// The network's name
    network: String,
    /// The container's name or id
    container: String,
    /// Another name that leads to the container on this network
    #[arg(long = "alias", value_name = "NAME")]
    aliases: Vec<String>,
    /// Its address there
    #[arg(long = "ip", value_name = "ADDRESS")]
    address: Option<Ipv4Addr>,
}

/// Take a running container from a network; its link goes
#[derive(Debug, clap::Args)]
pub(super) struct Disconnect {
    /// The network's name
    network: String,
    /// The container's name or id
    container: String,
    /// For scripts that give it: nothing is to be forced
    #[arg(short, long)]
    force: bool,
}

pub(super) fn connect(arguments: Connect) -> anyhow::Result<Status> {
    let Connect { network, container, aliases, address } = arguments;
    order(&container, &Order::Connect { network, aliases, address })
}

pub(super) fn disconnect(arguments: Disconnect) -> anyhow::Result<Status> {
    order(&arguments.container, &Order::Disconnect { network: arguments.network })
}

fn order(container: &str, order: &Order) -> anyhow::Result<Status> {
    attach::ask(&Store::open()?.find(container)?, order)?;
    Ok(Status::Success)
}
