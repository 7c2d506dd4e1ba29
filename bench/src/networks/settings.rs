//! What a network is: as it was asked for, checked, and written down.

use super::{Refusal, check_name, refuse};
use isobench_runtime::network::bridge_network;
use isobench_runtime::network::{Route, Subnet, Subnet6, pool, sysctl};
use rustix::net::{AddressFamily, SocketType};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The network that is there by itself.
pub(super) const DEFAULT: &str = "bridge";

/// Names that mean something else where a network is named.
const RESERVED: [&str; 5] = [DEFAULT, "host", "none", "container", "default"];

/// A network as it is asked for; what is left open is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Its name.
    pub name: String,
    /// The subnets, such as `10.89.3.0/24`; one may be an IPv6 subnet.
    pub subnets: Vec<String>,
    /// The gateway: the first host address where there is none.
    pub gateway: Option<Ipv4Addr>,
    /// The part of the subnet from which addresses are given.
    pub range: Option<String>,
    /// Whether there is no way out.
    pub internal: bool,
    /// Bound on the size of packets.
    pub mtu: Option<u32>,
    /// Whether it has IPv6 too, in a unique local subnet unless one is given.
    pub ipv6: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Request {
    /// The IPv4 subnet that is asked for, and the IPv6 one that it is to have.
    fn subnets(&self) -> anyhow::Result<(Option<Subnet>, Option<Subnet6>)> {
        let (mut four, mut six): (Option<Subnet>, Option<Subnet6>) = (None, None);
        for text in &self.subnets {
            let twice = if text.contains("::") || text.matches(':').count() > 1 {
                six.replace(text.parse()?).is_some()
            } else {
                four.replace(text.parse()?).is_some()
            };
            if twice {
                return refuse(format!("subnet {text}: a network has one IPv4 subnet and one IPv6 subnet at most"));
            }
        }
        if self.ipv6 || six.is_some() {
            if !sysctl::has_ipv6() {
                return refuse("this kernel has no IPv6: leave --ipv6 and IPv6 subnets away");
            }
            six = six.or_else(|| Some(Subnet6::unique_local(fastrand::u64(..))));
        }
        Ok((four, six))
    }

    /// Refuses a packet size or labels that no network can have.
    fn check(&self, ipv6: bool) -> anyhow::Result<()> {
        if let Some(mtu) = self.mtu {
            let least = if ipv6 { 1280 } else { 68 };
            if !(least..=65_535).contains(&mtu) {
                return refuse(format!("MTU {mtu} is out of range: give {least} to 65535"));
            }
        }
        if self.labels.contains_key("") {
            return refuse("a label without a name: give NAME=VALUE");
        }
        Ok(())
    }
}

