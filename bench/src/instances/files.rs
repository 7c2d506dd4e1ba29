//! The files that a container sees as /etc/hosts, /etc/hostname and /etc/resolv.conf, written anew at each start.

use super::request::{Network, Request};
use super::state::NetworkPlace;
use anyhow::Context;
use isobench_runtime::root::{Mount, MountKind};
use rustix::mount::MountFlags;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Their names in the container's directory and under /etc.
pub(super) const NAMES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Makes those that are not there in the working directory, the container's own: they can be mounted before they are written.
pub(super) fn begin() -> anyhow::Result<()> {
    let make = |name: &&str| fs::File::options().create(true).append(true).open(name);
    NAMES.iter().try_for_each(|name| make(name).map(drop).with_context(|| format!("make the container's /etc/{name}")))
}

/// Writes them into the working directory.
pub(super) fn write(
    request: &Request,
    places: &[NetworkPlace],
    network_server: Option<Ipv4Addr>,
) -> anyhow::Result<()> {
    let resolver = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let own = if request.network == Network::Host { fs::read_to_string("/etc/hosts").ok() } else { None };
    let hosts = own.unwrap_or_else(|| hosts(request, places));
    let servers = match (&request.name_servers[..], network_server) {
        ([], server) => server.into_iter().map(IpAddr::from).collect(),
        (asked, _) => asked.to_vec(),
    };
    let texts = [hosts, format!("{}\n", request.host_name()), resolvers(&resolver, &servers, &request.network)];
    for (name, text) in NAMES.iter().zip(texts) {
        fs::write(name, text).with_context(|| format!("write the container's /etc/{name}"))?;
    }
    Ok(())
}

/// Makes another container's files this one's as well, under names in the working directory: they stay when the other is removed,
/// and whoever joins this one finds them here.
pub(super) fn share(other: &Path) -> anyhow::Result<()> {
    for name in NAMES {
        // Those of an earlier start.
        if let Err(error) = fs::remove_file(name)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("remove the container's former /etc/{name}"));
        }
        let source = other.join(name);
        fs::hard_link(&source, name).with_context(|| format!("share /etc/{name} as {}", source.display()))?;
    }
    Ok(())
}

/// Their mounts; `directory` is that of the container whose files they are.
pub(super) fn mounts(directory: &Path) -> impl Iterator<Item = Mount> {
    NAMES.iter().map(move |name| Mount {
        target: format!("/etc/{name}"),
        kind: MountKind::Bind { source: directory.join(name), recursive: false },
        flags: MountFlags::empty(),
        read_only: false,
    })
}

fn hosts(request: &Request, places: &[NetworkPlace]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for place in places {
        text += &format!("{}\t{}\n", place.address, request.host_name());
    }
    text
}

/// The host's own file with other servers, where there are any. A server on the host's own loopback cannot be reached from
/// another network namespace: it is left out.
fn resolvers(own: &str, servers: &[IpAddr], network: &Network) -> String {
    let shares = *network == Network::Host;
    let kept = own.lines().filter(|line| {
        let server = line.strip_prefix("nameserver").map(str::trim);
        match server {
            Some(server) => servers.is_empty() && (shares || !(server.starts_with("127.") || server == "::1")),
            None => !line.trim_start().starts_with(['#', ';']),
        }
    });
    let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    kept.for_each(|line| text += &format!("{line}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_those_that_can_be_reached() {
        let own = "# made by hand\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch example.org\n";
        let bridge = Network::Named("bridge".into());
        assert_eq!(resolvers(own, &[], &bridge), "nameserver 192.0.2.1\nsearch example.org\n");
        let all = "nameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch example.org\n";
        assert_eq!(resolvers(own, &[], &Network::Host), all);
        let asked = ["10.1.0.1", "2001:db8::53"].map(|server| server.parse().unwrap());
        assert_eq!(
            resolvers(own, &asked, &bridge),
            "nameserver 10.1.0.1\nnameserver 2001:db8::53\nsearch example.org\n"
        );
    }
}
