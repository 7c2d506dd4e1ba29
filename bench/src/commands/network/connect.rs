//! `isobench network connect` and `disconnect`: orders to the supervisor of a container that runs, which holds its places; what
//! does not run has the others when it is started.

use crate::commands::Status;
use crate::home;
use crate::instances::{FurtherNetwork, Store, attach, protocol::Order};
use crate::networks;
use std::net::Ipv4Addr;

/// Give a container a place in a network too
///
/// It gets a link of its own, `eth1` or the next one that is free, at once where it runs, and with each of its next starts. A
/// container without a network (`--network none`) gets its way out by it.
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

/// Take a container from a network; its link goes
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
    let further = FurtherNetwork { network, aliases, address };
    let container = Store::open()?.find(&container)?;
    match container.state.status.is_alive() {
        true => attach::ask(&container, &Order::Connect(further)).map(drop)?,
        false => container.change(|request, title| {
            // That it can be had then is not known, but that there is such a network.
            networks::Store::open(&home::state()?)?.network(&further.network)?;
            request.connect(title, further)
        })?,
    }
    Ok(Status::Success)
}

pub(super) fn disconnect(arguments: Disconnect) -> anyhow::Result<Status> {
    let Disconnect { network, container, force: _ } = arguments;
    let container = Store::open()?.find(&container)?;
    match container.state.status.is_alive() {
        true => attach::ask(&container, &Order::Disconnect { network }).map(drop)?,
        false => container.change(|request, title| request.disconnect(title, &network))?,
    }
    Ok(Status::Success)
}