/// A network as it is: `network.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Its name.
    pub name: String,
    /// When it was made, as in RFC 3339.
    pub created: String,
    /// Name of its bridge.
    pub bridge: String,
    /// Its subnet.
    pub subnet: String,
    /// Its gateway.
    pub gateway: Ipv4Addr,
    /// The part of the subnet from which addresses are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// Its IPv6 subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
    /// Whether there is no way out.
    #[serde(default)]
    pub internal: bool,
    /// Bound on the size of packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Settings {
    /// Checks a request beside the networks that there are and what the machine routes.
    ///
    /// # Errors
    /// A [`Refusal`], or what the runtime library refuses of a subnet.
    pub fn choose(request: &Request, others: &[Self], routes: &[Route]) -> anyhow::Result<Self> {
        check_name("network", &request.name)?;
        if RESERVED.contains(&request.name.as_str()) {
            return refuse(format!("`{}` is no name for a network of one's own: it means another one", request.name));
        }
        if others.iter().any(|other| other.name == request.name) {
            let name = &request.name;
            return refuse(format!(
                "there is a network `{name}` already: choose another name, or remove it with `isobench network rm {name}`"
            ));
        }
        let bridge = bridge_name(&request.name);
        Self::choose_for(request, bridge, others, routes, (0..=255).map(|number| [10, 89, number, 0]), 24)
    }

    /// The network that is there by itself: 172.17.0.0/16 or the next one that is free.
    pub(super) fn default_network(others: &[Self], routes: &[Route]) -> anyhow::Result<Self> {
        let request = Request { name: DEFAULT.into(), ..Request::default() };
        Self::choose_for(&request, "bridge0".into(), others, routes, (17..=31).map(|number| [172, number, 0, 0]), 16)
    }

    fn choose_for(
        request: &Request,
        bridge: String,
        others: &[Self],
        routes: &[Route],
        candidates: impl Iterator<Item = [u8; 4]>,
        prefix: u8,
    ) -> anyhow::Result<Self> {
        let (four, six) = request.subnets()?;
        let free = |subnet: Subnet, six: Option<Subnet6>| {
            let clash = others.iter().find(|other| other.overlaps(subnet, six));
            match clash {
                Some(other) => Err(anyhow::Error::from(Refusal(format!(
                    "subnet {} overlaps {} of the network `{}`: choose another subnet",
                    both(subnet, six),
                    other.subnets(),
                    other.name
                )))),
                None => Ok(pool::check_free(subnet, six, routes, name_of_link)?),
            }
        };
        let subnet = match four {
            Some(subnet) => subnet,
            None => {
                let mut candidates = candidates.filter_map(|network| Subnet::new(network.into(), prefix).ok());
                let found = candidates.find(|subnet| free(*subnet, None).is_ok());
                found.ok_or_else(|| Refusal("no subnet is free: give one with --subnet".into()))?
            }
        };
        check_hosts(subnet, six)?;
        free(subnet, six)?;
        let range: Option<Subnet> = request.range.as_deref().map(str::parse).transpose()?;
        // A range of addresses that begins the subnet would else begin with the gateway's.
        let gateway = request.gateway.or_else(|| subnet.host(0)).unwrap_or(Ipv4Addr::UNSPECIFIED);
        pool::check(subnet, gateway, range)?;
        request.check(six.is_some())?;
        Ok(Self {
            name: request.name.clone(),
            created: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
            bridge,
            subnet: subnet.to_string(),
            gateway,
            range: range.map(|range| range.to_string()),
            ipv6: six.map(|six| six.to_string()),
            internal: request.internal,
            mtu: request.mtu,
            labels: request.labels.clone(),
        })
    }

    /// Why there is no network of this name, and how there could be one.
    pub(super) fn absent(name: &str) -> String {
        match name {
            "host" | "none" => format!(
                "`{name}` is no network that can be joined, left or shown: a container has it alone, by `--network {name}`"
            ),
            _ if check_name("network", name).is_err() => {
                format!("there is no network `{name}`: `isobench network ls` shows them")
            }
            _ => format!(
                "there is no network `{name}`: `isobench network ls` shows them, `isobench network create {name}` makes it"
            ),
        }
    }

    /// Whether it is the one that is there by itself.
    pub fn is_default(&self) -> bool {
        self.name == DEFAULT
    }

    /// As the runtime library takes them.
    pub(super) fn of_bridge(&self) -> anyhow::Result<bridge_network::Settings> {
        Ok(bridge_network::Settings {
            bridge: self.bridge.clone(),
            subnet: self.subnet.parse()?,
            gateway: self.gateway,
            nat: !self.internal,
            segments: None,
            range: self.range.as_deref().map(str::parse).transpose()?,
            internal: self.internal,
            mtu: self.mtu,
            ipv6: self.ipv6.as_deref().map(str::parse).transpose()?,
        })
    }

    /// Its subnets in one text.
    fn subnets(&self) -> String {
        both(&self.subnet, self.ipv6.as_ref())
    }

    fn overlaps(&self, subnet: Subnet, six: Option<Subnet6>) -> bool {
        let four = self.subnet.parse().is_ok_and(|own: Subnet| subnet.overlaps(own.network(), own.prefix()));
        let own: Option<Subnet6> = self.ipv6.as_deref().and_then(|own| own.parse().ok());
        four || six.zip(own).is_some_and(|(six, own)| six.overlaps(own.network(), own.prefix()))
    }
}

/// A link of this network namespace, for an error that names it.
fn name_of_link(index: u32) -> String {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None);
    let name = socket.and_then(|socket| rustix::net::netdevice::index_to_name(socket, index));
    name.unwrap_or_else(|_| format!("link {index}"))
}

/// Subnets in one text.
fn both(four: impl Display, six: Option<impl Display>) -> String {
    six.map_or_else(|| four.to_string(), |six| format!("{four} and {six}"))
}

/// Refuses what the kernel would, or what nobody could be reached at: addresses of this network, of the host itself, of a link
/// and of groups ([RFC 6890](https://www.rfc-editor.org/rfc/rfc6890)).
fn check_hosts(four: Subnet, six: Option<Subnet6>) -> anyhow::Result<()> {
    let four_taken = [([0, 0, 0, 0], 8), ([127, 0, 0, 0], 8), ([224, 0, 0, 0], 4), ([255, 255, 255, 255], 32)];
    let four_taken = four_taken.map(|(network, prefix)| (Ipv4Addr::from(network), prefix));
    let six_taken = [(0, 8), (0xfe80, 10), (0xff00, 8)];
    let six_taken = six_taken.map(|(first, prefix)| (Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), prefix));
    let clash = four_taken.iter().find(|(network, prefix)| four.overlaps(*network, *prefix));
    if let Some((network, prefix)) = clash {
        return refuse(format!(
            "subnet {four} overlaps {network}/{prefix}, which is not for hosts: choose another subnet"
        ));
    }
    let clash =
        six.and_then(|six| Some((six, six_taken.iter().find(|(first, prefix)| six.overlaps(*first, *prefix))?)));
    match clash {
        Some((six, (network, prefix))) => {
            refuse(format!("subnet {six} overlaps {network}/{prefix}, which is not for hosts: choose another subnet"))
        }
        None => Ok(()),
    }
}

