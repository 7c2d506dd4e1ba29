//! Published ports as they are asked for: `[address:]host:container[/protocol]`, ranges included.

use super::Refusal;
use isobench_runtime::network::Protocol;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::str::FromStr;

/// Ports of the host that lead to ports of a container, number by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The address of the host at which they are; all of them where there is none.
    pub address: Option<IpAddr>,
    /// The first port of the host; one that is free where there is none.
    pub host: Option<u16>,
    /// The first port of the container.
    pub container: u16,
    /// How many ports.
    pub count: u16,
    /// The transport protocol.
    pub protocol: Protocol,
}

impl PortMapping {
    /// The single ports, each of the host's (where it is given) with the container's.
    pub fn pairs(self) -> impl Iterator<Item = (Option<u16>, u16)> {
        // The numbers were checked when this was read; elsewhere they end at the last one.
        (0..self.count).map_while(move |index| {
            let host = match self.host {
                Some(first) => Some(first.checked_add(index)?),
                None => None,
            };
            Some((host, self.container.checked_add(index)?))
        })
    }
}

/// Refuses two mappings that want the same port of the host.
///
/// # Errors
/// A [`Refusal`] that names both.
pub(super) fn check_distinct(mappings: &[PortMapping]) -> Result<(), Refusal> {
    let first_and_last =
        |mapping: &PortMapping| Some((mapping.host?, mapping.host?.saturating_add(mapping.count.saturating_sub(1))));
    let same = |one: &PortMapping, other: &PortMapping| {
        let both = first_and_last(one).zip(first_and_last(other));
        one.protocol == other.protocol
            && both.is_some_and(|(one, other)| one.0 <= other.1 && other.0 <= one.1)
            // Where there is no address, it is every one.
            && one.address.zip(other.address).is_none_or(|(one, other)| one == other)
    };
    for (index, one) in mappings.iter().enumerate() {
        if let Some(other) = mappings[index + 1..].iter().find(|other| same(one, other)) {
            return Err(Refusal(format!(
                "-p: {one} and {other} want the same port of the host: leave one of them away"
            )));
        }
    }
    Ok(())
}

/// First and number of ports.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| !text.starts_with('+'));
    let (first, last) = (number(first)?, number(last)?);
    // No port has the number 0.
    (first > 0 && first <= last).then(|| (first, last - first + 1))
}

impl FromStr for PortMapping {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let wrong = |why: &str| {
            let form = "give [ADDRESS:][HOST-PORT:]CONTAINER-PORT[/tcp|/udp], such as 8080:80, 127.0.0.1:5300:53/udp or \
                        8000-8010:8000-8010";
            Refusal(format!("`{text}` publishes no port: {why}; {form}"))
        };
        let (ports, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some((_, other)) => return Err(wrong(&format!("`{other}` is neither tcp nor udp"))),
        };
        let (rest, container) = match ports.rsplit_once(':') {
            Some((rest, container)) => (Some(rest), container),
            None => (None, ports),
        };
        let (container, count) = range(container)
            .ok_or_else(|| wrong("the container's port is no number, or rising range, from 1 to 65535"))?;
        let (address, host) = match rest {
            None => (None, ""),
            Some(rest) => match rest.rsplit_once(':') {
                // An IPv6 address stands in brackets.
                Some((address, host)) => {
                    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
                    let parsed: Option<IpAddr> = match bare {
                        Some(six) => six.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::from),
                        None => address.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::from),
                    };
                    (Some(parsed.ok_or_else(|| wrong(&format!("`{address}` is no address")))?), host)
                }
                None => (None, rest),
            },
        };
        let host = match (host, rest, address) {
            ("", None, _) | ("", _, Some(_)) => None,
            _ => {
                let (first, number) = range(host)
                    .ok_or_else(|| wrong("the host's port is no number, or rising range, from 1 to 65535"))?;
                if number != count {
                    return Err(wrong("the two ranges differ in length"));
                }
                Some(first)
            }
        };
        // All addresses of a family are all addresses.
        let address = address.filter(|address| !address.is_unspecified());
        Ok(Self { address, host, container, count, protocol })
    }
}

impl Display for PortMapping {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let range = |first: u16| match self.count {
            0 | 1 => first.to_string(),
            count => format!("{first}-{}", first.saturating_add(count - 1)),
        };
        match self.address {
            Some(IpAddr::V6(address)) => write!(formatter, "[{address}]:")?,
            Some(IpAddr::V4(address)) => write!(formatter, "{address}:")?,
            None => {}
        }
        match self.host {
            Some(host) => write!(formatter, "{}:", range(host))?,
            None if self.address.is_some() => formatter.write_str(":")?,
            None => {}
        }
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(formatter, "{}/{protocol}", range(self.container))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ports_are_read_as_docker_reads_them() {
        let pairs = |text: &str| text.parse::<PortMapping>().unwrap().pairs().collect::<Vec<_>>();
        assert_eq!(pairs("8080:80"), [(Some(8080), 80)]);
        assert_eq!(pairs("80"), [(None, 80)]);
        assert_eq!(pairs("8000-8002:90-92/udp"), [(Some(8000), 90), (Some(8001), 91), (Some(8002), 92)]);
        let mapping: PortMapping = "127.0.0.1:5300:53/udp".parse().unwrap();
        assert_eq!((mapping.address, mapping.protocol), (Some([127, 0, 0, 1].into()), Protocol::Udp));
        assert_eq!("127.0.0.1::80".parse::<PortMapping>().unwrap().host, None);
        assert_eq!("0.0.0.0:1:2".parse::<PortMapping>().unwrap().address, None);
        assert!("[::1]:1:2".parse::<PortMapping>().unwrap().address.is_some());
    }

    #[test]
    fn no_port_of_the_host_is_wanted_twice() {
        let check = |texts: &[&str]| {
            let mappings: Vec<PortMapping> = texts.iter().map(|text| text.parse().unwrap()).collect();
            check_distinct(&mappings).map_err(|error| error.to_string())
        };
        for texts in [["8080:80", "8080:80"], ["8080:80", "127.0.0.1:8080:81"], ["8080-8089:80-89", "8085:1"]] {
            assert!(check(&texts).unwrap_err().contains("the same port of the host"), "{texts:?}");
        }
        assert_eq!(check(&["80", "80", "8080:80", "8080:80/udp", "127.0.0.1:81:80", "127.0.0.2:81:80"]), Ok(()));
    }

    #[test]
    fn what_is_no_port_is_refused() {
        let texts = [
            "",
            ":",
            "0",
            "80:0",
            "70000:80",
            "8080:80/sctp",
            "1-3:1-2",
            "3-1:3-1",
            "a:80",
            "1.2.3:1:2",
            "::1:1:2",
            ":80",
            "+1:2",
        ];
        for text in texts {
            let error = text.parse::<PortMapping>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{text}` publishes no port: ")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            address: Option<IpAddr>,
            host in proptest::option::of(1_u16..60_000),
            container in 1_u16..60_000,
            count in 1_u16..100,
            udp: bool,
        ) {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let address = address.filter(|address| !address.is_unspecified());
            let mapping = PortMapping { address, host, container, count, protocol };
            prop_assert_eq!(mapping.to_string().parse::<PortMapping>().unwrap(), mapping);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            if let Ok(mapping) = text.parse::<PortMapping>() {
                prop_assert!(mapping.pairs().count() >= 1);
            }
        }
    }
}
