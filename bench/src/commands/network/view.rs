//! Networks as they are shown: a table, and JSON with the keys that Docker has for the same.

use crate::commands::output;
use crate::networks::{Member, Settings, Store};
use isobench_runtime::network::Protocol;
use serde::Serialize;
use std::collections::BTreeMap;

/// A network in the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub(super) name: String,
    driver: &'static str,
    subnet: Option<String>,
    gateway: Option<String>,
    #[serde(rename = "IPv6Subnet")]
    six: Option<String>,
    internal: bool,
    members: usize,
}

/// All networks, with the two modes that are no networks of ours but are named in the same place.
pub(super) fn listed(store: &Store) -> anyhow::Result<Vec<Listed>> {
    let mut networks = Vec::new();
    for settings in store.list()? {
        let members = store.network(&settings.name)?.members()?.len();
        networks.push(Listed {
            name: settings.name,
            driver: "bridge",
            subnet: Some(settings.subnet),
            gateway: Some(settings.gateway.to_string()),
            six: settings.ipv6,
            internal: settings.internal,
            members,
        });
    }
    let bare = |name: &str, driver, internal| Listed {
        name: name.into(),
        driver,
        subnet: None,
        gateway: None,
        six: None,
        internal,
        members: 0,
    };
    if networks.iter().all(|network| network.name != "bridge") {
        networks.push(bare("bridge", "bridge", false));
    }
    networks.push(bare("host", "host", false));
    networks.push(bare("none", "null", true));
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(networks)
}

/// The list for people.
pub(super) fn table(networks: &[Listed]) -> String {
    let mut rows = vec![["NAME", "DRIVER", "SUBNET", "GATEWAY", "INTERNAL", "MEMBERS"].map(str::to_owned).to_vec()];
    for network in networks {
        let subnet = match (&network.subnet, &network.six) {
            (Some(four), Some(six)) => format!("{four}, {six}"),
            (Some(four), None) => four.clone(),
            (None, _) if network.name == "bridge" => "(on first use)".into(),
            (None, _) => "-".into(),
        };
        rows.push(vec![
            network.name.clone(),
            network.driver.into(),
            subnet,
            network.gateway.clone().unwrap_or_else(|| "-".into()),
            if network.internal { "yes" } else { "no" }.into(),
            network.members.to_string(),
        ]);
    }
    output::table(&rows)
}

/// A network in full.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    name: String,
    created: String,
    scope: &'static str,
    driver: &'static str,
    #[serde(rename = "EnableIPv6")]
    six: bool,
    #[serde(rename = "IPAM")]
    addresses: Addresses,
    internal: bool,
    #[serde(rename = "MTU")]
    mtu: u32,
    bridge: String,
    name_server: Option<String>,
    containers: BTreeMap<String, InspectedMember>,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Addresses {
    config: Vec<Range>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Range {
    subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "Option::is_none")]
    range: Option<String>,
    gateway: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedMember {
    mac_address: String,
    #[serde(rename = "IPv4Address")]
    four: String,
    #[serde(rename = "IPv6Address", skip_serializing_if = "Option::is_none")]
    six: Option<String>,
    names: Vec<String>,
    ports: Vec<String>,
}

pub(super) fn inspected(store: &Store, name: &str) -> anyhow::Result<Inspected> {
    let network = store.network(name)?;
    let (settings, bridge) = (network.settings(), network.bridge().settings());
    let mut config = vec![Range {
        subnet: settings.subnet.clone(),
        range: settings.range.clone(),
        gateway: settings.gateway.to_string(),
    }];
    if let Some((subnet, gateway)) = settings.ipv6.clone().zip(bridge.ipv6_of(settings.gateway)) {
        config.push(Range { subnet, range: None, gateway: gateway.to_string() });
    }
    let members = network.members()?;
    Ok(Inspected {
        name: settings.name.clone(),
        created: settings.created.clone(),
        scope: "local",
        driver: "bridge",
        six: settings.ipv6.is_some(),
        addresses: Addresses { config },
        internal: settings.internal,
        mtu: settings.mtu.unwrap_or(1500),
        bridge: settings.bridge.clone(),
        name_server: network.resolver().map(|address| address.to_string()),
        containers: members.into_iter().map(|member| (member.instance.clone(), shown(settings, member))).collect(),
        labels: settings.labels.clone(),
    })
}

fn shown(settings: &Settings, member: Member) -> InspectedMember {
    let prefix = |subnet: &str| subnet.split_once('/').map_or("", |(_, prefix)| prefix).to_owned();
    let port = |port: &isobench_runtime::network::Redirection| {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let any = if port.target.is_ipv4() { "0.0.0.0" } else { "[::]" };
        let host = port.host.map_or_else(|| any.into(), |host| host.to_string());
        format!("{host}:{}->{}/{protocol}", port.port, port.target.port())
    };
    InspectedMember {
        mac_address: member.mac,
        four: format!("{}/{}", member.address, prefix(&settings.subnet)),
        six: member.ipv6.zip(settings.ipv6.as_deref()).map(|(six, subnet)| format!("{six}/{}", prefix(subnet))),
        names: member.names,
        ports: member.ports.iter().map(port).collect(),
    }
}