/// The name of a network's bridge: its own where a link can have it, else with a digest.
fn bridge_name(name: &str) -> String {
    use sha2::{Digest, Sha256};
    let own = format!("br-{name}");
    if own.len() <= 15 {
        return own;
    }
    let digest = Sha256::digest(name.as_bytes());
    let digest: String = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    format!("br-{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(request: Request, others: &[Settings]) -> Result<Settings, String> {
        let request = if request.name.is_empty() { Request { name: "web".into(), ..request } } else { request };
        Settings::choose(&request, others, &[]).map_err(|error| format!("{error:#}"))
    }

    fn subnet(text: &str) -> Request {
        Request { subnets: vec![text.into()], ..Request::default() }
    }

    #[test]
    fn what_is_left_open_is_chosen() {
        let first = choose(Request::default(), &[]).unwrap();
        assert_eq!((first.subnet.as_str(), first.gateway), ("10.89.0.0/24", Ipv4Addr::new(10, 89, 0, 1)));
        assert_eq!(first.bridge, "br-web");
        let second = choose(Request { name: "second".into(), ..Request::default() }, &[first]).unwrap();
        assert_eq!(second.subnet, "10.89.1.0/24");
        let default = Settings::default_network(&[], &[]).unwrap();
        assert_eq!((default.subnet.as_str(), default.bridge.as_str()), ("172.17.0.0/16", "bridge0"));
        assert_eq!(bridge_name("a-name-that-is-long").len(), 13);
    }

    #[test]
    fn what_cannot_be_is_refused_in_one_sentence() {
        let there = choose(subnet("10.5.0.0/16"), &[]).unwrap();
        let six = Request { name: "six".into(), ipv6: true, subnets: vec!["fd05::/64".into()], ..Request::default() };
        let six = choose(six, &[]).unwrap();
        let range = |range: &str| Request { range: Some(range.into()), ..subnet("10.6.0.0/24") };
        let gateway = |address| Request { gateway: Some(Ipv4Addr::from(address)), ..subnet("10.6.0.0/24") };
        let named = |name: &str| Request { name: name.into(), ..Request::default() };
        let mtu = |mtu| Request { mtu: Some(mtu), ..Request::default() };
        let twice = Request { subnets: vec!["10.6.0.0/24".into(), "10.7.0.0/24".into()], ..Request::default() };
        for (request, words) in [
            (named("web"), "there is a network `web` already"),
            (named("host"), "`host` is no name for a network"),
            (named("bridge"), "`bridge` is no name for a network"),
            (named("-x"), "`-x` is no name"),
            (named("a/b"), "`a/b` is no name"),
            (named(&"x".repeat(65)), "is no name"),
            (
                Request { name: "n".into(), ..subnet("10.5.3.0/24") },
                "subnet 10.5.3.0/24 overlaps 10.5.0.0/16 of the network `web`",
            ),
            (Request { name: "n".into(), ..subnet("10.0.0.0/8") }, "overlaps 10.5.0.0/16"),
            (Request { name: "n".into(), ..subnet("10.6.0.1/24") }, "`10.6.0.1/24` is no IPv4 subnet"),
            (Request { name: "n".into(), ..subnet("10.6.0.0/33") }, "`10.6.0.0/33` is no IPv4 subnet"),
            (Request { name: "n".into(), ..subnet("nonsense") }, "`nonsense` is no IPv4 subnet"),
            (Request { name: "n".into(), ..subnet("fd00::/120") }, "`fd00::/120` is no IPv6 subnet"),
            (
                Request { name: "n".into(), ..range("10.7.0.0/25") },
                "range 10.7.0.0/25 does not lie in subnet 10.6.0.0/24",
            ),
            (Request { name: "n".into(), ..gateway([10, 7, 0, 1]) }, "gateway 10.7.0.1 is no host address"),
            (Request { name: "n".into(), ..gateway([10, 6, 0, 255]) }, "gateway 10.6.0.255 is no host address"),
            (
                Request { name: "n".into(), ..subnet("224.1.0.0/16") },
                "subnet 224.1.0.0/16 overlaps 224.0.0.0/4, which is not for hosts",
            ),
            (
                Request { name: "n".into(), ..subnet("255.255.255.0/24") },
                "overlaps 255.255.255.255/32, which is not for hosts",
            ),
            (Request { name: "n".into(), ..subnet("0.1.0.0/16") }, "overlaps 0.0.0.0/8, which is not for hosts"),
            (Request { name: "n".into(), ..subnet("ff02::/64") }, "overlaps ff00::/8, which is not for hosts"),
            (Request { name: "n".into(), ..subnet("fe80::/64") }, "overlaps fe80::/10, which is not for hosts"),
            (
                Request { name: "n".into(), ..subnet("fd05::/48") },
                "subnet 10.89.1.0/24 and fd05::/48 overlaps 10.89.0.0/24 and fd05::/64 of the network `six`",
            ),
            (Request { name: "n".into(), ..mtu(67) }, "MTU 67 is out of range"),
            (Request { name: "n".into(), ..twice }, "one IPv4 subnet and one IPv6 subnet at most"),
        ] {
            let error = choose(request.clone(), &[there.clone(), six.clone()]).unwrap_err();
            assert!(error.contains(words), "{request:?}: {error}");
        }
    }
}
