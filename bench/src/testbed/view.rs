//! What a testbed's hosts and clients have: links with their addresses, seen from the first host.

use super::kept::{CLIENT_NAMESPACE, second};
use super::namespaces::named_network;
use anyhow::Context;
use isobench_runtime::network::{Mac, Netlink};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;

/// A link of a host or a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LinkView {
    /// Its name.
    pub(crate) name: String,
    /// Its kind, such as `veth`; empty for a loopback link.
    pub(crate) kind: String,
    /// Whether it is up.
    pub(crate) up: bool,
    /// Its link-layer address, empty where it has none.
    pub(crate) mac: String,
    /// Its addresses with their prefix lengths.
    pub(crate) addresses: Vec<String>,
}

/// The parts of a testbed other than the first host: how each is called there, and its network namespace's name.
const OTHERS: [(&str, &str); 3] =
    [("/client", CLIENT_NAMESPACE), ("/two", second::NAMESPACE), ("/two/client", second::OUTSIDE)];

/// The links of every part by what follows the testbed's name; called on the first host.
pub(crate) fn links() -> anyhow::Result<BTreeMap<String, Vec<LinkView>>> {
    let mut parts = BTreeMap::from([(String::new(), of(&mut Netlink::open()?)?)]);
    for (part, name) in OTHERS {
        let path = named_network(name);
        if let Ok(namespace) = File::open(&path) {
            let seen = std::thread::scope(|scope| {
                let look = || -> anyhow::Result<Vec<LinkView>> {
                    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                        .with_context(|| format!("enter {}", path.display()))?;
                    of(&mut Netlink::open()?)
                };
                // A thread that has gone there never comes back: it ends.
                scope.spawn(look).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })?;
            parts.insert(part.to_owned(), seen);
        }
    }
    Ok(parts)
}

fn of(netlink: &mut Netlink) -> anyhow::Result<Vec<LinkView>> {
    let addresses = netlink.addresses()?;
    let links = netlink.links()?.into_iter().map(|link| LinkView {
        addresses: addresses
            .iter()
            .filter(|address| address.link == link.index)
            .map(|address| format!("{}/{}", address.address, address.prefix))
            .collect(),
        mac: <[u8; 6]>::try_from(&*link.mac).map(|octets| Mac(octets).to_string()).unwrap_or_default(),
        name: link.name,
        kind: link.kind,
        up: link.up,
    });
    Ok(links.collect())
}
